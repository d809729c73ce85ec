package router

import (
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestStartable: of all flags and types of messages, which begin a flow.
func TestStartable(t *testing.T) {
	for flags := range uint8(64) {
		p := received{Packet: packet.Packet{Class: packet.ClassTCP, Flags: flags, ICMPType: packet.EchoRequest}}
		// RFC 9293: SYN without ACK, RST, FIN; PSH and URG are no matter.
		want := flags == packet.SYN || flags == packet.SYN|packet.PSH || flags == packet.SYN|packet.URG || flags == packet.SYN|packet.PSH|packet.URG
		if got := startable(&p) == 0; got != want || opening(&p) != want {
			t.Errorf("flags %02x: %v, want %v", flags, got, want)
		}
	}
	for typ := range 256 {
		for _, code := range []uint8{0, 1, 255} {
			for _, c := range []packet.Class{packet.ClassICMPQuery, packet.ClassICMPError, packet.ClassOther} {
				p := received{Packet: packet.Packet{Class: c, Flags: packet.SYN, ICMPType: uint8(typ), ICMPCode: code}}
				want := verdict.ConntrackInvalid
				if c == packet.ClassICMPQuery && typ == packet.EchoRequest && code == 0 {
					want = 0
				}
				if got := startable(&p); got != want {
					t.Errorf("class %d, type %d, code %d: %v", c, typ, code, got)
				}
			}
		}
	}
	if startable(&received{Packet: packet.Packet{Class: packet.ClassUDP}}) != 0 {
		t.Error("a datagram begins no flow")
	}
}

// TestBypassNotes: which packets may bypass the proxy, by protocol, port and address, from
// the LAN only.
func TestBypassNotes(t *testing.T) {
	const doh = "9.9.9.9"
	l := newLab(t, "accept")
	l.pass(1.5)
	for _, x := range []struct {
		proto uint8
		dst   string
		port  uint16
		want  verdict.Hint
	}{
		{packet.UDP, web, 53, verdict.BypassDNS}, {packet.TCP, web, 53, verdict.BypassDNS}, {packet.UDP, web, 52, 0}, {packet.TCP, web, 54, 0},
		{packet.TCP, web, 853, verdict.BypassDoT}, {packet.UDP, web, 853, verdict.BypassDoQ}, {packet.TCP, web, 854, 0}, {packet.UDP, web, 852, 0},
		{packet.TCP, doh, 443, verdict.BypassDoH}, {packet.UDP, doh, 443, verdict.BypassDoH}, {packet.TCP, doh, 442, 0}, {packet.TCP, doh, 444, 0},
		{packet.TCP, web, 443, 0}, {packet.TCP, "9.9.9.8", 443, 0}, {packet.TCP, "1.0.0.1", 443, verdict.BypassDoH}, {packet.TCP, "223.6.6.6", 443, verdict.BypassDoH},
		{packet.ICMP, doh, 53, 0},
	} {
		p := pkt{src: host, sport: 4000, dst: x.dst, dport: x.port, proto: x.proto, flags: packet.SYN, typ: packet.EchoRequest}
		l.one(lan, p)
		if r := l.last(); r.Hint != x.want || r.Dst != ip(x.dst).To16() {
			t.Errorf("%+v: note %v", x, r.Hint)
		}
		l.dropped(lan, func() pkt { p.ttl = 1; p.src = "10.0.0.3"; return p }(), verdict.TTLExpired)
	}
	l = newLabWith(t, func(p *ruleset.Policy) { p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 53, 53, server, 53)} }, "accept")
	l.one(lan, udp(host, 4000, web, 53)) // whose note is not the next one's
	l.one(wan, udp(web, 4000, ours, 53))
	if l.last().Hint != 0 {
		t.Error("a question from outside is no way around")
	}
	l.dropped(wan, udp(web, 4000, ours, 53).malformed(), verdict.MalformedPacket)
	if l.last().Hint != 0 {
		t.Error("the note of another packet")
	}
	if !slices.IsSorted(resolvers) || len(slices.Compact(slices.Clone(resolvers))) != len(resolvers) {
		t.Error("the addresses of resolvers are not in order")
	}
}

func (p pkt) malformed() pkt { p.break4 = true; return p }

// TestFirstAnswerIsDecidedWhenItPasses: the policy decides about the first answer that can
// pass, and the event is about that one.
func TestFirstAnswerIsDecidedWhenItPasses(t *testing.T) {
	for _, x := range []struct {
		name string
		bad  func(p *pkt)
		why  verdict.Reason
	}{
		{"TTL", func(p *pkt) { p.ttl = 1 }, verdict.TTLExpired},
		{"number", func(p *pkt) { p.ack = 77 }, verdict.ConntrackInvalid},
	} {
		l := newLab(t, "accept egress", established)
		v := l.one(lan, syn(host, 4000, web, 80))
		l.seen = nil
		p := tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001)
		bad := p
		x.bad(&bad)
		for range 2 {
			l.dropped(wan, bad, x.why)
		}
		for i, r := range l.seen {
			if r.Answer || r.FlowID != 0 || r.Action != verdict.Drop {
				t.Errorf("%s: event %d %+v", x.name, i, r)
			}
		}
		n := len(l.seen)
		if l.e.c.Decisions != 3 || l.e.c.Accepts[1] != 0 {
			t.Errorf("%s: %d decisions, %d accepted", x.name, l.e.c.Decisions, l.e.c.Accepts[1])
		}
		for range 2 {
			l.one(wan, p)
		}
		if len(l.seen) != n+1 || !l.last().Answer || l.last().Action != verdict.Accept || l.e.c.Decisions != 4 || l.e.c.Accepts[1] != 2 {
			t.Errorf("%s: %d events more, %d decisions; the last %+v", x.name, len(l.seen)-n, l.e.c.Decisions, l.last())
		}
	}
	// A denied flow is reported once, and its packets are all counted.
	l := newLab(t, "accept egress", "deny ingress established")
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.seen = nil
	for range 3 {
		l.dropped(wan, udp(web, 5000, ours, v.SrcPort), verdict.ExplicitDeny)
	}
	if r := l.last(); len(l.seen) != 1 || r.FlowID != 1 || r.Rule != 1 || !r.Answer || l.e.c.Drops[1] != 3 || l.e.c.Decisions != 2 {
		t.Errorf("%d events, %+v; drops %v", len(l.seen), r, l.e.c.Drops)
	}
	l.one(lan, udp(host, 4000, web, 5000))
	l.invariants()
}

// TestReplyIsDecidedByItsAddresses: for an answer the policy sees the source as it arrives,
// and the client's internal address and port.
func TestReplyIsDecidedByItsAddresses(t *testing.T) {
	for _, x := range []struct {
		rule rule
		want bool
	}{
		{"accept ingress udp 198.51.100.80 -> 10.0.0.2 :4000 established", true}, {"accept ingress udp 198.51.100.80 -> 10.0.0.2 :4001 established", false},
		{"accept ingress udp 198.51.100.80 -> 10.0.0.3 established", false}, {"accept ingress udp 198.51.100.81 -> 10.0.0.2 established", false},
		{"accept ingress tcp 198.51.100.80 -> 10.0.0.2 established", false}, {"accept egress udp 198.51.100.80 -> 10.0.0.2 established", false},
		{"accept ingress udp 198.51.100.80 -> 203.0.113.10 established", false}, {"accept ingress udp 198.51.100.80 -> 10.0.0.2 new", false},
		{"accept ingress udp 198.51.100.80 -> 10.0.0.2 :5000 established", false},
	} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 7000, 7999 }, "accept egress new", x.rule)
		v := l.one(lan, udp(host, 4000, web, 5000))
		if across, _ := l.put(wan, udp(web, 5000, ours, v.SrcPort)); (len(across) == 1) != x.want {
			t.Errorf("%s: passes %v", x.rule, !x.want)
		}
	}
	// Pings have no ports, whatever their identifier is.
	l := newLab(t, "accept egress new", "accept ingress -> 10.0.0.2 :0 established")
	v := l.one(lan, echo(host, web, packet.EchoRequest, 4000))
	l.one(wan, echo(web, ours, packet.EchoReply, v.SrcPort))
	l = newLab(t, "accept egress icmp :0 new", "deny")
	l.one(lan, echo(host, web, packet.EchoRequest, 4000))
}

// TestEchoByDirection: a request passes in the direction of the flow's first and a
// reply in the other, without a code.
func TestEchoByDirection(t *testing.T) {
	l := newLabWith(t, routed, "accept")
	l.one(lan, echo(host, web, packet.EchoRequest, 9))
	l.one(wan, echo(web, host, packet.EchoReply, 9))
	coded := func(p pkt, code uint8) pkt { p.code = code; return p }
	for _, x := range []struct {
		from int
		p    pkt
	}{
		{lan, echo(host, web, packet.EchoReply, 9)}, {wan, echo(web, host, packet.EchoRequest, 9)}, {lan, coded(echo(host, web, packet.EchoRequest, 9), 1)},
		{wan, coded(echo(web, host, packet.EchoReply, 9), 1)}, {wan, coded(echo(web, host, packet.EchoReply, 9), 255)}, {lan, coded(echo(host, web, packet.EchoRequest, 10), 1)},
		{lan, echo(host, web, packet.EchoReply, 10)},
	} {
		l.dropped(x.from, x.p, verdict.ConntrackInvalid)
	}
	l.dropped(wan, echo(host, web, packet.EchoRequest, 9), verdict.Martian) // the first one from the other side
	l.one(lan, echo(host, web, packet.EchoRequest, 9))
	l.one(wan, echo(web, host, packet.EchoReply, 9))
	l.buffers()
}

// TestRuleReasons: the default action's reasons are not a rule's, with rules or
// without.
func TestRuleReasons(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		l := newLab(t, slices.Repeat([]rule{"deny egress tcp"}, n)...)
		for r := range uint32(n) {
			if l.e.acceptReason(r) != verdict.RuleAccept || l.e.denied(r, conntrack.None, true, naming{}).reason != verdict.ExplicitDeny {
				t.Errorf("rule %d of %d", r, n)
			}
		}
		if l.e.acceptReason(uint32(n)) != verdict.DefaultAction || l.e.denied(uint32(n), conntrack.None, true, naming{}).reason != verdict.NoMatchingAllowRule {
			t.Errorf("the default of %d", n)
		}
	}
}

// TestHiddenHostsFromOutside: packets sent directly to a host whose network is translated
// pass only where there is an entry for it, or no translation.
func TestHiddenHostsFromOutside(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.SNAT[0].Source, p.SNAT[0].SourceMask = ip("10.0.0.0").To16(), mask(25)
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 443, 443, server, 443)}
	}, "accept")
	l.dropped(wan, syn(web, 4000, server, 443), verdict.UntranslatedDestination)
	l.dropped(wan, udp(web, 4000, "10.0.0.127", 5000), verdict.UntranslatedDestination)
	l.one(wan, udp(web, 4000, "10.0.0.128", 5000))
	l.one(wan, syn(web, 4000, ours, 443))
	l.one(lan, udp("10.0.0.128", 4001, web, 5000))
	if l.e.c.Accepts[0] != 3 {
		t.Errorf("%d accepted", l.e.c.Accepts[0])
	}
}
