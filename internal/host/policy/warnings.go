package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// warnings adds what is allowed and probably not meant.
func (l *loader) warnings() {
	p := l.p
	if p.Defaults.Action == ruleset.Accept {
		l.warn(l.action.line, l.action.col, "defaults.default_action", "default-accept", "everything that no rule denies is let through, from the WAN too", "deny, with rules for what is allowed, is the safer default")
	} else {
		l.returns(verdict.Egress, verdict.Ingress, "return traffic in")
		l.returns(verdict.Ingress, verdict.Egress, "the answers of servers on the lan out")
		l.unreached()
	}
	l.exposed()
	s, err := compileTables(p)
	if err != nil {
		return // fits has said so
	}
	l.unreachable(s)
	l.named(s)
}

// accepts reports whether a rule lets packets in that begin flows of a
// direction.
func (r *Rule) accepts(direction verdict.Direction) bool {
	return r.Action == ruleset.Accept && !r.Shadow && (r.Direction == verdict.Either || r.Direction == direction) && (len(r.States) == 0 || slices.Contains(r.States, New))
}

// returns warns when rules let flows begin in one direction and none lets their
// answers through in the other. Answers go to ports that nobody knows before.
func (l *loader) returns(out, back verdict.Direction, what string) {
	begins := -1
	for i := range l.p.Rules {
		r := &l.p.Rules[i]
		if r.accepts(out) && begins < 0 {
			begins = i
		}
		if r.Action == ruleset.Accept && !r.Shadow && (r.Direction == verdict.Either || r.Direction == back) && (len(r.States) == 0 || slices.Contains(r.States, Established)) &&
			len(r.Names) == 0 && (len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q PortRange) bool { return q.Hi-q.Lo > 10000 })) {
			return
		}
	}
	if begins < 0 || out == verdict.Ingress && !l.servers() {
		return
	}
	r := &l.p.Rules[begins]
	id := "allow-established"
	if out == verdict.Ingress {
		id = "allow-answers"
	}
	l.warn(r.Line, r.Column, r.path, "no-return", fmt.Sprintf("rule %q lets flows begin, and no rule lets %s", r.ID, what), fmt.Sprintf("add { id: %s, action: accept, direction: %s, state: established }", id, back))
}

// servers reports whether a rule that lets flows begin from the WAN is for hosts
// on the LAN.
func (l *loader) servers() bool {
	lan := l.p.side(true)
	return slices.ContainsFunc(l.p.Rules, func(r Rule) bool {
		return r.accepts(verdict.Ingress) && (len(r.Destination) == 0 && (len(l.p.DNAT) > 0 || r.Direction == verdict.Ingress) || overlapsAny(lan, r.Destination))
	})
}

// unreached warns of DNAT entries whose servers no rule lets anybody reach.
func (l *loader) unreached() {
	for i := range l.p.DNAT {
		d := &l.p.DNAT[i]
		if slices.ContainsFunc(l.p.Rules, func(r Rule) bool {
			return r.accepts(verdict.Ingress) && contains(r.Destination, d.To) && len(r.Names) == 0 &&
				(len(r.Protocols) == 0 || slices.ContainsFunc(d.Protocols, func(v Protocol) bool { return slices.Contains(r.Protocols, v) })) &&
				(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q PortRange) bool {
					return q.Lo <= d.ToPort+d.Ports.Hi-d.Ports.Lo && d.ToPort <= q.Hi
				}))
		}) {
			continue
		}
		l.warn(d.Line, d.at.col, d.path, "dnat-no-rule", fmt.Sprintf("no rule accepts what is sent on to %v, port %s", d.To, d.toPorts()),
			fmt.Sprintf("add { id: allow-%s-%d, action: accept, direction: ingress, destination: %v, destination_port: %s, protocol: %s }", d.Protocols[0], d.ToPort, d.To, d.toPorts(), yamlList(d.Protocols)))
	}
}

// yamlList writes a word, or a list of several.
func yamlList[T any](vs []T) string {
	if len(vs) == 1 {
		return fmt.Sprint(vs[0])
	}
	return "[" + all(vs) + "]"
}

// unreachable warns of rules that never decide. It looks at the tables, where
// all that the language can say has become one form.
func (l *loader) unreachable(s *ruleset.Policy) {
	all, complete := unreachable(s)
	if !complete {
		l.warn(1, 1, "rules", "not-checked", "too many rules to find all that can never match", "")
	}
	for _, dead := range all {
		r := &l.p.Rules[dead.rule]
		var by []string
		for i, b := range dead.by {
			if i == 3 && len(dead.by) > 4 {
				by = append(by, fmt.Sprintf("%d more", len(dead.by)-i))
				break
			}
			by = append(by, fmt.Sprintf("%q (line %d)", l.p.Rules[b].ID, l.p.Rules[b].Line))
		}
		msg := fmt.Sprintf("rule %q can never match: rule %s before it matches everything that it does", r.ID, by[0])
		if len(by) > 1 {
			msg = fmt.Sprintf("rule %q can never match: rules %s and %s before it together match everything that it does", r.ID, strings.Join(by[:len(by)-1], ", "), by[len(by)-1])
		}
		l.warn(r.Line, r.Column, r.path, "covered", msg, "move it up or remove it")
	}
	lan := l.p.side(true)
	for i := range l.p.Rules {
		r := &l.p.Rules[i]
		if len(r.Source) > 0 && r.Direction == verdict.Egress && !overlapsAny(lan, r.Source) {
			l.warn(r.Line, r.Column, r.path+".source", "outside-interface", fmt.Sprintf("no source of rule %q is in the network of %s, %v; it can never match", r.ID, lan.Name, lan.Prefix.Masked()), "packets from elsewhere on the lan are dropped as martian")
		}
	}
}

func overlapsAny(f *Interface, ps []netip.Prefix) bool {
	return slices.ContainsFunc(ps, f.Prefix.Overlaps)
}

// named warns of rules by name whose hosts cannot come to know a name.
func (l *loader) named(s *ruleset.Policy) {
	p := l.p
	lan := p.side(true)
	for i := range p.Rules {
		r := &p.Rules[i]
		if len(r.Names) == 0 {
			continue
		}
		at := r.path + ".destination_fqdn"
		if len(p.DNS.Upstreams) == 0 {
			l.warn(r.Line, r.Column, at, "no-upstream", "the firewall has no name server to ask, so that no name is ever known", "add upstream_dns: 9.9.9.9, or another, to defaults")
			return
		}
		if !l.asksProxy(s, r) {
			l.warn(r.Line, r.Column, at, "no-dns", fmt.Sprintf("hosts that rule %q is for may not ask the firewall for names, and only so does it learn them", r.ID),
				fmt.Sprintf("add before the rules that deny it { id: allow-dns, action: accept, direction: egress, destination: %v, destination_port: 53, protocol: [udp, tcp] }", lan.Prefix.Addr()))
			return
		}
		for _, n := range r.Names {
			if atOrBelow(p.DNS.Block, strings.TrimPrefix(n, "*.")) || has(p.DNS.Block, n) {
				l.warn(r.Line, r.Column, at, "blocked", fmt.Sprintf("rule %q is for %s, which dns.block refuses to resolve", r.ID, n), "remove the name from one of them")
			}
		}
	}
}

// asksProxy reports whether some host that a rule is for, or a resolver that
// asks for it, may send queries to the firewall.
func (l *loader) asksProxy(s *ruleset.Policy, r *Rule) bool {
	p := l.p
	lan := p.side(true).Prefix
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
				if slices.Contains(p.Rules[i].Protocols, UDP) && src.Overlaps(lan) && src.Bits() >= lan.Bits() {
					hosts = append(hosts, hostsOf(src)...)
				}
			}
		}
	}
	to := []netip.Addr{lan.Addr()}
	if p.DNS.Intercept {
		to = append(to, p.elsewhere())
	}
	for _, h := range unique(hosts) {
		for _, d := range to {
			for _, proto := range []Protocol{UDP, TCP} {
				if p.Decide(s, Flow{FromLAN: true, Protocol: proto, Src: netip.AddrPortFrom(h, 0), Dst: netip.AddrPortFrom(d, DNSPort)}).Accept {
					return true
				}
			}
		}
	}
	return false
}

// hostsOf returns hosts of a network: near its beginning and its end.
func hostsOf(p netip.Prefix) []netip.Addr {
	a, z := p.Masked().Addr(), broadcast(p)
	if p.Bits() > 30 {
		return []netip.Addr{a, z}
	}
	return []netip.Addr{a.Next(), a.Next().Next(), z.Prev()}
}

// elsewhere returns an address on neither side's network: one for documentation
// (RFC 5737), which no rule is likely to be about.
func (p *Policy) elsewhere() netip.Addr {
	for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 1}), netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.AddrFrom4([4]byte{203, 0, 113, 1})} {
		if !slices.ContainsFunc(p.Interfaces, func(f Interface) bool { return f.Prefix.IsValid() && f.Prefix.Contains(a) }) {
			return a
		}
	}
	return netip.AddrFrom4([4]byte{8, 8, 8, 8})
}
