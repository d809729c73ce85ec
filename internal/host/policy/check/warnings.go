package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// warnings adds what is allowed and probably not meant.
func (c *checker) warnings() {
	p := c.p
	if p.Defaults.Action == ruleset.Accept {
		c.Warn(p.Defaults.Line, p.Defaults.Column, "defaults.default_action", "default-accept", "everything that no rule denies is let through, from the WAN too", "deny, with rules for what is allowed, is the safer default")
	} else {
		c.returns(verdict.Egress, verdict.Ingress, "return traffic in")
		c.returns(verdict.Ingress, verdict.Egress, "the answers of servers on the lan out")
		c.unreached()
	}
	c.exposed()
	c.private()
	c.pools()
	c.own()
	s, err := compile.Tables(p)
	if err != nil {
		return // Load has reported it
	}
	c.unreachable(s)
	c.named(s)
}

// accepts reports whether a rule lets packets in that begin flows of a
// direction.
func accepts(r *policy.Rule, direction verdict.Direction) bool {
	return r.Action == ruleset.Accept && !r.Shadow && (r.Direction == verdict.Either || r.Direction == direction) && (len(r.States) == 0 || slices.Contains(r.States, policy.New))
}

// returns warns when rules let flows begin in one direction and none lets their
// answers through in the other. Answers go to ports that are not known in advance.
func (c *checker) returns(out, back verdict.Direction, what string) {
	begins := -1
	for i := range c.p.Rules {
		r := &c.p.Rules[i]
		if accepts(r, out) && begins < 0 {
			begins = i
		}
		if r.Action == ruleset.Accept && !r.Shadow && (r.Direction == verdict.Either || r.Direction == back) && (len(r.States) == 0 || slices.Contains(r.States, policy.Established)) &&
			len(r.Names) == 0 && (len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q policy.PortRange) bool { return q.Hi-q.Lo > 10000 })) {
			return
		}
	}
	if begins < 0 || out == verdict.Ingress && !c.servers() {
		return
	}
	r := &c.p.Rules[begins]
	id := "allow-established"
	if out == verdict.Ingress {
		id = "allow-answers"
	}
	c.Warn(r.Line, r.Column, r.Path, "no-return", fmt.Sprintf("rule %q lets flows begin, and no rule lets %s", r.ID, what), fmt.Sprintf("add { id: %s, action: accept, direction: %s, state: established }", id, back))
}

// servers reports whether a rule that lets flows begin from the WAN is for hosts
// on the LAN.
func (c *checker) servers() bool {
	lan := c.p.LAN()
	return slices.ContainsFunc(c.p.Rules, func(r policy.Rule) bool {
		return accepts(&r, verdict.Ingress) && (len(r.Destination) == 0 && (len(c.p.DNAT) > 0 || r.Direction == verdict.Ingress) || overlapsAny(lan, r.Destination))
	})
}

// unreached warns of DNAT entries whose servers no rule lets any host reach.
func (c *checker) unreached() {
	for i := range c.p.DNAT {
		d := &c.p.DNAT[i]
		if slices.ContainsFunc(c.p.Rules, func(r policy.Rule) bool {
			return accepts(&r, verdict.Ingress) && policy.Contains(r.Destination, d.To) && len(r.Names) == 0 &&
				(len(r.Protocols) == 0 || slices.ContainsFunc(d.Protocols, func(v policy.Protocol) bool { return slices.Contains(r.Protocols, v) })) &&
				(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q policy.PortRange) bool {
					return q.Lo <= d.ToPort+d.Ports.Hi-d.Ports.Lo && d.ToPort <= q.Hi
				}))
		}) {
			continue
		}
		c.Warn(d.Line, d.Column, d.Path, "dnat-no-rule", fmt.Sprintf("no rule accepts what is sent on to %v, port %s", d.To, d.ToPorts()),
			fmt.Sprintf("add { id: allow-%s-%d, action: accept, direction: ingress, destination: %v, destination_port: %s, protocol: %s }", d.Protocols[0], d.ToPort, d.To, d.ToPorts(), yamlList(d.Protocols)))
	}
}

// yamlList writes a protocol, or a list of several.
func yamlList(vs []policy.Protocol) string {
	var ws []string
	for _, v := range vs {
		ws = append(ws, v.String())
	}
	if len(ws) == 1 {
		return ws[0]
	}
	return "[" + strings.Join(ws, ", ") + "]"
}

// unreachable warns of rules that never decide. It looks at the tables, where
// all that the language can say has become one form.
func (c *checker) unreachable(s *ruleset.Policy) {
	all, complete := unreachable(s)
	if !complete {
		c.Warn(1, 1, "rules", "not-checked", "too many rules to find all that can never match", "")
	}
	for _, dead := range all {
		r := &c.p.Rules[dead.rule]
		var by []string
		for i, b := range dead.by {
			if i == 3 && len(dead.by) > 4 {
				by = append(by, fmt.Sprintf("%d more", len(dead.by)-i))
				break
			}
			by = append(by, fmt.Sprintf("%q (line %d)", c.p.Rules[b].ID, c.p.Rules[b].Line))
		}
		msg := fmt.Sprintf("rule %q can never match: rule %s before it matches everything that it does", r.ID, by[0])
		if len(by) > 1 {
			msg = fmt.Sprintf("rule %q can never match: rules %s and %s before it together match everything that it does", r.ID, strings.Join(by[:len(by)-1], ", "), by[len(by)-1])
		}
		c.Warn(r.Line, r.Column, r.Path, "covered", msg, "move it up or remove it")
	}
	lan := c.p.LAN()
	for i := range c.p.Rules {
		r := &c.p.Rules[i]
		if len(r.Source) > 0 && r.Direction == verdict.Egress && !overlapsAny(lan, r.Source) {
			c.Warn(r.Line, r.Column, r.Path+".source", "outside-interface", fmt.Sprintf("no source of rule %q is in the network of %s, %v; it can never match", r.ID, lan.Name, lan.Prefix.Masked()), "packets from elsewhere on the lan are dropped as martian")
		}
	}
}

func overlapsAny(f *policy.Interface, ps []netip.Prefix) bool {
	return slices.ContainsFunc(ps, f.Prefix.Overlaps)
}

// named warns of rules by name whose hosts cannot resolve a name.
func (c *checker) named(s *ruleset.Policy) {
	p := c.p
	lan := p.LAN()
	for i := range p.Rules {
		r := &p.Rules[i]
		if len(r.Names) == 0 {
			continue
		}
		at := r.Path + ".destination_fqdn"
		if len(p.DNS.Upstreams) == 0 {
			c.Warn(r.Line, r.Column, at, "no-upstream", "the firewall has no name server to ask, so that no name is ever known", "add upstream_dns: 9.9.9.9, or another, to defaults")
			return
		}
		if !c.asksProxy(s, r) {
			c.Warn(r.Line, r.Column, at, "no-dns", fmt.Sprintf("hosts that rule %q is for may not ask the firewall for names, and only so does it learn them", r.ID),
				fmt.Sprintf("add before the rules that deny it { id: allow-dns, action: accept, direction: egress, destination: %v, destination_port: 53, protocol: [udp, tcp] }", lan.Prefix.Addr()))
			return
		}
		for _, n := range r.Names {
			if policy.AtOrBelow(p.DNS.Block, strings.TrimPrefix(n, "*.")) || slices.Contains(p.DNS.Block, n) {
				c.Warn(r.Line, r.Column, at, "blocked", fmt.Sprintf("rule %q is for %s, which dns.block refuses to resolve", r.ID, n), "remove the name from one of them")
			}
		}
	}
}

// asksProxy reports whether some host that a rule is for, or a resolver that
// asks for it, may send queries to the firewall.
func (c *checker) asksProxy(s *ruleset.Policy, r *policy.Rule) bool {
	p := c.p
	lan := p.LAN().Prefix
	hosts := slices.Clone(p.DNS.Resolvers)
	for _, src := range r.Source {
		if src.Overlaps(lan) {
			if src.Bits() < lan.Bits() {
				src = lan
			}
			hosts = append(hosts, hostsOf(src)...)
		}
	}
	if len(r.Source) == 0 {
		hosts = append(hosts, hostsOf(lan)...)
		for i := range p.Rules { // those that a rule for queries singles out
			for _, src := range p.Rules[i].Source {
				if slices.Contains(p.Rules[i].Protocols, policy.UDP) && src.Overlaps(lan) && src.Bits() >= lan.Bits() {
					hosts = append(hosts, hostsOf(src)...)
				}
			}
		}
	}
	to := []netip.Addr{lan.Addr()}
	if p.DNS.Intercept {
		to = append(to, p.Elsewhere())
	}
	for _, h := range policy.Unique(hosts) {
		for _, d := range to {
			for _, proto := range []policy.Protocol{policy.UDP, policy.TCP} {
				if explain.Decide(p, s, policy.Flow{FromLAN: true, Protocol: proto, Src: netip.AddrPortFrom(h, 0), Dst: netip.AddrPortFrom(d, policy.DNSPort)}).Accept {
					return true
				}
			}
		}
	}
	return false
}

// hostsOf returns hosts of a network: near its beginning and its end.
func hostsOf(p netip.Prefix) []netip.Addr {
	a, z := p.Masked().Addr(), policy.Broadcast(p)
	if p.Bits() > 30 {
		return []netip.Addr{a, z}
	}
	return []netip.Addr{a.Next(), a.Next().Next(), z.Prev()}
}
