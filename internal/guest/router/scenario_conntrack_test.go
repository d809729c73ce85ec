package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func TestS12_TCPStatesAndTimeouts(t *testing.T) {
	type step struct {
		from  int
		flags uint8
		seq   uint32
		ack   uint32
		state string
	}
	steps := []step{
		{lan, packet.SYN, 1000, 0, "syn_sent"},
		{wan, packet.SYN | packet.ACK, 5000, 1001, "syn_recv"},
		{lan, packet.ACK, 1001, 5001, "established"},
		{lan, packet.FIN | packet.ACK, 1001, 5001, "fin_wait"},
		{wan, packet.ACK, 5001, 1002, "close_wait"},
		{wan, packet.FIN | packet.ACK, 5001, 1002, "last_ack"},
		{lan, packet.ACK, 1002, 5002, "time_wait"},
	}
	idle := map[string]float64{"syn_sent": 240, "syn_recv": 240, "established": 7440, "fin_wait": 240, "close_wait": 240, "last_ack": 240, "time_wait": 240}
	for n := range steps {
		l := newLab(t, "accept egress", established)
		port := uint16(0)
		for _, s := range steps[:n+1] {
			if s.from == lan {
				port = l.one(lan, tcpSeg(host, 4000, web, 80, s.flags, s.seq, s.ack)).SrcPort
			} else {
				l.one(wan, tcpSeg(web, 80, ours, port, s.flags, s.seq, s.ack))
			}
			if got := l.e.flows.Dir(0).State.String(); got != s.state {
				t.Fatalf("after step %+v the state is %s", s, got)
			}
		}
		l.pass(idle[steps[n].state] - 1)
		if l.e.flows.Len() != 1 {
			t.Errorf("%s: gone before its time", steps[n].state)
		}
		l.pass(2)
		if l.e.flows.Len() != 0 {
			t.Errorf("%s: still there after its time", steps[n].state)
		}
		if l.e.nat.Pools()[0].InUse(packet.TCP) != 0 {
			t.Errorf("%s: port not given back", steps[n].state)
		}
	}
}

func TestS12_ResetCloses(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.RST, 5001, 0))
	if s := l.e.flows.Dir(0).State.String(); s != "close" {
		t.Fatalf("state %s", s)
	}
	l.pass(241)
	if l.e.flows.Len() != 0 {
		t.Fatal("still there 241 s after the reset")
	}
}

func TestS12_ResetOutOfWindowDoesNot(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.dropped(wan, tcpSeg(web, 80, ours, port, packet.RST, 900_000, 0), verdict.ConntrackInvalid)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.RST, 5050, 0)) // in the window: the end may challenge it
	l.dropped(wan, tcpSeg(web, 80, ours, port, packet.FIN|packet.ACK, 900_000, 1001), verdict.ConntrackInvalid)
	if s := l.e.flows.Dir(0).State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
}

func TestS12_NewSYNOnTimeWait(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(wan, tcpSeg(web, 80, ours, port, packet.RST, 5001, 0))
	first := l.e.flows.Shared(0).ID
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 777_000, 0))
	f := l.e.flows.Shared(0)
	if l.e.flows.Len() != 1 || f.ID == first || l.e.flows.Dir(0).State.String() != "syn_sent" {
		t.Fatalf("flow %d (was %d), state %s", f.ID, first, l.e.flows.Dir(0).State)
	}
}

// TestS12_InvalidFirstAnswer: a forged answer does not use up the event of the
// reply direction's first packet.
func TestS12_InvalidFirstAnswer(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, syn(host, 4000, web, 80))
	l.dropped(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.RST|packet.ACK, 0, 7), verdict.ConntrackInvalid)
	l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	if r := l.last(); r.Action != verdict.Accept || r.Direction != verdict.Ingress || r.Rule != 1 {
		t.Fatalf("event %+v", r)
	}
}

func TestS12_ContradictoryFlags(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	for _, fl := range []uint8{packet.SYN | packet.FIN, packet.SYN | packet.RST, packet.FIN | packet.RST, packet.FIN, 0, packet.PSH} {
		l.dropped(wan, tcpSeg(web, 80, ours, port, fl, 5001, 1001), verdict.ConntrackInvalid)
	}
}

func TestS12_MidStreamPickupIsRefused(t *testing.T) {
	l := newLab(t, "accept")
	for _, fl := range []uint8{packet.ACK, packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.RST, packet.SYN | packet.ACK, 0} {
		l.dropped(lan, tcpSeg(host, 4000, web, 80, fl, 1, 1), verdict.ConntrackInvalid)
	}
}

func TestS12_SimultaneousOpen(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, tcpSeg(host, 4000, web, 5000, packet.SYN, 1000, 0))
	l.one(wan, tcpSeg(web, 5000, ours, v.SrcPort, packet.SYN, 9000, 0))
	l.one(lan, tcpSeg(host, 4000, web, 5000, packet.SYN|packet.ACK, 1000, 9001))
	l.one(wan, tcpSeg(web, 5000, ours, v.SrcPort, packet.SYN|packet.ACK, 9000, 1001))
	d := tcpSeg(host, 4000, web, 5000, packet.ACK, 1001, 9001)
	d.data = []byte("hello")
	l.one(lan, d)
	if s := l.e.flows.Dir(0).State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
}

func TestS12_WindowScale(t *testing.T) {
	l := newLab(t, "accept egress", established)
	s := tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0)
	s.opts = []byte{3, 3, 7, 1}
	port := l.one(lan, s).SrcPort
	a := tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1001)
	a.opts = []byte{1, 3, 3, 7}
	l.one(wan, a)
	ack := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	ack.win = 2000 // 256000 bytes
	l.one(lan, ack)
	d := tcpSeg(web, 80, ours, port, packet.ACK, 5001+200_000, 1001)
	d.data = make([]byte, 100)
	l.one(wan, d)
	d.seq = 5001 + 300_000
	l.dropped(wan, d, verdict.ConntrackInvalid)
}

func TestS13_UDPIdle(t *testing.T) {
	for _, c := range []struct {
		port                    uint16
		unreplied, once, served float64
		states                  [3]string
	}{
		{53, 30, 30, 30, [3]string{"udp_brief", "udp_query", "udp_query"}},
		{123, 30, 30, 300, [3]string{"udp_brief", "udp_query", "udp"}},
		{5000, 120, 120, 300, [3]string{"udp_unreplied", "udp_answered", "udp"}},
	} {
		l := newLab(t, "accept egress udp", established)
		gone := func(after float64, state string) {
			t.Helper()
			if s := l.e.flows.Dir(0).State.String(); s != state {
				t.Fatalf("port %d: state %s, want %s", c.port, s, state)
			}
			l.pass(after - 1)
			if l.e.flows.Len() != 1 {
				t.Fatalf("port %d: %s flow gone before its time", c.port, state)
			}
			l.pass(2)
			if l.e.flows.Len() != 0 || l.e.nat.Pools()[0].InUse(packet.UDP) != 0 {
				t.Fatalf("port %d: %s flow or its port still there", c.port, state)
			}
		}
		l.one(lan, udp(host, 4000, web, c.port))
		gone(c.unreplied, c.states[0])
		v := l.one(lan, udp(host, 4000, web, c.port))
		l.one(wan, udp(web, c.port, ours, v.SrcPort))
		gone(c.once, c.states[1])
		v = l.one(lan, udp(host, 4000, web, c.port))
		l.one(wan, udp(web, c.port, ours, v.SrcPort))
		l.one(lan, udp(host, 4000, web, c.port)) // goes on after the answer
		gone(c.served, c.states[2])
		l.dropped(wan, udp(web, c.port, ours, v.SrcPort), verdict.NoMatchingAllowRule)
	}
}

// TestS13_ExpiredFlowIsEvaluatedAfresh: even before the sweep has come by.
func TestS13_ExpiredFlowIsEvaluatedAfresh(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 53))
	id := l.e.flows.Shared(0).ID
	l.now += 31e9
	l.e.tick = l.now + 1e9 // no sweep
	l.one(lan, udp(host, 4000, web, 53))
	if l.e.flows.Shared(0).ID == id {
		t.Fatal("the old flow was used")
	}
}

func TestS14_EchoReplyMatchesItsRequest(t *testing.T) {
	l := newLab(t, "accept egress icmp", established)
	v := l.one(lan, echo(host, web, packet.EchoRequest, 77))
	l.one(wan, echo(web, ours, packet.EchoReply, v.SrcPort))
	l.dropped(wan, echo(web, ours, packet.EchoReply, v.SrcPort+1), verdict.NoMatchingAllowRule)
	// A request is no reply, and a reply no request.
	l.dropped(wan, echo(web, ours, packet.EchoRequest, v.SrcPort), verdict.ConntrackInvalid)
	l.dropped(lan, echo(host, web, packet.EchoReply, 77), verdict.ConntrackInvalid)
	l.dropped(lan, echo(host, web, packet.EchoReply, 99), verdict.ConntrackInvalid)
}

func TestS15_TableFull(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = 1024 }, "accept egress", established)
	port := l.handshake(host, 100, web, 80)
	// Fill the table with established flows of many hosts; the last one finds no
	// room.
	for i := range 1023 {
		src := addr(ip("10.0.0.20") + packet.Addr(i%64)).String()
		v := l.one(lan, udp(src, uint16(2000+i), web, 123))
		l.one(wan, udp(web, 123, ours, v.SrcPort))
		l.one(lan, udp(src, uint16(2000+i), web, 123))
	}
	l.dropped(lan, udp(host, 60000, web, 123), verdict.ConntrackFull)
	// Existing flows work on.
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
	if got := l.e.nat.Pools()[0].InUse(packet.UDP); got != 1023 {
		t.Fatalf("%d ports in use", got)
	}
	l.buffers()
}

func TestS15_HalfOpenIsReclaimedFirst(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = 1024 }, "accept egress", established)
	port := l.handshake(host, 100, web, 80)
	for i := range 3000 { // a flood without answers
		l.one(lan, syn("10.0.0.3", uint16(2000+i), web, 80))
	}
	if l.e.flows.Len() != 1024 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
	if n := l.e.flows.C.Evictions[2]; n != 3000-1023 {
		t.Fatalf("%d reclaimed", n)
	}
}

// TestS14_EchoHasNoCodes: echo messages with a code other than 0 neither begin a
// flow nor answer one (RFC 792).
func TestS14_EchoHasNoCodes(t *testing.T) {
	l := newLab(t, "accept egress", established)
	p := echo(host, web, packet.EchoRequest, 4007)
	p.code = 1
	l.dropped(lan, p, verdict.ConntrackInvalid)
	l.one(lan, echo(host, web, packet.EchoRequest, 4007))
	p = echo(web, ours, packet.EchoReply, 4007)
	p.code = 1
	l.dropped(wan, p, verdict.ConntrackInvalid)
	l.one(wan, echo(web, ours, packet.EchoReply, 4007))
}
