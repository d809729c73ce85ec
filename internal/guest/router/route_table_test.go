package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestMartianBlocks: the first and last address of each block that is not
// forwarded, as source and as destination, and those beside it, which are.
func TestMartianBlocks(t *testing.T) {
	l := newLab(t, "accept")
	w := &l.e.port[wan]
	is := func(a string, off int, want bool) {
		t.Helper()
		x := ip(a) + packet.Addr(off)
		for _, p := range []packet.Packet{{Src: x, Dst: ip("10.0.0.2")}, {Src: ip(web), Dst: x}} {
			if l.e.martian(&received{Packet: p, in: w}) != want {
				t.Errorf("%v > %v: %v", addr(p.Src), addr(p.Dst), !want)
			}
		}
	}
	for _, c := range []struct {
		first, last   string
		before, after bool // whether the neighbours are martians, too
	}{
		{"0.0.0.0", "0.255.255.255", true, false},
		{"127.0.0.0", "127.255.255.255", false, false},
		{"224.0.0.0", "255.255.255.255", false, true},
		{"169.254.0.0", "169.254.255.255", false, false},
		{"192.0.0.8", "192.0.0.8", false, false},
		{"192.0.0.11", "192.0.0.31", false, true},
		{"192.0.0.32", "192.0.0.255", true, false},
	} {
		is(c.first, 0, true)
		is(c.last, 0, true)
		is(c.first, -1, c.before)
		is(c.last, 1, c.after)
	}
	// Networks of the interfaces: network and broadcast address of either.
	for a, want := range map[string]bool{"10.0.0.0": true, "10.0.0.255": true, "203.0.113.0": true, "203.0.113.255": true, "10.0.0.254": false, "203.0.113.254": false, "203.0.112.255": false} {
		p := packet.Packet{Src: ip(web), Dst: ip(a)}
		if l.e.martian(&received{Packet: p, in: w}) != want {
			t.Errorf("to %s: %v", a, !want)
		}
	}
	for _, c := range []struct {
		in   int
		src  string
		want bool
	}{
		{wan, "203.0.113.0", true}, {wan, "203.0.113.255", true}, {wan, "203.0.113.9", false}, {wan, ours, true}, {wan, lanAddr, true}, {wan, host, true}, {wan, web, false},
		{lan, "10.0.0.0", true}, {lan, "10.0.0.255", true}, {lan, host, false}, {lan, lanAddr, true}, {lan, ours, true}, {lan, web, true}, {lan, "203.0.113.9", true},
	} {
		p := packet.Packet{Src: ip(c.src), Dst: ip("198.51.100.200")}
		if l.e.martian(&received{Packet: p, in: &l.e.port[c.in]}) != c.want {
			t.Errorf("from %s on side %d: %v", c.src, c.in, !c.want)
		}
	}
}

// TestMartianNetworks: an interface may have its network in a block that is else not
// forwarded; the others stay; networks without broadcast have none.
func TestMartianNetworks(t *testing.T) {
	for _, c := range []struct {
		lan, wan string
		bits     uint8
		has      map[string]bool // martian as a destination
	}{
		{"169.254.7.1", "203.0.113.10", 24, map[string]bool{"169.254.9.9": false, "192.0.0.8": true, "192.0.0.200": true}},
		{"10.0.0.1", "192.0.0.66", 26, map[string]bool{"169.254.9.9": true, "192.0.0.70": false, "192.0.0.8": true, "192.0.0.200": true}},
		{"10.0.0.5", "203.0.113.10", 31, map[string]bool{"10.0.0.4": false, "10.0.0.5": false, "169.254.9.9": true}},
		{"10.0.0.5", "203.0.113.10", 32, map[string]bool{"10.0.0.5": false}},
		{"10.0.0.5", "203.0.113.10", 30, map[string]bool{"10.0.0.4": true, "10.0.0.7": true, "10.0.0.6": false}},
	} {
		l := newLabWith(t, func(p *ruleset.Policy) {
			p.Interfaces[0].Address, p.Interfaces[0].PrefixLen = ip(c.lan).To16(), c.bits
			p.Interfaces[1].Address = ip(c.wan).To16()
			p.Interfaces[1].Gateway = (ip(c.wan) + 1).To16()
			p.SNAT = nil
		}, "accept")
		for a, want := range c.has {
			p := packet.Packet{Src: ip("198.51.100.200"), Dst: ip(a)}
			if l.e.martian(&received{Packet: p, in: &l.e.port[wan]}) != want {
				t.Errorf("%s/%d and %s: to %s: %v", c.lan, c.bits, c.wan, a, !want)
			}
		}
		blocks := len(packet.NotForwarded)
		for _, b := range packet.NotForwarded {
			if b.Has(ip(c.lan)) || b.Has(ip(c.wan)) {
				blocks--
			}
		}
		if len(l.e.martians) != blocks {
			t.Errorf("%s: %d blocks, want %d", c.lan, len(l.e.martians), blocks)
		}
	}
}

// TestOwnAddressesInAnyOrder: further addresses are found whatever the order in
// which they are added, each once, and nothing beside them.
func TestOwnAddressesInAnyOrder(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		s := p.SNAT[0]
		p.SNAT = nil
		for _, a := range []string{"203.0.113.40", "203.0.113.20", "203.0.113.60", ours, "203.0.113.20", "203.0.113.30"} {
			s.External = ip(a).To16()
			p.SNAT = append(p.SNAT, s)
		}
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, "203.0.113.50", 80, 80, server, 80), dnat(packet.TCP, "203.0.113.40", 80, 80, server, 80), dnat(packet.TCP, ours, 80, 80, server, 80)}
	}, "accept")
	w := &l.e.port[wan]
	own := []string{ours, "203.0.113.20", "203.0.113.30", "203.0.113.40", "203.0.113.50", "203.0.113.60"}
	if len(w.further) != len(own)-1 || len(w.defend) != len(own) || len(l.e.port[lan].defend) != 1 || len(l.e.port[lan].further) != 0 {
		t.Fatalf("%d further, room for %d", len(w.further), len(w.defend))
	}
	for i, a := range own {
		if w.index(ip(a)) != i || !w.own(ip(a)) || !l.e.ownAddr(ip(a)) || l.e.port[lan].own(ip(a)) {
			t.Errorf("%s is number %d", a, w.index(ip(a)))
		}
		for _, d := range []int{-1, 1} {
			if x := ip(a) + packet.Addr(d); w.index(x) != -1 || w.own(x) || l.e.ownAddr(x) {
				t.Errorf("%v is number %d", addr(x), w.index(x))
			}
		}
	}
	if x := &l.e.port[lan]; x.index(ip(lanAddr)) != 0 || x.index(ip(host)) != -1 || !l.e.ownAddr(ip(lanAddr)) || w.own(ip(lanAddr)) {
		t.Error("the LAN's address")
	}
	l.e.addOwn(w, 0) // no address
	if len(w.further) != len(own)-1 {
		t.Error("no address is one")
	}
}

// TestUsableTargets: where a destination translation may lead.
func TestUsableTargets(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].SourceMask = mask(25) }, "accept")
	for _, c := range []struct {
		in      int
		src, to string
		hairpin bool
		want    verdict.Reason
	}{
		{wan, web, server, false, 0}, {wan, web, server, true, 0},
		{wan, web, lanAddr, false, verdict.DNATNoBackend}, {wan, web, ours, false, verdict.DNATNoBackend},
		{wan, web, "203.0.113.7", false, verdict.DNATNoBackend}, {wan, web, "192.0.2.7", false, verdict.DNATNoBackend},
		{wan, web, "10.0.1.7", false, verdict.DNATNoBackend},
		{lan, host, server, false, verdict.HairpinUnsupported}, {lan, host, server, true, 0},
		{lan, "10.0.0.200", server, true, verdict.HairpinUnsupported}, // it has no external address
		{lan, host, lanAddr, true, verdict.DNATNoBackend},
		{wan, "10.0.0.200", server, false, 0},
	} {
		p := packet.Packet{Src: ip(c.src)}
		if got := l.e.usable(&received{Packet: p, in: &l.e.port[c.in]}, &nat.Target{Addr: ip(c.to), Hairpin: c.hairpin}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// TestToTheFirewall: the result for each kind of packet to the firewall itself, on each
// side and for each of its addresses.
func TestToTheFirewall(t *testing.T) {
	code := echo(host, lanAddr, packet.EchoRequest, 3)
	code.code = 1
	fromWAN := code
	fromWAN.src, fromWAN.dst = client, ours
	for _, c := range []struct {
		name  string
		from  int
		p     pkt
		why   verdict.Reason // 0: it is answered
		rules uint64         // decisions
	}{
		{"a ping", lan, echo(host, lanAddr, packet.EchoRequest, 3), 0, 1},
		{"a ping from outside", wan, echo(client, ours, packet.EchoRequest, 3), 0, 1},
		{"a ping with a code", lan, code, verdict.NoLocalService, 1},
		{"the same from outside", wan, fromWAN, verdict.NoLocalService, 1},
		{"an answer to no ping", lan, echo(host, lanAddr, packet.EchoReply, 3), verdict.NoLocalService, 1},
		{"a ping of the other side's address", lan, echo(host, ours, packet.EchoRequest, 3), verdict.HairpinUnsupported, 0},
		{"a ping of the inner address from outside", wan, echo(client, lanAddr, packet.EchoRequest, 3), verdict.Martian, 0},
		{"UDP", lan, udp(host, 4000, lanAddr, 53), verdict.NoLocalService, 1}, // there is no DNS proxy
		{"TCP", lan, syn(host, 4000, lanAddr, 53), verdict.NoLocalService, 1},
		{"UDP from outside", wan, udp(client, 4000, ours, 53), verdict.NoLocalService, 1},
		{"TCP from outside", wan, syn(client, 4000, ours, 53), verdict.NoLocalService, 1},
		{"UDP for the inner address from outside", wan, udp(client, 4000, lanAddr, 53), verdict.Martian, 0},
	} {
		l := newLab(t, "accept")
		l.one(lan, udp(host, 999, web, 53))
		decisions := l.e.c.Decisions
		if c.why != 0 {
			l.unanswered(c.from, c.p, c.why)
		} else if across, back := l.put(c.from, c.p); len(across) != 0 || len(back) != 1 || back[0].ICMPType != packet.EchoReply || back[0].Src != ip(c.p.dst) || back[0].Dst != ip(c.p.src) {
			t.Errorf("%s: %v, %v", c.name, across, back)
		} else if r := l.last(); r.Action != verdict.Accept || r.Reason != verdict.RuleAccept || r.Rule != 0 || r.Direction != l.e.port[c.from].direction() || l.e.c.Accepts[0] != 2 {
			t.Errorf("%s: event %+v, accepts %v", c.name, r, l.e.c.Accepts)
		}
		if got := l.e.c.Decisions - decisions; got != c.rules {
			t.Errorf("%s: %d decisions", c.name, got)
		}
		l.invariants()
		// What the rules deny they deny.
		if c.rules == 1 {
			l = newLab(t, "deny")
			l.unanswered(c.from, c.p, verdict.ExplicitDeny)
		}
	}
	// A rule about ports sees those of TCP and UDP, and none of a ping.
	l := newLab(t, "deny egress udp :161", "deny egress tcp :22", "accept")
	l.unanswered(lan, udp(host, 161, lanAddr, 53), verdict.NoLocalService)
	l.unanswered(lan, udp(host, 4000, lanAddr, 161), verdict.ExplicitDeny)
	l.unanswered(lan, syn(host, 22, lanAddr, 53), verdict.NoLocalService)
	l.unanswered(lan, syn(host, 4000, lanAddr, 22), verdict.ExplicitDeny)
}
