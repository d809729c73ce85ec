package dashboard

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// TestPolicies: what knows more of a policy stays, a policy that is not known is looked for,
// though not again and again, and who may reach what is worked out once.
func TestPolicies(t *testing.T) {
	now := time.Unix(1000, 0)
	looked, there := 0, map[string]*Policy{}
	p := &Policies{Look: func(digest string) *Policy { looked++; return there[digest] }}
	worked := 0
	full := Policy{Digest: "a", Reach: func() (any, error) { worked++; return []string{"x"}, nil }}
	p.Add(Policy{Digest: "a", Rules: []RuleText{{ID: "r"}}})
	if got := string(p.find("a", now).reach()); got != `{"known":false}` {
		t.Error(got)
	}
	p.Add(full)
	p.Add(Policy{Digest: "a"})
	for range 2 {
		if got := string(p.find("a", now).reach()); got != `{"known":true,"tables":["x"]}` {
			t.Error(got)
		}
	}
	if worked != 1 || len(p.all) != 1 || looked != 0 {
		t.Errorf("worked out %d times, %d policies, looked %d times", worked, len(p.all), looked)
	}
	for _, c := range []struct {
		after  time.Duration
		looked int
	}{{0, 1}, {lookPause - 1, 1}, {lookPause, 2}, {2*lookPause + 1, 3}} {
		if k := p.find("b", now.Add(c.after)); k != nil || looked != c.looked {
			t.Errorf("after %v: looked %d times, want %d", c.after, looked, c.looked)
		}
	}
	there["b"] = &Policy{Digest: "b", Reach: func() (any, error) { return nil, errors.New("too large") }}
	if k := p.find("b", now.Add(time.Hour)); k == nil || !strings.Contains(string(k.reach()), `"why":"too large"`) {
		t.Error("not found, or does not say why")
	}
	if p.find("b", now.Add(2*time.Hour)); looked != 4 {
		t.Errorf("looked %d times, want 4", looked)
	}
	rules := []ruleAnswer{{RuleNow: RuleNow{Rule: Rule{ID: "x"}}}, {RuleNow: RuleNow{Rule: Rule{ID: "b"}}}, {RuleNow: RuleNow{Rule: Rule{ID: "a"}}}}
	p.Add(Policy{Digest: "c", Rules: []RuleText{{ID: "a"}, {ID: "b"}}})
	if p.find("c", now).sort(rules); rules[0].ID != "a" || rules[1].ID != "b" || rules[2].ID != "x" {
		t.Errorf("not in the policy's order: %+v", rules)
	}
	if p.find("", now) != nil || (*Policies)(nil).find("a", now) != nil || (*known)(nil).rule("r") != nil {
		t.Error("nothing is known as something")
	}
}
