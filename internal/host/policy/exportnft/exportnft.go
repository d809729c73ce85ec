// Package exportnft writes a policy as a rule set of nftables, to be compared with
// other rule sets, or read by who knows nft better. It decides as the firewall does
// about what the kernel's connection tracking makes of packets; names, DNS, limits and
// timeouts it has not.
package exportnft

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Options name the interfaces; without, they are the policy's.
type Options struct{ LAN, WAN string }

type writer struct {
	bytes.Buffer
	p        *policy.Policy
	lan, wan string
	lacks    []string
}

// Write returns the rule set, and what of the policy it lacks.
func Write(p *policy.Policy, o Options) (text []byte, lacks []string) {
	w := &writer{p: p, lan: o.LAN, wan: o.WAN}
	if w.lan == "" {
		w.lan = p.LAN().Name
	}
	if w.wan == "" {
		w.wan = p.WAN().Name
	}
	w.line(0, "table ip thurward {")
	w.rules()
	w.accepted()
	w.forward()
	w.input()
	w.nat()
	w.line(0, "}")
	head := fmt.Sprintf("# %s as a rule set of nftables, for comparison.\n", printable.String(p.File, 200))
	for _, l := range w.lacks {
		head += "# not in it: " + l + "\n"
	}
	return append([]byte(head), w.Bytes()...), w.lacks
}

func (w *writer) line(depth int, format string, args ...any) {
	w.WriteString(strings.Repeat("\t", depth) + fmt.Sprintf(format, args...) + "\n")
}

func (w *writer) lack(format string, args ...any) {
	if s := printable.String(fmt.Sprintf(format, args...), 300); !slices.Contains(w.lacks, s) {
		w.lacks = append(w.lacks, s)
	}
}

// rules writes the policy's rules as a chain. The answers of a flow are asked of by
// their direction: the first packet of the other decides about all that follow it.
func (w *writer) rules() {
	w.line(1, "chain rules {")
	for i := range w.p.Rules {
		r := &w.p.Rules[i]
		switch {
		case r.Shadow:
			w.lack("rule %s, which is only tried", r.ID)
			continue
		case len(r.Names) > 0:
			w.lack("rule %s, which is about names: %s", r.ID, strings.Join(r.Names, ", "))
			continue
		}
		for _, match := range w.match(r) {
			w.verdict(match+fmt.Sprintf("counter %%s comment %q", comment(r.ID)), r.Action)
		}
	}
	w.verdict("counter %s comment \""+w.p.Defaults.Action.DefaultRuleID()+"\"", w.p.Defaults.Action)
	w.line(1, "}")
}

// comment returns a text that nft takes: without quotes, at most 128 bytes.
func comment(s string) string {
	s = strings.NewReplacer(`"`, "'", `\`, "/").Replace(printable.String(s, 120))
	return s
}

// verdict writes a rule that ends with an action.
func (w *writer) verdict(format string, a ruleset.Action) {
	switch a {
	case ruleset.Accept:
		w.line(2, format, "goto accepted")
	case ruleset.Reject:
		w.line(2, "%s", strings.Replace(fmt.Sprintf(format, "reject with tcp reset"), "counter", "meta l4proto tcp counter", 1))
		w.line(2, format, "reject with icmp type admin-prohibited")
	default:
		w.line(2, format, "drop")
	}
}

// match returns the conditions of a rule, each with a space at its end. A rule with
// ports is about TCP and UDP, and about others of its protocols without ports.
func (w *writer) match(r *policy.Rule) []string {
	s := ""
	switch r.Direction {
	case verdict.Egress:
		s += fmt.Sprintf("iifname %q ", w.lan)
	case verdict.Ingress:
		s += fmt.Sprintf("iifname %q ", w.wan)
	}
	if len(r.States) == 1 {
		s += map[policy.State]string{policy.New: "ct direction original ", policy.Established: "ct direction reply "}[r.States[0]]
	}
	if l := prefixes(r.Source); l != "" {
		s += "ip saddr " + l + " "
	}
	if l := prefixes(r.Destination); l != "" {
		s += "ip daddr " + l + " "
	}
	protos := r.Protocols
	if len(r.Ports) > 0 {
		if len(protos) == 0 {
			protos = []policy.Protocol{policy.TCP, policy.UDP}
		}
		var ports []string
		for _, p := range r.Ports {
			ports = append(ports, p.String())
		}
		return []string{s + "meta l4proto " + protocols(protos) + " th dport " + set(ports) + " "}
	}
	if len(protos) > 0 {
		s += "meta l4proto " + protocols(protos) + " "
	}
	return []string{s}
}

func protocols(ps []policy.Protocol) string {
	var l []string
	for _, p := range ps {
		l = append(l, p.String())
	}
	return set(l)
}

// set writes one value alone, several as a set.
func set(vs []string) string {
	if len(vs) == 1 {
		return vs[0]
	}
	return "{ " + strings.Join(vs, ", ") + " }"
}

// prefixes writes networks as a set without overlaps, "" for all.
func prefixes(ps []netip.Prefix) string {
	var l []string
	for i, p := range ps {
		if p.Bits() == 0 {
			return ""
		}
		covered := slices.ContainsFunc(ps, func(q netip.Prefix) bool { return q.Bits() < p.Bits() && q.Contains(p.Addr()) }) || slices.Contains(ps[:i], p)
		switch {
		case covered:
		case p.IsSingleIP():
			l = append(l, p.Addr().String())
		default:
			l = append(l, p.Masked().String())
		}
	}
	if len(l) == 0 {
		return ""
	}
	return set(l)
}

// accepted writes what comes after the rules have accepted a packet.
func (w *writer) accepted() {
	w.line(1, "chain accepted {")
	w.line(2, "meta l4proto != { tcp, udp, icmp } counter drop comment \"not forwarded, but rejected by rules that reject\"")
	if all, some := w.hidden(); all || len(some) > 0 {
		s := ""
		if !all {
			s = "ip daddr " + prefixes(some) + " "
		}
		w.line(2, "iifname %q ct direction original ct status & dnat == 0 %sfib daddr type != local counter drop comment \"untranslated destination\"", w.wan, s)
	}
	w.line(2, "fib daddr type local icmp type echo-request accept")
	if len(w.p.DNS.Upstreams) > 0 {
		w.line(2, "iifname %q fib daddr type local meta l4proto { tcp, udp } th dport 53 accept", w.lan)
	}
	w.verdict("fib daddr type local counter %s comment \"no such service\"", w.refuse())
	w.line(2, "accept")
	w.line(1, "}")
}

// refuse is what becomes of a packet for the firewall itself that rules accept and no service takes: it is
// denied as by default.
func (w *writer) refuse() ruleset.Action {
	if w.p.Defaults.Action == ruleset.Reject {
		return ruleset.Reject
	}
	return ruleset.Deny
}

// hidden returns the hosts whose sources are translated.
func (w *writer) hidden() (all bool, some []netip.Prefix) {
	for _, s := range w.p.SNAT {
		if !s.Source.IsValid() || s.Source.Bits() == 0 {
			return true, nil
		}
		some = append(some, s.Source)
	}
	return false, some
}

// never are addresses from and to which nothing is forwarded.
const never = "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.8, 192.0.0.11, 192.0.0.12/30, 192.0.0.16/28, 192.0.0.32/27, 192.0.0.64/26, 192.0.0.128/25, 224.0.0.0/3 }"

func (w *writer) forward() {
	lan, wan := w.p.LAN().Prefix, w.p.WAN().Prefix
	w.line(1, "chain forward {")
	w.line(2, "type filter hook forward priority filter; policy drop;")
	w.line(2, "meta l4proto { tcp, udp, icmp } ct state invalid counter drop")
	for _, n := range []netip.Prefix{lan, wan} {
		if inNever(n) {
			w.lack("that nothing else of a special block is forwarded, since %v lies in one", n)
		}
	}
	if !inNever(lan) && !inNever(wan) {
		w.line(2, "ip saddr %s counter drop comment \"martian\"", never)
		w.line(2, "ip daddr %s counter drop comment \"martian\"", never)
	}
	w.line(2, "iifname %q ip saddr != %v counter drop comment \"martian\"", w.lan, lan.Masked())
	w.line(2, "iifname %q ip saddr %v counter drop comment \"martian\"", w.wan, lan.Masked())
	for _, n := range []netip.Prefix{lan, wan} {
		if n.Bits() < 31 {
			ends := fmt.Sprintf("{ %v, %v }", n.Masked().Addr(), policy.Broadcast(n))
			w.line(2, "ip saddr %s counter drop comment \"martian\"", ends)
			w.line(2, "ip daddr %s counter drop comment \"martian\"", ends)
		}
	}
	w.line(2, "iifname %q oifname %q counter drop comment \"martian\"", w.wan, w.wan)
	w.line(2, "iifname %q oifname %q ct direction original ct status & dnat == 0 counter drop comment \"martian\"", w.lan, w.lan)
	if !w.p.Defaults.NoMSSClamp {
		w.line(2, "tcp flags syn tcp option maxseg size set rt mtu")
	}
	w.line(2, "ct state related meta l4proto icmp counter accept comment \"errors of known flows\"")
	w.line(2, "ct direction original ct state established counter accept comment \"the first packet has decided\"")
	w.line(2, "meta l4proto icmp icmp type != { echo-request, echo-reply } counter drop")
	w.line(2, "ct state new meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn counter drop")
	w.line(2, "jump rules")
	w.line(1, "}")
}

// inNever reports whether a network lies in a block of never.
func inNever(n netip.Prefix) bool {
	for _, b := range strings.Split(strings.Trim(never, "{} "), ", ") {
		p, err := netip.ParsePrefix(b)
		if err != nil {
			p = netip.PrefixFrom(netip.MustParseAddr(b), 32)
		}
		if p.Overlaps(n) {
			return true
		}
	}
	return false
}

// input writes what the firewall itself answers: ping, and the DNS of the LAN.
func (w *writer) input() {
	lan := w.p.LAN().Prefix
	w.line(1, "chain input {")
	w.line(2, "type filter hook input priority filter; policy drop;")
	w.line(2, "iifname \"lo\" accept")
	w.line(2, "ct direction reply accept")
	w.line(2, "iifname %q ip saddr != %v counter drop comment \"martian\"", w.lan, lan.Masked())
	w.line(2, "iifname %q ip saddr %v counter drop comment \"martian\"", w.wan, lan.Masked())
	w.line(2, "iifname %q ip daddr %v counter drop comment \"martian\"", w.wan, lan.Addr())
	w.line(2, "meta l4proto icmp icmp type != echo-request counter drop")
	w.verdict(fmt.Sprintf("iifname %q ip daddr != %v counter %%s comment \"no hairpin\"", w.lan, lan.Addr()), w.refuse())
	w.line(2, "icmp type echo-request jump rules")
	w.line(2, "iifname %q meta l4proto != tcp jump rules", w.wan)
	w.line(2, "iifname %q jump rules comment \"what they accept is dropped where there is no service\"", w.lan)
	if len(w.p.DNS.Upstreams) > 0 {
		w.lack("the DNS proxy: a name server on the router is asked in its place")
	}
	w.line(1, "}")
}

// nat writes the translation of addresses.
func (w *writer) nat() {
	lan := w.p.LAN().Prefix
	w.line(1, "chain destinations {")
	w.line(2, "type nat hook prerouting priority dstnat; policy accept;")
	if w.p.DNS.Intercept && len(w.p.DNS.Upstreams) > 0 {
		w.line(2, "iifname %q ip daddr != %v meta l4proto { tcp, udp } th dport 53 redirect", w.lan, lan.Masked())
	}
	for i := range w.p.DNAT {
		d := &w.p.DNAT[i]
		s := fmt.Sprintf("iifname %q ", w.wan)
		if d.Hairpin {
			s = fmt.Sprintf("iifname { %q, %q } ", w.wan, w.lan)
		}
		if l := prefixes(d.From); l != "" {
			s += "ip saddr " + l + " "
		}
		s += fmt.Sprintf("ip daddr %v meta l4proto %s ", d.WAN, protocols(d.Protocols))
		switch shift := d.ToPort - d.Ports.Lo; {
		case shift == 0:
			w.line(2, "%sth dport %s counter dnat to %v", s, d.Ports, d.To)
		case d.Ports.Lo == d.Ports.Hi:
			w.line(2, "%sth dport %s counter dnat to %v:%d", s, d.Ports, d.To, d.ToPort)
		default:
			var l []string
			for p := d.Ports.Lo; p <= d.Ports.Hi; p++ {
				l = append(l, fmt.Sprintf("%d : %d", p, p+shift))
			}
			w.line(2, "%sth dport %s counter dnat to %v:th dport map { %s }", s, d.Ports, d.To, strings.Join(l, ", "))
		}
	}
	w.line(1, "}")
	w.line(1, "chain sources {")
	w.line(2, "type nat hook postrouting priority srcnat; policy accept;")
	for i := range w.p.SNAT {
		s := &w.p.SNAT[i]
		for _, out := range []string{fmt.Sprintf("oifname %q", w.wan), fmt.Sprintf("iifname %q oifname %q", w.lan, w.lan)} {
			if s.Source.IsValid() && s.Source.Bits() > 0 {
				out += " ip saddr " + prefixes([]netip.Prefix{s.Source})
			} else {
				out += fmt.Sprintf(" ip saddr %v", lan.Masked())
			}
			w.line(2, "%s counter snat to %s", out, w.external(s))
		}
	}
	w.line(1, "}")
}

// external writes the addresses that sources get; of several a host keeps one.
func (w *writer) external(s *policy.SNAT) string {
	as := s.External
	if len(as) == 0 {
		as = []netip.Addr{w.p.WAN().Prefix.Addr()}
	}
	if s.PortLo != 1024 || s.PortHi != 65535 {
		w.lack("the range of external ports %d-%d", s.PortLo, s.PortHi)
	}
	if len(as) == 1 {
		return as[0].String()
	}
	var l []string
	for i, a := range as {
		l = append(l, fmt.Sprintf("%d : %v", i, a))
	}
	return fmt.Sprintf("jhash ip saddr mod %d map { %s }", len(as), strings.Join(l, ", "))
}
