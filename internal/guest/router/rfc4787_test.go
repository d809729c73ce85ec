package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// RFC 4787: what a NAT does with UDP.

func TestRFC4787_REQ1_EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53)) // takes the preserved port
	a := l.one(lan, udp(host, 4000, web, 53)).SrcPort
	for i := range uint16(20) {
		if b := l.one(lan, udp(host, 4000, addr(ip("192.0.2.9")+packet.Addr(i)).String(), 2000+i)).SrcPort; b != a {
			t.Fatalf("ports %d and %d", a, b)
		}
	}
	// The mapping lasts as long as any flow that uses it.
	l.pass(100)
	l.one(lan, udp(host, 4000, "192.0.2.77", 9999))
	l.pass(100)
	if b := l.one(lan, udp(host, 4000, "192.0.2.78", 9999)).SrcPort; b != a {
		t.Fatalf("ports %d and %d", a, b)
	}
}

func TestRFC4787_REQ3_NoPortOverloading(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3009 }, "accept egress", established)
	owner := map[uint16]string{}
	for h := range packet.Addr(10) {
		src := addr(ip("10.0.0.100") + h).String()
		// Different destinations do not make it right to share a port.
		p := l.one(lan, udp(src, 4000, addr(ip("192.0.2.9")+h).String(), 53)).SrcPort
		if o := owner[p]; o != "" {
			t.Fatalf("%s and %s share port %d", o, src, p)
		}
		owner[p] = src
	}
	l.dropped(lan, udp("10.0.0.200", 4000, "192.0.2.99", 53), verdict.NATPortPoolExhausted)
}

func TestRFC4787_REQ3a_PortRange(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo = 1 }, "accept egress", established)
	for i, want := range []uint16{500, 5000} {
		for h := range packet.Addr(20) {
			p := l.one(lan, udp(addr(ip("10.0.0.100")+h).String(), want, web, uint16(53+i))).SrcPort
			if (p < 1024) != (want < 1024) || h == 0 && p != want {
				t.Fatalf("port %d became %d", want, p)
			}
		}
	}
}

func TestRFC4787_REQ4_PortParity(t *testing.T) {
	l := newLab(t, "accept egress", established)
	for _, want := range []uint16{5004, 5005} {
		for h := range packet.Addr(20) {
			if p := l.one(lan, udp(addr(ip("10.0.0.100")+h).String(), want, web, 53)).SrcPort; p%2 != want%2 {
				t.Fatalf("port %d became %d", want, p)
			}
		}
	}
}

func TestRFC4787_REQ5_TwoMinutes(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.pass(119)
	l.one(wan, udp(web, 5000, ours, v.SrcPort)).is(t, web, 5000, host, 4000)
}

func TestRFC4787_REQ5a_WellKnownPortsMayBeShorter(t *testing.T) {
	for port, seconds := range map[uint16]float64{53: 30, 123: 30, 1023: 30, 1024: 120} {
		l := newLab(t, "accept egress udp", established)
		l.one(lan, udp(host, 4000, web, port))
		l.pass(seconds - 1)
		if l.e.flows.Len() != 1 {
			t.Errorf("port %d: gone within %v s", port, seconds)
		}
		l.pass(2)
		if l.e.flows.Len() != 0 {
			t.Errorf("port %d: still there after %v s", port, seconds)
		}
	}
}

func TestRFC4787_REQ5b_TheTimerIsConfigurable(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.UDPUnreplied, p.Settings.UDPIdle = 200, 1000 }, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.pass(199)
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
	l.pass(199) // so long also after one answer
	l.one(lan, udp(host, 4000, web, 5000))
	l.pass(999)
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
	// A short time for answered flows bounds the others.
	l = newLabWith(t, func(p *ruleset.Policy) { p.Settings.UDPIdle = 60 }, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 5000))
	l.pass(61)
	if l.e.flows.Len() != 0 {
		t.Fatal("still there")
	}
}

func TestRFC4787_REQ5c_FiveMinutesByDefault(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
	l.one(lan, udp(host, 4000, web, 5000))
	l.pass(299)
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
}

func TestRFC4787_REQ6_OutboundRefreshes(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	for range 10 {
		l.pass(100)
		l.one(lan, udp(host, 4000, web, 5000))
	}
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
}

// TestRFC4787_REQ6a_InboundRefreshes: it may, and here it does; only packets
// that the filter lets in.
func TestRFC4787_REQ6a_InboundRefreshes(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	for range 10 {
		l.pass(250)
		if l.e.flows.Len() == 0 {
			v = l.one(lan, udp(host, 4000, web, 5000))
		}
		l.one(wan, udp(web, 5000, ours, v.SrcPort))
	}
	l.pass(290)
	l.dropped(wan, udp(web, 5001, ours, v.SrcPort), verdict.NoMatchingAllowRule)
	l.pass(11)
	if l.e.flows.Len() != 0 {
		t.Fatal("a stranger's packet refreshed the flow")
	}
}

func TestRFC4787_REQ8_FilteringIsAddressAndPortDependent(t *testing.T) {
	l := newLab(t, "accept egress udp", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.dropped(wan, udp(web, 5001, ours, v.SrcPort), verdict.NoMatchingAllowRule)
	l.dropped(wan, udp("198.51.100.81", 5000, ours, v.SrcPort), verdict.NoMatchingAllowRule)
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
}

// TestRFC4787_REQ10_NoALGs: no payload is looked at or changed.
func TestRFC4787_REQ10_NoALGs(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 5060, web, 5060)) // takes the preserved port
	p := udp(host, 5060, web, 5060)
	p.data = []byte("REGISTER sip:example.com SIP/2.0\r\nContact: <sip:10.0.0.2:5060>\r\n\r\n")
	v := l.one(lan, p)
	if got := string(v.frame[int(v.L4)+packet.UDPLen:]); got != string(p.data) {
		t.Fatalf("payload %q", got)
	}
	l.dropped(wan, udp(web, 9, ours, 5060+1), verdict.NoMatchingAllowRule)
}

// TestRFC4787_REQ11_Deterministic: a conflict, or load, does not change how
// mappings and filters behave.
func TestRFC4787_REQ11_Deterministic(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3015 }, "accept egress", established)
	first := map[string]uint16{}
	for h := range packet.Addr(16) {
		src := addr(ip("10.0.0.100") + h).String()
		first[src] = l.one(lan, udp(src, 3000, web, 5000)).SrcPort
	}
	l.dropped(lan, udp("10.0.0.200", 3000, web, 5000), verdict.NATPortPoolExhausted)
	for src, p := range first {
		if v := l.one(lan, udp(src, 3000, "192.0.2.9", 5001)); v.SrcPort != p {
			t.Fatalf("%s: ports %d and %d", src, p, v.SrcPort)
		}
		l.dropped(wan, udp("192.0.2.9", 5000, ours, p), verdict.NoMatchingAllowRule)
		l.one(wan, udp("192.0.2.9", 5001, ours, p)).is(t, "192.0.2.9", 5001, src, 3000)
	}
}

// TestRFC4787_REQ12_ICMPErrorsDoNotEndMappings: whatever their source (REQ-12a).
func TestRFC4787_REQ12_ICMPErrorsDoNotEndMappings(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	for _, from := range []string{web, "192.0.2.1"} {
		for _, typ := range []uint8{packet.Unreachable, packet.TimeExceeded, packet.ParamProblem} {
			l.one(wan, embed(from, ours, typ, 1, v))
		}
	}
	l.one(wan, udp(web, 5000, ours, v.SrcPort)).is(t, web, 5000, host, 4000)
}

// TestRFC5508_REQ1a_QueryMapping: an identifier's mapping does not depend on
// whom is asked.
func TestRFC5508_REQ1a_QueryMapping(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, echo("10.0.0.3", web, packet.EchoRequest, 77)) // takes the preserved identifier
	a := l.one(lan, echo(host, web, packet.EchoRequest, 77)).SrcPort
	b := l.one(lan, echo(host, "192.0.2.9", packet.EchoRequest, 77)).SrcPort
	if a != b || a == 77 {
		t.Fatalf("identifiers %d and %d", a, b)
	}
	for _, s := range []string{web, "192.0.2.9"} {
		if v := l.one(wan, echo(s, ours, packet.EchoReply, a)); v.Dst != ip(host) || v.SrcPort != 77 {
			t.Fatalf("%v", v)
		}
	}
}

func TestRFC5508_REQ2_QueryTimer(t *testing.T) {
	l := newLab(t, "accept egress", established)
	a := l.one(lan, echo(host, web, packet.EchoRequest, 77)).SrcPort
	l.pass(59)
	l.one(wan, echo(web, ours, packet.EchoReply, a))
}
