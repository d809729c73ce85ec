package router

import (
	"encoding/binary"
	"maps"
	"testing"

	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// quotes returns the packet that an ICMP error quotes, which must be of the
// given type and code.
func (v *view) quotes(t testing.TB, typ, code uint8) packet.Packet {
	t.Helper()
	var q packet.Packet
	if v.Proto != packet.ICMP || v.ICMPType != typ || v.ICMPCode != code || !packet.ParseEmbedded(v.frame[int(v.L4)+packet.ICMPLen:], &q) {
		t.Fatalf("want ICMP %d/%d, got %v %d/%d: %x", typ, code, v, v.ICMPType, v.ICMPCode, v.frame)
	}
	return q
}

// answered requires that a packet is dropped as why with one answer.
func (l *lab) answered(from int, p pkt, why verdict.Reason) *view {
	l.t.Helper()
	before := l.e.c.DropReasons[why]
	across, back := l.put(from, p)
	if len(across) != 0 || len(back) != 1 || l.e.c.DropReasons[why] != before+1 {
		l.t.Fatalf("%d crossed, %d answers, want 0 and 1; drops: %s", len(across), len(back), l.drops())
	}
	return back[0]
}

// unanswered requires that a packet is dropped as why without a word.
func (l *lab) unanswered(from int, p pkt, why verdict.Reason) {
	l.t.Helper()
	before := l.e.c.DropReasons[why]
	if across, back := l.put(from, p); len(across) != 0 || len(back) != 0 || l.e.c.DropReasons[why] != before+1 {
		l.t.Fatalf("%d crossed, answers %v, want none; drops: %s", len(across), back, l.drops())
	}
}

// TestRFC5508_REQ8_RejectAnswersProhibited: what is not TCP is answered with
// ICMP 3/13 from the address of the side where it came from.
func TestRFC5508_REQ8_RejectAnswersProhibited(t *testing.T) {
	l := newLab(t, "reject egress udp :53", "reject egress icmp", "reject ingress udp", "accept egress")
	v := l.answered(lan, udp(host, 4000, web, 53), verdict.ExplicitDeny)
	q := v.quotes(t, packet.Unreachable, packet.Prohibited)
	if addr(v.Src).String() != "10.0.0.1" || addr(v.Dst).String() != host || q.SrcPort != 4000 || q.DstPort != 53 || q.Dst != ip(web) {
		t.Fatalf("answer %v about %+v", v, q)
	}
	l.answered(lan, echo(host, web, packet.EchoRequest, 3), verdict.ExplicitDeny).quotes(t, packet.Unreachable, packet.Prohibited)
	v = l.answered(wan, udp(web, 4000, ours, 161), verdict.ExplicitDeny)
	v.quotes(t, packet.Unreachable, packet.Prohibited)
	if addr(v.Src).String() != ours {
		t.Fatalf("answer %v", v)
	}
	if l.e.c.Drops[0] != 1 || l.e.c.Drops[1] != 1 || l.e.c.Drops[2] != 1 || l.e.c.ICMPErrorsSent != 3 {
		t.Fatalf("drops by rule %v, %d errors sent", l.e.c.Drops, l.e.c.ICMPErrorsSent)
	}
	if r := l.last(); r.Action != verdict.Drop || r.Reason != verdict.ExplicitDeny || r.Rule != 2 {
		t.Fatalf("event %+v", r)
	}
	l.buffers()
}

func TestRejectByDefault(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Reject }, "accept egress tcp", "deny egress udp :123")
	l.answered(lan, udp(host, 4000, web, 53), verdict.NoMatchingAllowRule).quotes(t, packet.Unreachable, packet.Prohibited)
	l.unanswered(lan, udp(host, 4000, web, 123), verdict.ExplicitDeny) // deny stays silent
	l = newLab(t, "accept egress tcp")
	l.unanswered(lan, udp(host, 4000, web, 53), verdict.NoMatchingAllowRule)
}

// TestRFC9293_S3_10_7_1_RejectResetsTCP: sequence and acknowledgement numbers of
// the RST are those that its receiver accepts.
func TestRFC9293_S3_10_7_1_RejectResetsTCP(t *testing.T) {
	for _, c := range []struct {
		name     string
		p        pkt
		flags    uint8
		seq, ack uint32
	}{
		{"SYN", syn(host, 4000, web, 25), packet.RST | packet.ACK, 0, 1001},
		{"SYN with data", func() pkt { p := syn(host, 4000, web, 25); p.data = []byte("early"); return p }(), packet.RST | packet.ACK, 0, 1006},
		{"SYN with ECN bits", tcpSeg(host, 4000, web, 25, packet.SYN|0xc0, 1000, 0), packet.RST | packet.ACK, 0, 1001},
		{"SYN at the end of sequence space", tcpSeg(host, 4000, web, 25, packet.SYN, 0xffffffff, 0), packet.RST | packet.ACK, 0, 0},
		{"ACK of a connection from before", tcpSeg(host, 4000, web, 25, packet.ACK, 77, 5555), packet.RST, 5555, 0},
		{"SYN-ACK", tcpSeg(host, 4000, web, 25, packet.SYN|packet.ACK, 77, 5555), packet.RST, 5555, 0},
		{"FIN", tcpSeg(host, 4000, web, 25, packet.FIN, 77, 0), packet.RST | packet.ACK, 0, 78},
		{"nothing", tcpSeg(host, 4000, web, 25, 0, 77, 0), packet.RST | packet.ACK, 0, 77},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "reject egress tcp :25", "accept egress")
			v := l.answered(lan, c.p, verdict.ExplicitDeny)
			if len(v.frame) != packet.EthLen+packet.MinIPv4+packet.TCPLen {
				t.Errorf("a RST of %d bytes", len(v.frame))
			}
			if addr(v.Src).String() != web || v.SrcPort != 25 || addr(v.Dst).String() != host || v.DstPort != 4000 {
				t.Fatalf("answer %v", v)
			}
			if v.Flags != c.flags || v.Seq != c.seq || v.Ack != c.ack || v.Payload != 0 || v.Window != 0 {
				t.Fatalf("flags %#x, seq %d, ack %d; want %#x, %d, %d", v.Flags, v.Seq, v.Ack, c.flags, c.seq, c.ack)
			}
			if l.e.flows.Len() != 0 || l.e.c.ResetsSent != 1 {
				t.Fatalf("%d flows, %d resets", l.e.flows.Len(), l.e.c.ResetsSent)
			}
			l.buffers()
		})
	}
}

// TestRFC1812_S4_3_2_7_WhatIsNotAnswered: errors about errors, resets, and
// senders that cannot be one host.
func TestRFC1812_S4_3_2_7_WhatIsNotAnswered(t *testing.T) {
	l := newLab(t, "reject")
	l.unanswered(lan, tcpSeg(host, 4000, web, 25, packet.RST, 1, 0), verdict.ConntrackInvalid)
	l.unanswered(lan, tcpSeg(host, 4000, web, 25, packet.RST|packet.ACK, 1, 1), verdict.ConntrackInvalid)
	for _, typ := range []uint8{packet.Unreachable, packet.TimeExceeded, packet.ParamProblem, 4, 5, 13, 40} {
		p := pkt{src: host, dst: web, proto: packet.ICMP, typ: typ, data: udp(web, 1, host, 2).frame(lanMAC)[packet.EthLen:]}
		l.unanswered(lan, p, verdict.ConntrackInvalid)
		p.ttl = 1
		l.unanswered(lan, p, verdict.ConntrackInvalid)
	}
	for _, src := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.255", "10.0.0.1", web} {
		l.unanswered(lan, udp(src, 4000, web, 53), verdict.Martian)
		l.unanswered(lan, syn(src, 4000, web, 53), verdict.Martian)
	}
	cast := udp(host, 4000, web, 53)
	cast.mac = &broadcastMAC
	l.unanswered(lan, cast, verdict.Martian)
	frag := udp(host, 4000, web, 53)
	frag.frag = 3
	l.unanswered(lan, frag, verdict.FragmentedIPv4)
	broken := udp(host, 4000, web, 53)
	broken.break4 = true
	l.unanswered(lan, broken, verdict.MalformedPacket)
}

// TestRFC1812_S4_3_2_8_AnswersAreRateLimited: each kind on each side by itself.
func TestRFC1812_S4_3_2_8_AnswersAreRateLimited(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1000 }, "reject egress tcp :25", "reject ingress udp", "accept egress")
	n := 0
	for i := range 400 {
		_, back := l.put(lan, syn(host, uint16(1000+i), web, 25))
		n += len(back)
	}
	if n != icmperr.Burst || l.e.c.AnswersSuppressed != 300 {
		t.Fatalf("%d answers to 400 SYNs at one instant, %d suppressed", n, l.e.c.AnswersSuppressed)
	}
	big := udp(host, 4000, web, 53)
	big.data, big.df = make([]byte, 1100), true
	l.answered(lan, big, verdict.PacketTooBig).quotes(t, packet.Unreachable, packet.FragNeeded)
	short := udp(host, 4000, web, 53)
	short.ttl = 1
	l.answered(lan, short, verdict.TTLExpired)
	l.answered(wan, udp(web, 4000, ours, 53), verdict.ExplicitDeny)
	l.pass(0.1)
	l.answered(lan, syn(host, 999, web, 25), verdict.ExplicitDeny)
}

// TestRFC1812_S4_3_2_3_ErrorsFit576Bytes: as much as fits is quoted.
func TestRFC1812_S4_3_2_3_ErrorsFit576Bytes(t *testing.T) {
	l := newLab(t, "reject")
	for _, c := range []struct{ data, total int }{{1400, 576}, {0, 20 + 8 + 28}, {520, 576}, {519, 575}} {
		p := udp(host, 4000, web, 53)
		p.data = make([]byte, c.data)
		v := l.answered(lan, p, verdict.ExplicitDeny)
		if int(v.Total) != c.total {
			t.Fatalf("%d bytes about %d", v.Total, c.data)
		}
		if orig := p.frame(lanMAC); string(v.frame[int(v.L4)+8:]) != string(orig[packet.EthLen:][:v.Total-28]) {
			t.Fatal("it does not quote the packet as it was sent")
		}
	}
}

// TestRFC5508_REQ10d_ErrorsHavePrecedence (RFC 1812 section 4.3.2.5), and the
// answer to an echo request the class of the request.
func TestRFC5508_REQ10d_ErrorsHavePrecedence(t *testing.T) {
	l := newLab(t, "reject egress udp", "accept")
	if v := l.answered(lan, udp(host, 4000, web, 53), verdict.ExplicitDeny); v.frame[packet.EthLen+1] != 0xc0 {
		t.Fatalf("TOS %#x", v.frame[packet.EthLen+1])
	}
	f := echo(host, "10.0.0.1", packet.EchoRequest, 1).frame(lanMAC)
	packet.SetTOS(f[packet.EthLen:], 0x2c)
	if _, back := l.raw(lan, f); len(back) != 1 || back[0].frame[packet.EthLen+1] != 0x2c {
		t.Fatalf("echo reply %v", back)
	}
}

// TestRFC5508_REQ8_NoResources: where the default is to reject, a sender whose flow finds
// no port or no room is notified.
func TestRFC5508_REQ8_NoResources(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.DefaultAction = ruleset.Reject
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3000
	}, "accept egress")
	l.one(lan, udp(host, 5000, web, 53))
	l.answered(lan, udp("10.0.0.3", 5000, web, 53), verdict.NATPortPoolExhausted).quotes(t, packet.Unreachable, packet.Prohibited)
	l.one(lan, syn(host, 5000, web, 53))
	l.answered(lan, syn("10.0.0.3", 5000, web, 53), verdict.NATPortPoolExhausted).quotes(t, packet.Unreachable, packet.Prohibited)
	l.buffers()
}

// TestRFC5382_REQ4_UnsolicitedSYN: it is answered after 6 seconds, with ICMP
// 3/3, once for all its repetitions.
func TestRFC5382_REQ4_UnsolicitedSYN(t *testing.T) {
	l := newLab(t, "accept egress", "reject ingress new", established)
	p := syn(web, 4000, ours, 5000)
	for range 3 {
		l.unanswered(wan, p, verdict.ExplicitDeny)
		l.pass(1)
	}
	l.pass(2.9)
	if got := l.taken(wan); len(got) != 0 {
		t.Fatalf("answered too early: %v", got[0])
	}
	if d := l.e.NextDeadline(); d > l.now+200e6 {
		t.Fatalf("the next deadline is in %v s", float64(d-l.now)/1e9)
	}
	l.pass(0.2)
	got := l.taken(wan)
	if len(got) != 1 {
		t.Fatalf("%d answers, want 1", len(got))
	}
	q := got[0].quotes(t, packet.Unreachable, packet.PortUnreachable)
	if q.Src != ip(web) || q.Dst != ip(ours) || q.SrcPort != 4000 || q.DstPort != 5000 || addr(got[0].Src).String() != ours {
		t.Fatalf("answer %v about %+v", got[0], q)
	}
	l.pass(60)
	if got := l.taken(wan); len(got) != 0 || l.e.c.ICMPErrorsSent != 1 {
		t.Fatalf("%d more", len(got))
	}
	l.buffers()
}

// TestRFC5382_REQ4_SimultaneousOpen: nothing is sent when the host on the LAN opens the
// same connection meanwhile.
func TestRFC5382_REQ4_SimultaneousOpen(t *testing.T) {
	l := newLab(t, "accept egress", "reject ingress new", established)
	l.unanswered(wan, syn(web, 4000, ours, 5000), verdict.ExplicitDeny)
	l.pass(3)
	l.one(lan, syn(host, 5000, web, 4000))
	l.pass(10)
	if got := l.taken(wan); len(got) != 0 {
		t.Fatalf("answered: %v", got[0])
	}
}

// TestRFC5382_REQ4_HeldIsBounded: a flood of SYNs costs no more than the queue.
func TestRFC5382_REQ4_HeldIsBounded(t *testing.T) {
	l := newLab(t, "reject")
	l.answered(wan, udp(web, 1, ours, 22), verdict.ExplicitDeny) // the gateway is known from now on
	for i := range 2 * icmperr.MaxDelayed {
		l.unanswered(wan, syn(web, uint16(1000+i), ours, 22), verdict.ExplicitDeny)
	}
	if l.e.delayed.Len() != icmperr.MaxDelayed || l.e.c.AnswersSuppressed != icmperr.MaxDelayed {
		t.Fatalf("%d held, %d given up", l.e.delayed.Len(), l.e.c.AnswersSuppressed)
	}
	l.pass(7)
	if got := l.taken(wan); len(got) != icmperr.Burst || l.e.delayed.Len() != 0 {
		t.Fatalf("%d answers, %d held", len(got), l.e.delayed.Len())
	}
	l.buffers()
}

// TestRFC5382_REQ4a_DenyIsSilent: the policy determines when there is no answer.
func TestRFC5382_REQ4a_DenyIsSilent(t *testing.T) {
	l := newLab(t, "accept egress", "deny ingress")
	l.unanswered(wan, syn(web, 4000, ours, 5000), verdict.ExplicitDeny)
	l.pass(10)
	if got := l.taken(wan); len(got) != 0 {
		t.Fatalf("answered: %v", got[0])
	}
}

// TestRejectedReplies: a rule may reject the answers of a flow.
func TestRejectedReplies(t *testing.T) {
	l := newLab(t, "accept egress", "reject ingress established")
	v := l.one(lan, syn(host, 4000, web, 80))
	a := l.answered(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001), verdict.ExplicitDeny)
	if a.Flags != packet.RST || a.Seq != 1001 || addr(a.Src).String() != ours || addr(a.Dst).String() != web {
		t.Fatalf("answer %v, flags %#x, seq %d", a, a.Flags, a.Seq)
	}
	l.answered(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001), verdict.ExplicitDeny)
}

// TestRFC1812_S5_2_7_1_HostUnreachable: the sender of a packet to a neighbour that does not
// answer is notified, with a quote of the packet as it was sent.
func TestRFC1812_S5_2_7_1_HostUnreachable(t *testing.T) {
	const gone = "203.0.113.99"
	dead[ip(gone)] = true
	defer delete(dead, ip(gone))
	l := newLabWith(t, withDNAT(dnat(packet.UDP, ours, 5300, 5300, "10.0.0.99", 53)), "accept", established)
	l.one(lan, udp("10.0.0.3", 4000, web, 53)) // takes the preserved port
	l.put(lan, udp(host, 4000, gone, 53))
	for range 45 {
		l.pass(0.1)
	}
	got := l.taken(lan)
	if len(got) != 1 || l.e.c.DropReasons[verdict.NeighbourUnresolved] != 1 {
		t.Fatalf("%d answers; drops: %s", len(got), l.drops())
	}
	q := got[0].quotes(t, packet.Unreachable, packet.HostUnreachable)
	if q.Src != ip(host) || q.SrcPort != 4000 || q.Dst != ip(gone) || addr(got[0].Dst).String() != host || addr(got[0].Src).String() != "10.0.0.1" {
		t.Fatalf("answer %v about %v:%d > %v", got[0], addr(q.Src), q.SrcPort, addr(q.Dst))
	}
	l.put(wan, udp(web, 7000, ours, 5300))
	for range 45 {
		l.pass(0.1)
	}
	if got := l.taken(wan); len(got) != 1 {
		t.Fatalf("%d answers on the WAN", len(got))
	} else if q := got[0].quotes(t, packet.Unreachable, packet.HostUnreachable); q.Dst != ip(ours) || q.DstPort != 5300 || q.SrcPort != 7000 {
		t.Fatalf("about %+v", q)
	}
	l.buffers()
}

// TestRFC1812_S5_3_1_TimeExceededIsSwitchable.
func TestRFC1812_S5_3_1_TimeExceededIsSwitchable(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Flags = ruleset.FlagNoTimeExceeded }, "accept")
	p := udp(host, 4000, web, 53)
	p.ttl = 1
	l.unanswered(lan, p, verdict.TTLExpired)
}

// TestRFC6864_S4_OwnMessagesAreAtomic: the firewall's own errors and resets may
// not be fragmented, so that their identification need not be unique.
func TestRFC6864_S4_OwnMessagesAreAtomic(t *testing.T) {
	l := newLab(t, "reject")
	for _, p := range []pkt{udp(host, 4000, web, 53), syn(host, 4000, web, 53)} {
		v := l.answered(lan, p, verdict.ExplicitDeny)
		if w := binary.BigEndian.Uint16(v.frame[packet.EthLen+6:]); w != 0x4000 {
			t.Fatalf("flags and offset %#x", w)
		}
	}
}

// TestRFC5508_REQ8_OtherProtocols: the sender of a protocol that does not pass is notified
// where the policy rejects what it does not accept.
func TestRFC5508_REQ8_OtherProtocols(t *testing.T) {
	byDefault := func(a ruleset.Action) func(p *ruleset.Policy) {
		return func(p *ruleset.Policy) { p.Settings.DefaultAction = a }
	}
	for _, proto := range []uint8{2, 47, 50, 132} {
		p := pkt{src: host, dst: web, proto: proto, data: make([]byte, 20)}
		l := newLabWith(t, byDefault(ruleset.Reject), "accept egress tcp")
		v := l.answered(lan, p, verdict.NoMatchingAllowRule)
		if v.ICMPType != packet.Unreachable || v.ICMPCode != packet.Prohibited || v.frame[int(v.L4)+8+9] != proto {
			t.Fatalf("protocol %d: %v %d/%d", proto, v, v.ICMPType, v.ICMPCode)
		}
		l.answered(wan, pkt{src: web, dst: "10.0.0.5", proto: proto, data: make([]byte, 20)}, verdict.NoMatchingAllowRule)
		l = newLabWith(t, byDefault(ruleset.Deny), "accept egress", "reject ingress tcp")
		l.unanswered(lan, p, verdict.ConntrackInvalid)
		l = newLabWith(t, byDefault(ruleset.Deny), "reject egress udp")
		l.unanswered(lan, p, verdict.ConntrackInvalid)
	}
}

// TestRFC5508_REQ8_NothingThere: where the default is to reject, a sender that is accepted,
// to a service that the firewall lacks, is notified as well: a service of its own, a server
// by its external address without hairpin. A SYN from outside has to wait (RFC 5382 REQ-4),
// and a reset hears nothing.
func TestRFC5508_REQ8_NothingThere(t *testing.T) {
	for _, a := range []ruleset.Action{ruleset.Deny, ruleset.Reject} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = a }, "accept")
		l.one(lan, udp(host, 4001, web, 53)) // both neighbours are known from now on
		l.one(wan, udp(web, 53, ours, 4001))
		ask := func(from int, p pkt, why verdict.Reason) {
			t.Helper()
			if a == ruleset.Deny {
				l.unanswered(from, p, why)
			} else if v := l.answered(from, p, why); v.ICMPType != packet.Unreachable || v.ICMPCode != packet.Prohibited {
				t.Fatalf("%v, ICMP %d/%d", v, v.ICMPType, v.ICMPCode)
			}
		}
		ask(lan, syn(host, 4000, "10.0.0.1", 22), verdict.NoLocalService)
		ask(lan, udp(host, 4000, "10.0.0.1", 161), verdict.NoLocalService)
		ask(wan, udp(web, 4000, ours, 161), verdict.NoLocalService)
		ask(lan, syn(host, 4000, ours, 443), verdict.HairpinUnsupported)
		ask(lan, echo(host, ours, packet.EchoRequest, 1), verdict.HairpinUnsupported)
		l.unanswered(lan, tcpSeg(host, 4000, "10.0.0.1", 22, packet.RST, 1, 0), verdict.NoLocalService)
		l.unanswered(lan, pkt{src: host, dst: "10.0.0.1", proto: packet.ICMP, typ: 13, data: make([]byte, 12)}, verdict.NoLocalService)
		l.unanswered(wan, syn(web, 4000, ours, 22), verdict.NoLocalService)
		l.pass(6.1)
		got := l.taken(wan)
		if a == ruleset.Deny && len(got) != 0 || a == ruleset.Reject && len(got) != 1 {
			t.Fatalf("%d answers after 6 seconds", len(got))
		} else if a == ruleset.Reject {
			got[0].quotes(t, packet.Unreachable, packet.PortUnreachable)
		}
		l.invariants()
	}
}

// TestRFC1812_S4_3_2_8_HostUnreachableIsRateLimited: packets for many hosts that
// are not there wait, and end, together.
func TestRFC1812_S4_3_2_8_HostUnreachableIsRateLimited(t *testing.T) {
	old := dead
	dead = maps.Clone(dead)
	defer func() { dead = old }()
	l := newLabWith(t, routed, "accept", established)
	l.one(lan, udp(host, 4000, web, 53)) // the gateway is known from now on
	l.one(wan, udp(web, 53, host, 4000))
	for i := range 200 {
		a := ip("10.0.0.100") + packet.Addr(i%20)
		dead[a] = true
		l.put(wan, udp(web, uint16(1000+i), addr(a).String(), 53))
	}
	for range 45 {
		l.now += 1e8
		l.poll()
	}
	l.run()
	if got := l.taken(wan); len(got) != icmperr.Burst || l.e.c.AnswersSuppressed != 200-icmperr.Burst {
		t.Fatalf("%d answers, %d suppressed", len(got), l.e.c.AnswersSuppressed)
	}
	l.buffers()
}

// TestConflictsAreNotAnswered: where the default is to reject, the sender of what cannot be
// served is told, but not about a packet whose flow would be the one of another.
func TestConflictsAreNotAnswered(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.DefaultAction = ruleset.Reject
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000))}
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3000
	}, "accept egress", established)
	l.unanswered(lan, udp(server, 6000, ours, 5000), verdict.ConntrackInvalid)
	l.one(lan, udp(host, 4000, web, 53))
	v := l.answered(lan, udp("10.0.0.3", 4000, web, 53), verdict.NATPortPoolExhausted)
	v.quotes(t, packet.Unreachable, packet.Prohibited)
	l.invariants()
}

// TestHeldSYNsAreOfTheirKind: the late answer to a SYN counts as what it is.
func TestHeldSYNsAreOfTheirKind(t *testing.T) {
	l := newLab(t, "reject")
	l.unanswered(wan, syn(client, 4000, ours, 22), verdict.ExplicitDeny)
	l.now += icmperr.Delay
	l.run()
	if got := l.taken(wan); len(got) != 1 {
		t.Fatalf("answered by %v", got)
	}
	if a := l.e.port[wan].answers; !a.Used(icmperr.Rule) || a.Used(icmperr.Size) || a.Used(icmperr.TTL) {
		t.Error("another kind's rate is used up")
	}
}
