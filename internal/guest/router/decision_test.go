package router

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestFirstDecisionHolds: what one check of a packet of a known flow has dropped no later
// check lets pass. Each packet fails an early check and would pass the later ones.
func TestFirstDecisionHolds(t *testing.T) {
	// A client's segment whose server is not settled, with a TTL that ends here.
	k := newTalk(t)
	p := k.first(0, k.good[:50])
	p.ttl = 1
	before := k.e.c.DropReasons[verdict.TTLExpired]
	if across, _ := k.put(lan, p); len(across) != 0 || k.e.c.DropReasons[verdict.TTLExpired] != before+1 {
		t.Errorf("a segment whose TTL ends: %v; drops %s", across, k.drops())
	}
	// One from the wrong side, with a first message that is right.
	p = k.first(0, k.good)
	p.src, p.sport, p.dst, p.dport = host, 5000, cdn, 443
	before = k.e.c.DropReasons[verdict.Martian]
	if across, back := k.put(wan, p); len(across)+len(back) != 0 || k.e.c.DropReasons[verdict.Martian] != before+1 {
		t.Errorf("a segment from the wrong side: %v, %v; drops %s", across, back, k.drops())
	}
	if across, _ := k.put(lan, k.first(0, k.good)); len(across) == 0 {
		t.Errorf("the connection is gone; drops %s", k.drops())
	}
	// A denied direction whose TTL ends: the rule has decided, and no answer tells of us.
	l := newLab(t, "accept egress", "deny ingress")
	v := l.one(lan, udp(host, 4000, web, 53))
	q := udp(web, 53, ours, v.SrcPort)
	q.ttl = 1
	l.unanswered(wan, q, verdict.ExplicitDeny)
}

// TestMalformedPacketsHaveAddresses: an event about a packet whose IP header could be read
// has its addresses; one about a frame that holds none says that it has not.
func TestMalformedPacketsHaveAddresses(t *testing.T) {
	l := newLab(t, "accept")
	p := udp(host, 4000, web, 53)
	p.break4 = true
	l.dropped(lan, p, verdict.MalformedPacket)
	if r := l.last(); r.Truncated || r.Src != ip(host).To16() || r.Dst != ip(web).To16() {
		t.Errorf("a wrong checksum of UDP: %+v", r)
	}
	l.droppedRaw(lan, make([]byte, 10), verdict.MalformedPacket)
	if r := l.last(); !r.Truncated || r.Src != (ruleset.Addr{}) {
		t.Errorf("a frame that is too short: %+v", r)
	}
	l.buffers()
}

// TestRefusedOfFIN: where the default is to reject, what the policy accepts but no service
// takes is answered, but for a RST.
func TestRefusedOfFIN(t *testing.T) {
	for _, c := range []struct {
		flags    uint8
		answered bool
	}{{packet.SYN, true}, {packet.FIN | packet.ACK, true}, {packet.ACK, true}, {packet.RST, false}, {packet.RST | packet.ACK, false}, {packet.RST | packet.FIN, false}} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.DefaultAction = ruleset.Reject }, "accept egress")
		across, back := l.put(lan, tcpSeg(host, 4000, lanAddr, 22, c.flags, 1, 1))
		if len(across) != 0 || (len(back) == 1) != c.answered || l.e.c.DropReasons[verdict.NoLocalService] != 1 {
			t.Errorf("flags %#x: %v, %v; drops %s", c.flags, across, back, l.drops())
		}
		if c.answered && len(back) == 1 {
			v := back[0]
			if v.ICMPType != packet.Unreachable || v.ICMPCode != packet.Prohibited || [4]byte(v.frame[v.L4+4:]) != ([4]byte{}) {
				t.Errorf("flags %#x: answered with %x", c.flags, v.frame[v.L4:])
			}
		}
	}
}

// TestMemoryOf: the sum is that of what each table says of itself.
func TestMemoryOf(t *testing.T) {
	p := plainPolicy()
	p.Settings.MaxFlows, p.Settings.SourceFlows, p.Settings.SourceRate = 1000, 50, 7
	m := MemoryOf(p, 1500, 1)
	if want := conntrack.Bytes(1000) + conntrack.SourcesBytes(1000, 50, 7); m.Flows != want || conntrack.SourcesBytes(1000, 50, 7) == 0 {
		t.Errorf("flows and sources: %d bytes, want %d", m.Flows, want)
	}
	if m.Ports != nat.Bytes(p) || m.Names != 0 || m.Links != 0 || m.Total() != m.Buffers+m.Flows+m.Ports {
		t.Errorf("%+v: %d in all", m, m.Total())
	}
	// Several workers divide the flows, and have the rest once each.
	four := MemoryOf(p, 1500, 4)
	if want := 4*conntrack.Bytes(250) + conntrack.SourcesBytes(1000, 50, 7); four.Flows != want || four.Buffers != 4*m.Buffers || four.Ports != 4*m.Ports+nat.SharedBytes(p, 4) || nat.SharedBytes(p, 4) < len(p.SNAT)*3<<15 || nat.SharedBytes(p, 1) != 0 ||
		m.Workers != 0 || four.Workers != 3*furtherWorker+12*handover.Bytes(ringItems) || four.Total() != four.Buffers+four.Flows+four.Ports+four.Workers {
		t.Errorf("four workers: %+v, one: %+v", four, m)
	}
	// With the usual MTU buffers take what they always took.
	for mtu, want := range map[int]int{576: 2048 * 1984, 1500: 2048 * 1984, 1958: 2048 * 1984, 1959: 1536 * 3 * 1984, 5926: 1536 * 3 * 1984,
		5927: 1536 * 5 * 1984, 9000: 1536 * 5 * 1984, ruleset.MaxMTU: 1536 * 5 * 1984} {
		if got := MemoryOf(p, mtu, 1).Buffers; got != want {
			t.Errorf("an MTU of %d: %d bytes of buffers, want %d", mtu, got, want)
		}
	}
}

// TestBothWaysAreFastAfterSettling: when a server has answered, its packets take the fast
// path like its client's.
func TestBothWaysAreFastAfterSettling(t *testing.T) {
	k := newTalk(t)
	k.put(lan, k.first(0, k.good))
	k.answers(len(k.good), serverHello)
	at := 5001 + uint32(len(serverHello))
	for i := range uint32(2) {
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, at+i, 1001+uint32(len(k.good)))
		p.data = []byte("x")
		k.taken(lan)
		if n := k.quick(wan, p.frame(wanMAC)); n != int(i) {
			t.Fatalf("packet %d of the server: %d on the fast path", i, n)
		}
	}
}

// TestEndsWithoutTimeExceeded: flags that stand beside the one for flow ends do not switch
// these off.
func TestEndsWithoutTimeExceeded(t *testing.T) {
	for flag := uint32(1); flag <= ruleset.FlagDNSIntercept<<1; flag <<= 1 {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Flags = flag }, "accept egress")
		l.one(lan, udp(host, 4000, web, 53))
		for range 20 {
			l.pass(10)
		}
		n := l.flowEnds()
		if want := map[bool]int{true: 0, false: 1}[flag == ruleset.FlagNoFlowEnd]; n != want {
			t.Errorf("flag %#x: %d ends, want %d", flag, n, want)
		}
	}
}

// TestTranslatedErrorsAreCounted: an ICMP error that is delivered, and only that.
func TestTranslatedErrorsAreCounted(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.flowOut(udp(host, 4000, web, 53))
	for i := range uint64(3) {
		l.one(wan, quoted("192.0.2.1", ours, packet.TimeExceeded, 0, v.frame, 28, nil))
		if l.e.c.ICMPErrorsTranslated != i+1 {
			t.Fatalf("%d counted of %d", l.e.c.ICMPErrorsTranslated, i+1)
		}
	}
}

// TestOwnMessagesWithoutBuffer: a message of the firewall's own for which there is no
// buffer is counted, and not sent.
func TestOwnMessagesWithoutBuffer(t *testing.T) {
	l := newDNSLab(t, nil)
	l.asked(host, l.query("github.com", dns.TypeA))
	var bufs []uint32
	for {
		b, ok := l.pool.Get()
		if !ok {
			break
		}
		bufs = append(bufs, b)
	}
	own, unsent := l.e.c.Own, l.e.c.NoBuffer
	for range 10 {
		l.pass(1) // queries are repeated, and fail
	}
	if l.e.c.Own != own || l.e.c.NoBuffer == unsent {
		t.Errorf("%d sent, %d counted", l.e.c.Own-own, l.e.c.NoBuffer-unsent)
	}
	for _, b := range bufs {
		l.pool.Put(b)
	}
	l.buffers()
}

// TestMemoryOfServerNames: only a policy with a rule that requires server names needs room
// for first messages.
func TestMemoryOfServerNames(t *testing.T) {
	p := &ruleset.Policy{Upstreams: make([]ruleset.Upstream, 1), Rules: make([]ruleset.Rule, 3)}
	p.Settings.DNSNames = 100
	if got, want := NameBytes(p), fqdn.Bytes(100); got != want {
		t.Errorf("without such a rule: %d bytes, want %d", got, want)
	}
	p.Rules[2].SNI = 1
	if got, want := NameBytes(p), fqdn.Bytes(100)+sni.Bytes; got != want {
		t.Errorf("with one: %d bytes, want %d", got, want)
	}
	if l := githubLab(t, nil); l.e.sni.On() {
		t.Error("a table without such a rule")
	}
}
