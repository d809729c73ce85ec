package router

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestFloodOfQueriesLeavesThePlaces: 1,100 queries under 11 addresses that are not answered
// take all places; a host that has none resolves a name all the same, and what is under way
// within an equal share stays.
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
	if n := l.e.host.DNS().Outstanding(); n < 1000 {
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
	if len(across) != 1 || across[0].Class != packet.ClassUDP {
		l.t.Fatalf("%d packets to the upstream; drops %s", len(across), l.drops())
	}
	return across[0], l.message(across[0])
}

// asksOverTCP has a host begin a connection to the proxy, from which it will
// take nothing, and send queries on it.
func (l *tlsLab) asksOverTCP(client string, ms ...*dns.Msg) {
	l.t.Helper()
	l.port++
	put := func(p pkt) {
		p.win = 0
		l.port2(lan).in = append(l.port2(lan).in, p.frame(lanMAC))
	}
	put(tcpSeg(client, l.port, lanAddr, 53, packet.SYN, 1, 0))
	g := l.settle()
	if len(g[lan]) != 1 || g[lan][0].Flags != packet.SYN|packet.ACK {
		return // it gets no connection
	}
	ack := g[lan][0].Seq + 1
	put(tcpSeg(client, l.port, lanAddr, 53, packet.ACK, 2, ack))
	seq := uint32(2)
	for _, m := range ms {
		p := tcpSeg(client, l.port, lanAddr, 53, packet.ACK|packet.PSH, seq, ack)
		p.data = framed(m)
		put(p)
		seq += uint32(len(p.data))
	}
	l.settle()
}

// TestStalledClientLeavesTCP: a host with 16 connections over which it asks for
// long answers, of which it takes nothing, and with new ones as soon as those
// end. Names are resolved over TLS meanwhile, over the connection that there is
// and over a new one, and others get their long answers over TCP.
func TestStalledClientLeavesTCP(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.serve = l.tls(l.ca.sign(t, dotName, 30), func(q *dns.Msg) []*dns.Msg {
			if q.Question[0].Name[0]|0x20 != 'x' {
				return []*dns.Msg{reply(q, "@ 60 IN A "+github)}
			}
			return []*dns.Msg{manyAddresses(3000)(q)}
		})
		attack := func() {
			for range 16 {
				var ms []*dns.Msg
				for range 4 {
					ms = append(ms, l.query("x.attacker.example", dns.TypeA))
				}
				l.asksOverTCP("10.0.0.66", ms...)
			}
		}
		for range 3 {
			attack()
			l.pass(1.1) // its rate
		}
		conns := len(l.conns)
		for round := range 3 {
			l.send(host, l.query("github.com", dns.TypeA))
			var m *dns.Msg
			for i := 0; i < 20 && m == nil; i++ {
				for _, v := range l.settle()[lan] {
					if v.Dst == ip(host) && v.Proto == packet.UDP {
						m = l.message(v)
					}
				}
				l.pass(0.05)
			}
			if m == nil || len(m.Answer) != 1 {
				t.Fatalf("round %d: the answer over TLS: %v", round, m)
			}
			h := l.tcpHost(lan)
			h.askTCP(host, lanAddr, l.query("x.example", dns.TypeA))
			for range 100 {
				l.port2(lan).in = append(l.port2(lan).in, h.out...)
				h.out = nil
				for _, v := range l.settle()[lan] {
					if v.Dst == ip(host) {
						h.arrive(v)
					}
				}
			}
			if len(h.got) != 1 || len(h.got[0].Answer) != 3000 {
				t.Fatalf("round %d: %d answers over TCP", round, len(h.got))
			}
			attack()
			if round == 1 { // the connection to the upstream ends: there is a new one
				for _, c := range l.conns {
					c.Close()
				}
				l.settle()
			}
			l.pass(1.1)
		}
		if len(l.conns) == conns {
			t.Fatal("there was no new connection to the upstream")
		}
	})
}
