package dashboard

import (
	"fmt"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// TestDetail: what is known of a rule, a host and a name; a rule's history, and when it
// last decided; and that a firewall that says ever more is kept in bounds.
func TestDetail(t *testing.T) {
	m, s := NewModel(), &ingest.Source{}
	feed(m, s, start, hello("aa", "203.0.113.10/24"))
	for i := range 3 {
		feed(m, s, start.Add(time.Duration(10*i)*time.Second), metrics(i+1)...)
	}
	feed(m, s, start.Add(25*time.Second),
		`{"@timestamp":"2026-11-24T12:00:12Z","event.action":"drop","event.reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"10.0.0.9","destination.ip":"1.1.1.1","destination.domain":"bad.example","network.transport":"tcp","firewall.count":30}`,
		`{"@timestamp":"2026-11-24T12:00:13Z","event.action":"accept","event.reason":"rule","rule.id":"a","source.ip":"10.0.0.9","destination.ip":"2.2.2.2","network.transport":"tcp"}`,
		`{"event.action":"dns-query","event.reason":"blocked","source.ip":"10.0.0.8","dns.question.name":"bad.example"}`)
	const fw = "203.0.113.10"
	d, ok := m.Detail(fw, OfRule, "a")
	if !ok || d.Rule == nil || d.Rule.Accepts != 300 || d.Rule.Rate != 10 || !d.Rule.LastHit.Equal(start.Add(20*time.Second)) || len(d.Hits) != 2 || d.Hits[1].Rate != 10 {
		t.Errorf("%+v", d)
	}
	if len(d.Sources) != 1 || d.Sources[0] != (Count{"10.0.0.9", 1}) || len(d.Recent) != 1 || d.Recent[0].Rule != "a" {
		t.Errorf("%+v", d)
	}
	// b has decided before, and nothing since.
	if d, _ := m.Detail(fw, OfRule, "b"); d.Rule == nil || d.Rule.Accepts != 5 || !d.Rule.LastHit.IsZero() || len(d.Hits) != 0 {
		t.Errorf("%+v", d)
	}
	if d, _ := m.Detail(fw, OfHost, "10.0.0.9"); len(d.Rules) != 2 || d.Rules[0] != (Count{"default-deny", 30}) || len(d.Recent) != 2 || d.Recent[0].Rule != "a" {
		t.Errorf("%+v", d)
	}
	if d, _ := m.Detail(fw, OfHost, "1.1.1.1"); len(d.Sources) != 1 || len(d.Recent) != 1 {
		t.Errorf("by its destination: %+v", d)
	}
	if d, _ := m.Detail(fw, OfName, "bad.example"); len(d.Sources) != 2 || d.Sources[0] != (Count{"10.0.0.9", 30}) || len(d.Actions) != 2 {
		t.Errorf("%+v", d)
	}
	if d, ok := m.Detail(fw, OfRule, "nothing"); !ok || d.Rule != nil || len(d.Recent) != 0 {
		t.Errorf("%+v", d)
	}
	if _, ok := m.Detail("nobody", OfRule, "a"); ok {
		t.Error("a firewall that is not there")
	}
	// The order is the firewall's.
	rules, ok := m.Rules(fw)
	if !ok || len(rules) != 3 || rules[0].ID != "a" || rules[1].ID != "b" || rules[2].ID != "default-deny" {
		t.Errorf("%+v", rules)
	}
	if _, ok := m.Rules("nobody"); ok {
		t.Error("a firewall that is not there")
	}
	// Many rules, and many hosts; of other policies, too.
	for n := range 200 {
		feed(m, s, start.Add(time.Duration(30+10*n)*time.Second), "# METRIC # SNAPSHOT x", fmt.Sprintf(`# METRIC thurward_rule_accepts_total{rule_id="old%d"} 1`, n/2),
			fmt.Sprintf(`# METRIC thurward_rule_accepts_total{rule_id="old%d"} 2`, n/2-1), "# METRIC # EOF")
	}
	if f := m.firewalls[fw]; len(f.lastHit) > 3 {
		t.Errorf("%d rules of other policies are remembered", len(f.lastHit))
	}
	for n := range 500 {
		at := start.Add(time.Duration(2100+10*n) * time.Second)
		lines := []string{"# METRIC # SNAPSHOT x"}
		for i := range 300 {
			lines = append(lines, fmt.Sprintf(`# METRIC thurward_rule_accepts_total{rule_id="r%d"} %d`, i, n*i))
		}
		feed(m, s, at, append(lines, "# METRIC # EOF")...)
		for i := range 20 {
			feed(m, s, at, fmt.Sprintf(`{"event.action":"drop","rule.id":"r%d","source.ip":"10.0.%d.%d"}`, i, n%250, i))
		}
		feed(m, s, at, `{"event.action":"drop","rule.id":"often","source.ip":"10.9.9.9"}`)
	}
	f := m.firewalls[fw]
	longest := 0
	for _, h := range f.hits {
		longest = max(longest, len(h.ring))
	}
	if len(f.hits) > hitRules || longest != hitPoints || len(f.talks) > topTalks || len(f.recent) > recentMax || len(f.lastHit) > maxRules {
		t.Errorf("%d histories of at most %d points, %d talks, %d recent", len(f.hits), longest, len(f.talks), len(f.recent))
	}
	if d, _ := m.Detail(fw, OfRule, "often"); len(d.Sources) != 1 || d.Sources[0].Count < 500 {
		t.Errorf("what is frequent was missed: %+v", d)
	}
	h := f.hits["r100"].list()
	for i := 1; i < len(h); i++ {
		if !h[i].At.After(h[i-1].At) {
			t.Fatalf("out of order at %d", i)
		}
	}
}
