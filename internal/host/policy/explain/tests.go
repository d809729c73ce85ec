package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A TestResult is what came of a test.
type TestResult struct {
	Test    *policy.Test
	Outcome Outcome
	Wrong   string // what the policy does instead of what is expected, and why; "" when all is as expected
}

// RunTests evaluates the policy's tests. rs is the compiled policy.
func RunTests(p *policy.Policy, rs *ruleset.Policy) []TestResult {
	var all []TestResult
	for i := range p.Tests {
		t := &p.Tests[i]
		o := Decide(p, rs, t.Flow)
		all = append(all, TestResult{Test: t, Outcome: o, Wrong: judge(p, t, &o)})
	}
	return all
}

// judge says what is not as expected.
func judge(p *policy.Policy, t *policy.Test, o *Outcome) string {
	var bad []string
	if t.Accept != o.Accept || t.Expect == ruleset.Reject && o.Action != ruleset.Reject {
		bad = append(bad, fmt.Sprintf("want %s, but %s", t.Expect, Describe(p, o)))
		if why := nearest(p, t, o); why != "" {
			bad = append(bad, why)
		}
	} else if t.ExpectRule != "" && !decidedBy(p, t.ExpectRule, o) {
		bad = append(bad, fmt.Sprintf("want rule %q to decide, but %s", t.ExpectRule, Describe(p, o)))
		if why := nearest(p, t, o); why != "" {
			bad = append(bad, why)
		}
	}
	if t.ExpectSNAT != "" && o.Accept {
		got := listed(o.SNAT)
		if got == "" {
			got = "no other"
		}
		if t.ExpectSNAT == "none" && len(o.SNAT) > 0 || t.ExpectSNAT != "none" && !slices.ContainsFunc(o.SNAT, func(a netip.Addr) bool { return a.String() == t.ExpectSNAT }) {
			want := "become " + t.ExpectSNAT
			if t.ExpectSNAT == "none" {
				want = "stay"
			}
			bad = append(bad, fmt.Sprintf("want its source to %s, but it becomes %s", want, got))
		}
	} else if t.ExpectSNAT != "" && t.Accept == o.Accept && t.ExpectSNAT != "none" {
		bad = append(bad, fmt.Sprintf("want its source to become %s, but it is not let through", t.ExpectSNAT))
	}
	return strings.Join(bad, "; ")
}

// decidedBy reports whether the rule of an id, or the default action, decided.
func decidedBy(p *policy.Policy, id string, o *Outcome) bool {
	if !o.Asked {
		return false
	}
	if o.Rule == p.DefaultRule() {
		return id == "default"
	}
	return p.Rules[o.Rule].ID == id
}

// Describe says in a sentence what a policy does with a packet.
func Describe(p *policy.Policy, o *Outcome) string {
	if !o.Asked {
		return fmt.Sprintf("it is dropped before the rules, as %v: %s", o.Reason, o.Note)
	}
	verb := map[ruleset.Action]string{ruleset.Accept: "accepts", ruleset.Deny: "denies", ruleset.Reject: "rejects"}[o.Action]
	s := fmt.Sprintf("no rule matches, and the default action %s it", verb)
	if o.Rule != p.DefaultRule() {
		s = fmt.Sprintf("rule %q (line %d) %s it", p.Rules[o.Rule].ID, p.Rules[o.Rule].Line, verb)
	}
	if o.Action == ruleset.Accept && !o.Accept {
		s += fmt.Sprintf("; it is dropped as %v: %s", o.Reason, o.Note)
	}
	if o.DNAT >= 0 {
		s += fmt.Sprintf(" (after destination NAT to %v, line %d)", o.Seen.Dst, p.DNAT[o.DNAT].Line)
	}
	return s
}

// nearest says why the rule that was expected does not decide; where none was
// named, it is one of those with the wanted action of which the fewest
// fields do not match.
func nearest(p *policy.Policy, t *policy.Test, o *Outcome) string {
	best := -1
	for i := range o.Earlier {
		m := &o.Earlier[i]
		r := &p.Rules[m.Rule]
		switch {
		case t.ExpectRule != "" && r.ID == t.ExpectRule,
			t.ExpectRule == "" && r.Action == t.Expect && r.Shadow == (m.Field == FieldMode) && m.Field != FieldDirection && m.Field != FieldState && (best < 0 || m.less(&o.Earlier[best])):
			best = i
		}
	}
	if best < 0 {
		return ""
	}
	m := &o.Earlier[best]
	return fmt.Sprintf("rule %q (line %d) does not match: %s", p.Rules[m.Rule].ID, p.Rules[m.Rule].Line, m)
}

// less reports whether fewer fields do not match, or as many and the first of
// them is further down.
func (m *Miss) less(o *Miss) bool {
	return m.Others < o.Others || m.Others == o.Others && m.Field > o.Field
}

// String says what does not match, without naming the rule.
func (m Miss) String() string {
	if m.Field == FieldMode {
		return "mode is shadow: " + m.Have
	}
	return fmt.Sprintf("%s is %s, the packet has %s", m.Field, m.Want, m.Have)
}

// Failures returns what is not as expected as diagnostics.
func Failures(p *policy.Policy, rs []TestResult) (ds policy.Diagnostics) {
	for _, r := range rs {
		if r.Wrong != "" {
			ds = append(ds, policy.Diagnostic{File: p.File, Line: r.Test.Line, Column: r.Test.Column, Path: r.Test.Path, Severity: policy.Error, Code: "test-failed",
				Message: fmt.Sprintf("test %q fails: %v: %s", r.Test.Name, r.Test.Flow, r.Wrong)})
		}
	}
	return ds
}
