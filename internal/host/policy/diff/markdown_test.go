package diff

import (
	"strings"
	"testing"
)

// TestMarkdown: what stands in a policy is no markup of the comment that it becomes
// part of: it stays within code spans, and in its cell of a table.
func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"a": "`a`", "a`b": "``a`b``", "`": "`` ` ``", "``x": "``` ``x ```", "": "`  `", "<img src=x>": "`<img src=x>`", "a\nb": "`a\\x0ab`",
	} {
		if got := code(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	d := Diff{Old: "a`b", New: "c|d", Complete: true,
		Traffic: []TrafficChange{
			{Effect: Opens, From: Decision{Action: "deny", Rule: "default-deny"}, To: Decision{Action: "accept", Rule: "x"}, Sets: 3},
			{Effect: Other, From: Decision{Action: "deny", Rule: "a"}, To: Decision{Action: "deny", Rule: "b"}}},
		Other: []OtherChange{{What: "nat.snat[0]", New: "a | b `c`"}}}
	var b strings.Builder
	d.WriteMarkdown(&b, 50)
	for _, want := range []string{"**``a`b`` to `c|d`**: 1 more permissive, 0 less permissive, 1 as permissive; 1 beside traffic.\n",
		"\n### More permissive\n\n`deny by default-deny` → `accept by x`\n", "- and 3 more sets of packets\n", "\n### As permissive\n",
		"| `nat.snat[0]` |  | ``` a \\| b `c` ``` |\n"} {
		if !strings.Contains(b.String(), strings.ReplaceAll(want, "``` a \\| b `c` ```", "`` a \\| b `c` ``")) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// TestEffects: every pair of decisions is in the right class.
func TestEffects(t *testing.T) {
	deny, reject, accept, sni := Decision{Action: "deny"}, Decision{Action: "reject"}, Decision{Action: "accept"}, Decision{Action: "accept", SNI: true}
	for _, c := range []struct {
		from, to Decision
		want     Effect
	}{{deny, accept, Opens}, {reject, sni, Opens}, {sni, accept, Opens}, {dropped, accept, Opens}, {accept, deny, Closes}, {accept, sni, Closes}, {sni, reject, Closes},
		{deny, reject, Other}, {reject, dropped, Other}, {accept, accept, Other}, {sni, sni, Other}} {
		if got := effect(&c.from, &c.to); got != c.want {
			t.Errorf("%+v to %+v: %v", c.from, c.to, got)
		}
	}
	for _, c := range []struct {
		d    Diff
		want bool
	}{
		{Diff{Complete: true}, false}, {Diff{}, true},
		{Diff{Complete: true, Traffic: []TrafficChange{{Effect: Closes}, {Effect: Other}}}, false},
		{Diff{Complete: true, Traffic: []TrafficChange{{Effect: Closes}, {Effect: Opens}}}, true},
		{Diff{Complete: true, Other: []OtherChange{{What: "defaults.max_flows"}, {What: "shadow rules[0]"}}}, false},
		{Diff{Complete: true, Other: []OtherChange{{What: "dns.private_names"}}}, true},
		{Diff{Complete: true, Other: []OtherChange{{What: "nat.dnat[0]"}}}, true},
		{Diff{Complete: true, Other: []OtherChange{{What: "interfaces.lan.address"}}}, true},
	} {
		if c.d.Opens() != c.want {
			t.Errorf("%+v: %v", c.d, !c.want)
		}
	}
}
