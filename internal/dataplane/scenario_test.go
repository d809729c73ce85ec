package dataplane

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
	"github.com/thurward/thurward/internal/telemetry"
)

const (
	web  = "198.51.100.80"
	host = "10.0.0.2"
	ours = "203.0.113.10"

	established rule = "accept ingress established"
)

func syn(src string, sport uint16, dst string, dport uint16) pkt {
	return tcp(src, sport, dst, dport, packet.SYN, 1000, 0)
}

func TestS01_FirstMatchWins(t *testing.T) {
	l := newLab(t, "accept egress tcp :443", "deny egress tcp :443")
	l.one(lan, syn(host, 4000, web, 443))
	if c := l.e.Counters(); c.Accepts[0] != 1 || c.Drops[1] != 0 {
		t.Fatalf("accepts %v, drops %v", c.Accepts, c.Drops)
	}
}

func TestS02_NoMatchTakesDefault(t *testing.T) {
	l := newLab(t, "accept egress tcp :443")
	l.dropped(lan, syn(host, 4000, web, 80), telemetry.NoMatchingAllowRule)
	if len(l.seen) != 1 {
		t.Fatalf("%d events, want 1", len(l.seen))
	}
	if r := l.last(); r.Rule != l.policy.DefaultRule() || r.Action != telemetry.Drop || l.e.c.Drops[1] != 1 {
		t.Fatalf("event %+v", r)
	}
	l = newLabWith(t, func(p *segment.Policy) { p.Settings.DefaultAction = segment.Accept })
	l.one(lan, syn(host, 4000, web, 80))
	if r := l.last(); r.Reason != telemetry.DefaultAction || r.Action != telemetry.Accept {
		t.Fatalf("event %+v", r)
	}
}

func TestS03_SourceCIDR(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.Interfaces[0].PrefixLen = 16 }, "accept egress tcp 10.0.0.0/24")
	l.one(lan, syn("10.0.0.42", 4000, web, 80))
	l.dropped(lan, syn("10.0.1.42", 4000, web, 80), telemetry.NoMatchingAllowRule)
}

func TestS04_OtherPortDoesNotMatch(t *testing.T) {
	l := newLab(t, "accept egress tcp :8000-8010")
	l.one(lan, syn(host, 4000, web, 8000))
	l.one(lan, syn(host, 4000, web, 8010))
	l.dropped(lan, syn(host, 4000, web, 7999), telemetry.NoMatchingAllowRule)
	l.dropped(lan, syn(host, 4000, web, 8011), telemetry.NoMatchingAllowRule)
}

func TestS05_OtherProtocolDoesNotMatch(t *testing.T) {
	l := newLab(t, "accept egress tcp :53")
	l.dropped(lan, udp(host, 4000, web, 53), telemetry.NoMatchingAllowRule)
	l.one(lan, syn(host, 4000, web, 53))
}

func TestS06_OmittedFieldMatchesAnything(t *testing.T) {
	l := newLab(t, "accept")
	l.one(lan, syn(host, 4000, web, 1))
	l.one(lan, udp("10.0.0.77", 9, "8.8.8.8", 65535))
	l.one(lan, echo(host, web, packet.EchoRequest, 7))
}

func TestS07_EgressRuleIgnoresTheWAN(t *testing.T) {
	l := newLab(t, "accept egress")
	l.dropped(wan, syn(web, 4000, host, 80), telemetry.NoMatchingAllowRule)
	if l.e.c.Accepts[0] != 0 {
		t.Fatal("counted")
	}
}

func TestS10_ReturnTrafficPassesAsEstablished(t *testing.T) {
	l := newLab(t, "accept egress tcp :443", established)
	v := l.one(lan, syn(host, 4000, web, 443))
	l.one(wan, tcp(web, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	if c := l.e.Counters(); c.Accepts[0] != 1 || c.Accepts[1] != 1 {
		t.Fatalf("accepts %v", c.Accepts)
	}
	// Without such a rule the answer is dropped, and the request is not.
	l = newLab(t, "accept egress tcp :443")
	v = l.one(lan, syn(host, 4000, web, 443))
	l.dropped(wan, tcp(web, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001), telemetry.NoMatchingAllowRule)
}

func TestS11_UnsolicitedFromWANIsDenied(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.dropped(wan, syn(web, 4000, host, 22), telemetry.NoMatchingAllowRule)
	l.dropped(wan, syn(web, 4000, ours, 22), telemetry.NoMatchingAllowRule)
	l.dropped(wan, udp(web, 4000, ours, 53), telemetry.NoMatchingAllowRule)
}

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
	idle := map[string]float64{"syn_sent": 30, "syn_recv": 60, "established": 7440, "fin_wait": 240, "close_wait": 240, "last_ack": 30, "time_wait": 240}
	for n := range steps {
		l := newLab(t, "accept egress", established)
		port := uint16(0)
		for _, s := range steps[:n+1] {
			if s.from == lan {
				port = l.one(lan, tcp(host, 4000, web, 80, s.flags, s.seq, s.ack)).SrcPort
			} else {
				l.one(wan, tcp(web, 80, ours, port, s.flags, s.seq, s.ack))
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
		if l.e.pools[0].InUse(packet.TCP) != 0 {
			t.Errorf("%s: port not given back", steps[n].state)
		}
	}
}

func TestS12_ResetCloses(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(wan, tcp(web, 80, ours, port, packet.RST, 5001, 0))
	if s := l.e.flows.Dir(0).State.String(); s != "close" {
		t.Fatalf("state %s", s)
	}
	l.pass(11)
	if l.e.flows.Len() != 0 {
		t.Fatal("still there 10 s after the reset")
	}
}

func TestS12_ResetOutOfWindowDoesNot(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.dropped(wan, tcp(web, 80, ours, port, packet.RST, 900_000, 0), telemetry.ConntrackInvalid)
	l.one(wan, tcp(web, 80, ours, port, packet.RST, 5050, 0)) // in the window: the end may challenge it
	l.dropped(wan, tcp(web, 80, ours, port, packet.FIN|packet.ACK, 900_000, 1001), telemetry.ConntrackInvalid)
	if s := l.e.flows.Dir(0).State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
}

func TestS12_NewSYNOnTimeWait(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	l.one(wan, tcp(web, 80, ours, port, packet.RST, 5001, 0))
	first := l.e.flows.Shared(0).ID
	l.one(lan, tcp(host, 4000, web, 80, packet.SYN, 777_000, 0))
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
	l.dropped(wan, tcp(web, 80, ours, v.SrcPort, packet.RST|packet.ACK, 0, 7), telemetry.ConntrackInvalid)
	l.one(wan, tcp(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	if r := l.last(); r.Action != telemetry.Accept || r.Direction != telemetry.Ingress || r.Rule != 1 {
		t.Fatalf("event %+v", r)
	}
}

func TestS12_ContradictoryFlags(t *testing.T) {
	l := newLab(t, "accept egress", established)
	port := l.handshake(host, 4000, web, 80)
	for _, fl := range []uint8{packet.SYN | packet.FIN, packet.SYN | packet.RST, packet.FIN | packet.RST, packet.FIN, 0, packet.PSH} {
		l.dropped(wan, tcp(web, 80, ours, port, fl, 5001, 1001), telemetry.ConntrackInvalid)
	}
}

func TestS12_MidStreamPickupIsRefused(t *testing.T) {
	l := newLab(t, "accept")
	for _, fl := range []uint8{packet.ACK, packet.PSH | packet.ACK, packet.FIN | packet.ACK, packet.RST, packet.SYN | packet.ACK, 0} {
		l.dropped(lan, tcp(host, 4000, web, 80, fl, 1, 1), telemetry.ConntrackInvalid)
	}
}

func TestS12_SimultaneousOpen(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, tcp(host, 4000, web, 5000, packet.SYN, 1000, 0))
	l.one(wan, tcp(web, 5000, ours, v.SrcPort, packet.SYN, 9000, 0))
	l.one(lan, tcp(host, 4000, web, 5000, packet.SYN|packet.ACK, 1000, 9001))
	l.one(wan, tcp(web, 5000, ours, v.SrcPort, packet.SYN|packet.ACK, 9000, 1001))
	d := tcp(host, 4000, web, 5000, packet.ACK, 1001, 9001)
	d.data = []byte("hello")
	l.one(lan, d)
	if s := l.e.flows.Dir(0).State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
}

func TestS12_WindowScale(t *testing.T) {
	l := newLab(t, "accept egress", established)
	s := tcp(host, 4000, web, 80, packet.SYN, 1000, 0)
	s.opts = []byte{3, 3, 7, 1}
	port := l.one(lan, s).SrcPort
	a := tcp(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1001)
	a.opts = []byte{1, 3, 3, 7}
	l.one(wan, a)
	ack := tcp(host, 4000, web, 80, packet.ACK, 1001, 5001)
	ack.win = 2000 // 256000 bytes
	l.one(lan, ack)
	d := tcp(web, 80, ours, port, packet.ACK, 5001+200_000, 1001)
	d.data = make([]byte, 100)
	l.one(wan, d)
	d.seq = 5001 + 300_000
	l.dropped(wan, d, telemetry.ConntrackInvalid)
}

func TestS13_UDPIdle(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.pass(31) // one-way: 30 s
	if l.e.flows.Len() != 0 {
		t.Fatal("unreplied flow still there")
	}
	v := l.one(lan, udp(host, 4000, web, 53))
	l.one(wan, udp(web, 53, ours, v.SrcPort))
	l.pass(250) // replied: 300 s
	l.one(wan, udp(web, 53, ours, v.SrcPort))
	l.pass(301)
	l.dropped(wan, udp(web, 53, ours, v.SrcPort), telemetry.NoMatchingAllowRule)
	if l.e.flows.Len() != 0 || l.e.pools[0].InUse(packet.UDP) != 0 {
		t.Fatal("flow or port still there")
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
	l.dropped(wan, echo(web, ours, packet.EchoReply, v.SrcPort+1), telemetry.NoMatchingAllowRule)
	// A request is no reply, and a reply no request.
	l.dropped(wan, echo(web, ours, packet.EchoRequest, v.SrcPort), telemetry.ConntrackInvalid)
	l.dropped(lan, echo(host, web, packet.EchoReply, 77), telemetry.ConntrackInvalid)
	l.dropped(lan, echo(host, web, packet.EchoReply, 99), telemetry.ConntrackInvalid)
}

func TestS15_TableFull(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.Settings.MaxFlows = 1024 }, "accept egress", established)
	port := l.handshake(host, 100, web, 80)
	// Fill the table with established flows; the last one finds no room.
	for i := range 1023 {
		v := l.one(lan, udp(host, uint16(2000+i), web, 53))
		l.one(wan, udp(web, 53, ours, v.SrcPort))
	}
	l.dropped(lan, udp(host, 60000, web, 53), telemetry.ConntrackFull)
	// Existing flows work on.
	l.one(wan, tcp(web, 80, ours, port, packet.ACK, 5001, 1001))
	if got := l.e.pools[0].InUse(packet.UDP); got != 1023 {
		t.Fatalf("%d ports in use", got)
	}
	l.buffers()
}

func TestS15_HalfOpenIsReclaimedFirst(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.Settings.MaxFlows = 1024 }, "accept egress", established)
	port := l.handshake(host, 100, web, 80)
	for i := range 3000 { // a flood that nobody answers
		l.one(lan, syn("10.0.0.3", uint16(2000+i), web, 80))
	}
	if l.e.flows.Len() != 1024 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
	l.one(wan, tcp(web, 80, ours, port, packet.ACK, 5001, 1001))
	if n := l.e.flows.C.Evictions[2]; n != 3000-1023 {
		t.Fatalf("%d reclaimed", n)
	}
}

func TestS16_Masquerade(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, syn(host, 4000, web, 80))
	if addr(v.Src).String() != ours || v.SrcPort != 4000 || addr(v.Dst).String() != web || v.TTL != 63 {
		t.Fatalf("left as %v, TTL %d", v, v.TTL)
	}
	if r := l.last(); packet.Addr(binary.BigEndian.Uint32(r.XlatAddr[12:])) != ip(ours) || r.XlatPort != 4000 {
		t.Fatalf("event %+v", r)
	}
	// The same port of another host gets another one, of the same parity.
	w := l.one(lan, syn("10.0.0.3", 4000, web, 80))
	if w.SrcPort == 4000 || w.SrcPort%2 != 0 || w.SrcPort < 1024 {
		t.Fatalf("second host got port %d", w.SrcPort)
	}
}

// TestS16_EndpointIndependentMapping (RFC 4787 REQ-1): one endpoint has one
// external port, whoever it talks to, and no other endpoint has it.
func TestS16_EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53)) // takes the preserved port
	a := l.one(lan, udp(host, 4000, web, 53)).SrcPort
	if b := l.one(lan, udp(host, 4000, "192.0.2.9", 123)).SrcPort; b != a || a == 4000 {
		t.Fatalf("ports %d and %d", a, b)
	}
	// Filtering stays address- and port-dependent.
	l.dropped(wan, udp("192.0.2.9", 53, ours, a), telemetry.NoMatchingAllowRule)
	l.one(wan, udp("192.0.2.9", 123, ours, a))
}

func TestS17_PortForLife(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53))
	p := l.one(lan, udp(host, 4000, web, 53)).SrcPort
	for range 50 {
		l.pass(20)
		if v := l.one(lan, udp(host, 4000, web, 53)); v.SrcPort != p {
			t.Fatalf("port changed from %d to %d", p, v.SrcPort)
		}
	}
}

func TestS18_ReplyIsRewrittenBack(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53))
	v := l.one(lan, udp(host, 4000, web, 53))
	r := l.one(wan, udp(web, 53, ours, v.SrcPort))
	if addr(r.Dst).String() != host || r.DstPort != 4000 || addr(r.Src).String() != web || r.SrcPort != 53 {
		t.Fatalf("arrived as %v", r)
	}
}

func TestS19_PoolExhausted(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3007 }, "accept egress", established)
	ports := map[uint16]bool{}
	for i := range 8 {
		v := l.one(lan, udp(host, uint16(5000+i), web, 53))
		if ports[v.SrcPort] || v.SrcPort < 3000 || v.SrcPort > 3007 {
			t.Fatalf("port %d", v.SrcPort)
		}
		ports[v.SrcPort] = true
	}
	l.dropped(lan, udp(host, 6000, web, 53), telemetry.NATPortPoolExhausted)
	l.one(lan, syn(host, 6000, web, 80)) // TCP has ports of its own
	l.pass(31)
	l.one(lan, udp(host, 6000, web, 53))
}

func TestS22_HairpinIsRefused(t *testing.T) {
	l := newLab(t, "accept")
	l.dropped(lan, syn(host, 4000, ours, 443), telemetry.HairpinUnsupported)
	if r := l.last(); r.Reason != telemetry.HairpinUnsupported {
		t.Fatalf("event %+v", r)
	}
}

// embed returns an ICMP error that quotes a packet.
func embed(src, dst string, typ, code uint8, quoted *view) pkt {
	q := quoted.frame[packet.EthLen:]
	return pkt{src: src, dst: dst, proto: packet.ICMP, typ: typ, code: code, data: q[:min(len(q), 28)]}
}

func TestS24n_ICMPErrorsAreTranslated(t *testing.T) {
	for _, c := range []struct {
		name string
		p    pkt
	}{{"udp", udp(host, 4000, web, 53)}, {"tcp", syn(host, 4000, web, 80)}, {"echo", echo(host, web, packet.EchoRequest, 5)}} {
		l := newLab(t, "accept egress", established)
		l.one(lan, syn("10.0.0.3", 4000, web, 80)) // takes the preserved port
		l.one(lan, udp("10.0.0.3", 4000, web, 53))
		l.one(lan, echo("10.0.0.3", web, packet.EchoRequest, 5))
		out := l.one(lan, c.p)
		seen := l.e.flows.Dir(12).LastSeen
		l.now += 1e9
		v := l.one(wan, embed("192.0.2.1", ours, packet.TimeExceeded, 0, out))
		if addr(v.Dst).String() != host || addr(v.Src).String() != "192.0.2.1" {
			t.Fatalf("%s: outer header %v", c.name, v)
		}
		var q packet.Packet
		if !packet.ParseEmbedded(v.frame[int(v.L4)+8:], &q) {
			t.Fatalf("%s: embedded header is broken", c.name)
		}
		want := c.p.sport
		if addr(q.Src).String() != host || q.SrcPort != want || addr(q.Dst).String() != web {
			t.Fatalf("%s: embedded %v:%d > %v:%d", c.name, addr(q.Src), q.SrcPort, addr(q.Dst), q.DstPort)
		}
		if got := l.e.flows.Dir(12).LastSeen; got != seen {
			t.Fatalf("%s: the error refreshed the flow", c.name)
		}
	}
}

func TestS24n_ICMPErrorFromInside(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	back := l.one(wan, udp(web, 53, ours, v.SrcPort))
	e := l.one(lan, embed(host, web, packet.Unreachable, 3, back))
	if addr(e.Src).String() != ours || addr(e.Dst).String() != web {
		t.Fatalf("outer header %v", e)
	}
	var q packet.Packet
	if !packet.ParseEmbedded(e.frame[int(e.L4)+8:], &q) || addr(q.Dst).String() != ours || q.DstPort != v.SrcPort {
		t.Fatalf("embedded %v:%d", addr(q.Dst), q.DstPort)
	}
}

func TestS24n_UnrelatedErrorsAreDropped(t *testing.T) {
	l := newLab(t, "accept")
	v := l.one(lan, udp(host, 4000, web, 53))
	v.frame[packet.EthLen+packet.MinIPv4] ^= 0x10 // another port
	l.dropped(wan, embed("192.0.2.1", ours, packet.Unreachable, 3, v), telemetry.ConntrackInvalid)
	bad := embed("192.0.2.1", ours, packet.Unreachable, 3, v)
	bad.data = bad.data[:20]
	l.dropped(wan, bad, telemetry.MalformedPacket)
}

func TestS35_IPv6IsDropped(t *testing.T) {
	l := newLab(t, "accept")
	f := make([]byte, 60)
	packet.PutEth(f, &lanMAC, &[6]byte{2, 9, 9, 9, 9, 9}, packet.TypeIPv6)
	l.droppedRaw(lan, f, telemetry.IPv6Unsupported)
}

func TestS36_FragmentsAreDropped(t *testing.T) {
	l := newLab(t, "accept")
	for _, fr := range []uint16{0x2000, 0x2001, 0x0010} {
		p := udp(host, 4000, web, 53)
		p.frag = fr
		l.dropped(lan, p, telemetry.FragmentedIPv4)
	}
}

func TestS37_MalformedPackets(t *testing.T) {
	l := newLab(t, "accept")
	good := func() []byte { return syn(host, 4000, web, 80).frame(lanMAC) }
	edit := func(f func(ip []byte)) []byte {
		b := good()
		f(b[packet.EthLen:])
		binary.BigEndian.PutUint16(b[packet.EthLen+10:], 0)
		if hl := int(b[packet.EthLen]&15) * 4; hl >= 20 && hl <= len(b)-packet.EthLen {
			binary.BigEndian.PutUint16(b[packet.EthLen+10:], ^packet.Sum(b[packet.EthLen:packet.EthLen+hl], 0))
		}
		return b
	}
	opts := syn(host, 4000, web, 80)
	for name, f := range map[string][]byte{
		"runt":               good()[:13],
		"no IP header":       good()[:packet.EthLen+10],
		"truncated":          good()[:packet.EthLen+30],
		"IP checksum":        pkt{src: host, dst: web, proto: packet.TCP, sport: 1, dport: 2, flags: packet.SYN, breakIP: true}.frame(lanMAC),
		"TCP checksum":       pkt{src: host, dst: web, proto: packet.TCP, sport: 1, dport: 2, flags: packet.SYN, break4: true}.frame(lanMAC),
		"UDP checksum":       pkt{src: host, dst: web, proto: packet.UDP, sport: 1, dport: 2, break4: true}.frame(lanMAC),
		"ICMP checksum":      pkt{src: host, dst: web, proto: packet.ICMP, typ: 8, break4: true}.frame(lanMAC),
		"version":            edit(func(ip []byte) { ip[0] = 0x65 }),
		"IHL too small":      edit(func(ip []byte) { ip[0] = 0x44 }),
		"IHL beyond packet":  edit(func(ip []byte) { ip[0] = 0x4f }),
		"total below header": edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 10) }),
		"total beyond frame": edit(func(ip []byte) { binary.BigEndian.PutUint16(ip[2:], 2000) }),
		"TCP offset":         edit(func(ip []byte) { ip[20+12] = 0x40 }),
		"option length":      edit(func(ip []byte) { ip[0] = 0x46; ip[20] = 7; ip[21] = 99 }),
		"source route":       edit(func(ip []byte) { ip[0] = 0x46; ip[20] = 131; ip[21] = 4 }),
		"UDP length":         func() []byte { b := udp(host, 1, web, 2).frame(lanMAC); b[packet.EthLen+20+5]++; return b }(),
		"TCP port zero":      func() []byte { p := opts; p.dport = 0; return p.frame(lanMAC) }(),
	} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			l.droppedRaw(lan, f, telemetry.MalformedPacket)
		})
	}
	if l.e.flows.Len() != 0 {
		t.Fatal("a malformed packet made a flow")
	}
	l.t = t
	l.buffers()
}

func TestS38_OtherEtherTypes(t *testing.T) {
	l := newLab(t, "accept")
	f := make([]byte, 60)
	for _, typ := range []uint16{0x8100, 0x88cc, 0x0800 - 1} {
		packet.PutEth(f, &lanMAC, &[6]byte{2, 9, 9, 9, 9, 9}, typ)
		l.droppedRaw(lan, f, telemetry.EtherTypeUnsupported)
	}
}

func arp(op uint16, from string, mac [6]byte, to string) []byte {
	f := make([]byte, 60)
	packet.PutARP(f, &broadcastMAC, &packet.ARPMessage{Op: op, SenderMAC: mac, SenderAddr: ip(from), TargetAddr: ip(to)})
	return f
}

func TestS38_ARPAnsweredForOwnAddressOnly(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		from   int
		to     string
		answer bool
	}{{lan, "10.0.0.1", true}, {lan, "203.0.113.10", false}, {lan, "10.0.0.3", false}, {wan, "203.0.113.10", true}, {wan, "10.0.0.1", false}} {
		src := [...]string{"10.0.0.2", "203.0.113.77"}[c.from]
		w := l.port[c.from]
		w.in = append(w.in, arp(packet.ARPRequest, src, macOf(ip(src)), c.to))
		l.e.Poll(l.now)
		if (len(w.out) == 1) != c.answer {
			t.Errorf("request for %s on port %d: %d answers", c.to, c.from, len(w.out))
		}
		if c.answer {
			var m packet.ARPMessage
			if !packet.ParseARP(w.out[0], &m) || m.Op != packet.ARPReply || m.SenderAddr != ip(c.to) || m.SenderMAC != l.e.port[c.from].mac || m.TargetAddr != ip(src) {
				t.Errorf("answer %+v", m)
			}
		}
		w.out = nil
	}
}

func TestS38_GatewayIsNotTakenOver(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, syn(host, 4000, web, 80)) // resolves the gateway
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	for _, op := range []uint16{packet.ARPRequest, packet.ARPReply} {
		l.raw(wan, arp(op, "203.0.113.1", evil, ours))
		l.raw(wan, arp(op, "203.0.113.1", evil, "203.0.113.1"))
	}
	l.one(lan, syn(host, 4001, web, 80)) // taken checks the link-layer address
	if n := l.e.c.ARPConflicts[wan]; n != 4 {
		t.Fatalf("%d conflicts counted, want 4", n)
	}
	if r := conflict(l); r.Src != ip("203.0.113.1").To16() {
		t.Fatalf("event %+v", r)
	}
	l.pass(3600) // also when it has not been used for long
	l.raw(wan, arp(packet.ARPRequest, "203.0.113.1", evil, ours))
	l.one(lan, syn(host, 4002, web, 80))
	l.buffers()
}

// conflict returns the last event about an ARP message.
func conflict(l *lab) (last telemetry.Record) {
	l.t.Helper()
	for _, r := range l.seen {
		if r.EtherType == packet.TypeARP && r.Action == telemetry.Drop && r.Reason == telemetry.Martian {
			last = r
		}
	}
	if last.Kind == 0 {
		l.t.Fatal("no event about an ARP message")
	}
	return last
}

func TestS38_OwnAddressIsDefended(t *testing.T) {
	l := newLab(t)
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	answers := 0
	for range 100 { // a hundred claims within a second
		l.port[wan].in = append(l.port[wan].in, arp(packet.ARPReply, ours, evil, "203.0.113.1"))
		l.e.Poll(l.now)
		l.now += 1e7
		answers += len(l.port[wan].out)
		l.port[wan].out = nil
	}
	if answers != 1 || l.e.c.ARPConflicts[wan] != 100 {
		t.Fatalf("%d answers, %d conflicts", answers, l.e.c.ARPConflicts[wan])
	}
}

// TestS38_HostMoves: a LAN host that has another link-layer address, after the
// old one has been silent, and while it is being used.
func TestS38_HostMoves(t *testing.T) {
	moved := [6]byte{2, 7, 7, 7, 7, 7}
	for _, idle := range []float64{1, 120} {
		l := newLab(t, "accept egress", established)
		l.raw(lan, arp(packet.ARPRequest, host, [6]byte{2, 5, 5, 5, 5, 5}, "10.0.0.1"))
		l.pass(idle)
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, host, moved, "10.0.0.1"))
		l.e.Poll(l.now)
		for range 5 { // nobody answers for the old one
			l.now += 1e9
			l.e.Poll(l.now)
		}
		l.port[lan].out = nil
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, host, moved, "10.0.0.1"))
		l.e.Poll(l.now)
		if n := l.e.port[lan].arp.find(ip(host)); n == nil || n.mac != moved {
			t.Fatalf("after %v s of silence the host is not found where it is: %+v", idle, n)
		}
	}
}

func TestS38_UnaskedAnswerIsNotLearned(t *testing.T) {
	l := newLab(t)
	l.raw(lan, arp(packet.ARPReply, host, macOf(ip(host)), "10.0.0.1"))
	l.raw(lan, arp(packet.ARPRequest, "192.0.2.77", macOf(ip(host)), "10.0.0.1")) // not of this link
	for _, a := range []string{host, "192.0.2.77"} {
		if n := l.e.port[lan].arp.find(ip(a)); n != nil {
			t.Fatalf("learned %+v", n)
		}
	}
}

func TestS38_TranslationAddressIsAnsweredFor(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.SNAT[0].External = ip("203.0.113.20").To16() }, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	if addr(v.Src).String() != "203.0.113.20" {
		t.Fatalf("left as %v", v)
	}
	l.one(wan, udp(web, 53, "203.0.113.20", v.SrcPort))
	w := l.port[wan]
	w.in = append(w.in, arp(packet.ARPRequest, "203.0.113.1", macOf(ip("203.0.113.1")), "203.0.113.20"))
	l.e.Poll(l.now)
	var m packet.ARPMessage
	if len(w.out) != 1 || !packet.ParseARP(w.out[0], &m) || m.SenderAddr != ip("203.0.113.20") || m.SenderMAC != wanMAC {
		t.Fatalf("%d answers, %+v", len(w.out), m)
	}
	w.out = nil
	l.e.Announce()
	if len(w.out) != 2 {
		t.Fatalf("%d announcements on the WAN, want 2", len(w.out))
	}
}

func TestARP_UnresolvedGivesUp(t *testing.T) {
	l := newLab(t, "accept")
	for i := range 5 {
		l.put(wan, udp(web, uint16(1000+i), "10.0.0.99", 53))
	}
	if n := l.e.c.DropReasons[telemetry.NeighbourUnresolved]; n != 2 {
		t.Fatalf("%d dropped while 3 may wait", n)
	}
	for range 40 {
		l.pass(0.1)
	}
	if n := l.e.c.DropReasons[telemetry.NeighbourUnresolved]; n != 5 {
		t.Fatalf("%d dropped in the end, want 5", n)
	}
	told := 0
	for _, r := range l.seen {
		if r.Reason == telemetry.NeighbourUnresolved {
			told++
		}
	}
	if told != 5 {
		t.Fatalf("%d events, want 5", told)
	}
	l.buffers()
}

func TestARP_Expires(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.pass(61)
	l.one(lan, udp(host, 4000, web, 53)) // used while it is asked again
	if n := l.e.port[wan].arp.waiting; n != 0 {
		t.Fatalf("%d questions open", n)
	}
}

func TestS39n_TTL(t *testing.T) {
	l := newLab(t, "accept", established)
	p := udp(host, 4000, web, 53)
	p.ttl = 1
	before := l.e.c.DropReasons[telemetry.TTLExpired]
	across, back := l.put(lan, p)
	if len(across) != 0 || l.e.c.DropReasons[telemetry.TTLExpired] != before+1 {
		t.Fatalf("crossed: %v", across)
	}
	if len(back) != 1 || back[0].ICMPType != packet.TimeExceeded || addr(back[0].Src).String() != "10.0.0.1" || addr(back[0].Dst).String() != host {
		t.Fatalf("answer %v", back)
	}
	p.ttl = 2
	if v := l.one(lan, p); v.TTL != 1 {
		t.Fatalf("TTL %d", v.TTL)
	}
}

func TestS39n_TimeExceededIsRateLimited(t *testing.T) {
	l := newLab(t, "accept", established)
	n := 0
	for i := range 400 {
		p := udp(host, uint16(1000+i), web, 53)
		p.ttl = 1
		_, back := l.put(lan, p)
		n += len(back)
	}
	if n == 0 || n > 110 {
		t.Fatalf("%d answers to 400 packets at one instant", n)
	}
}

func TestS39n_Martians(t *testing.T) {
	l := newLab(t, "accept")
	for _, c := range []struct {
		from     int
		src, dst string
	}{
		{lan, "127.0.0.1", web}, {lan, "0.0.0.0", web}, {lan, "224.0.0.1", web}, {lan, "255.255.255.255", web}, {lan, "240.0.0.1", web},
		{lan, "10.0.0.1", web}, {lan, ours, web}, {lan, "10.0.0.255", web}, {lan, "192.168.7.7", web},
		{lan, host, "127.0.0.1"}, {lan, host, "224.0.0.5"}, {lan, host, "255.255.255.255"}, {lan, host, "0.0.0.1"}, {lan, host, "203.0.113.255"},
		{lan, host, "10.0.0.3"},
		{wan, host, "10.0.0.3"}, {wan, "127.0.0.1", host}, {wan, ours, host}, {wan, web, "10.0.0.255"}, {wan, web, "10.0.0.0"}, {wan, web, "10.0.0.1"},
		{wan, web, "8.8.8.8"},
	} {
		t.Run(c.src+">"+c.dst, func(t *testing.T) {
			l.t = t
			l.dropped(c.from, udp(c.src, 4000, c.dst, 53), telemetry.Martian)
		})
	}
}

// TestS39n_SpoofedFlow: a packet of a known flow from the wrong side.
func TestS39n_SpoofedFlow(t *testing.T) {
	l := newLab(t, "accept", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.dropped(wan, udp(host, 4000, web, 53), telemetry.Martian)
}

func TestTooBig(t *testing.T) {
	l := newLabWith(t, func(p *segment.Policy) { p.Interfaces[1].MTU = 1280 }, "accept", established)
	p := udp(host, 4000, web, 53)
	p.data, p.df = make([]byte, 1300), true
	across, back := l.put(lan, p)
	if len(across) != 0 || len(back) != 1 || back[0].ICMPType != packet.Unreachable || back[0].ICMPCode != 4 {
		t.Fatalf("crossed %v, answered %v", across, back)
	}
	if mtu := binary.BigEndian.Uint16(back[0].frame[packet.EthLen+20+6:]); mtu != 1280 {
		t.Fatalf("MTU %d in the answer", mtu)
	}
	l.buffers()
}

func TestPingTheFirewall(t *testing.T) {
	l := newLab(t, "accept egress icmp")
	_, back := l.put(lan, echo(host, "10.0.0.1", packet.EchoRequest, 9))
	if len(back) != 1 || back[0].ICMPType != packet.EchoReply || back[0].SrcPort != 9 || addr(back[0].Src).String() != "10.0.0.1" {
		t.Fatalf("answer %v; %s", back, l.drops())
	}
	l.dropped(wan, echo(web, ours, packet.EchoRequest, 9), telemetry.NoMatchingAllowRule)
	l = newLab(t, "accept")
	l.dropped(lan, syn(host, 4000, "10.0.0.1", 22), telemetry.NoLocalService)
	l.dropped(wan, syn(web, 4000, ours, 22), telemetry.NoLocalService)
}

func TestTransmitFull(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.port[wan].full = true
	l.dropped(lan, udp(host, 4000, web, 53), telemetry.TxFull)
	if r := l.last(); r.Reason != telemetry.TxFull || r.Dst != ip(web).To16() || r.DstPort != 53 || r.Direction != telemetry.Egress {
		t.Fatalf("event %+v", r)
	}
	l.buffers()
}

func TestFlowEndEvent(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	l.one(wan, udp(web, 53, ours, v.SrcPort))
	l.pass(301)
	r := l.last()
	if r.Kind != telemetry.FlowEnd || r.Packets != 2 || r.Bytes != 64 || r.FlowID == 0 {
		t.Fatalf("event %+v", r)
	}
}
