// Package importer turns the rule sets of other firewalls into rules.yaml: of
// nftables and iptables, and the configuration of OPNsense.
//
//	nft.go, nft_items.go,
//	nft_values.go, object.go  read nft's JSON
//	iptables.go, iptables_words.go
//	                          read iptables-save
//	cond.go, spans.go         conditions as sets of packets, and what is in one and not in another
//	chain.go                  rules and chains
//	flatten.go                chains that are jumped to, gone to and returned from become one list
//	sides.go, addresses.go    which interface is the LAN, and its network
//	source.go, destination.go, entries.go
//	                          address translation becomes entries of nat
//	forward.go, reduce.go     what passes the router becomes rules
//	own.go                    and what is sent to the router itself
//	report.go                 what is not as it was
//	write.go                  rules.yaml
//
// What cannot be converted is listed, rule by rule, with what leaving it out does.
// The policy never accepts what the rule set denied without a note that says so.
package importer

import (
	"net/netip"
)

// Options say what a rule set does not.
type Options struct {
	File       string // its name, for the result's comments
	LAN, WAN   string // interfaces; "": guessed
	LANAddress netip.Prefix
	WANAddress netip.Prefix
	Gateway    netip.Addr
	DNS        []netip.Addr // name servers that the firewall asks
	Others     map[string][]netip.Prefix
	Links      *Links // what the router says about its interfaces; nil: nothing
	Partial    bool   // guess where it is not certain
}

// MaxBytes is the size of the largest rule set that is read.
const MaxBytes = 16 << 20

// Limits of what is read, so that no input takes unbounded time or memory.
const (
	maxRules   = 100_000   // after chains and maps have been written out
	maxDepth   = 16        // of jumps
	maxRanges  = 10_000    // of one condition
	maxItem    = 4 << 20   // bytes of one rule, set or chain
	maxLooks   = 8_000_000 // of one rule at another
	maxWide    = 4_000_000 // ranges in the conditions of all that is written out
	maxNotes   = 20_000    // about what is not understood
	maxShorten = 160
)

func shorten(s string) string { return shortenTo(s, maxShorten) }

func shortenTo(s string, most int) string {
	r := []rune(s)
	for i, c := range r {
		if c < ' ' || c == 0x7f || c == 0x85 || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffd {
			r[i] = ' '
		}
	}
	if len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return string(r)
}
