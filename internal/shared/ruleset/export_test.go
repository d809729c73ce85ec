package ruleset

// What tests look at from outside: they are in a package of their own, because
// the encoder that they need imports this one.

// Limits is how many entries each table may have.
var Limits = limits

// Mask returns the last four bytes of a mask.
func (a *Addr) Mask() (uint32, bool) { return a.mask() }

// Table returns table i of a ruleset.
func Table[T any](b []byte, i int) ([]T, bool) { return table[T](b, i) }

// Tables finds the tables behind the settings.
func (p *Policy) Tables(b []byte) bool { return p.tables(b) }

// IsText reports whether t lies in the table of strings.
func (p *Policy) IsText(t Text) bool { return p.text(t) }
