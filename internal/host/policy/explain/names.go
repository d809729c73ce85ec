package explain

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Resolved says how a source knows a name that it has resolved so long ago, with
// this TTL, and for how long it has expired.
func Resolved(p *policy.Policy, ago, ttl time.Duration) (policy.Naming, time.Duration) {
	life := time.Duration(fqdn.Lifetime(uint32(ttl/time.Second), int64(p.DNS.TTLFloor)*int64(time.Second), int64(p.DNS.TTLGrace)*int64(time.Second)))
	if ago < life {
		return policy.NameKnown, 0
	}
	return policy.NameExpired, ago - life
}

// nameless says why rules see no name of a flow's destination, although its source
// has resolved the flow's FQDN; "" when they see it. sentTo is the address to which
// it has sent the packet.
func nameless(p *policy.Policy, rs *ruleset.Policy, f *policy.Flow, sentTo netip.Addr, local bool) string {
	switch {
	case !f.FromLAN || f.Established:
		return "only a LAN host that begins a flow knows names"
	case !f.Protocol.Forwarded():
		return "names are not looked up for protocols that the firewall does not pass"
	case len(p.DNS.Upstreams) == 0:
		return "the policy has no DNS proxy"
	case local:
		return "names are not looked up for packets to the firewall itself"
	case policy.AtOrBelow(p.DNS.Block, f.FQDN):
		return "dns.block refuses it"
	case dnsproxy.IsPrivate(rs, policy.Number(sentTo)) && !policy.MatchesName(p.DNS.Private, f.FQDN):
		return fmt.Sprintf("the proxy tells no client an address like %v for a name that dns.private_names does not have", sentTo)
	case f.Naming == policy.NameExpired:
		return fmt.Sprintf("it expired %v ago", f.Ago)
	case f.Naming == policy.NameOthers:
		return "another host has resolved it, and this one has not"
	}
	return ""
}

// hint returns what the event about a packet that is not accepted says of the
// name that its source has not any more, or only others have: that with it a
// rule would accept the packet.
func hint(p *policy.Policy, rs *ruleset.Policy, o *Outcome, fp filter.Packet, sentTo netip.Addr) verdict.Hint {
	f := o.Seen
	note := map[policy.Naming]verdict.Hint{policy.NameExpired: verdict.NameExpired, policy.NameOthers: verdict.OtherClient}[f.Naming]
	f.Naming = policy.NameKnown
	if note == 0 || f.FQDN == "" || o.Action == ruleset.Accept || nameless(p, rs, &f, sentTo, o.Local) != "" {
		return 0
	}
	fp.Names, _ = patterns(p, rs, f.FQDN)
	if linear.New(rs).Decide(&fp).Action != ruleset.Accept {
		return 0
	}
	return note
}

// patterns returns the patterns of rules that a name has.
func patterns(p *policy.Policy, rs *ruleset.Policy, name string) (ids []uint32, words []string) {
	for i := range rs.Names {
		if w := compile.Pattern(rs, &rs.Names[i]); policy.MatchesName([]string{w}, name) {
			ids, words = append(ids, uint32(i)), append(words, w)
		}
	}
	return ids, words
}
