package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// exposed warns when rules let the WAN begin flows to hosts by their own
// addresses, because no snat entry covers them.
func (c *checker) exposed() {
	p := c.p
	open := p.Untranslated()
	if len(open) == 0 {
		return
	}
	lan := p.LAN().Name
	const hint = "right where these addresses are routed; otherwise cover them with an snat entry, and servers with nat.dnat"
	for i := range p.Rules {
		r := &p.Rules[i]
		if !accepts(r, verdict.Ingress) || len(r.Names) > 0 {
			continue
		}
		reached := open
		if len(r.Destination) > 0 {
			reached = slices.DeleteFunc(slices.Clone(open), func(n netip.Prefix) bool { return !slices.ContainsFunc(r.Destination, n.Overlaps) })
		}
		if len(reached) > 0 {
			c.Warn(r.Line, r.Column, r.Path, "untranslated", fmt.Sprintf("rule %q lets the wan begin flows to hosts of %s by their own addresses: no snat entry covers %s", r.ID, lan, largest(reached)), hint)
			return
		}
	}
	if p.Defaults.Action == ruleset.Accept {
		c.Warn(p.Defaults.Line, p.Defaults.Column, "defaults.default_action", "untranslated", fmt.Sprintf("the wan may begin flows to hosts of %s by their own addresses: no snat entry covers %s", lan, largest(open)), hint)
	}
}

// largest writes some networks, the largest first.
func largest(ps []netip.Prefix) string {
	ps = slices.SortedStableFunc(slices.Values(ps), func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var s []string
	for i, p := range ps {
		if i == 3 && len(ps) > 4 {
			return strings.Join(s, ", ") + fmt.Sprintf(" and %d more", len(ps)-i)
		}
		s = append(s, p.String())
	}
	return strings.Join(s, ", ")
}
