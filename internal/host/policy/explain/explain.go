package explain

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An Explanation says what a policy does with a packet and why. Its fields are
// those of explain --format json.
type Explanation struct {
	Packet  string         `json:"packet"`
	Verdict string         `json:"verdict"` // accept, deny, reject; or drop, before or after the rules
	Reason  string         `json:"reason"`  // as in events
	Note    string         `json:"note,omitempty"`
	Rule    *ExplainedRule `json:"rule,omitempty"` // that decides; none: the packet never reaches the rules
	Names   []string       `json:"names,omitempty"`
	Hint    string         `json:"hint,omitempty"` // as firewall.hint in events: with the name a rule would accept it
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
	field Field
}

func explained(p *policy.Policy, rule int) ExplainedRule {
	if rule == p.DefaultRule() {
		return ExplainedRule{ID: p.RuleID(rule), Action: p.Defaults.Action.String()}
	}
	r := &p.Rules[rule]
	return ExplainedRule{ID: r.ID, Name: r.Name, Action: r.Action.String(), Place: fmt.Sprintf("%s:%d", p.File, r.Line)}
}

// Explain says what a policy does with a flow's first packet. rs is the
// compiled policy.
func Explain(p *policy.Policy, rs *ruleset.Policy, f policy.Flow) *Explanation {
	o := Decide(p, rs, f)
	e := &Explanation{Packet: f.String(), Reason: o.Reason.String(), Note: o.Note, Names: o.Names, Hint: o.Hint.Name(), Shadow: []Missed{}, Earlier: []Missed{}}
	if o.DNAT >= 0 {
		d := &p.DNAT[o.DNAT]
		e.DNAT = &ExplainedNAT{Entry: fmt.Sprintf("nat.dnat[%d]", o.DNAT), Place: fmt.Sprintf("%s:%d", p.File, d.Line), From: f.Dst.String(), To: []string{o.Seen.Dst.String()}, Hairpin: f.FromLAN}
		e.Seen = o.Seen.String()
	}
	if !o.Asked {
		e.Verdict = "drop"
		return e
	}
	r := explained(p, o.Rule)
	e.Rule, e.Verdict = &r, r.Action
	if o.Action == ruleset.Accept && !o.Accept {
		e.Verdict = "drop"
	}
	if len(o.SNAT) > 0 {
		e.SNAT = &ExplainedNAT{Entry: "hairpin", From: f.Src.Addr().String()}
		if o.Entry >= 0 {
			n := &p.SNAT[o.Entry]
			e.SNAT.Entry, e.SNAT.Ports = fmt.Sprintf("nat.snat[%d]", o.Entry), policy.PortRange{Lo: n.PortLo, Hi: n.PortHi}.String()
		}
		for _, a := range o.SNAT {
			e.SNAT.To = append(e.SNAT.To, a.String())
		}
	}
	for _, m := range o.Earlier {
		v := Missed{ExplainedRule: explained(p, m.Rule), Field: m.Field.String(), Want: m.Want, Have: m.Have, field: m.Field}
		if m.Field == FieldMode {
			e.Shadow = append(e.Shadow, v)
		} else {
			e.Earlier = append(e.Earlier, v)
		}
	}
	if o.Accept && !o.Local && !f.Established {
		back := Decide(p, rs, policy.Flow{FromLAN: p.LAN().Prefix.Contains(o.Seen.Dst.Addr()), Protocol: f.Protocol, Src: o.Seen.Dst, Dst: o.Seen.Src, Established: true})
		if back.Asked {
			a := explained(p, back.Rule)
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
	switch e.Hint {
	case verdict.NameExpired.Name():
		line("hint", "a rule would accept it, had the name not expired for this host; dns.ttl_grace lets names live longer (docs/dns.md says what that costs)")
	case verdict.OtherClient.Name():
		line("hint", "a rule would accept it, had this host resolved the name, as another one has")
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
	left := map[Field]int{}
	if !all && len(shown) > nearestShown {
		// The nearest, in the order of the policy.
		limit := slices.SortedStableFunc(slices.Values(shown), func(a, b Missed) int { return cmp.Compare(b.field, a.field) })[:nearestShown]
		shown = nil
		least, room := limit[nearestShown-1].field, 0
		for _, m := range limit {
			if m.field == least {
				room++
			}
		}
		for _, m := range e.Earlier {
			if m.field == least {
				room--
			}
			if m.field > least || m.field == least && room >= 0 {
				shown = append(shown, m)
			} else {
				left[m.field]++
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
		for f := FieldDirection; f < numFields; f++ {
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
