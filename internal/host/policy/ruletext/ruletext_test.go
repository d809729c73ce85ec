package ruletext

import (
	"fmt"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/policytest"
)

// TestLongRule: a rule with very many matches is cut, and what is left out counted.
func TestLongRule(t *testing.T) {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "10.0.%d.0/24, ", 2*i)
	}
	rs := policytest.Compile(t, "interfaces:\n  lan0: { address: 10.0.0.1/16 }\n  wan0: { address: 203.0.113.10/29, gateway: 203.0.113.9 }\ndefaults: { default_action: deny }\nrules:\n"+
		"  - { id: a, action: deny, source: ["+b.String()+"], destination: [192.0.2.1, 192.0.2.3, 192.0.2.5, 192.0.2.7, 192.0.2.9, 192.0.2.11], direction: egress, protocol: tcp }\n")
	r := Of(rs, 4)[0]
	if len(rs.Matches) != 600 || len(r.Matches) != 4 || r.More != 596 {
		t.Errorf("%d matches, %d shown, %d more", len(rs.Matches), len(r.Matches), r.More)
	}
}

// TestOf: rules are written as they were meant, lists as few sets, and what is left out is
// counted.
func TestOf(t *testing.T) {
	rs := policytest.Compile(t, policytest.SmallWorld+`defaults: { default_action: deny, upstream_dns: 9.9.9.9 }
rules:
  - { id: web, name: "The web", action: accept, direction: egress, source: 10.0.0.0/29, destination_port: [80, 443, 81], protocol: tcp }
  - { id: named, action: accept, direction: egress, destination_fqdn: [a.example.com, "*.example.net"], destination_port: 443, protocol: tcp }
  - { id: try, action: deny, source: [10.0.0.3, 10.0.0.5, 10.0.0.7], mode: shadow }
  - { id: back, action: accept, state: established }
`)
	want := []Rule{
		{ID: "web", Name: "The web", Action: "accept", Matches: []string{"egress tcp 10.0.0.0/29 -> any :80-81", "egress tcp 10.0.0.0/29 -> any :443"}},
		{ID: "named", Action: "accept", Matches: []string{"egress tcp any -> any :443 to a.example.com, *.example.net"}},
		{ID: "try", Action: "deny", Shadow: true, Matches: []string{"all protocols 10.0.0.3 -> any", "all protocols 10.0.0.5 -> any"}, More: 1},
		{ID: "back", Action: "accept", Matches: []string{"established all protocols any -> any"}},
	}
	got := Of(rs, 2)
	for i := range want {
		if fmt.Sprint(got[i]) != fmt.Sprint(want[i]) {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}
