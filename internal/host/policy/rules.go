package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// ruleID is what events and counters name a rule by.
var ruleID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// maxRuleName is the longest name of a rule, in bytes.
const maxRuleName = 200

// rules reads rules.
func (l *loader) rules(n *node, path string) {
	if n.kind == null {
		l.err(n, path, "type", "is empty", "want a list of rules, or [] for none")
		return
	}
	if n.kind != list {
		l.err(n, path, "type", "is "+n.kind.String(), "want a list: one rule each, beginning with -")
		return
	}
	first := map[string]int{}
	for i, v := range n.items {
		l.rule(v, fmt.Sprintf("%s[%d]", path, i), first)
	}
}

func (l *loader) rule(n *node, path string, first map[string]int) {
	r := Rule{Line: n.line, Column: n.col, Path: path}
	var portsAt *node
	ok := l.fields(n, path, []field{
		{"id", func(n *node, path string) {
			switch {
			case n.kind != scalar || !ruleID.MatchString(n.text):
				l.err(n, path, "id", fmt.Sprintf("%q is no id", n.text), "want letters, digits, - _ and ., at most 64, beginning with a letter or digit")
			case slices.ContainsFunc(actions, func(a ruleset.Action) bool { return a.DefaultRuleID() == n.text }):
				l.err(n, path, "id", n.text+" stands for the default action", "choose another")
			case first[n.text] != 0:
				l.err(n, path, "duplicate-id", fmt.Sprintf("the id %q is taken by the rule in line %d", n.text, first[n.text]), "give each rule an id of its own")
			default:
				first[n.text] = n.line
				r.ID = n.text
			}
		}},
		{"name", func(n *node, path string) {
			if l.first && n.kind == scalar && len(n.text) > maxRuleName {
				l.Warn(n.line, n.col, path, "name", fmt.Sprintf("%d bytes; what is beyond %d is not shown", len(n.text), maxRuleName), "want a shorter text")
				r.Name = strings.ToValidUTF8(n.text[:maxRuleName], "")
				return
			}
			if n.kind != scalar || len(n.text) > maxRuleName {
				l.err(n, path, "name", "not a name", "want text of at most 200 bytes")
				return
			}
			r.Name = n.text
		}},
		{"action", func(n *node, path string) {
			r.Action, _ = oneOf(l, n, path, actions...)
		}},
		{"direction", func(n *node, path string) {
			r.Direction, _ = oneOf(l, n, path, verdict.Egress, verdict.Ingress)
		}},
		{"source", func(n *node, path string) { r.Source = l.prefixes(n, path) }},
		{"destination", func(n *node, path string) { r.Destination = l.prefixes(n, path) }},
		{"destination_port", func(n *node, path string) { portsAt, r.Ports = n, l.ports(n, path) }},
		{"destination_fqdn", func(n *node, path string) { r.Names = l.names(n, path) }},
		{"protocol", someOf(l, &r.Protocols, protocols...)},
		{"state", someOf(l, &r.States, New, Established)},
		{"mode", func(n *node, path string) {
			if w, ok := l.word(n, path, "enforce", "shadow"); ok {
				r.Shadow = w == "shadow"
			}
		}},
		{"log", func(n *node, path string) {
			v, ok := l.flag(n, path)
			r.Quiet = ok && !v
		}},
		{"sni", func(n *node, path string) {
			_, r.SNI = l.word(n, path, "require")
		}},
	})
	if !ok {
		return
	}
	if n.get("id") == nil {
		l.err(n, path+".id", "missing", "missing", "events and counters name the rule by it")
	}
	if n.get("action") == nil {
		l.err(n, path+".action", "missing", "missing", "want accept, deny or reject")
	}
	if f := n.get("destination_fqdn"); f != nil {
		switch {
		case r.Action == ruleset.Deny || r.Action == ruleset.Reject:
			l.err(f, path+".destination_fqdn", "deny-by-name", "a "+r.Action.String()+" rule with a name is unsound: a host that knows another address of it is not denied", "use names in accept rules only, under default_action: deny")
		case r.Direction == verdict.Ingress:
			l.lenient(f, path+".destination_fqdn", "name-direction", "names are of servers that LAN hosts ask for", "want direction: egress")
		}
	}
	if at := n.get("sni"); at != nil && r.SNI {
		switch {
		case len(r.Names) == 0:
			l.err(at, path+".sni", "sni", "nothing says which name the server must have", "add destination_fqdn, or remove sni")
		case len(r.Protocols) != 1 || r.Protocols[0] != TCP:
			l.err(at, path+".sni", "sni", "the server name is read from TLS, which is carried by tcp", "want protocol: tcp alone in this rule")
		case r.Shadow:
			l.err(at, path+".sni", "sni", "a shadow rule ends no connections", "remove sni, or mode: shadow")
		}
	}
	if portsAt != nil {
		if slices.Contains(r.Protocols, ICMP) && len(r.Protocols) == 1 {
			l.err(portsAt, path+".destination_port", "port-without-protocol", "ICMP has no ports", "remove destination_port, or choose tcp or udp")
		} else if slices.Contains(r.Protocols, ICMP) {
			l.err(portsAt, path+".destination_port", "port-without-protocol", "ports belong to tcp and udp", "remove icmp, and give it a rule of its own")
		} else if n.get("protocol") == nil {
			r.Protocols = []Protocol{TCP, UDP}
			l.Warn(portsAt.line, portsAt.col, path+".destination_port", "assumed", "without a protocol, taken to be that of tcp and udp", "say protocol: [tcp, udp], or one of them")
		}
	}
	l.rewritten(n, path, &r)
	l.p.Rules = append(l.p.Rules, r)
}

// rewritten refuses an ingress rule that names a WAN address and port which DNAT
// rewrites: rules see a packet after that, so this one would never match it.
func (l *loader) rewritten(n *node, path string, r *Rule) {
	if r.Direction == verdict.Egress || len(r.States) == 1 && r.States[0] == Established {
		return
	}
	for _, p := range r.Destination {
		for i := range l.p.DNAT {
			d := &l.p.DNAT[i]
			if !p.IsSingleIP() || p.Addr() != d.WAN || !d.coversPorts(r) || len(d.From) > 0 && (len(r.Source) == 0 || !within(r.Source, d.From)) {
				continue
			}
			l.lenient(n.get("destination"), path+".destination", "before-dnat",
				fmt.Sprintf("%v is the address before destination NAT (line %d); rules see it after that and would not match", p.Addr(), d.Line),
				fmt.Sprintf("want destination: %v, destination_port: %s", d.To, d.ToPorts()))
			return
		}
	}
}

// coversPorts reports whether all that a rule says of protocol and port belongs
// to the entry, so that nothing is left which it could match.
func (d *DNAT) coversPorts(r *Rule) bool {
	for _, q := range r.Ports {
		if q.Lo < d.Ports.Lo || q.Hi > d.Ports.Hi {
			return false
		}
	}
	for _, v := range r.Protocols {
		if !slices.Contains(d.Protocols, v) {
			return false
		}
	}
	return len(r.Ports) > 0
}

// within reports whether each network lies in one of others.
func within(ps, others []netip.Prefix) bool {
	for _, p := range ps {
		if !slices.ContainsFunc(others, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
			return false
		}
	}
	return true
}

// ToPorts returns the ports of the server, as a policy has them.
func (d *DNAT) ToPorts() string {
	hi := d.ToPort + d.Ports.Hi - d.Ports.Lo
	if hi == d.ToPort {
		return fmt.Sprint(hi)
	}
	return fmt.Sprintf("%d-%d", d.ToPort, hi)
}

// Combinations returns how many matches a rule has.
func (r *Rule) Combinations() int {
	n := len(OrAny(r.Source)) * len(OrAny(r.Destination))
	for _, v := range []int{len(r.Protocols), len(r.Ports), len(r.Names)} {
		n *= max(v, 1)
	}
	return n
}
