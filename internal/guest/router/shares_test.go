package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// In these tests one source floods a resource, and a second one keeps all that
// it needs. docs/limits.md lists the resources.

// TestSpoofedUDPAnsweredOnce: datagrams to a published service in the names of
// others, each of which the server answers once. They are soon forgotten, and in
// a full table give way, so that the LAN gets on; a client of the service that
// goes on after its answer keeps its flow.
func TestSpoofedUDPAnsweredOnce(t *testing.T) {
	for name, quick := range map[string]bool{"all at once": true, "at 220 a second": false} {
		t.Run(name, func(t *testing.T) {
			l := newLabIn(t, huge, func(p *ruleset.Policy) {
				p.Settings.MaxFlows = 4096
				p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 5000, 5000, server, 5000)}
			}, "accept")
			l.one(wan, udp(client, 4000, ours, 5000))
			l.one(lan, udp(server, 5000, client, 4000))
			l.one(wan, udp(client, 4000, ours, 5000))
			port := l.handshake(host, 4000, web, 80)
			most := 0
			for i := range uint32(8000) { // of which more than the table holds within 30 seconds
				from := spoofed(i, false)
				if across, _ := l.put(wan, udp(from, 4000, ours, 5000)); len(across) == 1 {
					l.one(lan, udp(server, 5000, from, 4000))
				}
				if !quick {
					l.now += second / 220
				}
				most = max(most, l.e.flows.Len())
				if i%1000 == 0 {
					v := l.one(lan, udp("10.0.0.7", uint16(5000+i/1000), web, 53))
					l.one(wan, udp(web, 53, ours, v.SrcPort))
				}
			}
			if !quick && most > 31*220+100 {
				t.Errorf("%d flows at once", most)
			}
			// The twins: both flows that were there before go on.
			l.one(lan, udp(server, 5000, client, 4000))
			l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
		})
	}
}

// served has a host exchange datagrams with a server, so that its flow is
// established, and reports whether there was room for it.
func (l *lab) served(src string, port uint16, dst string) bool {
	if l.helping() {
		l.t.Helper()
	}
	across, _ := l.put(lan, udp(src, port, dst, 5000))
	if len(across) != 1 {
		return false
	}
	l.one(wan, udp(dst, 5000, ours, across[0].SrcPort))
	l.one(lan, udp(src, port, dst, 5000))
	return true
}

// TestShares_Flows: a host opens as many flows as it can, all established, and
// another one finds room; a third one gets on when two do that. No setting of
// the operator's is needed.
func TestShares_Flows(t *testing.T) {
	l := newLabIn(t, huge, func(p *ruleset.Policy) { p.Settings.MaxFlows = 4096 }, "accept egress", established)
	taken := 0
	for i := range uint16(5000) {
		if l.served(host, 2000+i, web) {
			taken++
		}
	}
	if taken < 3500 || taken > 4096*7/8+20 {
		t.Errorf("one host has %d of 4096 flows", taken)
	}
	if n := l.e.c.DropReasons[verdict.ConntrackFull]; n != uint64(5000-taken) {
		t.Errorf("%d refused as full, want %d", n, 5000-taken)
	}
	for i := range uint16(5000) {
		l.served("10.0.0.3", 2000+i, web)
	}
	for i := range uint16(30) {
		if !l.served("10.0.0.7", 2000+i, web) {
			t.Fatalf("a third host has %d flows; drops: %s", i, l.drops())
		}
	}
	// What a flood leaves unanswered in the rest is the largest holder's to lose.
	for i := range uint16(5000) {
		l.put(lan, syn(host, 2000+i, web, 80))
	}
	for i := range uint16(20) {
		l.handshake("10.0.0.8", 2000+i, web, 80)
	}
	l.one(lan, udp("10.0.0.7", 2000, web, 5000))
}

// TestShares_FlowsFromWAN: an attacker that forges sources, sends twice with each one's
// name and has the server answer in between fills what the WAN may have, and leaves the LAN
// its flows.
func TestShares_FlowsFromWAN(t *testing.T) {
	l := newLabIn(t, huge, func(p *ruleset.Policy) {
		p.Settings.MaxFlows = 4096
		p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 5000, 5000, server, 5000)}
	}, "accept")
	port := l.handshake(host, 100, web, 80)
	for i := range uint32(6000) {
		from := spoofed(i, false)
		if across, _ := l.put(wan, udp(from, 4000, ours, 5000)); len(across) == 1 {
			l.one(lan, udp(server, 5000, from, 4000))
			l.one(wan, udp(from, 4000, ours, 5000))
		}
	}
	if n := l.e.c.DropReasons[verdict.ConntrackFull]; n == 0 {
		t.Fatal("the flood was too small")
	}
	for i := range uint16(300) {
		if !l.served("10.0.0.3", 2000+i, web) {
			t.Fatalf("a LAN host has %d flows; drops: %s", i, l.drops())
		}
	}
	l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1001))
}

// TestShares_Ports: a host opens a flow from each of its ports; another one
// and the firewall itself find external ports, and half-open mappings of the
// first make room for its own new ones.
func TestShares_Ports(t *testing.T) {
	l := newLabIn(t, huge, func(p *ruleset.Policy) {
		p.Settings.MaxFlows = 16 << 10
		p.SNAT[0].PortHi = 1024 + 8192 - 1
	}, "accept egress", established)
	for port := 1024; port < 65536; port++ {
		if !l.served(host, uint16(port), web) {
			break
		}
	}
	n := l.e.nat.Pools()[0].InUse(packet.UDP)
	if n < 7500 || n > 7620 {
		t.Fatalf("one host has %d ports", n)
	}
	l.dropped(lan, udp(host, 65535, web, 5000), verdict.NATPortPoolExhausted)
	for i := range uint16(300) {
		if !l.served("10.0.0.3", 2000+i, web) {
			t.Fatalf("another one has %d; drops: %s", i, l.drops())
		}
	}
	if _, ok := l.e.nat.Own().Take(packet.UDP, l.e.random()); !ok {
		t.Fatal("the firewall has none")
	}
	l.one(lan, udp(host, 1024, web, 5000)) // what it has goes on
}

// TestShares_StalePorts: a flood of datagrams in the names of all hosts of the LAN takes
// every port. Who has none gets one as soon as the flood's are stale, and no host loses one
// that is in use.
func TestShares_StalePorts(t *testing.T) {
	l := newLabIn(t, huge, func(p *ruleset.Policy) {
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2000, 2999
		p.SNAT[0].SourceMask = ruleset.Addr{}
		p.Interfaces[0].PrefixLen = 8
	}, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 5000))
	l.one(wan, udp(web, 5000, ours, v.SrcPort))
	l.one(lan, udp(host, 4000, web, 5000))
	for i := range uint32(5000) {
		l.put(lan, udp(spoofed(i, true), 4000, web, 5000))
	}
	l.dropped(lan, udp("10.0.0.3", 4000, web, 5000), verdict.NATPortPoolExhausted)
	l.pass(17)
	for i := range uint32(2000) {
		l.put(lan, udp(spoofed(i+10_000, true), 4000, web, 5000)) // goes on
		if i%500 == 0 {
			l.pass(17)
			l.one(lan, udp(addr(ip("10.0.0.20")+packet.Addr(i/500)).String(), 4000, web, 5000))
		}
	}
	l.one(wan, udp(web, 5000, ours, v.SrcPort)).is(t, web, 5000, host, 4000)
	if l.e.c.PortsReclaimed == 0 {
		t.Fatal("nothing was reclaimed")
	}
}

// TestShares_FlowsInAnothersName: SYNs in the name of a partner, who may have so
// many flows, reach a published server, which answers them. The partner's own
// connections are made all the while, and he cannot have more than he may.
func TestShares_FlowsInAnothersName(t *testing.T) {
	const limit = 50
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.SourceFlows = limit
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 443, 443, server, 443)}
	}, "accept")
	spoof := func(n int) {
		for i := range n {
			l.now += second / 400
			port := uint16(20_000 + l.e.flows.C.Inserts%20_000)
			if across, _ := l.put(wan, syn(client, port, ours, 443)); len(across) == 1 && i%2 == 0 {
				l.put(lan, tcpSeg(server, 443, client, port, packet.SYN|packet.ACK, 7000, 1001))
			}
			if n := l.e.sources.Flows(ip(client)); n > limit {
				t.Fatalf("%d flows", n)
			}
		}
	}
	spoof(400)
	for i := range uint16(20) {
		l.one(wan, tcpSeg(client, 4000+i, ours, 443, packet.SYN, 1000, 0))
		spoof(8) // twenty milliseconds there
		l.one(lan, tcpSeg(server, 443, client, 4000+i, packet.SYN|packet.ACK, 5000, 1001))
		spoof(8) // and back
		l.one(wan, tcpSeg(client, 4000+i, ours, 443, packet.ACK, 1001, 5001))
		spoof(30)
	}
	// What is established stays, and counts: no more than the limit, whatever the source.
	for i := range uint16(20) {
		l.one(wan, tcpSeg(client, 4000+i, ours, 443, packet.ACK, 1001, 5001))
	}
	for i := range uint16(limit) {
		l.now += second
		if across, _ := l.put(wan, tcpSeg(client, 5000+i, ours, 443, packet.SYN, 1000, 0)); len(across) == 1 {
			l.one(lan, tcpSeg(server, 443, client, 5000+i, packet.SYN|packet.ACK, 5000, 1001))
			l.one(wan, tcpSeg(client, 5000+i, ours, 443, packet.ACK, 1001, 5001))
		}
	}
	l.now += second
	l.dropped(wan, tcpSeg(client, 6000, ours, 443, packet.SYN, 1000, 0), verdict.RateLimitFlows)
	if n := l.e.sources.Flows(ip(client)); n != limit {
		t.Fatalf("%d flows", n)
	}
	for range 8 {
		l.pass(1000)
	}
	if n := l.e.sources.Flows(ip(client)); n != 0 || l.e.flows.Len() != 0 {
		t.Fatalf("%d counted of %d flows", n, l.e.flows.Len())
	}
}

// TestShares_Reassembly: sources that send fragments of datagrams that never become
// complete, or are poisoned because two overlap, fill the table; another host's datagrams,
// whose fragments arrive slowly, become complete all the same.
func TestShares_Reassembly(t *testing.T) {
	for name, flood := range map[string]func(src string, id uint16) [][]byte{
		"incomplete": func(src string, id uint16) [][]byte {
			return fragments(large(udp(src, 4000, web, 53), 100), lanMAC, 60, id)[:1]
		},
		"poisoned": func(src string, id uint16) [][]byte {
			fs := fragments(large(udp(src, 4000, web, 53), 300), lanMAC, 60, id)
			other := fragments(large(udp(src, 4000, web, 53), 300), lanMAC, 92, id)
			return [][]byte{fs[0], other[0]}
		},
		"long": func(src string, id uint16) [][]byte {
			return fragments(large(udp(src, 4000, web, 53), 2000), lanMAC, 60, id)[:30]
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := reassembling(t, "accept")
			l.one(lan, udp("10.0.0.3", 4000, web, 53))
			more := func(n int) {
				for i := range n {
					// Three sources, since one alone is bounded anyway.
					l.feed(lan, flood(addr(ip("10.0.0.20")+packet.Addr(i%3)).String(), uint16(l.e.c.RxPackets[lan]))...)
				}
			}
			more(400)
			for id := range uint16(20) {
				fs := fragments(large(udp("10.0.0.3", 4000, web, 53), 400), lanMAC, 60, id)
				whole := 0
				for _, f := range fs {
					whole += len(l.feed(lan, f))
					more(40)
				}
				if whole != 1 {
					t.Fatalf("datagram %d: %d passed; drops: %s", id, whole, l.drops())
				}
			}
			l.invariants()
			l.pass(31)
			if g := l.e.frags; g.Len() != 0 || g.Held() != 0 {
				t.Fatalf("%d datagrams, %d fragments are counted", g.Len(), g.Held())
			}
		})
	}
}

// TestShares_HeldSYNs: a source fills the room for rejected SYNs that are to be
// answered later; others are answered all the same, in time.
func TestShares_HeldSYNs(t *testing.T) {
	l := newLab(t, "reject ingress tcp", "accept")
	l.put(wan, syn("192.0.2.9", 4000, ours, 22))
	for i := range uint16(500) {
		l.put(wan, syn(client, 1000+i, ours, 22))
	}
	for i := range uint16(30) {
		l.put(wan, syn("192.0.2.77", 4000+i, ours, 22))
		l.put(wan, syn(client, 2000+i, ours, 22))
	}
	if l.e.delayed.Len() != icmperr.MaxDelayed {
		t.Fatalf("%d held", l.e.delayed.Len())
	}
	l.pass(6.5)
	got := map[string]int{}
	for _, v := range l.taken(wan) {
		got[addr(v.Dst).String()]++
	}
	l.pass(1)
	for _, v := range l.taken(wan) {
		got[addr(v.Dst).String()]++
	}
	if got["192.0.2.9"] != 1 || got["192.0.2.77"] < 4 || got[client] == 0 {
		t.Fatalf("answers %v, %d suppressed", got, l.e.c.AnswersSuppressed)
	}
	if l.e.delayed.Len() != 0 {
		t.Fatalf("%d wait", l.e.delayed.Len())
	}
}

// TestShares_Answers: a host that sends without end what is rejected uses up the rate of
// answers; another one is notified all the same, of each kind, and in all no more are sent
// than rate and reserve allow.
func TestShares_Answers(t *testing.T) {
	l := newLab(t, "reject egress udp :54", "reject egress tcp :55", "accept")
	told := map[string]int{}
	count := func(vs []*view) {
		for _, v := range vs {
			told[addr(v.Dst).String()]++
		}
	}
	start := l.now
	for range 20 {
		for i := range uint16(400) {
			_, back := l.put(lan, udp(host, 1000+i, web, 54))
			count(back)
		}
		p := udp("10.0.0.3", 4000, web, 54)
		if l.now/second%2 == 0 {
			p = tcpSeg("10.0.0.3", 4000, web, 55, packet.SYN, 1, 0)
		}
		_, back := l.put(lan, p)
		count(back)
		p.ttl, p.dport = 1, 80
		_, back = l.put(lan, p)
		count(back)
		l.now += second / 5
	}
	most := icmperr.Burst + icmperr.ReserveBurst + int((l.now-start)*(icmperr.Rate+icmperr.ReserveRate)/second)
	if told["10.0.0.3"] != 40 || told[host] > most || told[host] < icmperr.Burst {
		t.Fatalf("told %v, at most %d; %d suppressed", told, most, l.e.c.AnswersSuppressed)
	}
}
