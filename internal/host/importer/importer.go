// Package importer turns the rule sets of other firewalls into rules.yaml: what
// nft -j list ruleset prints, and what iptables-save prints.
//
//	nft.go, nft_items.go,
//	nft_values.go, object.go read nft's JSON
//	iptables.go             reads iptables-save
//	cond.go                 conditions: sets of addresses, ports, states, interfaces
//	convert.go                goes through chains and the chains they jump to
//	convert_filter.go         filter rules become rules
//	convert_nat.go            NAT rules become entries of nat
//	sides.go                which interface is the LAN
//	write.go                rules.yaml
//
// What cannot be converted is listed, rule by rule, with what leaving it out does.
package importer

import (
	"net/netip"

	"github.com/thurward/thurward/internal/shared/printable"
)

// Options say what a rule set does not.
type Options struct {
	File       string // its name, for the result's comments
	LAN, WAN   string // interfaces; "": guessed
	LANAddress netip.Prefix
	WANAddress netip.Prefix
	Gateway    netip.Addr
}

// An Effect is what it means that something was not converted.
type Effect string

// The effects.
const (
	Nothing    Effect = "no effect"       // thurward does the same by itself, or such traffic never arrives
	Stricter   Effect = "stricter"        // traffic is denied that was accepted
	Permissive Effect = "MORE PERMISSIVE" // traffic is accepted that was denied
	Differs    Effect = "differs"         // addresses are not translated as they were
)

// A Note is something that was not converted.
type Note struct {
	Place  string // where it stands
	Text   string // as it stands there, shortened
	Why    string
	Effect Effect
}

// String returns the note on one line.
func (n Note) String() string {
	return printable.Sprintf("%s: %s: %s (%s)", n.Place, n.Text, n.Why, n.Effect)
}

// A Result is a policy and what it lacks.
type Result struct {
	YAML        []byte
	Assumptions []string // what was guessed
	Notes       []Note
}

// Permissive reports whether the policy accepts anything that the rule set
// denied, as far as is known.
func (r *Result) Permissive() bool {
	for _, n := range r.Notes {
		if n.Effect == Permissive {
			return true
		}
	}
	return false
}

// MaxBytes is the size of the largest rule set that is read.
const MaxBytes = 16 << 20

// Limits of what is read, so that no input takes unbounded time or memory.
const (
	maxRules   = 100_000 // after chains and maps have been written out
	maxDepth   = 16      // of jumps
	maxRanges  = 10_000  // of one condition
	maxItem    = 4 << 20 // bytes of one rule, set or chain
	maxShorten = 160
)

func shorten(s string) string {
	r := []rune(s)
	for i, c := range r {
		if c < ' ' || c == 0x7f || c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffd {
			r[i] = ' '
		}
	}
	if len(r) > maxShorten {
		return string(r[:maxShorten-3]) + "..."
	}
	return string(r)
}
