package dataplane

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/packet"
)

// TestFloodOfQueriesLeavesThePlaces: 1,100 queries under 11 addresses that
// nobody answers take all places; a host that has none resolves a name all the
// same, and what is under way within an equal share stays.
func TestFloodOfQueriesLeavesThePlaces(t *testing.T) {
	l := newDNSLab(t, nil)
	l.resolve(host, "warm.example", "@ 60 IN A "+github)
	waits, q := l.asked(host, l.query("waits.example", dns.TypeA))
	for i := range 1100 {
		l.ask(fmt.Sprintf("10.0.0.%d", 100+i%11), l.query(fmt.Sprintf("n%d.attacker.example", i), dns.TypeA))
		if i%100 == 0 {
			l.pass(0.001)
		}
	}
	if n := l.e.DNS().Outstanding(); n < 1000 {
		t.Fatalf("%d queries are under way", n)
	}
	for i := range 20 {
		v, q := l.askedAmong(host, l.query(fmt.Sprintf("n%d.example", i), dns.TypeA))
		if m := l.answers(v, reply(q, "@ 60 IN A "+github)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
			t.Fatalf("query %d: %v", i, m)
		}
	}
	if m := l.answers(waits, reply(q, "@ 60 IN A "+github)); m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 {
		t.Fatalf("what was under way before the flood: %v", m)
	}
}

// askedAmong sends a query of a client, for which others may get their end, and
// returns what the upstream gets.
func (l *dnsLab) askedAmong(client string, m *dns.Msg) (*view, *dns.Msg) {
	l.t.Helper()
	across, back := l.ask(client, m)
	for _, v := range back {
		if r := l.message(v); v.Dst == ip(client) || r.Rcode != dns.RcodeServerFailure {
			l.t.Fatalf("%v gets %v", addr(v.Dst), r)
		}
	}
	if len(across) != 1 || across[0].Class != packet.Gram {
		l.t.Fatalf("%d packets to the upstream; drops %s", len(across), l.drops())
	}
	return across[0], l.message(across[0])
}
