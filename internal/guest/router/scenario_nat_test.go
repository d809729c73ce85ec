package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func TestS16_Masquerade(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, syn(host, 4000, web, 80))
	if addr(v.Src).String() != ours || v.SrcPort != 4000 || addr(v.Dst).String() != web || v.TTL != 63 {
		t.Fatalf("left as %v, TTL %d", v, v.TTL)
	}
	if r := l.last(); packet.Addr(binary.BigEndian.Uint32(r.XlatAddr[12:])) != ip(ours) || r.XlatPort != 4000 {
		t.Fatalf("event %+v", r)
	}
	// The answer's event names the external endpoint too, though its port is the host's.
	l.one(wan, tcpSeg(web, 80, ours, 4000, packet.SYN|packet.ACK, 1, 1001))
	if r := l.last(); !r.Answer || !tupleIs(r, web, 80, host, 4000) || r.XlatAddr != ip(ours).To16() || r.XlatPort != 4000 || !r.XlatDst {
		t.Fatalf("event %+v", r)
	}
	// The same port of another host gets another one, of the same parity.
	w := l.one(lan, syn("10.0.0.3", 4000, web, 80))
	if w.SrcPort == 4000 || w.SrcPort%2 != 0 || w.SrcPort < 1024 {
		t.Fatalf("second host got port %d", w.SrcPort)
	}
}

// TestS16_EndpointIndependentMapping (RFC 4787 REQ-1): one endpoint has one external port,
// whatever the destination, and no other endpoint has it.
func TestS16_EndpointIndependentMapping(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53)) // takes the preserved port
	a := l.one(lan, udp(host, 4000, web, 53)).SrcPort
	if b := l.one(lan, udp(host, 4000, "192.0.2.9", 123)).SrcPort; b != a || a == 4000 {
		t.Fatalf("ports %d and %d", a, b)
	}
	// Filtering stays address- and port-dependent.
	l.dropped(wan, udp("192.0.2.9", 53, ours, a), verdict.NoMatchingAllowRule)
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
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3007 }, "accept egress", established)
	ports := map[uint16]bool{}
	for i := range 8 {
		v := l.one(lan, udp(host, uint16(5000+i), web, 53))
		if ports[v.SrcPort] || v.SrcPort < 3000 || v.SrcPort > 3007 {
			t.Fatalf("port %d", v.SrcPort)
		}
		ports[v.SrcPort] = true
	}
	l.dropped(lan, udp(host, 6000, web, 53), verdict.NATPortPoolExhausted)
	l.one(lan, syn(host, 6000, web, 80)) // TCP has ports of its own
	l.pass(31)
	l.one(lan, udp(host, 6000, web, 53))
}

func TestS22_HairpinIsRefused(t *testing.T) {
	l := newLab(t, "accept")
	l.dropped(lan, syn(host, 4000, ours, 443), verdict.HairpinUnsupported)
	if r := l.last(); r.Reason != verdict.HairpinUnsupported {
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
	l.dropped(wan, embed("192.0.2.1", ours, packet.Unreachable, 3, v), verdict.ConntrackInvalid)
	bad := embed("192.0.2.1", ours, packet.Unreachable, 3, v)
	bad.data = bad.data[:20]
	l.dropped(wan, bad, verdict.MalformedPacket)
}
