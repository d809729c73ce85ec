package check

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// private warns when hosts with private addresses (RFC 1918) may leave by the WAN and
// no snat entry gives them others: no answer finds its way back over the internet.
func (c *checker) private() {
	p := c.p
	open := slices.DeleteFunc(p.Untranslated(), func(n netip.Prefix) bool { return !n.Addr().IsPrivate() })
	if len(open) == 0 || p.WAN().Prefix.Addr().IsPrivate() {
		return // behind a router with private addresses of its own, they may be known
	}
	line, col, path := p.Defaults.Line, p.Defaults.Column, "defaults.default_action"
	if p.Defaults.Action != ruleset.Accept {
		lan := p.LAN().Prefix.Masked()
		i := slices.IndexFunc(p.Rules, func(r policy.Rule) bool {
			return accepts(&r, verdict.Egress) && !onlyFor(&r, lan) &&
				(len(r.Source) == 0 || slices.ContainsFunc(open, func(n netip.Prefix) bool { return slices.ContainsFunc(r.Source, n.Overlaps) }))
		})
		if i < 0 {
			return
		}
		line, col, path = p.Rules[i].Line, p.Rules[i].Column, p.Rules[i].Path
	}
	c.Warn(line, col, path, "private-source", fmt.Sprintf("hosts of %s leave with private addresses, which the internet does not route: no snat entry covers %s", p.LAN().Name, largest(open)),
		fmt.Sprintf("add to nat.snat { out_interface: %s, source: %v, masquerade: true }, unless a router beyond the wan knows them", p.WAN().Name, p.LAN().Prefix.Masked()))
}

// onlyFor reports whether a rule is for destinations in a network alone.
func onlyFor(r *policy.Rule, n netip.Prefix) bool {
	return len(r.Destination) > 0 && !slices.ContainsFunc(r.Destination, func(d netip.Prefix) bool { return d.Bits() < n.Bits() || !n.Contains(d.Addr()) })
}

// pools warns of networks with more hosts than they have external ports to share.
func (c *checker) pools() {
	lan := c.p.LAN().Prefix.Masked()
	for i := range c.p.SNAT {
		s := &c.p.SNAT[i]
		n := lan
		if s.Source.IsValid() && s.Source.Bits() > n.Bits() {
			n = s.Source
		}
		hosts := 1 << (32 - n.Bits())
		if n.Bits() < 31 {
			hosts -= 2 // the network's own address and the broadcast address
		}
		if ports := (s.PortHi - s.PortLo + 1) * max(len(s.External), 1); ports < hosts {
			c.Warn(s.Line, s.Column, s.Path, "small-pool", fmt.Sprintf("%d hosts of %v share %d external ports, not one each", hosts, n, ports), "want a wider port_range, more addresses in external_ip, or a smaller network")
		}
	}
}
