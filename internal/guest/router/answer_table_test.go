package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// load returns a packet as if it had arrived at a port, without polling.
func (l *lab) load(from int, p pkt, to [6]byte) *received {
	l.t.Helper()
	buf, _ := l.pool.Get()
	r := &received{in: &l.e.port[from], frame: framebuf.Frame{Buf: buf, Len: uint32(copy(l.pool.Buffer(buf)[headroom:], p.frame(to)))}}
	if _, why := packet.ParseIPv4(l.e.bytes(r), &r.Packet); why != 0 {
		l.t.Fatal(why)
	}
	return r
}

// TestHeldSYNQuotes: the part of a SYN that its answer quotes is kept: the IP header with
// its options and eight bytes.
func TestHeldSYNQuotes(t *testing.T) {
	for _, opts := range []int{0, 4, 40} {
		l := newLab(t, "reject")
		l.answered(wan, udp(web, 1, ours, 22), verdict.ExplicitDeny)
		f := syn(client, 4000, ours, 22).frame(wanMAC)
		var o []byte
		for range opts {
			o = append(o, 1)
		}
		f = append(append(append([]byte(nil), f[:34]...), o...), f[34:]...)
		f[packet.EthLen] = byte(0x45 + opts/4)
		f[packet.EthLen+3] += byte(opts)
		resum(f[packet.EthLen:])
		l.raw(wan, f)
		l.now += icmperr.Delay - 1
		if l.run(); len(l.taken(wan)) != 0 {
			t.Fatal("answered too early")
		}
		l.now++
		l.e.delayedTick(l.now)
		l.e.flush(&l.e.port[wan])
		got := l.taken(wan)
		if len(got) != 1 || string(got[0].frame[int(got[0].L4)+8:]) != string(f[packet.EthLen:][:20+opts+8]) || got[0].TTL != 64 {
			t.Fatalf("%d bytes of options: %v", opts, got)
		}
	}
}

// TestWhatIsAnOpening: only a SYN alone opens a connection; bits that do not change its
// meaning are ignored.
func TestWhatIsAnOpening(t *testing.T) {
	for flags := range 256 {
		f := uint8(flags)
		want := f&packet.SYN != 0 && f&packet.ACK == 0 && f&packet.RST == 0 && f&packet.FIN == 0
		if opening(&received{Packet: packet.Packet{Flags: f}}) != want {
			t.Errorf("flags %#x", f)
		}
	}
}

// TestWhatRejects: a policy rejects if its default or any rule does, and a rule by its own
// action.
func TestWhatRejects(t *testing.T) {
	rule := func(as ...ruleset.Action) (rs []ruleset.Rule) {
		for _, a := range as {
			rs = append(rs, ruleset.Rule{Action: a})
		}
		return rs
	}
	for _, c := range []struct {
		def   ruleset.Action
		rules []ruleset.Rule
		want  bool
	}{
		{ruleset.Deny, nil, false}, {ruleset.Accept, nil, false}, {ruleset.Reject, nil, true},
		{ruleset.Deny, rule(ruleset.Accept, ruleset.Deny), false},
		{ruleset.Deny, rule(ruleset.Reject, ruleset.Deny), true},
		{ruleset.Deny, rule(ruleset.Deny, ruleset.Reject), true},
		{ruleset.Reject, rule(ruleset.Deny), true},
	} {
		p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: c.def}, Rules: c.rules}
		if rejects(p) != c.want {
			t.Errorf("%+v: %v", c, !c.want)
		}
		e := &Engine{policy: p}
		for i := range c.rules {
			if e.rejecting(uint32(i)) != (c.rules[i].Action == ruleset.Reject) {
				t.Errorf("%+v: rule %d", c, i)
			}
		}
		if e.rejecting(p.DefaultRule()) != (c.def == ruleset.Reject) {
			t.Errorf("%+v: by default", c)
		}
	}
}

// TestStrays: a packet that belongs to no flow and can begin none is rejected where the
// policy would reject it, and else dropped with its own reason.
func TestStrays(t *testing.T) {
	for _, c := range []struct {
		name     string
		p        pkt
		rejected bool // where a rule rejects it
		reset    bool
	}{
		{"a segment", tcpSeg(host, 4000, web, 25, packet.ACK, 1, 1), true, true},
		{"a FIN", tcpSeg(host, 4000, web, 25, packet.FIN|packet.ACK, 1, 1), true, true},
		{"a reset", tcpSeg(host, 4000, web, 25, packet.RST, 1, 1), false, false},
		{"a reset that acknowledges", tcpSeg(host, 4000, web, 25, packet.RST|packet.ACK, 1, 1), false, false},
		{"another protocol", pkt{src: host, dst: web, proto: 47, data: make([]byte, 20)}, true, false},
		{"another ICMP message", pkt{src: host, dst: web, proto: packet.ICMP, typ: 13, data: make([]byte, 12)}, false, false},
		{"an echo reply", echo(host, web, packet.EchoReply, 3), false, false},
	} {
		l := newLab(t, "reject")
		if c.rejected {
			l.answered(lan, c.p, verdict.ExplicitDeny)
			if got := l.e.c.ResetsSent == 1; got != c.reset || l.e.c.Drops[0] != 1 || l.e.c.Decisions != 1 {
				t.Errorf("%s: reset %v, drops %v, %d decisions", c.name, got, l.e.c.Drops, l.e.c.Decisions)
			}
		} else {
			l.unanswered(lan, c.p, verdict.ConntrackInvalid)
			if l.e.c.Drops[0] != 0 || l.e.c.Decisions != 0 {
				t.Errorf("%s: drops %v, %d decisions", c.name, l.e.c.Drops, l.e.c.Decisions)
			}
		}
		l.invariants()
		// A rule that rejects something else does not reject it.
		l = newLab(t, "reject egress udp :999", "deny")
		l.unanswered(lan, c.p, verdict.ConntrackInvalid)
		l.invariants()
	}
}

// TestAnswersWithoutBuffers are not sent, and counted.
func TestAnswersWithoutBuffers(t *testing.T) {
	for _, p := range []pkt{udp(host, 4000, web, 53), syn(host, 4000, web, 53)} {
		l := newLab(t, "reject")
		l.answered(lan, udp(host, 1, web, 1), verdict.ExplicitDeny) // the host is known
		var taken []uint32
		for l.pool.Free() > 1 {
			b, _ := l.pool.Get()
			taken = append(taken, b)
		}
		sent := l.e.c.ICMPErrorsSent + l.e.c.ResetsSent
		l.unanswered(lan, p, verdict.ExplicitDeny)
		if l.e.c.NoBuffer != 1 || l.e.c.ICMPErrorsSent+l.e.c.ResetsSent != sent || l.e.c.Own != 1 {
			t.Errorf("%d times no buffer, %d sent, %d own", l.e.c.NoBuffer, l.e.c.ICMPErrorsSent+l.e.c.ResetsSent, l.e.c.Own)
		}
		for _, b := range taken {
			l.pool.Put(b)
		}
		l.answered(lan, p, verdict.ExplicitDeny)
		l.invariants()
	}
}

// TestOwnMessages: the firewall's own messages have its address, a TTL of 64, and the
// precedence of their kind, and are counted.
func TestOwnMessages(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1280 }, "reject egress udp :54", "reject egress tcp :55", "reject ingress", "accept")
	big := large(udp(host, 4000, web, 53), 1300)
	big.df = true
	short := udp(host, 4000, web, 53)
	short.ttl = 1
	long := echo(host, lanAddr, packet.EchoRequest, 7)
	long.data, long.ttl = make([]byte, 1400), 1
	for i, c := range []struct {
		from      int
		p         pkt
		src       string
		tos       uint8
		typ, code uint8
		rest      uint32
		kind      icmperr.Kind // whose rate it uses up
	}{
		{lan, udp(host, 4000, web, 54), lanAddr, 0xc0, packet.Unreachable, packet.Prohibited, 0, icmperr.Rule},
		{wan, udp(client, 4000, ours, 54), ours, 0xc0, packet.Unreachable, packet.Prohibited, 0, icmperr.Rule},
		{lan, short, lanAddr, 0xc0, packet.TimeExceeded, 0, 0, icmperr.TTL},
		{lan, big, lanAddr, 0xc0, packet.Unreachable, packet.FragNeeded, 1280, icmperr.Size},
		{lan, syn(host, 4000, web, 55), web, 0, 0, 0, 0, icmperr.Rule},
		{lan, long, lanAddr, 0, packet.EchoReply, 0, 7 << 16, icmperr.NumKinds},
	} {
		for i := range l.e.port {
			l.e.port[i].answers = icmperr.NewLimit(1)
		}
		_, back := l.put(c.from, c.p)
		if len(back) != 1 {
			t.Fatalf("message %d: %d answers; drops: %s", i, len(back), l.drops())
		}
		v := back[0]
		for side := range l.e.port {
			for k := range icmperr.NumKinds {
				if used := l.e.port[side].answers.Used(k); used != (side == c.from && k == c.kind) {
					t.Errorf("message %d: the rate of kind %d on side %d is used: %v", i, k, side, used)
				}
			}
		}
		if v.Src != ip(c.src) || v.Dst != ip(c.p.src) || v.TTL != 64 || packet.TOS(v.frame[packet.EthLen:]) != c.tos || l.e.c.Own != uint64(i+1) {
			t.Errorf("message %d: %v, TTL %d, TOS %#x, %d own", i, v, v.TTL, packet.TOS(v.frame[packet.EthLen:]), l.e.c.Own)
		}
		if c.typ == 0 && c.tos == 0 && i != 5 {
			if v.Proto != packet.TCP || v.Flags&packet.RST == 0 || l.e.c.ResetsSent != 1 {
				t.Errorf("message %d: %v", i, v)
			}
			continue
		}
		m := v.frame[v.L4:]
		if rest := uint32(m[4])<<24 | uint32(m[5])<<16 | uint32(m[6])<<8 | uint32(m[7]); m[0] != c.typ || m[1] != c.code || rest != c.rest {
			t.Errorf("message %d: ICMP %d/%d, %#x", i, m[0], m[1], rest)
		}
	}
	if l.e.c.ICMPErrorsSent != 4 || l.e.c.LocalReplies != 1 || l.e.c.Local != 1 {
		t.Errorf("%d errors, %d replies, %d taken", l.e.c.ICMPErrorsSent, l.e.c.LocalReplies, l.e.c.Local)
	}
	l.invariants()
}

// TestOnlyOwnAddressesHoldSYNs: the answer to a rejected SYN from the WAN is delayed if it
// is to an external address; for a host without translation it is a RST at once.
func TestOnlyOwnAddressesHoldSYNs(t *testing.T) {
	l := newLabWith(t, routed, "reject ingress tcp", "accept")
	if v := l.answered(wan, syn(client, 4000, "10.0.0.5", 22), verdict.ExplicitDeny); v.Flags&packet.RST == 0 || v.Src != ip("10.0.0.5") || l.e.delayed.Len() != 0 {
		t.Errorf("answered by %v, %d held", v, l.e.delayed.Len())
	}
	l.unanswered(wan, syn(client, 4000, ours, 22), verdict.ExplicitDeny)
	if l.e.delayed.Len() != 1 {
		t.Errorf("%d held", l.e.delayed.Len())
	}
}
