package nat

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// hog takes ports of a pool for a host until it gets no more, and returns how
// many it has got.
func hog(p *Pool, addr packet.Addr) (n int) {
	for port := uint32(1024); port <= 65535; port++ {
		if _, ok := p.Take(packet.UDP, addr, uint16(port), uint64(port)*0x9e3779b97f4a7c15); !ok {
			return n
		}
		n++
	}
	return n
}

// TestShareOfAPool: one host gets fifteen sixteenths of a pool, others get the ports that
// they need, and when all take as many as they can each gets the same.
func TestShareOfAPool(t *testing.T) {
	p := NewPool(external, 1024, 65535, 99)
	first := hog(p, 1)
	if first < 64512*15/16-1 || first > 64512*15/16+fewPorts {
		t.Fatalf("one host has %d of 64512 ports", first)
	}
	for h := packet.Addr(2); h <= 101; h++ {
		for i := range uint16(20) {
			if _, ok := p.Take(packet.UDP, h, 5000+i, uint64(h)<<40); !ok {
				t.Fatalf("host %d has no port %d", h, i)
			}
		}
	}
	if n := hog(p, 102); n < 150 {
		t.Errorf("a second host that takes what it can has %d", n)
	}
	if _, ok := p.Take(packet.UDP, 103, 4000, 1); !ok {
		t.Error("nothing is left")
	}
	// What it gives back it may have again.
	free := p.Size(packet.UDP) - p.InUse(packet.UDP)
	for port := uint32(p.Lo); port <= uint32(p.Hi); port++ {
		p.Give(packet.UDP, uint16(port))
	}
	if p.InUse(packet.UDP) != 0 || p.space[1].shares != (shares{}) || free == 0 {
		t.Fatalf("%d in use after all are given back", p.InUse(packet.UDP))
	}
	if n := hog(p, 1); n != first {
		t.Fatalf("%d, want %d as at first", n, first)
	}
}

// TestShareOfARange: the same within an entry's part of a pool.
func TestShareOfARange(t *testing.T) {
	p := NewPool(external, 1024, 65535, 99)
	n := 0
	for port := uint16(1024); ; port++ {
		if _, ok := p.take(packet.UDP, 1, port, 2000, 2999, uint64(port)<<50); !ok {
			break
		}
		n++
	}
	if n < 930 || n > 938+fewPorts {
		t.Fatalf("one host has %d of 1000", n)
	}
	if port, ok := p.take(packet.UDP, 2, 4000, 2000, 2999, 1); !ok || port < 2000 || port > 2999 {
		t.Fatalf("another one: %d, %v", port, ok)
	}
}

// TestFreeIn compares the count of free ports with a plain one.
func TestFreeIn(t *testing.T) {
	s := newSpace(64512)
	for i := range s.used {
		s.used[i] = uint64(i) * 0x9e3779b97f4a7c15
	}
	for _, r := range [][2]uint16{{1, 65535}, {64, 127}, {63, 64}, {1000, 1000}, {1, 63}, {65535, 65535}, {1024, 5001}} {
		want := 0
		for port := uint32(r[0]); port <= uint32(r[1]); port++ {
			if s.free(uint16(port)) {
				want++
			}
		}
		if got := s.freeIn(r[0], r[1]); got != want {
			t.Errorf("%v: %d, want %d", r, got, want)
		}
	}
}

// TestOwnPortsAreKept: whatever hosts take, the firewall has ports for TCP and UDP.
func TestOwnPortsAreKept(t *testing.T) {
	n := newNAT(t, policyWith(ruleset.SNAT{Interface: 1, PortLo: 1024, PortHi: 65535}))
	p := n.pools[0]
	// So many hosts that each may have a few although nothing is free.
	for h := packet.Addr(1); h <= 20_000; h++ {
		for i := range uint16(4) {
			p.Take(packet.UDP, h, 5000+i, uint64(h)*0x9e3779b97f4a7c15)
		}
	}
	if p.Failed == 0 {
		t.Fatal("the pool is not full")
	}
	kept := p.space[1].kept
	if free := p.Size(packet.UDP) - p.InUse(packet.UDP); free != kept || kept < 1000 || p.space[2].kept != 0 {
		t.Fatalf("%d ports are free, %d kept, %d of ICMP", free, kept, p.space[2].kept)
	}
	var got []uint16
	for i := range kept {
		port, ok := n.Own().Take(packet.UDP, uint64(i+1)*0xd1342543de82ef95)
		if !ok {
			t.Fatalf("no port after %d", i)
		}
		got = append(got, port)
	}
	if _, ok := n.Own().Take(packet.UDP, 1); ok {
		t.Fatal("a port that is not there")
	}
	// What the firewall gives back stays its own.
	n.Own().Give(packet.UDP, got[0])
	if _, ok := p.Take(packet.UDP, 1, 4000, 1); ok {
		t.Fatal("a host has a port that is kept")
	}
	if _, ok := n.Own().Take(packet.UDP, 1); !ok {
		t.Fatal("the firewall has not")
	}
	// Beyond what is kept it takes what is free, and then hosts have those.
	n = newNAT(t, policyWith(ruleset.SNAT{Interface: 1, PortLo: 2000, PortHi: 2127}))
	for i := range 100 {
		if _, ok := n.Own().Take(packet.TCP, uint64(i+1)*0xd1342543de82ef95); !ok {
			t.Fatalf("%d of a pool of its own", i)
		}
	}
	if _, ok := n.pools[0].Take(packet.TCP, 1, 4000, 1); !ok {
		t.Fatal("nothing for a host")
	}
}
