package router

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// mssOf returns the MSS option of a SYN, which is its only one.
func mssOf(v *view) int { return int(binary.BigEndian.Uint16(v.frame[v.L4+22:])) }

// TestDNSFitsEachSide: answers to clients fit the LAN's MTU, and what connections
// offer is their side's.
func TestDNSFitsEachSide(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) { p.Interfaces[0].MTU, p.Interfaces[1].MTU = 1000, 1300 })
	_, back := l.put(lan, syn(host, 4000, lanAddr, 53))
	if len(back) != 1 || back[0].Flags != packet.SYN|packet.ACK || mssOf(back[0]) != 960 {
		t.Fatalf("%v", back)
	}
	q := l.query("x.example", dns.TypeA)
	q.SetEdns0(4096, false)
	for n, want := range map[int]bool{55: false, 65: true} { // cut?
		v, m := l.asked(host, q)
		if r := l.answers(v, manyAddresses(n)(m)); r.Truncated != want {
			t.Errorf("%d addresses in %d bytes: truncated %v", n, r.Len(), r.Truncated)
		}
	}
	v, m := l.asked(host, q)
	cut := reply(m)
	cut.Truncated = true
	b, _ := cut.Pack()
	p := udp(upstreamAddr, 53, ours, v.SrcPort)
	p.data = b
	if _, back := l.put(wan, p); len(back) != 1 || back[0].Flags != packet.SYN || mssOf(back[0]) != 1260 {
		t.Fatalf("%v", back)
	}
	l.buffers()
}

// TestEventsOfQuestionsToUs: an accepted query is reported with the rule that accepts it,
// over UDP and TCP, and is no flow.
func TestEventsOfQuestionsToUs(t *testing.T) {
	l := newDNSLab(t, nil)
	l.pass(1.5)
	l.seen = nil
	r := event.Record{Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Direction: verdict.Egress, Proto: packet.UDP}
	l.asked(host, l.query("github.com", dns.TypeA))
	l.reported("UDP", tuple4(r, host, l.port, lanAddr, 53))
	r.Proto, r.Rule = packet.TCP, 1
	l.put(lan, syn(host, 4000, lanAddr, 53))
	l.reported("TCP", tuple4(r, host, 4000, lanAddr, 53))
	l.put(lan, tcpSeg(host, 4000, lanAddr, 53, packet.ACK, 1001, 1))
	l.reported("of the same connection")
	if c := &l.e.c; c.Accepts[0] != 1 || c.Accepts[1] != 2 || c.Local != 3 || l.e.flows.Len() != 0 {
		t.Errorf("accepts %v, %d local", c.Accepts, c.Local)
	}
	// A segment of no connection is answered with a reset, and dropped.
	l.e.answerAll()
	if _, back := l.put(lan, tcpSeg(host, 4001, lanAddr, 53, packet.ACK, 77, 88)); len(back) != 1 || back[0].Flags&packet.RST == 0 || back[0].Seq != 88 {
		t.Errorf("%v", back)
	}
	r.Action, r.Reason, r.Rule = verdict.Drop, verdict.ConntrackInvalid, 2
	l.reported("of no connection", tuple4(r, host, 4001, lanAddr, 53))
	l.buffers()
}

// answerAll makes the rates of answers full.
func (e *Engine) answerAll() {
	for i := range e.port {
		e.port[i].answers = icmperr.NewLimit(1)
	}
}

// TestOpenLinksAreCounted: while a connection over TLS is open the metric is 1.
func TestOpenLinksAreCounted(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		open := func() uint64 { return sample(t, l.e.Metrics(), "thurward_dns_upstream_tls_open", "") }
		if open() != 0 || l.e.host.Working() {
			t.Errorf("%d open before the first question", open())
		}
		l.answered(l.asks("github.com"))
		if open() != 1 || sample(t, l.e.Metrics(), "thurward_dns_upstream_tls_connections_total", "") != 1 {
			t.Errorf("%d open", open())
		}
		if d := l.e.NextDeadline(); d <= l.lab.now || d > l.lab.now+60*second {
			t.Errorf("the link is due in %d ns", d-l.lab.now)
		}
		for _, c := range l.conns {
			c.Close()
		}
		l.settle()
		if open() != 0 {
			t.Errorf("%d open when it has ended", open())
		}
	})
}

// TestUnsentFragmentIsItsDatagrams: a fragment is of the datagram that has its
// addresses, protocol and number, all of them.
func TestUnsentFragmentIsItsDatagrams(t *testing.T) {
	u := fragmentOf{src: 1, dst: 2, proto: 17, id: 3}
	for _, x := range []struct {
		src, dst packet.Addr
		proto    uint8
		id       uint16
		want     bool
	}{{1, 2, 17, 3, true}, {9, 2, 17, 3, false}, {1, 9, 17, 3, false}, {1, 2, 6, 3, false}, {1, 2, 17, 9, false}} {
		if got := u.is(&packet.Packet{Src: x.src, Dst: x.dst, Proto: x.proto}, x.id); got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

// TestNamedRuleIsForTCP: a rule with "sni: require" passes nothing but TCP, whatever
// its conditions are.
func TestNamedRuleIsForTCP(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "github.com")
		p.Rules[2].SNI = 1
	}, "accept egress", established)
	l.resolve(host, "github.com", "@ 300 IN A "+cdn)
	l.dropped(lan, udp(host, 4000, cdn, 443), verdict.SNIRefused)
	l.dropped(lan, echo(host, cdn, packet.EchoRequest, 1), verdict.SNIRefused)
	l.one(lan, syn(host, 4000, cdn, 443))
	if l.e.flows.Len() != 1 || l.e.flows.Dir(0).Verdict != conntrack.Pending {
		t.Errorf("%d flows", l.e.flows.Len())
	}
}
