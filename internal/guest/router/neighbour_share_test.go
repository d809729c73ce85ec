package router

import (
	"maps"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// wide makes the LAN a network with a prefix of so many bits, without translation.
func wide(bits uint8) func(p *ruleset.Policy) {
	return func(p *ruleset.Policy) {
		p.Interfaces[0].Address, p.Interfaces[0].PrefixLen = ip("10.0.0.1").To16(), bits
		p.SNAT = nil
	}
}

// silent makes hosts that do not answer ARP, until the test is over.
func silent(t *testing.T, from string, n int) {
	old := dead
	t.Cleanup(func() { dead = old })
	dead = maps.Clone(dead)
	for i := range n {
		dead[ip(from)+packet.Addr(i)] = true
	}
}

// TestARP_KnownNeighbourIsNotMoved: on large networks a host asks for the
// firewall's address in the name of every other one, to have a neighbour
// forgotten, and claims that one's address then. No neighbour that is alive
// moves, whether it was learned from its own request or from its answer; and
// hosts that were not known still are found.
func TestARP_KnownNeighbourIsNotMoved(t *testing.T) {
	evil := [6]byte{2, 6, 6, 6, 6, 6}
	for _, bits := range []uint8{22, 20, 16} {
		l := newLabWith(t, wide(bits), "accept")
		l.anyMAC = true
		known := []string{"10.0.0.2", "10.0.1.77", "10.0.3.200", "10.0.2.9"}
		for i, a := range known {
			if i%2 == 0 {
				l.raw(lan, arp(packet.ARPRequest, a, macOf(ip(a)), "10.0.0.1"))
			}
			l.one(wan, udp(web, 4000, a, 53))
		}
		size := min(uint32(1)<<(32-bits), 1<<14)
		for round := range 3 {
			for i := uint32(2); i < size-1; i++ {
				a := ip("10.0.0.0") + packet.Addr(i)
				if slices.Contains(known, addr(a).String()) {
					continue
				}
				l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, addr(a).String(), evil, "10.0.0.1"))
				if i%512 == 0 {
					l.run()
				}
			}
			for _, a := range known {
				l.raw(lan, arp(packet.ARPRequest, a, evil, "10.0.0.1"))
			}
			l.run()
			l.taken(lan)
			for _, a := range known {
				if n := l.e.port[lan].arp.find(ip(a)); n == nil || n.mac != macOf(ip(a)) {
					t.Fatalf("/%d, round %d: %s is %+v", bits, round, a, n)
				}
				v := l.one(wan, udp(web, 4000, a, 53))
				if [6]byte(v.frame) != macOf(ip(a)) {
					t.Fatalf("/%d: a packet for %s went to %x", bits, a, v.frame[:6])
				}
			}
			l.pass(1)
		}
		// The twin: a host that moves is found after its time, and one that has
		// just come is found although the table is full.
		if bits == 16 {
			if v := l.one(wan, udp(web, 4000, "10.0.200.7", 53)); [6]byte(v.frame) != macOf(ip("10.0.200.7")) {
				t.Fatalf("a new host's packet went to %x", v.frame[:6])
			}
		}
		l.pass(61)
		l.raw(lan, arp(packet.ARPRequest, "10.0.1.77", [6]byte{2, 7, 7, 7, 7, 7}, "10.0.0.1"))
		if n := l.e.port[lan].arp.find(ip("10.0.1.77")); n == nil || n.mac != [6]byte{2, 7, 7, 7, 7, 7} {
			t.Fatalf("/%d: a host that has moved is %+v", bits, n)
		}
		l.buffers()
	}
}

// TestARP_RequestsDisplaceNoResolution: nor do requests end what is being
// resolved, with the frames that wait there.
func TestARP_RequestsDisplaceNoResolution(t *testing.T) {
	silent(t, "10.0.3.99", 1)
	l := newLabWith(t, wide(20), "accept")
	l.put(wan, udp(web, 4000, "10.0.3.99", 53))
	for i := uint32(2); i < 1<<12-1; i++ {
		if a := ip("10.0.0.0") + packet.Addr(i); !dead[a] {
			l.raw(lan, arp(packet.ARPRequest, addr(a).String(), macOf(a), "10.0.0.1"))
		}
	}
	if n := l.e.port[lan].arp.find(ip("10.0.3.99")); n == nil || n.state != unresolved || n.n != 1 {
		t.Fatalf("%+v", n)
	}
	l.raw(lan, arp(packet.ARPReply, "10.0.3.99", macOf(ip("10.0.3.99")), "10.0.0.1"))
	if l.e.c.DropReasons[verdict.NeighbourUnresolved] != 0 || l.e.c.TxPackets[lan] == 0 {
		t.Fatalf("drops: %s", l.drops())
	}
	l.buffers()
}

// TestARP_EntriesOfHosts: what a host's entry is, from a request, from an answer
// to ours, and over its life.
func TestARP_EntriesOfHosts(t *testing.T) {
	l := newLabWith(t, routed, "accept")
	n := func(a string) *neighbour { return l.e.port[lan].arp.find(ip(a)) }
	l.raw(lan, arp(packet.ARPRequest, "10.0.0.7", macOf(ip("10.0.0.7")), "10.0.0.1"))
	if e := n("10.0.0.7"); e == nil || !e.learned || e.state != reachable || e.mac != macOf(ip("10.0.0.7")) || e.expires != l.now+arpLifetime {
		t.Fatalf("from a request: %+v", e)
	}
	l.raw(lan, arp(packet.ARPReply, "10.0.0.8", macOf(ip("10.0.0.8")), "10.0.0.1"))
	if e := n("10.0.0.8"); e != nil {
		t.Fatalf("from an answer that nobody asked for: %+v", e)
	}
	l.one(wan, udp(web, 4000, "10.0.0.9", 53))
	if e := n("10.0.0.9"); e == nil || e.learned || e.state != reachable {
		t.Fatalf("from an answer: %+v", e)
	}
	if a := &l.e.port[lan].arp; a.used != 2 || a.waiting != 0 || a.held.n != 0 {
		t.Fatalf("%d used, %d asked for, %d wait", a.used, a.waiting, a.held.n)
	}
	// When its time is over it is asked for, used meanwhile, and is another kind
	// when it has answered.
	l.pass(61)
	l.one(wan, udp(web, 4000, "10.0.0.7", 53))
	if e := n("10.0.0.7"); e == nil || e.learned || e.state != reachable || e.expires != l.now+arpLifetime {
		t.Fatalf("after its answer: %+v", e)
	}
	// One that does not answer any more is forgotten.
	silent(t, "10.0.0.9", 1)
	l.one(wan, udp(web, 4000, "10.0.0.9", 53))
	if a := &l.e.port[lan].arp; n("10.0.0.9").state != probing || a.waiting != 1 {
		t.Fatalf("%+v, %d asked for", n("10.0.0.9"), a.waiting)
	}
	for range 4 {
		l.pass(1)
	}
	if a := &l.e.port[lan].arp; n("10.0.0.9") != nil || a.waiting != 0 || a.used != 1 {
		t.Fatalf("%+v, %d asked for, %d used", n("10.0.0.9"), a.waiting, a.used)
	}
}

// waits checks the counts of frames that wait against the frames.
func (l *lab) waits() {
	l.t.Helper()
	for i := range l.e.port {
		p := &l.e.port[i]
		n, used, waiting := 0, 0, 0
		var by, asked [holders]uint16
		for j := range p.arp.slot {
			s := &p.arp.slot[j]
			fr := s.first
			for range s.n {
				by[l.e.nodes[fr.Buf].off]++
				n++
				fr = l.e.nodes[fr.Buf].next
			}
			if s.state != unused {
				used++
			}
			if s.state == unresolved {
				asked[s.holder]++
			}
			if s.state == unresolved || s.state == probing {
				waiting++
			}
		}
		if a := &p.arp; n != a.held.n || by != a.held.by || used != a.used || asked != a.asked || waiting != a.waiting {
			l.t.Fatalf("side %d: %d wait, counted %d; %d used, counted %d; %d asked for, counted %d", i, n, a.held.n, used, a.used, waiting, a.waiting)
		}
	}
}

// TestShares_NeighbourEntries: a host sends to more addresses that nobody has
// than the firewall has entries; another one's next hops are asked for and found
// all the while, and none of them is forgotten.
func TestShares_NeighbourEntries(t *testing.T) {
	silent(t, "203.0.0.0", 1<<13)
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].PrefixLen = 8 }, "accept")
	for i := range packet.Addr(1<<13 - 2) {
		l.put(lan, udp(host, 4000, addr(ip("203.0.0.1")+i).String(), 53))
		if i%8 == 0 {
			l.one(lan, udp("10.0.0.3", 4000, addr(ip("203.99.0.1")+i/8%512).String(), 53))
		}
		if i%64 == 0 {
			l.now += second / 50
		}
	}
	l.waits()
	for i := range packet.Addr(512) {
		if n := l.e.port[wan].arp.find(ip("203.99.0.1") + i); n == nil || n.state != reachable {
			t.Fatalf("entry %d is %+v", i, n)
		}
	}
	if n := l.e.port[wan].arp.used; n > neighbourSlots {
		t.Fatalf("%d entries", n)
	}
	l.buffers()
}

// TestShares_WaitingFrames: a host sends to hundreds of addresses that nobody
// has, and fills the room for frames that wait. Another one's frames wait, in
// order and with all fragments of a datagram, and leave when its next hop
// answers.
func TestShares_WaitingFrames(t *testing.T) {
	silent(t, "203.0.0.0", 1<<16)
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].PrefixLen = 8 }, "accept")
	room := l.e.port[wan].arp.held.room
	for i := range 3 * room {
		l.put(lan, udp(host, uint16(1000+i/60), addr(ip("203.0.0.1")+packet.Addr(i/60)).String(), 53))
	}
	l.waits()
	if n := l.e.port[wan].arp.held.n; n != room {
		t.Fatalf("%d wait, want all of %d", n, room)
	}
	const hop = "203.99.0.1"
	silent(t, hop, 1)
	for i := range uint16(queued) {
		p := udp("10.0.0.3", 4000, hop, 53)
		p.data = []byte{byte(i)}
		l.put(lan, p)
		l.put(lan, udp(host, uint16(1000+i), addr(ip("203.0.128.1")+packet.Addr(i)).String(), 53)) // goes on
	}
	l.waits()
	l.port[wan].out = nil
	l.port[wan].in = append(l.port[wan].in, arp(packet.ARPReply, hop, macOf(ip(hop)), ours))
	l.e.Poll(l.now)
	left := l.port[wan].out
	l.port[wan].out = nil
	l.waits()
	if n := l.e.port[wan].arp.find(ip(hop)); n == nil || n.state != reachable || n.n != 0 {
		t.Fatalf("%+v", n)
	}
	next := byte(0)
	for _, f := range left {
		var v view
		if _, why := packet.ParseIPv4(f, &v.Packet); why == 0 && v.Dst == ip(hop) {
			if got := f[int(v.L4)+packet.UDPLen]; got != next {
				t.Fatalf("packet %d leaves after %d", got, next)
			}
			next++
		}
	}
	if next != queued {
		t.Fatalf("%d of %d leave; drops: %s", next, queued, l.drops())
	}
	for range 5 {
		l.pass(1)
	}
	l.waits()
	if n := l.e.port[wan].arp.held.n; n != 0 {
		t.Fatalf("%d wait for ever", n)
	}
	l.buffers()
}
