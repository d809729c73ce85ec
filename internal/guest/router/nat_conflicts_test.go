package router

import (
	"reflect"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Conflicting translations, exact deadlines, and clocks that jump.

// TestRFC4787_REQ8_PortOfAnotherHostNow: packets of a peer to an external port are dropped
// after another host has got the port.
func TestRFC4787_REQ8_PortOfAnotherHostNow(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3000 }, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 5000))
	l.one(wan, udp(web, 5000, ours, 3000))
	l.dropped(lan, udp("10.0.0.3", 4000, "192.0.2.9", 5000), verdict.NATPortPoolExhausted)
	l.pass(301)
	l.one(lan, udp("10.0.0.3", 4000, "192.0.2.9", 5000))
	l.dropped(wan, udp(web, 5000, ours, 3000), verdict.NoMatchingAllowRule)
	l.one(wan, udp("192.0.2.9", 5000, ours, 3000)).is(t, "192.0.2.9", 5000, "10.0.0.3", 4000)
}

// TestRFC4787_REQ6_WhatDoesNotPassDoesNotRefresh: neither from the LAN nor from the WAN.
func TestRFC4787_REQ6_WhatDoesNotPassDoesNotRefresh(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[0].MTU = 1400 }, "accept egress udp", established)
	l.one(lan, udp(host, 4000, web, 5000))
	l.one(wan, udp(web, 5000, ours, 4000))
	l.one(lan, udp(host, 4000, web, 5000))
	dies := udp(host, 4000, web, 5000)
	dies.ttl = 1
	long := udp(web, 5000, ours, 4000)
	long.data, long.df = make([]byte, 1440), true
	for range 4 {
		l.pass(74)
		l.dropped(lan, dies, verdict.TTLExpired)
		l.dropped(wan, long, verdict.PacketTooBig)
		l.put(wan, udp("192.0.2.9", 5000, ours, 4000))
		l.put(lan, udp(host, 4000, "10.0.0.1", 5000))
	}
	l.pass(5)
	if l.e.flows.Len() != 0 || l.e.nat.Pools()[0].InUse(packet.UDP) != 0 {
		t.Fatal("still there")
	}
}

// TestRFC4787_REQ1_ServerToItsOwnClient: a server's packet to a client that talks to it by
// its published port belongs to that flow, whichever end began, and a simultaneous open is
// one connection (RFC 5382 REQ-2a).
func TestRFC4787_REQ1_ServerToItsOwnClient(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.UDP, ours, 5000, 5000, server, 6000), dnat(packet.TCP, ours, 8443, 8443, server, 443)), "accept")
	l.one(lan, udp(server, 6000, client, 4000)).is(t, ours, 5000, client, 4000)
	l.one(wan, udp(client, 4000, ours, 5000)).is(t, client, 4000, server, 6000)
	l.one(wan, udp(client, 4001, ours, 5000)).is(t, client, 4001, server, 6000)
	l.one(lan, udp(server, 6000, client, 4001)).is(t, ours, 5000, client, 4001)
	if l.e.flows.Len() != 2 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
	l.one(lan, tcpSeg(server, 443, client, 4000, fSYN, 1000, 0)).is(t, ours, 8443, client, 4000)
	l.one(wan, tcpSeg(client, 4000, ours, 8443, fSYN, 9000, 0)).is(t, client, 4000, server, 443)
	l.one(lan, tcpSeg(server, 443, client, 4000, fSYN|fACK, 1000, 9001))
	l.one(wan, tcpSeg(client, 4000, ours, 8443, fSYN|fACK, 9000, 1001))
	l.one(lan, tcpSeg(server, 443, client, 4000, fACK, 1001, 9001))
	if s := l.e.flows.Dir(4).State.String(); s != "established" || l.e.flows.Len() != 3 {
		t.Fatalf("state %s, %d flows", s, l.e.flows.Len())
	}
}

// TestS20_TwoWaysToOneServer: a client that reaches one port of a server through two
// published ports, from one port of its own, has two peers, and the server one. The second
// flow is refused while the first is in use, and replaces it when that is over.
func TestS20_TwoWaysToOneServer(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443), dnat(packet.TCP, ours, 8443, 8443, server, 443)), "accept")
	l.one(wan, tcpSeg(client, 4000, ours, 443, fSYN, 1000, 0))
	l.one(lan, tcpSeg(server, 443, client, 4000, fSYN|fACK, 5000, 1001)).is(t, ours, 443, client, 4000)
	l.one(wan, tcpSeg(client, 4000, ours, 443, fACK, 1001, 5001))
	l.dropped(wan, tcpSeg(client, 4000, ours, 8443, fSYN, 700_000, 0), verdict.ConntrackInvalid)
	l.one(lan, tcpSeg(server, 443, client, 4000, fRST, 5001, 0))
	l.one(wan, tcpSeg(client, 4000, ours, 8443, fSYN, 700_000, 0)).is(t, client, 4000, server, 443)
	l.one(lan, tcpSeg(server, 443, client, 4000, fSYN|fACK, 9000, 700_001)).is(t, ours, 8443, client, 4000)
	if l.e.flows.Len() != 1 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
	l.invariants()
}

// TestTwoWaysAtOnce: the same within one batch, in which the port of a client on the LAN is
// foretold for both flows, before either has it.
func TestTwoWaysAtOnce(t *testing.T) {
	l := newLabWith(t, withDNAT(hairpinned(dnat(packet.UDP, ours, 443, 443, server, 443)), hairpinned(dnat(packet.UDP, ours, 8443, 8443, server, 443))), "accept")
	to := func(from, port uint16) pkt { return udp(host, from, ours, port) }
	for _, p := range []pkt{to(3000, 443), to(3001, 443), to(4000, 443), to(4000, 8443)} {
		l.port[lan].in = append(l.port[lan].in, p.frame(lanMAC))
	}
	l.run()
	if out := l.taken(lan); len(out) != 3 || out[2].SrcPort != 4000 || out[2].DstPort != 443 {
		t.Fatalf("%v", out)
	}
	if l.e.c.DropReasons[verdict.ConntrackInvalid] != 1 {
		t.Fatalf("drops: %s", l.drops())
	}
	l.invariants()
}

// TestRFC4787_REQ9_HairpinToItself: a server's packet from its published port to the same
// port would have equal source and destination. It is refused, without a trace in the
// tables.
func TestRFC4787_REQ9_HairpinToItself(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000))}
		p.Settings.SourceFlows = 1
	}, "accept")
	for range 3 {
		l.dropped(lan, udp(server, 6000, ours, 5000), verdict.ConntrackInvalid)
	}
	if n := l.e.sources.Flows(ip(server)); n != 0 || l.e.flows.Len() != 0 {
		t.Fatalf("%d flows counted, %d there", n, l.e.flows.Len())
	}
	l.invariants()
}

// TestRFC4787_REQ9_HairpinBetweenServers: two servers reach each other through their
// external addresses, each with its own, whichever begins.
func TestRFC4787_REQ9_HairpinBetweenServers(t *testing.T) {
	const other = "10.0.0.6"
	l := newLabWith(t, withDNAT(hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000)), hairpinned(dnat(packet.UDP, spare, 5001, 5001, other, 6001))), "accept")
	l.same(lan, udp(server, 6000, spare, 5001)).is(t, ours, 5000, other, 6001)
	l.same(lan, udp(other, 6001, ours, 5000)).is(t, spare, 5001, server, 6000)
	if l.e.flows.Len() != 1 {
		t.Fatalf("%d flows", l.e.flows.Len())
	}
}

// TestRFC5508_REQ1_ManyHostsOneIdentifier: hosts that ping the same target with the same
// identifier, which often begins at 1, each get their own replies.
func TestRFC5508_REQ1_ManyHostsOneIdentifier(t *testing.T) {
	l := newLab(t, "accept egress", established)
	ids := map[uint16]string{}
	for h := range packet.Addr(100) {
		src := addr(ip("10.0.0.100") + h).String()
		id := l.one(lan, echo(src, web, packet.EchoRequest, 1)).SrcPort
		if was := ids[id]; was != "" {
			t.Fatalf("%s and %s have identifier %d", was, src, id)
		}
		ids[id] = src
	}
	for id, src := range ids {
		if v := l.one(wan, echo(web, ours, packet.EchoReply, id)); v.Dst != ip(src) || v.SrcPort != 1 {
			t.Fatalf("%v, want it at %s", v, src)
		}
	}
}

// TestS13_DeadlineToTheNanosecond: a flow lives until its timeout and not a nanosecond
// longer, on the fast path and on the slow path, in both directions.
func TestS13_DeadlineToTheNanosecond(t *testing.T) {
	for _, plain := range []bool{false, true} {
		for _, from := range []int{lan, wan} {
			for _, early := range []int64{1, 0} {
				l := newLab(t, "accept egress", established)
				l.e.plain = plain
				both := [...]pkt{udp(host, 4000, web, 5000), udp(web, 5000, ours, 4000)}
				for range 2 {
					l.one(lan, both[lan])
					l.one(wan, both[wan])
				}
				l.now += 299e9
				l.one(1-from, both[1-from])
				id := l.e.flows.Shared(0).ID
				l.now += 300e9 - early
				l.e.tick = l.now + 1e9 // no sweep
				if across, _ := l.put(from, both[from]); len(across) != 1 && (early == 1 || from == lan) {
					t.Fatalf("plain %v, from %d, %d ns before its time: %d crossed", plain, from, early, len(across))
				}
				if got := l.e.flows.Len() == 1 && l.e.flows.Shared(0).ID == id; got != (early == 1) {
					t.Fatalf("plain %v, from %d, %d ns before its time: the same flow: %v", plain, from, early, got)
				}
			}
		}
	}
}

// TestS13_ClockJumps: a machine that was paused for hours, and clocks that begin at 0 or
// have run for a century, make no difference.
func TestS13_ClockJumps(t *testing.T) {
	for _, begin := range []int64{0, 1, 3e18} {
		l := newLab(t, "accept egress", established)
		l.now = begin
		for n := range 3 {
			port := l.handshake(host, 4000, web, 80)
			l.one(lan, udp(host, 4000, web, 53))
			l.one(lan, echo(host, web, packet.EchoRequest, 1))
			for i := range uint16(1000) {
				l.one(lan, udp("10.0.0.3", 10_000+i, web, 53))
			}
			l.now += 10 * 3600e9
			l.e.tick = l.now + 1e9 // no sweep yet
			l.dropped(wan, tcpSeg(web, 80, ours, port, fACK, 5001, 1001), verdict.NoMatchingAllowRule)
			l.dropped(wan, udp(web, 53, ours, 4000), verdict.NoMatchingAllowRule)
			l.dropped(lan, tcpSeg(host, 4000, web, 80, fACK, 1001, 5001), verdict.ConntrackInvalid)
			l.e.tick = 0
			for range 20 { // polls; each removes no more than its share
				l.run()
			}
			if l.e.flows.Len() != 0 || l.e.nat.Pools()[0].InUse(packet.UDP) != 0 {
				t.Fatalf("from %d, jump %d: %d flows left", begin, n, l.e.flows.Len())
			}
			l.invariants()
		}
	}
}

// TestFastPathIsForwardForHonestEnds: the fast path and forward see the same
// connections, with windows of any size and numbers that wrap.
func TestFastPathIsForwardForHonestEnds(t *testing.T) {
	quick := 0
	for seed := range uint64(40) {
		var cs [2]*course
		for i := range cs {
			c := newCourse(t, seed)
			c.e.plain = i == 1
			for range 300 {
				c.step()
				for r := range conntrack.Ref(2) {
					if d := c.e.flows.Dir(r); *d != d.Unmarked() {
						quick++
					}
				}
			}
			c.settle("done", func() bool { return c.ends[lan].done() && c.ends[wan].done() })
			cs[i] = c
		}
		a, b := cs[0], cs[1]
		if !slices.Equal(a.log, b.log) || *a.e.flows.Shared(0) != *b.e.flows.Shared(0) || a.e.flows.Dir(0).Unmarked() != b.e.flows.Dir(0).Unmarked() ||
			a.e.flows.Dir(1).Unmarked() != b.e.flows.Dir(1).Unmarked() || !reflect.DeepEqual(*a.e.Counters(), *b.e.Counters()) {
			t.Fatalf("seed %d: %+v, plainly %+v", seed, *a.e.flows.Shared(0), *b.e.flows.Shared(0))
		}
	}
	if quick == 0 {
		t.Fatal("no direction was ever marked")
	}
}
