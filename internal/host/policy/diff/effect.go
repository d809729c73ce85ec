package diff

import (
	"fmt"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// An Effect says what a change means for who is let through. What opens comes first.
type Effect uint8

// The effects.
const (
	Opens  Effect = iota // accepted now, and was not; or without the condition on the server's name
	Closes               // not accepted any more; or only with that condition
	Other                // as before, by another rule; or a drop that is answered in another way
)

var effectWords = [...]string{Opens: "opens", Closes: "closes", Other: "other"}

// String returns the word of the JSON form.
func (e Effect) String() string { return effectWords[e] }

// Title returns the heading under which changes stand.
func (e Effect) Title() string {
	return [...]string{Opens: "More permissive", Closes: "Less permissive", Other: "As permissive"}[e]
}

// MarshalText writes the word.
func (e Effect) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText reads the word.
func (e *Effect) UnmarshalText(b []byte) error {
	for i, w := range effectWords {
		if w == string(b) {
			*e = Effect(i)
			return nil
		}
	}
	return fmt.Errorf("unknown effect %q", b)
}

// effect returns what a change of decisions means.
func effect(from, to *Decision) Effect {
	level := func(d *Decision) int {
		switch {
		case d.Action != ruleset.Accept.String():
			return 0
		case d.SNI:
			return 1
		}
		return 2
	}
	switch a, b := level(from), level(to); {
	case b > a:
		return Opens
	case b < a:
		return Closes
	}
	return Other
}

// Opens reports whether something may become more permissive: traffic does, or it was
// not looked at to the end, or translation, names or interfaces change, which rules
// build on.
func (d *Diff) Opens() bool {
	if !d.Complete {
		return true
	}
	for _, o := range d.Other {
		if section, _, _ := strings.Cut(o.What, "."); section == "dns" || section == "interfaces" || strings.HasPrefix(section, "nat") {
			return true
		}
	}
	for i := range d.Traffic {
		if d.Traffic[i].Effect == Opens {
			return true
		}
	}
	return false
}
