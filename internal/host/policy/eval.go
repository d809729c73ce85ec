package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Flow describes the first packet of one direction of a flow, as it arrives.
// The addresses of an answer (Established) are those of the hosts at both ends,
// as rules see them.
type Flow struct {
	FromLAN     bool
	Protocol    Protocol
	Src, Dst    netip.AddrPort // IPv4; port 0: none given
	FQDN        string         // name by which the source knows Dst, "" for none
	Naming      Naming         // how it knows it
	Ago         time.Duration  // NameExpired: for how long the name has expired
	Established bool           // it answers a flow that was accepted
}

// String returns the flow as people write it.
func (f Flow) String() string {
	end := func(a netip.AddrPort) string {
		if a.Port() == 0 {
			return a.Addr().String()
		}
		return a.String()
	}
	s := fmt.Sprintf("%s %s to %s", f.Protocol, end(f.Src), end(f.Dst))
	switch {
	case f.FQDN == "":
	case f.Naming == NameExpired:
		s += fmt.Sprintf(" (%s, expired %v ago)", f.FQDN, f.Ago)
	case f.Naming == NameOthers:
		s += " (" + f.FQDN + ", as another host knows it)"
	default:
		s += " (" + f.FQDN + ")"
	}
	side, state := "wan", ""
	if f.FromLAN {
		side = "lan"
	}
	if f.Established {
		state = ", an answer"
	}
	return s + " from the " + side + state
}

// An Outcome is what a policy does with a flow's first packet.
type Outcome struct {
	Accept bool           // it goes on its way, or the firewall answers it
	Reason verdict.Reason // why
	Note   string         // the reason in words, where it is not a rule or the default action

	Asked  bool           // the rules were asked; without, what follows up to Earlier is empty
	Action ruleset.Action // what they say
	Rule   int            // that decides; len(Policy.Rules): the default action
	Shadow int            // first shadow rule that matches, -1 for none
	Seen   Flow           // the flow as rules see it: after destination NAT
	Names  []string       // names and wildcards of rules that the destination has for the source
	Hint   verdict.Hint   // what the event about it says of a name with which a rule would accept it; 0: nothing

	DNAT    int          // entry that is applied, index into Policy.DNAT; -1: none
	SNAT    []netip.Addr // the source becomes one of these; empty: it stays
	Entry   int          // entry by which it does, index into Policy.SNAT; -1: none, or hairpin
	Local   bool         // for the firewall itself
	Earlier []Miss       // rules before the one that decides, in order
}

// A Miss says why a rule does not decide: the first of its fields that does not
// match.
type Miss struct {
	Rule  int
	Field string // key of the rule, as destination_port; "mode" for a shadow rule that matches
	Want  string // what the rule has there
	Have  string // what the packet has

	Others int // how many further fields do not match
}

// RuleID returns the id of the rule that decided, or that of the default action
// as events name it.
func (p *Policy) RuleID(rule int) string {
	if rule >= 0 && rule < len(p.Rules) {
		return p.Rules[rule].ID
	}
	return p.Defaults.Action.DefaultRuleID()
}

// Decide returns what the policy does with a flow. seg is the compiled policy.
// Its rules are read by the definition of the language, one after the other; the
// steps around them are those of the data plane.
func (p *Policy) Decide(seg *ruleset.Policy, f Flow) Outcome {
	o := Outcome{DNAT: -1, Entry: -1, Rule: -1, Shadow: -1, Seen: f}
	if why, note := p.implausible(&f); why != 0 {
		o.Reason, o.Note = why, note
		return o
	}
	if !f.Established {
		if why, note := p.destination(&o); why != 0 {
			o.Reason, o.Note = why, note
			return o
		}
	}
	p.ask(seg, &o, f.Dst.Addr())
	if !f.Protocol.Forwarded() && !o.Local && o.Action != ruleset.Reject {
		// The data plane asks the rules only whether to tell the sender.
		return Outcome{DNAT: -1, Entry: -1, Rule: -1, Shadow: -1, Seen: f, Reason: verdict.ConntrackInvalid, Note: "only TCP, UDP and ICMP echoes pass the firewall"}
	}
	if !f.Protocol.Forwarded() && !o.Local {
		o.Shadow = -1 // and no shadow rule
	}
	if o.Action != ruleset.Accept {
		o.Reason = verdict.ExplicitDeny
		if o.Rule == len(p.Rules) {
			o.Reason = verdict.NoMatchingAllowRule
		}
		return o
	}
	o.Reason = verdict.RuleAccept
	if o.Rule == len(p.Rules) {
		o.Reason = verdict.DefaultAction
	}
	if o.Local && !p.offers(&o.Seen) {
		o.Reason, o.Note = verdict.NoLocalService, "it is addressed to the firewall, which offers no such service"
		return o
	}
	if n := p.hides(&o); n != nil {
		o.Reason, o.Note = verdict.UntranslatedDestination, fmt.Sprintf("it comes from the WAN straight to a host whose source is translated%s; only a dnat entry leads there", n.sourceText())
		return o
	}
	o.Accept = true
	if f.FromLAN && !f.Established && !o.Local {
		o.SNAT = p.sources(&o)
	}
	return o
}

// implausible reports what cannot be right about a flow's ends where it comes
// from.
func (p *Policy) implausible(f *Flow) (verdict.Reason, string) {
	lan, wan := p.side(true), p.side(false)
	s, d := f.Src.Addr(), f.Dst.Addr()
	switch {
	case !unicast(s), s == lan.Prefix.Addr(), p.external(s):
		return verdict.Martian, fmt.Sprintf("%v cannot be the source of a packet that arrives", s)
	case !unicast(d):
		return verdict.Martian, fmt.Sprintf("packets to %v are not forwarded", d)
	case p.special(s), p.special(d):
		return verdict.Martian, "packets from and to special addresses (RFC 6890) are not forwarded"
	case f.FromLAN && !lan.Prefix.Contains(s):
		return verdict.Martian, fmt.Sprintf("%v is not in the network of %s, %v", s, lan.Name, lan.Prefix.Masked())
	case !f.FromLAN && lan.Prefix.Contains(s):
		return verdict.Martian, fmt.Sprintf("%v is in the network of %s, and does not come from there", s, lan.Name)
	case !f.FromLAN && d == lan.Prefix.Addr():
		return verdict.Martian, fmt.Sprintf("%v is the firewall's address on the other side", d)
	}
	for _, i := range []*Interface{lan, wan} {
		n := i.Prefix
		for _, a := range []netip.Addr{s, d} {
			if n.Bits() < 31 && (a == n.Masked().Addr() || a == broadcast(n)) {
				return verdict.Martian, fmt.Sprintf("%v is the network's own or its broadcast address", a)
			}
		}
	}
	return 0, ""
}

// special reports whether an address is in a block from and to which nothing is
// forwarded, unless an interface has its network there.
func (p *Policy) special(a netip.Addr) bool {
	for _, b := range packet.NotForwarded {
		if b.Has(number(a)) {
			return !slices.ContainsFunc(p.Interfaces, func(f Interface) bool { return b.Has(number(f.Prefix.Addr())) })
		}
	}
	return false
}

// external reports whether an address is the firewall's on the WAN.
func (p *Policy) external(a netip.Addr) bool {
	if a == p.side(false).Prefix.Addr() {
		return true
	}
	for i := range p.SNAT {
		if slices.Contains(p.SNAT[i].External, a) {
			return true
		}
	}
	for i := range p.DNAT {
		if p.DNAT[i].WAN == a {
			return true
		}
	}
	return false
}

// destination applies destination NAT and finds what is for the firewall itself.
func (p *Policy) destination(o *Outcome) (verdict.Reason, string) {
	f := &o.Seen
	lan, dst := p.side(true), f.Dst.Addr()
	toLAN := lan.Prefix.Contains(dst)
	switch {
	case f.FromLAN && p.DNS.Intercept && len(p.DNS.Upstreams) > 0 && f.Protocol != ICMP && f.Dst.Port() == DNSPort && !toLAN:
		f.Dst = netip.AddrPortFrom(lan.Prefix.Addr(), DNSPort)
		o.Local = true
		return 0, ""
	case f.FromLAN && dst == lan.Prefix.Addr():
		o.Local = true
		return 0, ""
	case !p.external(dst) && toLAN == f.FromLAN:
		return verdict.Martian, "both ends are on the same side; hosts there reach each other without the firewall"
	case !p.external(dst):
		return 0, ""
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		port := int(f.Dst.Port())
		if d.WAN != dst || !slices.Contains(d.Protocols, f.Protocol) || port < d.Ports.Lo || port > d.Ports.Hi || !contains(d.From, f.Src.Addr()) {
			continue
		}
		switch {
		case f.FromLAN && !d.Hairpin:
			return verdict.HairpinUnsupported, fmt.Sprintf("a LAN host addresses the WAN side, and the dnat entry in line %d does not say hairpin: true", d.Line)
		case f.FromLAN && len(p.sources(o)) == 0:
			return verdict.HairpinUnsupported, "a LAN host addresses the WAN side, and no snat entry gives it an address by which the server's answers come back"
		}
		o.DNAT = i
		f.Dst = netip.AddrPortFrom(d.To, uint16(d.ToPort+port-d.Ports.Lo))
		return 0, ""
	}
	if f.FromLAN {
		return verdict.HairpinUnsupported, "a LAN host addresses the WAN side, and no dnat entry is for that"
	}
	o.Local = true
	return 0, ""
}

// offers reports whether the firewall answers a packet that is addressed to it.
func (p *Policy) offers(f *Flow) bool {
	if f.Protocol == ICMP {
		return true
	}
	return f.FromLAN && f.Dst.Port() == DNSPort && len(p.DNS.Upstreams) > 0
}

// sources returns what the source of a flow of the LAN may become, and notes the
// first entry by which it does. Entries with the same source are one. A server
// that is reached by one of its addresses uses that one.
func (p *Policy) sources(o *Outcome) (all []netip.Addr) {
	src := o.Seen.Src
	var from netip.Prefix
	o.Entry = -1
	for i := range p.SNAT {
		n := &p.SNAT[i]
		if o.Entry < 0 && (!n.Source.IsValid() || n.Source.Contains(src.Addr())) {
			o.Entry, from = i, n.Source
		}
		if o.Entry < 0 || n.Source != from {
			continue
		}
		if len(n.External) == 0 {
			all = append(all, p.side(false).Prefix.Addr())
		}
		all = append(all, n.External...)
	}
	if o.Entry < 0 {
		return nil
	}
	paired := netip.Addr{}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		if d.To != src.Addr() {
			continue
		}
		if port := int(src.Port()); slices.Contains(d.Protocols, o.Seen.Protocol) && d.ToPort <= port && port <= d.ToPort+d.Ports.Hi-d.Ports.Lo {
			return []netip.Addr{d.WAN} // its own port outside
		}
		if !paired.IsValid() && slices.Contains(all, d.WAN) {
			paired = d.WAN
		}
	}
	if paired.IsValid() {
		return []netip.Addr{paired}
	}
	return unique(all)
}

// contains reports whether an address is in one of the networks; none is all.
func contains(ps []netip.Prefix, a netip.Addr) bool {
	return len(ps) == 0 || slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// ask has the rules decide about o.Seen. told is the address that its source has
// sent it to.
func (p *Policy) ask(seg *ruleset.Policy, o *Outcome, told netip.Addr) {
	f := &o.Seen
	fp := filter.Packet{Src: number(f.Src.Addr()), Dst: number(f.Dst.Addr()), DstPort: f.Dst.Port(), Proto: uint8(f.Protocol), Direction: verdict.Ingress, State: ruleset.StateNew}
	if f.FromLAN {
		fp.Direction = verdict.Egress
	}
	if f.Established {
		fp.State = ruleset.StateEstablished
	}
	if !f.Protocol.HasPorts() {
		fp.DstPort = 0
	}
	unnamed := ""
	if f.FQDN != "" {
		if unnamed = p.unnamed(seg, f, told, o.Local); unnamed == "" {
			fp.Names, o.Names = p.patterns(seg, f.FQDN)
		}
	}
	v := linear.New(seg).Decide(&fp)
	o.Asked, o.Action, o.Rule = true, v.Action, int(v.Rule)
	if v.Shadow != filter.NoRule {
		o.Shadow = int(v.Shadow)
	}
	o.Hint = p.hint(seg, o, fp, told)
	for i := range p.Rules[:o.Rule] {
		o.Earlier = append(o.Earlier, p.miss(i, f, o.Names, unnamed))
	}
}

// patternsOf returns all name patterns of a policy's rules.
func patternsOf(seg *ruleset.Policy) (all []string) {
	for i := range seg.Names {
		all = append(all, pattern(seg, &seg.Names[i]))
	}
	return all
}

func pattern(seg *ruleset.Policy, n *ruleset.Name) string {
	if n.Wildcard == 1 {
		return "*." + seg.Text(n.Text)
	}
	return seg.Text(n.Text)
}

// matchesName reports whether a name has one of the patterns: exact names, or
// wildcards for exactly one label.
func matchesName(patterns []string, name string) bool {
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(patterns, name) || slices.Contains(patterns, "*."+parent)
}

func number(a netip.Addr) packet.Addr {
	n, _ := packet.AddrFrom16(a.As16())
	return n
}

// steps are the fields of rules in the order in which miss looks at them.
var steps = []string{"direction", "state", "protocol", "source", "destination", "destination_port", "destination_fqdn", "mode"}

// miss returns the first field of a rule that does not match. unnamed says why the
// flow's name is none that rules see.
func (p *Policy) miss(rule int, f *Flow, names []string, unnamed string) (m Miss) {
	r := &p.Rules[rule]
	direction, state, fqdn := verdict.Ingress, New, cmp.Or(f.FQDN, "none")
	if f.FromLAN {
		direction = verdict.Egress
	}
	if f.Established {
		state = Established
	}
	if unnamed != "" {
		fqdn += " (" + unnamed + ")"
	}
	port := int(f.Dst.Port())
	field := func(matches bool, name string, want func() string, have string) {
		switch {
		case matches:
		case m.Field == "":
			m.Field, m.Want, m.Have = name, want(), have
		default:
			m.Others++
		}
	}
	field(r.Direction == verdict.Either || r.Direction == direction, "direction", r.Direction.String, direction.String())
	field(len(r.States) == 0 || slices.Contains(r.States, state), "state", func() string { return listed(r.States) }, state.String())
	field(len(r.Protocols) == 0 || slices.Contains(r.Protocols, f.Protocol), "protocol", func() string { return listed(r.Protocols) }, f.Protocol.String())
	field(contains(r.Source, f.Src.Addr()), "source", func() string { return listed(r.Source) }, f.Src.Addr().String())
	field(contains(r.Destination, f.Dst.Addr()), "destination", func() string { return listed(r.Destination) }, f.Dst.Addr().String())
	field(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q PortRange) bool { return q.Lo <= port && port <= q.Hi }), "destination_port", func() string { return listed(r.Ports) }, strconv.Itoa(port))
	field(len(r.Names) == 0 || slices.ContainsFunc(r.Names, func(n string) bool { return has(names, n) }), "destination_fqdn", func() string { return listed(r.Names) }, fqdn)
	if m.Field == "" && r.Shadow {
		m.Field, m.Want, m.Have = "mode", "shadow", "it matches, and is only reported"
	}
	m.Rule = rule
	return m
}

// listed joins values for people; of many it shows the first.
func listed[T any](vs []T) string {
	var s []string
	for i, v := range vs {
		if i == 5 && len(vs) > 6 {
			return strings.Join(s, ", ") + fmt.Sprintf(" and %d more", len(vs)-i)
		}
		s = append(s, fmt.Sprint(v))
	}
	return strings.Join(s, ", ")
}

// String returns a port or a range as rules have it.
func (r PortRange) String() string {
	if r.Lo == r.Hi {
		return fmt.Sprint(r.Lo)
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}
