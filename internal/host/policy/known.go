package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Naming says how the source of a flow knows the name of its destination.
type Naming uint8

// The ways.
const (
	NameKnown   Naming = iota // it has resolved it, and the name has not expired
	NameExpired               // it has, and the name has expired
	NameOthers                // another host has; the source has not
)

// Resolved says how a source knows a name that it has resolved so long ago, with
// this TTL, and for how long it has expired.
func (p *Policy) Resolved(ago, ttl time.Duration) (Naming, time.Duration) {
	life := time.Duration(fqdn.Lifetime(uint32(ttl/time.Second), int64(p.DNS.TTLFloor)*int64(time.Second), int64(p.DNS.TTLGrace)*int64(time.Second)))
	if ago < life {
		return NameKnown, 0
	}
	return NameExpired, ago - life
}

// unnamed says why rules see no name of a flow's destination, although its source
// asks for the flow's FQDN; "" when they see it. told is the address that it has
// been told.
func (p *Policy) unnamed(seg *ruleset.Policy, f *Flow, told netip.Addr, local bool) string {
	switch {
	case !f.FromLAN || f.Established:
		return "only a LAN host that begins a flow knows names"
	case !f.Protocol.Forwarded():
		return "names are not looked up for protocols that the firewall does not pass"
	case len(p.DNS.Upstreams) == 0:
		return "the policy has no DNS proxy"
	case local:
		return "names are not looked up for packets to the firewall itself"
	case atOrBelow(p.DNS.Block, f.FQDN):
		return "dns.block refuses it"
	case dnsproxy.IsPrivate(seg, number(told)) && !matchesName(p.DNS.Private, f.FQDN):
		return fmt.Sprintf("the proxy tells no client an address like %v for a name that dns.private_names does not have", told)
	case f.Naming == NameExpired:
		return fmt.Sprintf("it expired %v ago", f.Ago)
	case f.Naming == NameOthers:
		return "another host has resolved it, and this one has not"
	}
	return ""
}

// hint returns what the event about a packet that is not accepted says of the
// name that its source has not any more, or only others have: that with it a
// rule would accept the packet.
func (p *Policy) hint(seg *ruleset.Policy, o *Outcome, fp filter.Packet, told netip.Addr) verdict.Hint {
	f := o.Seen
	note := map[Naming]verdict.Hint{NameExpired: verdict.NameExpired, NameOthers: verdict.OtherClient}[f.Naming]
	f.Naming = NameKnown
	if note == 0 || f.FQDN == "" || o.Action == ruleset.Accept || p.unnamed(seg, &f, told, o.Local) != "" {
		return 0
	}
	fp.Names, _ = p.patterns(seg, f.FQDN)
	if linear.New(seg).Decide(&fp).Action != ruleset.Accept {
		return 0
	}
	return note
}

// patterns returns the patterns of rules that a name has.
func (p *Policy) patterns(seg *ruleset.Policy, name string) (ids []uint32, words []string) {
	for i := range seg.Names {
		if w := pattern(seg, &seg.Names[i]); matchesName([]string{w}, name) {
			ids, words = append(ids, uint32(i)), append(words, w)
		}
	}
	return ids, words
}

// atOrBelow reports whether a name has one of the patterns, or lies below a name
// that has.
func atOrBelow(patterns []string, name string) bool {
	for first := true; name != ""; first = false {
		if has(patterns, name) || !first && has(patterns, "*."+name) {
			return true
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return false
}
