package check

import (
	"fmt"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// own warns of rules that accept what is sent to the firewall itself where it offers
// nothing: it answers queries for names on its LAN address, and echo requests.
func (c *checker) own() {
	p := c.p
	lan := p.LAN().Prefix.Addr()
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Action != ruleset.Accept || len(r.Destination) == 0 || !slices.Contains(orStates(r.States), policy.New) {
			continue
		}
		offered := false
		for _, d := range r.Destination {
			switch {
			case !d.IsSingleIP() || d.Addr() != lan && !p.IsExternal(d.Addr()):
				offered = true // another host
			case d.Addr() == lan:
				offered = offered || c.offers(r)
			default:
				// A packet for a forward has the server's address by then, and one
				// without a forward ends here, whatever the rules say of it; echo
				// is answered.
				offered = offered || len(r.Protocols) == 0 || slices.Contains(r.Protocols, policy.ICMP)
			}
		}
		if !offered {
			c.Warn(r.Line, r.Column, r.Path+".destination", "no-service", fmt.Sprintf("rule %q accepts what is sent to the firewall itself (%v), which offers nothing there", r.ID, r.Destination[0].Addr()),
				"it answers queries for names (port 53 of its lan address) and echo; a server behind it is named by its own address, with nat.dnat for the wan")
		}
	}
}

// offers reports whether a rule for the LAN address has something that the firewall
// answers.
func (c *checker) offers(r *policy.Rule) bool {
	if len(r.Protocols) == 0 && len(r.Ports) == 0 || slices.Contains(r.Protocols, policy.ICMP) {
		return true
	}
	return len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q policy.PortRange) bool { return q.Lo <= policy.DNSPort && policy.DNSPort <= q.Hi })
}

// orStates returns the states of a rule, all of them for one that names none.
func orStates(s []policy.State) []policy.State {
	if len(s) == 0 {
		return []policy.State{policy.New, policy.Established}
	}
	return s
}
