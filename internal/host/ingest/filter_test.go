package ingest

import (
	"net/netip"
	"testing"
)

func TestFilter(t *testing.T) {
	e := Parse(`{"event.action":"drop","event.reason":"explicit_deny","rule.id":"deny-ads","source.ip":"10.0.0.2","destination.ip":"198.51.100.80","destination.domain":"ads.Example.com","network.translated.address":"203.0.113.10"}`).Event
	q := Parse(`{"event.action":"dns-query","event.reason":"blocked","dns.question.name":"ads.example.com","source.ip":"10.0.0.3"}`).Event
	host := func(s string) []netip.Prefix {
		p, err := ParseHost(s)
		if err != nil {
			t.Fatal(err)
		}
		return []netip.Prefix{p}
	}
	for i, c := range []struct {
		f    Filter
		e, q bool
	}{
		{Filter{}, true, true},
		{Filter{Rules: []string{"deny-ads"}}, true, false},
		{Filter{Rules: []string{"deny"}}, false, false},
		{Filter{Rules: []string{"x", "deny-*"}}, true, false},
		{Filter{Rules: []string{"*"}}, true, false},
		{Filter{Reasons: []string{"blocked"}}, false, true},
		{Filter{Actions: []string{"drop"}}, true, false},
		{Filter{Names: []string{"*.example.com"}}, true, true},
		{Filter{Names: []string{"example.com"}}, false, false},
		{Filter{Names: []string{"a*s*.c*m"}}, true, true},
		{Filter{Names: []string{"ads.*.example.com"}}, false, false},
		{Filter{Hosts: host("10.0.0.2")}, true, false},
		{Filter{Hosts: host("10.0.0.0/24")}, true, true},
		{Filter{Hosts: host("203.0.113.10")}, true, false},
		{Filter{Hosts: host("10.0.0.3"), Actions: []string{"drop"}}, false, false},
		{Filter{From: []string{"203.*"}}, false, false},
		{Filter{Reasons: []string{"!blocked"}}, true, false},
		{Filter{Reasons: []string{"!explicit_deny", "!blocked"}}, false, false},
		{Filter{Reasons: []string{"explicit_*", "!*_deny"}}, false, false},
		{Filter{Reasons: []string{"*", "!blocked"}}, true, false},
		{Filter{Rules: []string{"!deny-ads"}}, false, true}, // the query has no rule
		{Filter{Names: []string{"!*.example.com"}}, false, false},
		{Filter{NotHosts: host("10.0.0.2")}, false, true},
		{Filter{NotHosts: host("203.0.113.10"), Hosts: host("10.0.0.0/24")}, false, true},
	} {
		if c.f.Matches(&Hello{}, e) != c.e || c.f.Matches(&Hello{}, q) != c.q {
			t.Errorf("%d: %+v: %v %v", i, c.f, c.f.Matches(&Hello{}, e), c.f.Matches(&Hello{}, q))
		}
	}
	if _, err := ParseHost("alice"); err == nil {
		t.Error("a name is taken for an address")
	}
}
