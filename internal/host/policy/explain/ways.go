package explain

import (
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Ways returns what the policy does with each packet that rules see as the new flow f:
// sent to its destination directly, and by each dnat entry that leads there.
func Ways(p *policy.Policy, rs *ruleset.Policy, f policy.Flow) (all []Outcome) {
	try := func(dst netip.AddrPort) {
		arriving := f
		arriving.Dst = dst
		o := Decide(p, rs, arriving)
		// Dropped before destination translation, a packet is still seen as it came.
		if o.Seen.Dst == f.Dst || !o.Asked && dst == f.Dst {
			all = append(all, o)
		}
	}
	try(f.Dst)
	for i := range p.DNAT {
		d := &p.DNAT[i]
		port := int(f.Dst.Port())
		if d.To == f.Dst.Addr() && slices.Contains(d.Protocols, f.Protocol) && d.ToPort <= port && port <= d.ToPort+d.Ports.Hi-d.Ports.Lo {
			try(netip.AddrPortFrom(d.WAN, uint16(d.Ports.Lo+port-d.ToPort)))
		}
	}
	return all
}
