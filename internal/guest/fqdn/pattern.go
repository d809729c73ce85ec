package fqdn

import (
	"errors"
	"hash/maphash"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Patterns is a set of name patterns of a policy: exact names, and wildcards, which
// match every name with exactly one more label.
type Patterns struct {
	seed  maphash.Seed
	slots []uint32 // 1 + index, by hash, linear probing
	at    []pattern
	text  []byte
}

type pattern struct {
	off      uint32
	next     uint32 // 1 + index of the next pattern with the same name and kind
	len      uint8
	wildcard bool
}

// NewPatterns returns the set of the patterns in list, which is Names, Blocked or
// Private of policy p. It returns an error if one is not a name.
func NewPatterns(p *ruleset.Policy, list []ruleset.Name) (*Patterns, error) {
	t := &Patterns{seed: maphash.MakeSeed(), slots: make([]uint32, powerOfTwo(2*len(list)+1))}
	for i := range list {
		w, ok := Encode(p.Text(list[i].Text))
		if !ok {
			return nil, errors.New("fqdn: " + p.Text(list[i].Text) + " is not a name")
		}
		t.at = append(t.at, pattern{off: uint32(len(t.text)), len: uint8(len(w)), wildcard: list[i].Wildcard != 0})
		t.text = append(t.text, w...)
		slot := t.slot(w, list[i].Wildcard != 0)
		t.at[i].next = *slot
		*slot = uint32(i + 1)
	}
	return t, nil
}

// Encode converts the text of a name, with or without the final dot, to wire form in
// lower case. Escapes are not supported. It returns false if s is not a name.
func Encode(s string) ([]byte, bool) {
	var b []byte
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	for len(s) > 0 {
		n := 0
		for n < len(s) && s[n] != '.' {
			n++
		}
		b = append(b, byte(n)) // if the label is empty or too long, b is not Valid
		for i := range n {
			b = append(b, lower(s[i]))
		}
		if n < len(s) {
			if n++; n == len(s) {
				return nil, false
			}
		}
		s = s[n:]
	}
	b = append(b, 0)
	return b, Valid(b)
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// slot returns the slot of the first pattern with this name and kind, or an empty one.
func (t *Patterns) slot(w []byte, wildcard bool) *uint32 {
	mask := uint64(len(t.slots) - 1)
	h := maphash.Bytes(t.seed, w)
	if wildcard {
		h = ^h
	}
	for i := h & mask; ; i = (i + 1) & mask {
		v := t.slots[i] // at most half of the slots are used
		if v == 0 {
			return &t.slots[i]
		}
		if p := &t.at[v-1]; p.wildcard == wildcard && string(t.text[p.off:p.off+uint32(p.len)]) == string(w) {
			return &t.slots[i]
		}
	}
}

// match returns the first exact pattern and the first wildcard that match name, as
// 1 + index; 0 is none. The others are linked behind them.
func (t *Patterns) match(name []byte) (p [2]uint32) {
	if len(t.at) == 0 {
		return p
	}
	p[0] = *t.slot(name, false)
	p[1] = *t.slot(name[1+int(name[0]):], true) // behind the root's 0 there is nothing, which is no pattern
	return p
}

// Match appends the indexes of all patterns that match name, which must be Valid and
// in lower case, to dst, up to its capacity.
func (t *Patterns) Match(name []byte, dst []uint32) []uint32 {
	m := t.match(name)
	for _, i := range m {
		for ; i != 0 && len(dst) < cap(dst); i = t.at[i-1].next {
			dst = append(dst, i-1)
		}
	}
	return dst
}

// Has reports whether a pattern matches name, which must be Valid and in lower case.
func (t *Patterns) Has(name []byte) bool { return t.match(name) != [2]uint32{} }

// Empty reports whether there are no patterns.
func (t *Patterns) Empty() bool { return len(t.at) == 0 }

// Within reports whether name, which must be Valid and in lower case, is a pattern or
// a subdomain of one. For a wildcard that is the subdomains of its name, without the
// name itself.
func (t *Patterns) Within(name []byte) bool {
	if len(t.at) == 0 {
		return false
	}
	for first := true; len(name) > 0; first = false {
		if *t.slot(name, false) != 0 || !first && *t.slot(name, true) != 0 {
			return true
		}
		name = name[1+int(name[0]):]
	}
	return false
}

// AppendText appends a name in wire form as text without the final dot (RFC 1035
// section 5.1). Bytes that are not printable, and dots and backslashes inside
// labels, are escaped.
func AppendText(b, name []byte) []byte {
	if len(name) == 0 || name[0] == 0 {
		return append(b, '.')
	}
	for first := true; len(name) > 0 && name[0] != 0 && int(name[0]) < len(name); first = false {
		if !first {
			b = append(b, '.')
		}
		n := 1 + int(name[0])
		for _, c := range name[1:n] {
			switch {
			case c == '.' || c == '\\':
				b = append(b, '\\', c)
			case c <= ' ' || c >= 0x7f:
				b = append(b, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			default:
				b = append(b, c)
			}
		}
		name = name[n:]
	}
	return b
}

// EncodeTo is like Encode, without allocations: it writes to w and returns the
// length, or 0 if text is not a name.
func EncodeTo(w *[MaxName]byte, text []byte) int {
	n, at := 1, 0 // at: index of the current label's length
	w[at] = 0
	for i, c := range text {
		if c == '.' && i == len(text)-1 {
			break
		}
		if n == MaxName-1 {
			return 0
		}
		if c == '.' {
			at = n
		} else {
			w[n] = lower(c)
		}
		n++
		w[at] = byte(n - at - 1)
	}
	w[n] = 0
	if !Valid(w[:n+1]) { // a label is empty or too long
		return 0
	}
	return n + 1
}
