package router

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// quoted returns an ICMP error that quotes the first n bytes of the IP packet
// in a frame, with what edit makes of them.
func quoted(src, dst string, typ, code uint8, frame []byte, n int, edit func(q []byte)) pkt {
	q := append([]byte(nil), frame[packet.EthLen:]...)
	q = q[:min(n, len(q))]
	if edit != nil {
		edit(q)
	}
	return pkt{src: src, dst: dst, proto: packet.ICMP, typ: typ, code: code, data: q}
}

// resum computes the header checksum of a quoted packet anew.
func resum(q []byte) {
	hl := int(q[0]&15) * 4
	q[10], q[11] = 0, 0
	binary.BigEndian.PutUint16(q[10:], ^packet.Sum(q[:hl], 0))
}

// flowOut opens a flow with a translated port and returns the packet that left.
func (l *lab) flowOut(p pkt) *view {
	l.t.Helper()
	other := p
	other.src = "10.0.0.3"
	l.one(lan, other) // takes the preserved port or identifier
	return l.one(lan, p)
}

func TestRFC5508_REQ3_BadICMPChecksum(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	e := quoted("192.0.2.1", ours, packet.Unreachable, 3, v.frame, 28, nil)
	e.break4 = true
	l.unanswered(wan, e, verdict.MalformedPacket)
	e.break4 = false
	l.one(wan, e)
}

func TestRFC5508_REQ3a_BadEmbeddedChecksum(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	l.unanswered(wan, quoted("192.0.2.1", ours, packet.Unreachable, 3, v.frame, 28, func(q []byte) { q[10] ^= 1 }), verdict.MalformedPacket)
}

func TestRFC5508_REQ3b_EmbeddedOptionsAreSkipped(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	q := append([]byte(nil), v.frame[packet.EthLen:packet.EthLen+20]...)
	q = append(q, 7, 7, 4, 0, 0, 0, 0, 0) // record route, padded
	q = append(q, v.frame[packet.EthLen+20:]...)
	q[0] = 0x47
	resum(q)
	e := l.one(wan, pkt{src: "192.0.2.1", dst: ours, proto: packet.ICMP, typ: packet.Unreachable, code: 3, data: q})
	in := e.quotes(t, packet.Unreachable, 3)
	if in.Src != ip(host) || in.SrcPort != 4000 || in.DstPort != 53 {
		t.Fatalf("quotes %v:%d > %d", addr(in.Src), in.SrcPort, in.DstPort)
	}
	if got := e.frame[int(e.L4)+8+20:][:8]; !bytes.Equal(got, q[20:28]) {
		t.Fatalf("the options became %x", got)
	}
}

// TestRFC5508_REQ3c_EmbeddedTransportChecksumIsNotChecked, and one that was
// right is right after the translation.
func TestRFC5508_REQ3c_EmbeddedTransportChecksumIsNotChecked(t *testing.T) {
	for _, p := range []pkt{large(udp(host, 4000, web, 53), 40), large(syn(host, 4000, web, 80), 40), large(echo(host, web, packet.EchoRequest, 5), 40)} {
		off := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMP: 2}[p.proto]
		for _, wrong := range []bool{false, true} {
			l := newLab(t, "accept egress", established)
			v := l.flowOut(p)
			e := l.one(wan, quoted("192.0.2.1", ours, packet.TimeExceeded, 0, v.frame, 600, func(q []byte) {
				if wrong {
					q[20+off] ^= 0x10
				}
			}))
			q := e.frame[int(e.L4)+8:]
			sum := uint64(0)
			if p.proto != packet.ICMP {
				sum = uint64(ip(host)) + uint64(ip(web)) + uint64(p.proto) + uint64(len(q)-20)
			}
			if right := packet.Sum(q[20:], sum) == 0xffff; right == wrong {
				t.Errorf("protocol %d: quoted checksum right: %v, was wrong: %v", p.proto, right, wrong)
			}
		}
	}
}

// TestRFC5508_REQ3d_Extensions: an extension structure behind the quoted packet
// (RFC 4884) is neither looked at nor changed.
func TestRFC5508_REQ3d_Extensions(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	data := make([]byte, 128)
	copy(data, v.frame[packet.EthLen:])
	ext := []byte{0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 0, 1, 0x81, 1} // version 2, a wrong checksum, an MPLS label
	p := pkt{src: "192.0.2.1", dst: ours, proto: packet.ICMP, typ: packet.TimeExceeded, data: append(data, ext...)}
	p.sport = 32 // the length field, in words, lies where an echo has its identifier
	e := l.one(wan, p)
	if got := e.frame[len(e.frame)-len(ext):]; !bytes.Equal(got, ext) || e.frame[int(e.L4)+5] != 32 {
		t.Fatalf("extension %x, length %d", got, e.frame[int(e.L4)+5])
	}
	e.quotes(t, packet.TimeExceeded, 0)
}

// TestRFC5508_REQ4_ErrorsFromOutside: types and codes stay, both headers are translated,
// whichever router sends them (RFC 4787 REQ-12a), and whatever of the packet they quote
// from the 8 bytes on that RFC 792 asks for.
func TestRFC5508_REQ4_ErrorsFromOutside(t *testing.T) {
	for _, p := range []pkt{udp(host, 4000, web, 53), syn(host, 4000, web, 80), echo(host, web, packet.EchoRequest, 5)} {
		for _, c := range []struct{ typ, code uint8 }{
			{3, 0}, {3, 1}, {3, 2}, {3, 3}, {3, 4}, {3, 9}, {3, 10}, {3, 13}, {3, 15}, {11, 0}, {11, 1}, {12, 0}, {12, 2}} {
			for _, n := range []int{28, 29, 36, 48, 600} {
				l := newLab(t, "accept egress", established)
				v := l.flowOut(p)
				from := []string{"192.0.2.1", web, "203.0.113.1", "172.16.9.9"}[int(c.code)%4]
				e := l.one(wan, quoted(from, ours, c.typ, c.code, v.frame, n, nil))
				q := e.quotes(t, c.typ, c.code)
				if e.Src != ip(from) || e.Dst != ip(host) || q.Src != ip(host) || q.Dst != ip(web) || q.SrcPort != p.sport {
					t.Fatalf("ICMP %d/%d quoting %d bytes: %v about %+v", c.typ, c.code, n, e, q)
				}
			}
		}
	}
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	for n := range 28 {
		l.unanswered(wan, quoted("192.0.2.1", ours, 3, 3, v.frame, n, nil), verdict.MalformedPacket)
	}
	l.invariants()
}

// TestRFC5508_REQ4_PathMTU: the MTU of the next hop arrives unchanged, in both
// directions.
func TestRFC5508_REQ4_PathMTU(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	e := quoted("192.0.2.1", ours, 3, 4, v.frame, 28, nil)
	f := e.frame(wanMAC)
	m := f[packet.EthLen+20:]
	binary.BigEndian.PutUint16(m[6:], 1392)
	packet.FinishICMP(m)
	got, _ := l.raw(wan, f)
	if len(got) != 1 || binary.BigEndian.Uint16(got[0].frame[int(got[0].L4)+6:]) != 1392 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	back := l.one(wan, udp(web, 53, ours, v.SrcPort))
	e = quoted(host, web, 3, 4, back.frame, 28, nil)
	f = e.frame(lanMAC)
	m = f[packet.EthLen+20:]
	binary.BigEndian.PutUint16(m[6:], 1280)
	packet.FinishICMP(m)
	got, _ = l.raw(lan, f)
	if len(got) != 1 || binary.BigEndian.Uint16(got[0].frame[int(got[0].L4)+6:]) != 1280 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	if q := got[0].quotes(t, 3, 4); q.Dst != ip(ours) || q.DstPort != v.SrcPort || got[0].Src != ip(ours) {
		t.Fatalf("%v about %+v", got[0], q)
	}
}

// TestRFC5508_REQ5c_OuterSource: errors from inside, from the host itself or a router before it;
// outside, both are the external address of the session (REQ-5c).
func TestRFC5508_REQ5c_OuterSource(t *testing.T) {
	for _, p := range []pkt{udp(host, 4000, web, 53), echo(host, web, packet.EchoRequest, 5)} {
		for _, from := range []string{host, "10.0.0.77"} {
			l := newLab(t, "accept egress", established)
			v := l.flowOut(p)
			a := udp(web, 53, ours, v.SrcPort)
			if p.proto == packet.ICMP {
				a = echo(web, ours, packet.EchoReply, v.SrcPort)
			}
			back := l.one(wan, a)
			e := l.one(lan, quoted(from, web, packet.Unreachable, 3, back.frame, 60, nil))
			q := e.quotes(t, packet.Unreachable, 3)
			if e.Src != ip(ours) || e.Dst != ip(web) || q.Src != ip(web) || q.Dst != ip(ours) || p.proto == packet.UDP && q.DstPort != v.SrcPort || q.Class == packet.ClassICMPQuery && q.SrcPort != v.SrcPort {
				t.Fatalf("from %s: %v about %+v", from, e, q)
			}
		}
	}
}

// TestRFC5508_REQ5_ErrorsAboutServers: the same for flows that began outside.
func TestRFC5508_REQ5_ErrorsAboutServers(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 8443)), "accept")
	v := l.one(wan, syn(client, 4000, ours, 443))
	e := l.one(lan, quoted(server, client, packet.Unreachable, 10, v.frame, 28, nil))
	if q := e.quotes(t, packet.Unreachable, 10); e.Src != ip(ours) || q.Dst != ip(ours) || q.DstPort != 443 || q.Src != ip(client) {
		t.Fatalf("%v about %+v", e, q)
	}
	a := l.one(lan, tcpSeg(server, 8443, client, 4000, packet.SYN|packet.ACK, 5000, 1001))
	e = l.one(wan, quoted("192.0.2.1", ours, packet.TimeExceeded, 0, a.frame, 40, nil))
	if q := e.quotes(t, packet.TimeExceeded, 0); e.Dst != ip(server) || q.Src != ip(server) || q.SrcPort != 8443 || q.Dst != ip(client) {
		t.Fatalf("%v about %+v", e, q)
	}
}

// TestRFC5508_REQ6_ErrorsDoNotChangeTheSession: neither its time nor its state
// (RFC 7857 section 7.1 for those from inside).
func TestRFC5508_REQ6_ErrorsDoNotChangeTheSession(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 5300))
	back := l.one(wan, udp(web, 5300, ours, v.SrcPort))
	before, reply := *l.e.flows.Dir(0), *l.e.flows.Dir(1)
	l.pass(100)
	l.one(wan, quoted("192.0.2.1", ours, packet.Unreachable, 1, v.frame, 28, nil))
	l.one(lan, quoted(host, web, packet.Unreachable, 3, back.frame, 28, nil))
	if *l.e.flows.Dir(0) != before || *l.e.flows.Dir(1) != reply {
		t.Fatalf("%+v, was %+v", l.e.flows.Dir(0), before)
	}
	l.pass(201) // 300 s after the last packet, though 200 s after the errors
	if l.e.flows.Len() != 0 {
		t.Fatal("the errors have prolonged the flow")
	}
}

// TestRFC5508_REQ4_ErrorsThatBelongToNothing: they are dropped: quoting what was never
// sent, or sent to another host than the quoted sender, or from the side to which the
// packet never went.
func TestRFC5508_REQ4_ErrorsThatBelongToNothing(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Accept }, established)
	v := l.flowOut(udp(host, 4000, web, 53))
	for name, e := range map[string]pkt{
		"another port":      quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[21] ^= 1 }),
		"another server":    quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[19] ^= 1; resum(q) }),
		"another protocol":  quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[9] = packet.TCP; resum(q) }),
		"to somebody else":  quoted("192.0.2.1", "10.0.0.3", 3, 3, v.frame, 28, nil),
		"the other way":     quoted("192.0.2.1", web, 3, 3, udp(web, 53, ours, v.SrcPort).frame(wanMAC), 28, nil),
		"internal tuple":    quoted("192.0.2.1", host, 3, 3, udp(host, 4000, web, 53).frame(lanMAC), 28, nil),
		"quoting an error":  quoted("192.0.2.1", ours, 3, 3, quoted(ours, web, 3, 3, v.frame, 28, nil).frame(wanMAC), 56, nil),
		"a later fragment":  quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[7] = 9; resum(q) }),
		"an unknown packet": quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[9] = 47; resum(q) }),
		"IPv6":              quoted("192.0.2.1", ours, 3, 3, v.frame, 28, func(q []byte) { q[0] = 0x65 }),
	} {
		t.Run(name, func(t *testing.T) {
			l.t = t
			n := l.e.c.ICMPErrorsTranslated
			if across, back := l.put(wan, e); len(across)+len(back) != 0 || l.e.c.ICMPErrorsTranslated != n {
				t.Fatalf("crossed %v, answered %v", across, back)
			}
		})
	}
	l.t = t
	l.unanswered(lan, quoted(host, web, 3, 3, v.frame, 28, nil), verdict.ConntrackInvalid)
	l.unanswered(lan, quoted("10.0.0.3", ours, 3, 3, v.frame, 28, nil), verdict.ConntrackInvalid) // in the name of a router outside
	l.invariants()
}

// TestRFC5508_REQ6_DeniedDirection: an error about packets that were not let
// through is not let through either.
func TestRFC5508_REQ6_DeniedDirection(t *testing.T) {
	l := newLab(t, "accept egress", "deny ingress")
	v := l.one(lan, udp(host, 4000, web, 53))
	back := udp(web, 53, ours, v.SrcPort)
	l.dropped(wan, back, verdict.ExplicitDeny)
	l.unanswered(lan, quoted(host, web, 3, 3, udp(web, 53, host, 4000).frame(wanMAC), 28, nil), verdict.ConntrackInvalid)
}

// TestRFC5508_REQ10_MessagesThatPass: echo, unreachable, time exceeded and
// parameter problem (REQ-10a, b); not source quench (REQ-10c, RFC 6633), nor
// what the firewall may refuse (REQ-10b, REQ-11): redirects, router messages,
// timestamp, information and address mask requests.
func TestRFC5508_REQ10_MessagesThatPass(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Accept }, "accept")
	v := l.one(lan, udp(host, 4000, web, 53))
	for typ := range 256 {
		pass := typ == 3 || typ == 11 || typ == 12
		if across, back := l.put(wan, quoted("192.0.2.1", ours, uint8(typ), 0, v.frame, 28, nil)); typ != packet.EchoRequest && (len(across) == 1) != pass || len(back) != 0 && typ != packet.EchoRequest {
			t.Errorf("type %d: crossed %v, answered %v", typ, across, back)
		}
		pass = typ == packet.EchoRequest
		if across, back := l.put(lan, pkt{src: host, dst: web, proto: packet.ICMP, typ: uint8(typ), sport: 7, data: make([]byte, 40)}); (len(across) == 1) != pass || len(back) != 0 {
			t.Errorf("type %d from inside: crossed %v, answered %v", typ, across, back)
		}
	}
	l.invariants()
}

// TestRFC5508_REQ10e_NoErrorsAboutErrors: not even where the error's own life
// ends here, or where it is too long.
func TestRFC5508_REQ10e_NoErrorsAboutErrors(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[0].MTU = 576 }, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	e := quoted("192.0.2.1", ours, 3, 3, v.frame, 28, nil)
	e.ttl = 1
	l.unanswered(wan, e, verdict.TTLExpired)
	e.ttl, e.data = 64, append(e.data, make([]byte, 600)...)
	e.df = true
	l.unanswered(wan, e, verdict.PacketTooBig)
}

// TestRFC5508_REQ9_PolicySuppressesErrors: see also
// TestRFC1812_S5_3_1_TimeExceededIsSwitchable. A policy may suppress all but what path
// MTU discovery needs.
func TestRFC5508_REQ9_PolicySuppressesErrors(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.Flags, p.Interfaces[1].MTU = ruleset.FlagNoTimeExceeded, 1000
	}, "accept egress udp :53")
	l.unanswered(lan, udp(host, 4000, web, 54), verdict.NoMatchingAllowRule)
	p := udp(host, 4000, web, 53)
	p.ttl = 1
	l.unanswered(lan, p, verdict.TTLExpired)
	p = large(udp(host, 4000, web, 53), 1100)
	p.df = true
	l.answered(lan, p, verdict.PacketTooBig)
}

// TestRFC5508_REQ4_OddErrors: a trailer of the link behind the error, IP options
// in front of it, the first fragment of a datagram in the quote, and any MTU: what
// to make of it is the host's business (RFC 1191 section 6).
func TestRFC5508_REQ4_OddErrors(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(syn(host, 4000, web, 80))
	whole := quoted("192.0.2.1", ours, packet.Unreachable, 3, v.frame, 28, nil).frame(wanMAC)
	got, _ := l.raw(wan, append(append([]byte(nil), whole...), 1, 2, 3, 4, 5))
	if len(got) != 1 || len(got[0].frame) != len(whole) {
		t.Fatalf("with a trailer: %v; drops: %s", got, l.drops())
	}
	f := append(append(append([]byte(nil), whole[:34]...), 148, 4, 0, 0), whole[34:]...)
	f[packet.EthLen] = 0x46
	binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
	resum(f[packet.EthLen:])
	if got, _ = l.raw(wan, f); len(got) != 1 {
		t.Fatalf("with an option: drops: %s", l.drops())
	}
	if q := got[0].quotes(t, packet.Unreachable, 3); q.Src != ip(host) || q.SrcPort != 4000 {
		t.Fatalf("with an option: about %+v", q)
	}
	e := l.one(wan, quoted("192.0.2.1", ours, packet.TimeExceeded, 1, v.frame, 28, func(q []byte) { q[6] = 0x20; resum(q) }))
	if q := e.quotes(t, packet.TimeExceeded, 1); q.Src != ip(host) {
		t.Fatalf("about a fragment: %+v", q)
	}
	for _, mtu := range []uint16{0, 1, 67, 1501, 65535} {
		f := quoted("192.0.2.1", ours, packet.Unreachable, packet.FragNeeded, v.frame, 28, nil).frame(wanMAC)
		m := f[packet.EthLen+20:]
		binary.BigEndian.PutUint16(m[6:], mtu)
		packet.FinishICMP(m)
		if got, _ := l.raw(wan, f); len(got) != 1 || binary.BigEndian.Uint16(got[0].frame[int(got[0].L4)+6:]) != mtu {
			t.Fatalf("MTU %d: %v", mtu, got)
		}
	}
	l.invariants()
}

// TestRFC5382_REQ9_UnreachableBeforeTheName: also about the handshake of a connection whose
// server name is not known yet.
func TestRFC5382_REQ9_UnreachableBeforeTheName(t *testing.T) {
	l := sniLab(t)
	v := l.one(lan, syn(host, 5000, cdn, 443))
	for _, code := range []uint8{1, packet.FragNeeded, packet.Prohibited} {
		e := l.one(wan, quoted("192.0.2.1", ours, packet.Unreachable, code, v.frame, 28, nil))
		if q := e.quotes(t, packet.Unreachable, code); q.Src != ip(host) || q.SrcPort != 5000 {
			t.Fatalf("about %+v", q)
		}
	}
}

// TestRFC5927_S4_1_QuotedSequenceNumbers: an error about a connection quotes a segment that
// may be under way, which who does not see the connection cannot guess; so no forged error
// reduces its segments or aborts an attempt.
func TestRFC5927_S4_1_QuotedSequenceNumbers(t *testing.T) {
	l := newLab(t, "accept egress", established)
	out := func(seq uint32) pkt {
		f := tcpSeg(ours, 4000, web, 80, packet.ACK, seq, 1).frame(wanMAC)
		return quoted("192.0.2.1", ours, packet.Unreachable, packet.FragNeeded, f, 28, nil)
	}
	back := func(seq uint32) pkt {
		f := tcpSeg(web, 80, host, 4000, packet.ACK, seq, 1).frame(wanMAC)
		return quoted(host, web, packet.Unreachable, packet.FragNeeded, f, 28, nil)
	}
	both := func(side int, of func(uint32) pkt, seq uint32, pass bool) {
		t.Helper()
		if pass {
			l.one(side, of(seq)).quotes(t, packet.Unreachable, packet.FragNeeded)
		} else {
			l.unanswered(side, of(seq), verdict.ConntrackInvalid)
		}
	}
	l.one(lan, syn(host, 4000, web, 80)) // 1000
	for seq, pass := range map[uint32]bool{1000: true, 1001: true, 1002: false, 1000 + 1<<31: false, 1000 + 0xfff00000: false} {
		both(wan, out, seq, pass)
	}
	l.one(wan, tcpSeg(web, 80, ours, 4000, packet.SYN|packet.ACK, 5000, 1001))
	both(lan, back, 5000, true)
	both(lan, back, 5002, false)
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
	for range 4 {
		d := large(tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001), 1000)
		for range 4 {
			l.one(lan, d)
			d.seq += 1000
		}
	}
	// 1001 to 5001 are under way; 3001 are acknowledged.
	l.one(wan, tcpSeg(web, 80, ours, 4000, packet.ACK, 5001, 3001))
	for seq, pass := range map[uint32]bool{1001: true, 3001: true, 4001: true, 5001: true, 5002: false, 3001 + 0xfff00000: false, 5001 + 1<<20: false} {
		both(wan, out, seq, pass)
	}
	for seq, pass := range map[uint32]bool{5000: true, 5001: true, 5002: false, 5001 + 0xfff00000: false} {
		both(lan, back, seq, pass)
	}
	// A SYN inside the connection passes to be challenged, and may meet an error.
	p := syn(host, 4000, web, 80)
	p.seq = 1 << 30
	l.one(lan, p)
	both(wan, out, 1<<30, true)
	both(wan, out, 1<<30+1, false)
	l.invariants()
	// The challenge of a server that knows an older connection acknowledges that
	// one's segments.
	l = newLab(t, "accept egress", established)
	l.one(lan, syn(host, 4000, web, 80))
	l.one(wan, tcpSeg(web, 80, ours, 4000, packet.ACK, 9, 1<<30))
	both(wan, out, 1000, true)
}

// TestErrorsToAnother: an ICMP error that is not to the source of what it quotes belongs to
// no flow, neither to that of the quoted packet nor to another.
func TestErrorsToAnother(t *testing.T) {
	for _, first := range []int{lan, wan} { // whose flow is the first of the table
		l := newLabWith(t, routed, "accept")
		if first == lan {
			l.one(lan, udp("10.0.0.3", 4000, client, 53))
		} else {
			l.one(wan, udp(client, 4000, "10.0.0.3", 53))
		}
		out := l.one(lan, udp(host, 4000, web, 53))
		in := l.one(wan, udp(web, 53, host, 4000))
		l.dropped(lan, embed(host, client, packet.Unreachable, 3, in), verdict.ConntrackInvalid)
		l.dropped(wan, embed(web, "10.0.0.3", packet.Unreachable, 3, out), verdict.ConntrackInvalid)
		l.one(lan, embed(host, web, packet.Unreachable, 3, in))
		l.one(wan, embed(web, host, packet.Unreachable, 3, out))
	}
}
