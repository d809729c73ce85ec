package dnsproxy

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestOddQuestions: rare questions are forwarded unchanged, and only addresses of
// class IN and the queried type are bound.
func TestOddQuestions(t *testing.T) {
	for _, c := range []struct {
		name       string
		typ, class uint16
		answer     []string
		bound      bool
	}{
		{".", dns.TypeNS, dns.ClassINET, []string{". 60 IN NS a.root-servers.net."}, false},
		{".", dns.TypeA, dns.ClassINET, []string{". 60 IN A 192.0.2.1"}, false}, // bound, to a name that no rule has
		{"version.bind", dns.TypeTXT, dns.ClassCHAOS, []string{`version.bind. 0 CH TXT "x"`}, false},
		{"a.example", dns.TypeA, dns.ClassCHAOS, []string{"a.example. 60 IN A 192.0.2.1"}, false},
		{"a.example", dns.TypeA, dns.ClassANY, []string{"a.example. 60 IN A 192.0.2.1"}, false},
		{"a.example", dns.TypeANY, dns.ClassINET, []string{"a.example. 60 IN A 192.0.2.1", "a.example. 60 IN AAAA 2001:db8::1"}, true},
		{"a.example", dns.TypeTXT, dns.ClassINET, []string{`a.example. 60 IN TXT "x"`, "a.example. 60 IN A 192.0.2.1"}, false},
		{"printer.local", dns.TypeA, dns.ClassINET, []string{"printer.local. 60 IN A 192.0.2.1"}, false},
		{"1.2.0.192.in-addr.arpa", dns.TypePTR, dns.ClassINET, []string{"1.2.0.192.in-addr.arpa. 60 IN PTR a.example."}, false},
		{"_sip._tcp.a.example", dns.TypeSRV, dns.ClassINET, []string{"_sip._tcp.a.example. 60 IN SRV 1 1 1 a.example."}, false},
	} {
		t.Run(fmt.Sprintf("%s %s %s", c.name, dns.ClassToString[c.class], dns.TypeToString[c.typ]), func(t *testing.T) {
			b := newBench(t, nil)
			q := query(c.name, c.typ)
			q.Question[0].Qclass = c.class
			b.ask(q)
			_, up := b.last()
			if up.Question[0].Qclass != c.class || up.Question[0].Qtype != c.typ {
				t.Fatalf("the upstream got %v", up)
			}
			got := b.answer(pack(t, reply(t, up, c.answer...)))
			if m := unpack(t, got); m.Rcode != 0 || len(m.Answer) != len(c.answer) {
				t.Fatalf("the client got %v", m)
			}
			if (b.ids("192.0.2.1") != 0) != c.bound {
				t.Fatalf("bound: %v", !c.bound)
			}
			b.finishAll()
		})
	}
}

// TestRefusedKinds: transfers, updates, notifications and status queries are
// refused.
func TestRefusedKinds(t *testing.T) {
	b := newBench(t, nil)
	for _, op := range []int{dns.OpcodeIQuery, dns.OpcodeStatus, 3, dns.OpcodeNotify, dns.OpcodeUpdate, 6, 15} {
		q := query("a.example", dns.TypeSOA)
		q.Opcode = op
		b.ask(q)
		if m := unpack(t, b.got[len(b.got)-1]); m.Rcode != dns.RcodeNotImplemented || m.Opcode != op || len(b.sent) != 0 {
			t.Errorf("opcode %d: %v", op, m)
		}
	}
}

// TestLongAliasChain: a response with a chain of 16 names is bound; a longer one is
// relayed and not bound. A blocked name anywhere in it is found.
func TestLongAliasChain(t *testing.T) {
	for _, n := range []int{14, 15, 16, 31, 100} {
		for _, blocked := range []bool{false, true} {
			b := newBench(t, func(p *ruleset.Policy) { p.Blocked = []ruleset.Name{name(p, "ads.test")} })
			b.p.Query(&Client{Addr: client1, Conn: 1}, pack(t, query("a.example", dns.TypeA)), b.now)
			_, up := b.last()
			rrs := []string{"@ 60 IN CNAME l1.test."}
			for i := 1; i < n; i++ {
				rrs = append(rrs, fmt.Sprintf("l%d.test. 60 IN CNAME l%d.test.", i, i+1))
			}
			if blocked {
				rrs = append(rrs, fmt.Sprintf("l%d.test. 60 IN CNAME x.ads.test.", n), "x.ads.test. 60 IN A 192.0.2.1")
			} else {
				rrs = append(rrs, fmt.Sprintf("l%d.test. 60 IN A 192.0.2.1", n))
			}
			m := unpack(t, b.answer(pack(t, reply(t, up, rrs...))))
			switch {
			case blocked && (m.Rcode != dns.RcodeRefused && (n < maxAliases || m.Rcode != dns.RcodeServerFailure) || len(m.Answer) != 0):
				t.Errorf("%d aliases to a blocked name: %v", n, m.Rcode)
			case !blocked && n > maxAliases: // more than can be looked at, and there are blocked names
				if m.Rcode != dns.RcodeServerFailure {
					t.Errorf("%d aliases: %v", n, m.Rcode)
				}
			case !blocked && (m.Rcode != 0 || len(m.Answer) != n+1 || (b.ids("192.0.2.1") != 0) != (n < maxChain)):
				t.Errorf("%d aliases: %v, %d records, bound %v", n, m.Rcode, len(m.Answer), b.ids("192.0.2.1") != 0)
			}
			if blocked && b.ids("192.0.2.1") != 0 {
				t.Errorf("%d aliases to a blocked name: bound", n)
			}
		}
	}
}

// TestTruncatedOverTCP: a truncated response over TCP is relayed, and its addresses
// are bound.
func TestTruncatedOverTCP(t *testing.T) {
	b := newBench(t, nil)
	b.ask(query("a.example", dns.TypeA))
	_, up := b.last()
	r := reply(t, up, "@ 60 IN A 192.0.2.1", "@ 60 IN A 192.0.2.2")
	r.Truncated = true
	if b.answer(pack(t, r)) != nil || len(b.tcp) != 1 || b.ids("192.0.2.1") != 0 {
		t.Fatal("a truncated answer over UDP was taken")
	}
	q := unpack(t, b.tcp[0].msg)
	r = reply(t, q, "@ 60 IN A 192.0.2.1")
	r.Truncated = true
	b.p.TCPResponse(b.tcp[0].tag, pack(t, r), b.now)
	if len(b.got) != 1 || !unpack(t, b.got[0]).Truncated || b.ids("192.0.2.1") == 0 || b.ids("192.0.2.2") != 0 {
		t.Fatalf("%d answers, bound %d", len(b.got), b.ids("192.0.2.1"))
	}
	b.finishAll()
}

// TestServiceOfBlockedName: a service binding whose target is blocked is refused.
func TestServiceOfBlockedName(t *testing.T) {
	for _, target := range []string{"x.ads.test.", "x.good.test."} {
		b := newBench(t, func(p *ruleset.Policy) { p.Blocked = []ruleset.Name{name(p, "ads.test")} })
		b.ask(query("a.example", dns.TypeHTTPS))
		_, up := b.last()
		m := unpack(t, b.answer(pack(t, reply(t, up, "@ 60 IN HTTPS 1 "+target+" alpn=h2 ipv4hint=192.0.2.1"))))
		if refused := target == "x.ads.test."; (m.Rcode == dns.RcodeRefused) != refused || (b.ids("192.0.2.1") == 0) != refused {
			t.Errorf("%s: %v", target, m)
		}
	}
}
