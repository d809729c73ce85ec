package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Requirements that are met as a consequence of others, each shown by itself.
// docs/rfc-conformance.md lists them all.

// TestRFC5382_REQ3a_RulesOpenWhatTheyName: filtering is the policy's: a rule may
// open a server to one source, to one port, or to all.
func TestRFC5382_REQ3a_RulesOpenWhatTheyName(t *testing.T) {
	d := withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443))
	for rule, want := range map[rule][2]bool{
		"accept ingress tcp any -> 10.0.0.5 :443":             {true, true},
		"accept ingress tcp 198.51.100.7 -> 10.0.0.5 :443":    {true, false},
		"accept ingress tcp 192.0.2.0/24 -> 10.0.0.5 :443":    {false, true},
		"accept ingress tcp 192.0.2.0/24 -> 10.0.0.5 :80-100": {false, false},
	} {
		for i, from := range []string{client, "192.0.2.9"} {
			l := newLabWith(t, d, rule)
			if across, _ := l.put(wan, syn(from, 4000, ours, 443)); (len(across) == 1) != want[i] {
				t.Errorf("%q, from %s: %d crossed", rule, from, len(across))
			}
		}
	}
}

// TestRFC5382_REQ3b_TCPAndUDPAreFilteredApart: what opens one protocol leaves
// the other closed, by rule and by flow.
func TestRFC5382_REQ3b_TCPAndUDPAreFilteredApart(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443), dnat(packet.UDP, ours, 443, 443, server, 443)),
		"accept ingress tcp any -> 10.0.0.5 :443", "accept egress", established)
	l.one(wan, syn(client, 4000, ours, 443)).is(t, client, 4000, server, 443)
	l.dropped(wan, udp(client, 4000, ours, 443), verdict.NoMatchingAllowRule)
	v := l.one(lan, udp(host, 4000, web, 80))
	l.dropped(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.ACK, 1, 1), verdict.NoMatchingAllowRule)
}

// TestRFC7857_S6_FilteringIsPerProtocol: the same between flows from inside.
func TestRFC7857_S6_FilteringIsPerProtocol(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.dropped(wan, udp(web, 80, ours, port), verdict.NoMatchingAllowRule)
	l.dropped(wan, echo(web, ours, packet.EchoReply, port), verdict.NoMatchingAllowRule)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
}

func TestRFC5382_REQ9_UnreachableIsTranslated(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(syn(host, 4000, web, 80))
	for code := range uint8(16) {
		e := l.one(wan, quoted("192.0.2.1", ours, packet.Unreachable, code, v.frame, 40, nil))
		if q := e.quotes(t, packet.Unreachable, code); e.Dst != ip(host) || q.Src != ip(host) || q.SrcPort != 4000 || q.Dst != ip(web) || q.DstPort != 80 {
			t.Fatalf("code %d: %v about %+v", code, e, q)
		}
	}
}

func TestRFC5508_REQ1_QueriesFromInside(t *testing.T) {
	l := newLab(t, "accept egress icmp", established)
	for _, h := range []string{host, "10.0.0.3"} {
		for id := range uint16(5) {
			v := l.one(lan, echo(h, web, packet.EchoRequest, id))
			r := l.one(wan, echo(web, ours, packet.EchoReply, v.SrcPort))
			if r.Dst != ip(h) || r.SrcPort != id || r.Src != ip(web) {
				t.Fatalf("%v", r)
			}
		}
	}
	// Requests from the WAN are dropped.
	l.dropped(wan, echo(web, ours, packet.EchoRequest, 0), verdict.NoMatchingAllowRule)
}

func TestRFC5508_REQ2a_TheTimerIsConfigurable(t *testing.T) {
	for _, s := range []uint32{10, 200} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.ICMPEcho = s }, "accept egress", established)
		l.one(lan, echo(host, web, packet.EchoRequest, 4007))
		l.pass(float64(s) - 1)
		if l.e.flows.Len() != 1 {
			t.Errorf("%d s: gone before its time", s)
		}
		l.pass(2)
		if l.e.flows.Len() != 0 {
			t.Errorf("%d s: still there", s)
		}
	}
}

// TestRFC7857_S11_QueryMappingEndsWithItsLastSession, and not before.
func TestRFC7857_S11_QueryMappingEndsWithItsLastSession(t *testing.T) {
	l := newLab(t, "accept egress", established)
	id := l.flowOut(echo(host, web, packet.EchoRequest, 4007)).SrcPort
	l.pass(40)
	l.one(lan, echo(host, "192.0.2.9", packet.EchoRequest, 4007))
	l.pass(40)
	if v := l.one(lan, echo(host, "192.0.2.10", packet.EchoRequest, 4007)); v.SrcPort != id {
		t.Fatalf("identifier %d, was %d", v.SrcPort, id)
	}
	l.pass(70)
	if n := l.e.nat.Pools()[0].InUse(packet.ICMP); n != 0 || l.e.flows.Len() != 0 {
		t.Fatalf("%d identifiers in use, %d flows", n, l.e.flows.Len())
	}
}
