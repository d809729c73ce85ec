// Package explain says what a policy does with a packet, and why, without sending
// one: the rules are read by their definition (package linear), and the steps
// around them are those of the data plane, with which tests compare them. It also
// runs the tests that policies have.
//
//	decide.go       the decision about the first packet of a flow
//	names.go        by which names rules see a destination
//	translation.go  which hosts source translation hides
//	flow.go         a flow in the words of the command line
//	explain.go      the decision in words
//	tests.go        the tests of a policy
package explain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An Outcome is what a policy does with a flow's first packet.
type Outcome struct {
	Accept bool           // it goes on its way, or the firewall answers it
	Reason verdict.Reason // why
	Note   string         // the reason in words, where it is not a rule or the default action

	Asked  bool           // the rules were asked; without, what follows up to Earlier is empty
	Action ruleset.Action // what they say
	Rule   int            // that decides; Policy.DefaultRule: the default action
	Shadow int            // first shadow rule that matches, -1 for none
	Seen   policy.Flow    // the flow as rules see it: after destination NAT
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
	Field Field  // FieldMode for a shadow rule that matches
	Want  string // what the rule has there
	Have  string // what the packet has

	Others int // how many further fields do not match
}

// Decide returns what the policy does with a flow. rs is the compiled policy.
// Its rules are read by the definition of the language, one after the other; the
// steps around them are those of the data plane.
func Decide(p *policy.Policy, rs *ruleset.Policy, f policy.Flow) Outcome {
	o := Outcome{DNAT: -1, Entry: -1, Rule: -1, Shadow: -1, Seen: f}
	if why, note := implausible(p, &f); why != 0 {
		o.Reason, o.Note = why, note
		return o
	}
	if !f.Established {
		if why, note := destination(p, &o); why != 0 {
			o.Reason, o.Note = why, note
			return o
		}
	}
	ask(p, rs, &o, f.Dst.Addr())
	if !f.Protocol.Forwarded() && !o.Local && o.Action != ruleset.Reject {
		// The data plane asks the rules only whether to notify the sender.
		return Outcome{DNAT: -1, Entry: -1, Rule: -1, Shadow: -1, Seen: f, Reason: verdict.ConntrackInvalid, Note: "only TCP, UDP and ICMP echoes pass the firewall"}
	}
	if !f.Protocol.Forwarded() && !o.Local {
		o.Shadow = -1 // and no shadow rule
	}
	if o.Action != ruleset.Accept {
		o.Reason = verdict.ExplicitDeny
		if o.Rule == p.DefaultRule() {
			o.Reason = verdict.NoMatchingAllowRule
		}
		return o
	}
	o.Reason = verdict.RuleAccept
	if o.Rule == p.DefaultRule() {
		o.Reason = verdict.DefaultAction
	}
	if o.Local && !Offers(p, &o.Seen) {
		o.Reason, o.Note = verdict.NoLocalService, "it is addressed to the firewall, which offers no such service"
		return o
	}
	if n := hides(p, &o); n != nil {
		o.Reason, o.Note = verdict.UntranslatedDestination, fmt.Sprintf("it comes from the WAN straight to a host whose source is translated%s; only a dnat entry leads there", sourceText(n))
		return o
	}
	o.Accept = true
	if f.FromLAN && !f.Established && !o.Local {
		o.SNAT = sources(p, &o)
	}
	return o
}

// implausible reports what cannot be right about a flow's ends where it comes
// from.
func implausible(p *policy.Policy, f *policy.Flow) (verdict.Reason, string) {
	lan, wan := p.LAN(), p.WAN()
	s, d := f.Src.Addr(), f.Dst.Addr()
	switch {
	case !policy.IsHost(s), s == lan.Prefix.Addr(), p.IsExternal(s):
		return verdict.Martian, fmt.Sprintf("%v cannot be the source of a packet that arrives", s)
	case !policy.IsHost(d):
		return verdict.Martian, fmt.Sprintf("packets to %v are not forwarded", d)
	case special(p, s), special(p, d):
		return verdict.Martian, "packets from and to special addresses (RFC 6890) are not forwarded"
	case f.FromLAN && !lan.Prefix.Contains(s):
		return verdict.Martian, fmt.Sprintf("%v is not in the network of %s, %v", s, lan.Name, lan.Prefix.Masked())
	case !f.FromLAN && lan.Prefix.Contains(s):
		return verdict.Martian, fmt.Sprintf("%v is in the network of %s, and does not come from there", s, lan.Name)
	case !f.FromLAN && d == lan.Prefix.Addr():
		return verdict.Martian, fmt.Sprintf("%v is the firewall's address on the other side", d)
	}
	for _, i := range []*policy.Interface{lan, wan} {
		n := i.Prefix
		for _, a := range []netip.Addr{s, d} {
			if n.Bits() < 31 && (a == n.Masked().Addr() || a == policy.Broadcast(n)) {
				return verdict.Martian, fmt.Sprintf("%v is the network's own or its broadcast address", a)
			}
		}
	}
	return 0, ""
}

// special reports whether an address is in a block from and to which nothing is
// forwarded, unless an interface has its network there.
func special(p *policy.Policy, a netip.Addr) bool {
	for _, b := range packet.NotForwarded {
		if b.Has(policy.Number(a)) {
			return !slices.ContainsFunc(p.Interfaces, func(f policy.Interface) bool { return b.Has(policy.Number(f.Prefix.Addr())) })
		}
	}
	return false
}

// destination applies destination NAT and finds what is for the firewall itself.
func destination(p *policy.Policy, o *Outcome) (verdict.Reason, string) {
	f := &o.Seen
	lan, dst := p.LAN(), f.Dst.Addr()
	toLAN := lan.Prefix.Contains(dst)
	switch {
	case f.FromLAN && p.DNS.Intercept && len(p.DNS.Upstreams) > 0 && f.Protocol != policy.ICMP && f.Dst.Port() == policy.DNSPort && !toLAN:
		f.Dst = netip.AddrPortFrom(lan.Prefix.Addr(), policy.DNSPort)
		o.Local = true
		return 0, ""
	case f.FromLAN && dst == lan.Prefix.Addr():
		o.Local = true
		return 0, ""
	case !p.IsExternal(dst) && toLAN == f.FromLAN:
		return verdict.Martian, "both ends are on the same side; hosts there reach each other without the firewall"
	case !p.IsExternal(dst):
		return 0, ""
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		port := int(f.Dst.Port())
		if d.WAN != dst || !slices.Contains(d.Protocols, f.Protocol) || port < d.Ports.Lo || port > d.Ports.Hi || !policy.Contains(d.From, f.Src.Addr()) {
			continue
		}
		switch {
		case f.FromLAN && !d.Hairpin:
			return verdict.HairpinUnsupported, fmt.Sprintf("a LAN host addresses the WAN side, and the dnat entry in line %d does not say hairpin: true", d.Line)
		case f.FromLAN && len(sources(p, o)) == 0:
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

// Offers reports whether the firewall answers a packet that is addressed to it.
func Offers(p *policy.Policy, f *policy.Flow) bool {
	if f.Protocol == policy.ICMP {
		return true
	}
	return f.FromLAN && f.Dst.Port() == policy.DNSPort && len(p.DNS.Upstreams) > 0
}

// sources returns what the source of a flow of the LAN may become, and notes the
// first entry by which it does. Entries with the same source are one. A server
// that is reached by one of its addresses uses that one.
func sources(p *policy.Policy, o *Outcome) (all []netip.Addr) {
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
			all = append(all, p.WAN().Prefix.Addr())
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
	return policy.Unique(all)
}

// ask has the rules decide about o.Seen. sentTo is the address to which its
// source has sent it.
func ask(p *policy.Policy, rs *ruleset.Policy, o *Outcome, sentTo netip.Addr) {
	f := &o.Seen
	fp := filter.Packet{Src: policy.Number(f.Src.Addr()), Dst: policy.Number(f.Dst.Addr()), DstPort: f.Dst.Port(), Proto: uint8(f.Protocol), Direction: verdict.Ingress, State: ruleset.StateNew}
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
		if unnamed = nameless(p, rs, f, sentTo, o.Local); unnamed == "" {
			fp.Names, o.Names = patterns(p, rs, f.FQDN)
		}
	}
	v := linear.New(rs).Decide(&fp)
	o.Asked, o.Action, o.Rule = true, v.Action, int(v.Rule)
	if v.Shadow != filter.NoRule {
		o.Shadow = int(v.Shadow)
	}
	o.Hint = hint(p, rs, o, fp, sentTo)
	for i := range p.Rules[:o.Rule] {
		o.Earlier = append(o.Earlier, miss(p, i, f, o.Names, unnamed))
	}
}

// A Field is a field of a rule, numbered in the order in which they are compared.
// Zero is none.
type Field uint8

// The fields.
const (
	_ Field = iota
	FieldDirection
	FieldState
	FieldProtocol
	FieldSource
	FieldDestination
	FieldPort
	FieldName
	FieldMode
	numFields
)

var fieldKeys = [numFields]string{FieldDirection: "direction", FieldState: "state", FieldProtocol: "protocol", FieldSource: "source",
	FieldDestination: "destination", FieldPort: "destination_port", FieldName: "destination_fqdn", FieldMode: "mode"}

// String returns the field's key in rules.
func (f Field) String() string { return fieldKeys[f] }

// miss returns the first field of a rule that does not match. unnamed says why the
// flow's name is none that rules see.
func miss(p *policy.Policy, rule int, f *policy.Flow, names []string, unnamed string) (m Miss) {
	r := &p.Rules[rule]
	direction, state, fqdn := verdict.Ingress, policy.New, cmp.Or(f.FQDN, "none")
	if f.FromLAN {
		direction = verdict.Egress
	}
	if f.Established {
		state = policy.Established
	}
	if unnamed != "" {
		fqdn += " (" + unnamed + ")"
	}
	port := int(f.Dst.Port())
	field := func(matches bool, name Field, want func() string, have string) {
		switch {
		case matches:
		case m.Field == 0:
			m.Field, m.Want, m.Have = name, want(), have
		default:
			m.Others++
		}
	}
	field(r.Direction == verdict.Either || r.Direction == direction, FieldDirection, r.Direction.String, direction.String())
	field(len(r.States) == 0 || slices.Contains(r.States, state), FieldState, func() string { return listed(r.States) }, state.String())
	field(len(r.Protocols) == 0 || slices.Contains(r.Protocols, f.Protocol), FieldProtocol, func() string { return listed(r.Protocols) }, f.Protocol.String())
	field(policy.Contains(r.Source, f.Src.Addr()), FieldSource, func() string { return listed(r.Source) }, f.Src.Addr().String())
	field(policy.Contains(r.Destination, f.Dst.Addr()), FieldDestination, func() string { return listed(r.Destination) }, f.Dst.Addr().String())
	field(len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(q policy.PortRange) bool { return q.Lo <= port && port <= q.Hi }), FieldPort, func() string { return listed(r.Ports) }, strconv.Itoa(port))
	field(len(r.Names) == 0 || slices.ContainsFunc(r.Names, func(n string) bool { return slices.Contains(names, n) }), FieldName, func() string { return listed(r.Names) }, fqdn)
	if m.Field == 0 && r.Shadow {
		m.Field, m.Want, m.Have = FieldMode, "shadow", "it matches, and is only reported"
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
