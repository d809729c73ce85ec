package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestS15_SYNFlood: a million SYNs of spoofed sources, with no time between
// them, against a server and out of the LAN. Established connections and
// answered flows go on in both directions all the while, and none is lost.
func TestS15_SYNFlood(t *testing.T) {
	for name, from := range map[string]int{"from the WAN": wan, "from the LAN": lan} {
		t.Run(name, func(t *testing.T) {
			syns := 1_000_000
			if from == lan {
				syns = 200_000 // three times the external ports
			}
			l := newLabIn(t, huge, func(p *ruleset.Policy) {
				p.Settings.MaxFlows = 64 << 10
				p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 443, 443, server, 443)}
				p.SNAT[0].SourceMask = ruleset.Addr{}
				p.Interfaces[0].PrefixLen = 8
			}, "accept egress", "accept ingress tcp -> 10.0.0.5 :443", established)
			const conns = 100
			var ports [conns]uint16
			for i := range ports {
				ports[i] = l.handshake(host, uint16(2000+i), web, 80)
			}
			u := l.one(lan, udp(host, 5000, web, 5000)).SrcPort
			l.one(wan, udp(web, 5000, ours, u))
			ring := l.e.events
			l.e.events = nil
			l.one(wan, syn(client, 9, ours, 443)) // so that the server's link-layer address is known
			flood := &still{pool: l.pool}
			check := func(n int) {
				t.Helper()
				l.e.port[from].Port = l.port[from]
				i := n / 1000 % conns
				a := tcpSeg(host, uint16(2000+i), web, 80, packet.ACK, 1001, 5001)
				a.data = []byte("request")
				l.one(lan, a)
				l.one(wan, tcpSeg(web, 80, ours, ports[i], packet.ACK, 5001, 1001))
				l.one(lan, udp(host, 5000, web, 5000))
				l.one(wan, udp(web, 5000, ours, u))
				l.e.port[from].Port = flood
			}
			l.e.port[from].Port = flood
			sink := &still{pool: l.pool}
			first := syn(spoofed(0, from == lan), 1, web, 80).frame(lanMAC)
			if from == wan {
				first = syn(spoofed(0, false), 1, ours, 443).frame(wanMAC)
			}
			var p packet.Packet
			packet.ParseIPv4(first, &p)
			f := make([]byte, len(first))
			for n := range syns {
				if n%10_000 == 0 {
					check(n)
				}
				copy(f, first)
				packet.Apply(f, &p, &packet.Rewrite{Src: spoofedAddr(uint32(n), from == lan), Dst: p.Dst, SrcPort: uint16(1024 + n%50_000), DstPort: p.DstPort})
				flood.frames = append(flood.frames[:0], f)
				other := l.e.port[1-from].Port
				l.e.port[1-from].Port = sink
				l.poll()
				l.e.port[1-from].Port = other
			}
			for i := range ports {
				check(i * 1000)
			}
			c := &l.e.flows.C
			if from == wan {
				// A search for room may meet nothing but established flows: 64 in a row.
				if l.e.flows.Len() != 64<<10 || c.Inserts+c.Full < uint64(syns) || c.Full > uint64(syns)/1000 {
					t.Errorf("%d flows, %d begun, %d refused; drops: %s", l.e.flows.Len(), c.Inserts, c.Full, l.drops())
				}
			} else if n := l.e.c.DropReasons[verdict.NATPortPoolExhausted]; n < uint64(syns)/2 {
				t.Errorf("%d begun, %d found no port; drops: %s", c.Inserts, n, l.drops())
			}
			// When it is over, a new connection finds room at once, and after a
			// flood from inside a port as soon as its flows have ended.
			l.e.events = ring
			l.e.port[from].Port = l.port[from]
			if from == lan {
				l.pass(241)
			}
			l.handshake("10.0.0.77", 1, web, 80)
		})
	}
}

// spoofed returns a source that is another one for each n, all over its side.
func spoofed(n uint32, inside bool) string { return addr(spoofedAddr(n, inside)).String() }

func spoofedAddr(n uint32, inside bool) packet.Addr {
	a := packet.Addr(n * 2654435761)
	if inside {
		a = 10<<24 | a>>8
	} else {
		a = 8<<24 | a>>8
	}
	if l := a & 0xff; l == 0 || l == 255 {
		a ^= 0x55 // no broadcast address
	}
	return a
}

func TestS15_SourceFlows(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.SourceFlows = 5 }, "accept egress", established)
	for i := range uint16(5) {
		l.one(lan, udp(host, 4000+i, web, 53))
	}
	l.dropped(lan, udp(host, 5000, web, 53), verdict.RateLimitFlows)
	if r := l.last(); r.Reason != verdict.RateLimitFlows || r.Src != ip(host).To16() {
		t.Fatalf("event %+v", r)
	}
	if got := l.e.nat.Pools()[0].InUse(packet.UDP); got != 5 {
		t.Fatalf("%d ports in use", got)
	}
	l.one(lan, udp(host, 4002, web, 53))       // what it has goes on
	l.one(lan, udp("10.0.0.3", 4000, web, 53)) // others are not concerned
	l.pass(31)                                 // its flows end
	l.one(lan, udp(host, 5000, web, 53))
	if got := l.e.sources.Flows(ip(host)); got != 1 {
		t.Fatalf("%d flows counted", got)
	}
}

func TestS15_SourceRate(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.SourceRate = 10 }, "accept egress", established)
	for i := range uint16(10) {
		l.one(lan, udp(host, 4000+i, web, 53))
	}
	l.dropped(lan, udp(host, 5000, web, 53), verdict.RateLimitFlows)
	l.one(lan, udp("10.0.0.3", 4000, web, 53))
	l.pass(0.11)
	l.one(lan, udp(host, 5000, web, 53))
	l.dropped(lan, udp(host, 5001, web, 53), verdict.RateLimitFlows)
	l.pass(1)
	for i := range uint16(10) {
		l.one(lan, udp(host, 6000+i, web, 53))
	}
}

// TestS15_SourceFlowsCountOnlyFlows: what is refused for another reason takes
// nothing of a source's share.
func TestS15_SourceFlowsCountOnlyFlows(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.SourceFlows = 5
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3001
	}, "deny egress udp :54", "accept egress", established)
	for i := range uint16(10) {
		l.dropped(lan, udp(host, 4000+i, web, 54), verdict.ExplicitDeny)
	}
	l.one(lan, udp(host, 4000, web, 53))
	l.one(lan, udp(host, 4001, web, 53))
	for i := range uint16(10) {
		l.dropped(lan, udp(host, 5000+i, web, 53), verdict.NATPortPoolExhausted)
	}
	if got := l.e.sources.Flows(ip(host)); got != 2 {
		t.Fatalf("%d flows counted", got)
	}
}
