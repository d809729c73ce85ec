package router

import (
	"maps"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/neigh"
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
				if n := l.e.port[lan].neigh.Find(ip(a)); n == nil || n.MAC != macOf(ip(a)) {
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
		if n := l.e.port[lan].neigh.Find(ip("10.0.1.77")); n == nil || n.MAC != [6]byte{2, 7, 7, 7, 7, 7} {
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
	if n := l.e.port[lan].neigh.Find(ip("10.0.3.99")); n == nil || n.State != neigh.Incomplete || n.Waiting() != 1 {
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
	n := func(a string) *neigh.Neighbour { return l.e.port[lan].neigh.Find(ip(a)) }
	l.raw(lan, arp(packet.ARPRequest, "10.0.0.7", macOf(ip("10.0.0.7")), "10.0.0.1"))
	if e := n("10.0.0.7"); e == nil || !e.Learned || e.State != neigh.Reachable || e.MAC != macOf(ip("10.0.0.7")) || e.Expires != l.now+neigh.Lifetime {
		t.Fatalf("from a request: %+v", e)
	}
	l.raw(lan, arp(packet.ARPReply, "10.0.0.8", macOf(ip("10.0.0.8")), "10.0.0.1"))
	if e := n("10.0.0.8"); e != nil {
		t.Fatalf("from an answer that nobody asked for: %+v", e)
	}
	l.one(wan, udp(web, 4000, "10.0.0.9", 53))
	if e := n("10.0.0.9"); e == nil || e.Learned || e.State != neigh.Reachable {
		t.Fatalf("from an answer: %+v", e)
	}
	if a := l.e.port[lan].neigh; a.Len() != 2 || a.Pending() != 0 || a.Waiting() != 0 {
		t.Fatalf("%d used, %d asked for, %d wait", a.Len(), a.Pending(), a.Waiting())
	}
	// When its time is over it is asked for, used meanwhile, and is another kind
	// when it has answered.
	l.pass(61)
	l.one(wan, udp(web, 4000, "10.0.0.7", 53))
	if e := n("10.0.0.7"); e == nil || e.Learned || e.State != neigh.Reachable || e.Expires != l.now+neigh.Lifetime {
		t.Fatalf("after its answer: %+v", e)
	}
	// One that does not answer any more is forgotten.
	silent(t, "10.0.0.9", 1)
	l.one(wan, udp(web, 4000, "10.0.0.9", 53))
	if a := l.e.port[lan].neigh; n("10.0.0.9").State != neigh.Probe || a.Pending() != 1 {
		t.Fatalf("%+v, %d asked for", n("10.0.0.9"), a.Pending())
	}
	for range 4 {
		l.pass(1)
	}
	if a := l.e.port[lan].neigh; n("10.0.0.9") != nil || a.Pending() != 0 || a.Len() != 1 {
		t.Fatalf("%+v, %d asked for, %d used", n("10.0.0.9"), a.Pending(), a.Len())
	}
}

// TestShares_NeighbourEntries: a host sends to more unused addresses than the firewall has
// entries; another one's next hops are asked for and found all the while, and none of them
// is forgotten.
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
	for i := range packet.Addr(512) {
		if n := l.e.port[wan].neigh.Find(ip("203.99.0.1") + i); n == nil || n.State != neigh.Reachable {
			t.Fatalf("entry %d is %+v", i, n)
		}
	}
	if n := l.e.port[wan].neigh.Len(); n > neigh.MaxEntries {
		t.Fatalf("%d entries", n)
	}
	l.buffers()
}

// TestShares_WaitingFrames: a host sends to hundreds of addresses that no host has, and
// fills the room for frames that wait. Another one's frames wait, in order and with all
// fragments of a datagram, and leave when its next hop answers.
func TestShares_WaitingFrames(t *testing.T) {
	silent(t, "203.0.0.0", 1<<16)
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].PrefixLen = 8 }, "accept")
	room := min(neigh.MaxWaiting, l.pool.Cap()/4)
	for i := range 3 * room {
		l.put(lan, udp(host, uint16(1000+i/60), addr(ip("203.0.0.1")+packet.Addr(i/60)).String(), 53))
	}
	if n := l.e.port[wan].neigh.Waiting(); n != room {
		t.Fatalf("%d wait, want all of %d", n, room)
	}
	const hop = "203.99.0.1"
	silent(t, hop, 1)
	for i := range uint16(neigh.MaxPerHop) {
		p := udp("10.0.0.3", 4000, hop, 53)
		p.data = []byte{byte(i)}
		l.put(lan, p)
		l.put(lan, udp(host, uint16(1000+i), addr(ip("203.0.128.1")+packet.Addr(i)).String(), 53)) // goes on
	}
	l.port[wan].out = nil
	l.port[wan].in = append(l.port[wan].in, arp(packet.ARPReply, hop, macOf(ip(hop)), ours))
	l.poll()
	left := l.port[wan].out
	l.port[wan].out = nil
	if n := l.e.port[wan].neigh.Find(ip(hop)); n == nil || n.State != neigh.Reachable || n.Waiting() != 0 {
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
	if next != neigh.MaxPerHop {
		t.Fatalf("%d of %d leave; drops: %s", next, neigh.MaxPerHop, l.drops())
	}
	for range 5 {
		l.pass(1)
	}
	if n := l.e.port[wan].neigh.Waiting(); n != 0 {
		t.Fatalf("%d wait for ever", n)
	}
	l.buffers()
}

// TestHolders: for whom a frame waits: for the host that has sent it, and of the
// firewall's own for a conversation of UDP, or else for a destination.
func TestHolders(t *testing.T) {
	l := newLab(t, "accept")
	of := func(source string, v pkt, cut int) uint64 {
		if l.e.source = 0; source != "" {
			l.e.source = ip(source)
		}
		f := v.frame(wanMAC)
		return l.e.holder(f[:len(f)-cut])
	}
	a, b := udp(ours, 4000, web, 53), udp(ours, 4001, web, 53)
	c, d := udp(ours, 4000, "192.0.2.9", 53), syn(ours, 4000, web, 80)
	e := syn(ours, 4001, web, 80)
	n := len(a.frame(wanMAC)) - packet.EthLen - packet.MinIPv4
	same := func(what string, x, y uint64, want bool) {
		t.Helper()
		if (x == y) != want {
			t.Errorf("%s: %x and %x", what, x, y)
		}
	}
	same("a host's, whatever it sends", of(host, a, 0), of(host, c, 0), true)
	same("two hosts'", of(host, a, 0), of("10.0.0.3", a, 0), false)
	same("own, the same", of("", a, 0), of("", a, 0), true)
	same("own, by port", of("", a, 0), of("", b, 0), false)
	same("own, by destination", of("", a, 0), of("", c, 0), false)
	same("own TCP, not by port", of("", d, 0), of("", e, 0), true)
	same("own, cut behind the port", of("", a, n-2), of("", a, 0), true)
	same("own, cut within the port", of("", a, n-1), of("", b, n-1), true)
	same("own, cut within the port, and whole", of("", a, n-1), of("", a, 0), false)
	opts := func(v pkt) uint64 { l.e.source = 0; return l.e.holder(withOptions(v.frame(wanMAC))) }
	same("own, with options", opts(a), of("", a, 0), true)
	same("own, with options, by port", opts(a), opts(b), false)
}
