package policy

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/printable"
	"github.com/thurward/thurward/internal/segment"
)

// ParseFlow makes a flow of words as the command line has them: from is lan or
// wan, proto tcp, udp or icmp, src and dst an address with or without a port,
// fqdn a name or "", state new, established or "". With a name, dst may be
// left out: it stands for whichever address the name has, and the port follows
// the name.
func (p *Policy) ParseFlow(from, proto, src, dst, fqdn, state string) (f Flow, err error) {
	bad := func(flag, value, why, want string) (Flow, error) {
		return Flow{}, fmt.Errorf("--%s %q: %s (%s)", flag, value, why, want)
	}
	if from != "lan" && from != "wan" {
		return bad("from", from, "unknown side", "want lan or wan: where the packet enters")
	}
	if _, ok := protocols[proto]; !ok {
		return bad("proto", proto, "unknown protocol", "want tcp, udp or icmp")
	}
	if state != "" && state != "new" && state != "established" {
		return bad("state", state, "unknown state", "want new or established")
	}
	f = Flow{FromLAN: from == "lan", Protocol: proto, Established: state == "established"}
	const endpoint = `want an address, or one with a port, as 192.0.2.1:443`
	var why string
	if f.Src, why = ParseEndpoint(src); why != "" {
		return bad("src", src, why, endpoint)
	}
	if fqdn != "" {
		name, port, hasPort := strings.Cut(fqdn, ":")
		if why := badName(name); why != "" || strings.HasPrefix(name, "*") {
			if why == "" {
				why = "is a wildcard"
			}
			return bad("fqdn", fqdn, why, "want a name, as example.com, or example.com:443 without --dst")
		}
		if !f.FromLAN {
			return bad("fqdn", fqdn, "names are of servers that LAN hosts ask for", "want --from lan")
		}
		f.FQDN = strings.ToLower(strings.TrimSuffix(name, "."))
		if dst == "" {
			r, ok := parsePorts(port)
			if hasPort && (!ok || r.Lo != r.Hi) {
				return bad("fqdn", fqdn, "does not end with a port", "want a port from 1 to 65535")
			}
			f.Dst = netip.AddrPortFrom(p.elsewhere(), uint16(r.Lo))
		} else if hasPort {
			return bad("fqdn", fqdn, "has a port beside --dst", "write the port in --dst")
		}
	}
	if dst != "" || fqdn == "" {
		if f.Dst, why = ParseEndpoint(dst); why != "" {
			return bad("dst", dst, why, endpoint)
		}
	}
	switch {
	case proto == "icmp" && (f.Src.Port() != 0 || f.Dst.Port() != 0):
		return bad("proto", proto, "has no ports", "leave them out of --src and --dst")
	case proto != "icmp" && f.Dst.Port() == 0:
		return bad("dst", cmp.Or(dst, fqdn), "has no port", "want one, as "+cmp.Or(dst, fqdn)+":443")
	}
	return f, nil
}

// An Explanation says what a policy does with a packet and why. Its fields are
// those of explain --format json.
type Explanation struct {
	Packet  string         `json:"packet"`
	Verdict string         `json:"verdict"` // accept, deny, reject; or drop, before or after the rules
	Reason  string         `json:"reason"`  // as in events
	Note    string         `json:"note,omitempty"`
	Rule    *ExplainedRule `json:"rule,omitempty"` // that decides; none: the packet never reaches the rules
	Names   []string       `json:"names,omitempty"`
	DNAT    *ExplainedNAT  `json:"dnat,omitempty"`
	SNAT    *ExplainedNAT  `json:"snat,omitempty"`
	Seen    string         `json:"seen,omitempty"` // the packet as rules see it, where that differs
	Shadow  []Missed       `json:"shadow"`         // shadow rules that match; the first would have decided
	Earlier []Missed       `json:"earlier"`        // rules before the one that decides
	Answer  *ExplainedRule `json:"answer,omitempty"`
}

// An ExplainedRule is a rule or the default action.
type ExplainedRule struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Action string `json:"action"`
	Place  string `json:"place,omitempty"` // file:line
}

// An ExplainedNAT is what an entry of nat does.
type ExplainedNAT struct {
	Entry   string   `json:"entry"` // path in the policy
	Place   string   `json:"place,omitempty"`
	From    string   `json:"from"`
	To      []string `json:"to"` // one of these
	Ports   string   `json:"ports,omitempty"`
	Hairpin bool     `json:"hairpin,omitempty"`
}

// A Missed is a rule that does not decide, and why.
type Missed struct {
	ExplainedRule
	Field string `json:"field"`
	Want  string `json:"want"`
	Have  string `json:"have"`
	step  int
}

func (p *Policy) explained(rule int) ExplainedRule {
	if rule >= len(p.Rules) {
		return ExplainedRule{ID: p.RuleID(rule), Action: p.Defaults.Action}
	}
	r := &p.Rules[rule]
	return ExplainedRule{ID: r.ID, Name: r.Name, Action: r.Action, Place: fmt.Sprintf("%s:%d", p.File, r.Line)}
}

// Explain says what a policy does with a flow's first packet. seg is the
// compiled policy.
func (p *Policy) Explain(seg *segment.Policy, f Flow) *Explanation {
	o := p.Decide(seg, f)
	e := &Explanation{Packet: f.String(), Reason: o.Reason.String(), Note: o.Note, Names: o.Names, Shadow: []Missed{}, Earlier: []Missed{}}
	if o.DNAT >= 0 {
		d := &p.DNAT[o.DNAT]
		e.DNAT = &ExplainedNAT{Entry: fmt.Sprintf("nat.dnat[%d]", o.DNAT), Place: fmt.Sprintf("%s:%d", p.File, d.Line), From: f.Dst.String(), To: []string{o.Seen.Dst.String()}, Hairpin: f.FromLAN}
		e.Seen = o.Seen.String()
	}
	if !o.Asked {
		e.Verdict = "drop"
		return e
	}
	r := p.explained(o.Rule)
	e.Rule, e.Verdict = &r, r.Action
	if o.Action == segment.Accept && !o.Accept {
		e.Verdict = "drop"
	}
	if len(o.SNAT) > 0 {
		e.SNAT = &ExplainedNAT{Entry: "hairpin", From: f.Src.Addr().String()}
		if o.Entry >= 0 {
			n := &p.SNAT[o.Entry]
			e.SNAT.Entry, e.SNAT.Ports = fmt.Sprintf("nat.snat[%d]", o.Entry), PortRange{n.PortLo, n.PortHi}.String()
		}
		for _, a := range o.SNAT {
			e.SNAT.To = append(e.SNAT.To, a.String())
		}
	}
	for _, m := range o.Earlier {
		v := Missed{ExplainedRule: p.explained(m.Rule), Field: m.Field, Want: m.Want, Have: m.Have, step: slices.Index(steps, m.Field)}
		if m.Field == "mode" {
			e.Shadow = append(e.Shadow, v)
		} else {
			e.Earlier = append(e.Earlier, v)
		}
	}
	if o.Accept && !o.Local && !f.Established {
		back := p.Decide(seg, Flow{FromLAN: p.side(true).Prefix.Contains(o.Seen.Dst.Addr()), Protocol: f.Protocol, Src: o.Seen.Dst, Dst: o.Seen.Src, Established: true})
		if back.Asked {
			a := p.explained(back.Rule)
			e.Answer = &a
		}
	}
	return e
}

// Accepted reports whether the packet goes on its way, or is answered.
func (e *Explanation) Accepted() bool { return e.Verdict == "accept" }

// nearestShown is how many rules that do not match are shown without all.
const nearestShown = 5

// Write prints the explanation for people. Of many rules that do not match it
// shows those of whose fields most match, unless all is set.
func (e *Explanation) Write(w io.Writer, all bool) {
	printable.Fprintf(w, "%s\n", e.Packet)
	switch {
	case e.Rule == nil:
		printable.Fprintf(w, "%s, before the rules are asked: %s (%s)\n", e.Verdict, e.Note, e.Reason)
	case e.Verdict == "drop":
		printable.Fprintf(w, "drop: %s accepts it, but %s (%s)\n", e.Rule, e.Note, e.Reason)
	default:
		printable.Fprintf(w, "%s, by %s\n", e.Verdict, e.Rule)
	}
	line := func(what, format string, args ...any) {
		printable.Fprintf(w, "  %-8s%s\n", what, fmt.Sprintf(format, args...))
	}
	if e.DNAT != nil {
		line("dnat", "%s becomes %s before the rules see it, by %s (%s)", e.DNAT.From, e.DNAT.To[0], e.DNAT.Entry, e.DNAT.Place)
	}
	if e.SNAT != nil {
		s := fmt.Sprintf("%s becomes %s, by %s", e.SNAT.From, strings.Join(e.SNAT.To, " or "), e.SNAT.Entry)
		if e.SNAT.Ports != "" {
			s += ", with its own port if that is free and in " + e.SNAT.Ports
		}
		line("snat", "%s", s)
	}
	if len(e.Names) > 0 {
		line("names", "%s, if the client has asked the firewall for the name", strings.Join(e.Names, ", "))
	}
	for i, m := range e.Shadow {
		if i == 0 {
			line("shadow", "%s would have decided: %s", &m.ExplainedRule, m.Action)
		} else {
			line("shadow", "%s matches too: %s", &m.ExplainedRule, m.Action)
		}
	}
	if e.Answer != nil {
		line("answers", "%s, by %s", e.Answer.Action, e.Answer)
	}
	if e.Rule == nil || len(e.Earlier) == 0 {
		return
	}
	shown := e.Earlier
	left := map[string]int{}
	if !all && len(shown) > nearestShown {
		// The nearest, in the order of the policy.
		limit := slices.SortedStableFunc(slices.Values(shown), func(a, b Missed) int { return cmp.Compare(b.step, a.step) })[:nearestShown]
		shown = nil
		least, room := limit[nearestShown-1].step, 0
		for _, m := range limit {
			if m.step == least {
				room++
			}
		}
		for _, m := range e.Earlier {
			if m.step == least {
				room--
			}
			if m.step > least || m.step == least && room >= 0 {
				shown = append(shown, m)
			} else {
				left[m.Field]++
			}
		}
	}
	rules := func(n int) string {
		if n == 1 {
			return "1 rule"
		}
		return fmt.Sprintf("%d rules", n)
	}
	if len(shown) < len(e.Earlier) {
		printable.Fprintf(w, "%s before that do not match; the nearest:\n", rules(len(e.Earlier)))
	} else {
		printable.Fprintf(w, "%s before that, with the first field that does not match:\n", rules(len(e.Earlier)))
	}
	for _, m := range shown {
		printable.Fprintf(w, "  %s: %s is %s, the packet has %s\n", &m.ExplainedRule, m.Field, m.Want, m.Have)
	}
	if len(left) > 0 {
		var s []string
		for _, f := range steps {
			if left[f] > 0 {
				s = append(s, fmt.Sprintf("%d by %s", left[f], f))
			}
		}
		printable.Fprintf(w, "  and %d more (--all shows them): %s\n", len(e.Earlier)-len(shown), strings.Join(s, ", "))
	}
}

// String names the rule and its place.
func (r *ExplainedRule) String() string {
	if r.Place == "" {
		return "the default action"
	}
	return fmt.Sprintf("rule %s (%s)", r.ID, r.Place)
}
