package nat

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestOwnPortsWithoutAPool: where no source is translated to the firewall's address its own
// ports are those from 1024 up, but the published ones; each is had by one until it is
// given back, TCP's and UDP's apart.
func TestOwnPortsWithoutAPool(t *testing.T) {
	pol := policyWith(snat(second, 1024, 65535, 0, 0))
	pol.DNAT = []ruleset.DNAT{dnat(packet.UDP, external, 1026, 65530, web, 1)}
	o := newNAT(t, pol).Own()
	free := map[uint16]bool{1024: true, 1025: true, 65531: true, 65532: true, 65533: true, 65534: true, 65535: true}
	r := rand.New(rand.NewPCG(1, 3))
	for round := range 3 {
		got := map[uint16]bool{}
		for range len(free) {
			port, ok := o.Take(packet.UDP, r.Uint64())
			if !ok || !free[port] || got[port] {
				t.Fatalf("round %d: port %d, %v, after %v", round, port, ok, got)
			}
			got[port] = true
		}
		if port, ok := o.Take(packet.UDP, r.Uint64()); ok || port != 0 {
			t.Fatalf("port %d of none", port)
		}
		o.Give(packet.TCP, 1025) // not UDP's
		o.Give(packet.ICMP, 1025)
		o.Give(132, 1025)
		if port, ok := o.Take(packet.UDP, r.Uint64()); ok || port != 0 {
			t.Fatalf("port %d of none", port)
		}
		for port := range got {
			o.Give(packet.UDP, port)
			if again, ok := o.Take(packet.UDP, r.Uint64()); !ok || again != port {
				t.Fatalf("port %d was given back, %d taken, %v", port, again, ok)
			}
		}
		for port := range got {
			o.Give(packet.UDP, port)
		}
	}
	// All of TCP's, each once.
	got := map[uint16]bool{}
	for range 65536 - 1024 {
		port, ok := o.Take(packet.TCP, r.Uint64())
		if !ok || port < 1024 || got[port] {
			t.Fatalf("port %d, %v, after %d", port, ok, len(got))
		}
		got[port] = true
	}
	if port, ok := o.Take(packet.TCP, 1); ok || port != 0 {
		t.Fatalf("port %d of none", port)
	}
	for _, proto := range []uint8{packet.ICMP, 0, 132} {
		if port, ok := o.Take(proto, 1); ok || port != 0 {
			t.Errorf("port %d of protocol %d", port, proto)
		}
	}
}

// TestOwnPortsFollowTheirNumber: rnd selects the port and its parity, so that the next one
// cannot be predicted, with a pool and without.
func TestOwnPortsFollowTheirNumber(t *testing.T) {
	for name, p := range map[string]*ruleset.Policy{"pool": policyWith(snat(0, 1000, 65535, 0, 0)), "none": policyWith()} {
		o := newNAT(t, p).Own()
		for _, rnd := range []uint64{0, 1, 5, 1 << 32, 1000<<32 | 1, 64511 << 32, 64512<<32 | 1, 0xffffffffffffffff} {
			port, ok := o.Take(packet.UDP, rnd)
			start := 1024 + uint32(rnd>>32)%64512
			if d := uint32(port) - start; !ok || port%2 != uint16(rnd)%2 || d > 8 && start < 65530 {
				t.Errorf("%s: %#x chooses port %d, %v, from %d on", name, rnd, port, ok, start)
			}
		}
	}
}

// TestOwnPortsAreHighOnes, where a pool has any.
func TestOwnPortsAreHighOnes(t *testing.T) {
	for _, c := range []struct {
		lo, hi uint16
		n      int // own ports there are
	}{{1000, 1023, 24}, {1000, 1024, 1}, {1000, 1027, 4}, {1024, 1027, 4}, {1023, 1023, 1}, {1024, 1024, 1}} {
		n := newNAT(t, policyWith(snat(0, c.lo, c.hi, 0, 0)))
		for i := range c.n {
			if port, ok := n.Own().Take(packet.TCP, uint64(i)<<33); !ok || port < 1024 && c.hi >= 1024 {
				t.Errorf("%d to %d: port %d, %v", c.lo, c.hi, port, ok)
			}
		}
		if n.pools[0].Failed != 0 {
			t.Errorf("%d to %d: %d failures", c.lo, c.hi, n.pools[0].Failed)
		}
		if port, ok := n.Own().Take(packet.TCP, 7); ok || n.pools[0].Failed != 1 {
			t.Errorf("%d to %d: one more is port %d; %d failures", c.lo, c.hi, port, n.pools[0].Failed)
		}
	}
}

// TestOwnAddress: the WAN interface's, or none.
func TestOwnAddress(t *testing.T) {
	p := policyWith()
	p.Interfaces = p.Interfaces[:1]
	n := newNAT(t, p)
	if n.Own().Addr() != 0 || n.Own().pool != nil {
		t.Errorf("an address without an interface: %x", n.Own().Addr())
	}
	n = newNAT(t, policyWith(snat(second, 1024, 65535, web, 32), snat(0, 2048, 65535, mail, 32), snat(second+1, 1024, 65535, peer, 32)))
	if n.Own().Addr() != external || n.Own().pool != n.pools[1] {
		t.Fatal("another address's pool")
	}
	for i, p := range n.pools { // only of its own address something is kept
		want := 0
		if i == 1 {
			want = (65536 - 2048) / 64
		}
		if p.space[0].kept != want || p.space[1].kept != want || p.space[2].kept != 0 {
			t.Errorf("pool %d keeps %d, %d, %d", i, p.space[0].kept, p.space[1].kept, p.space[2].kept)
		}
	}
}

// TestShareOfAHost: the largest number of mappings of a host, for each number of free
// ports, of the whole pool and of a part.
func TestShareOfAHost(t *testing.T) {
	p := NewPool(external, 2000, 2999, 1)
	s := p.space[1]
	for _, c := range []struct {
		has, inUse, reserved, kept, own int
		want                            bool
	}{
		{0, 999, 0, 0, 0, true}, {0, 1000, 0, 0, 0, false}, {30, 999, 0, 0, 0, true}, {31, 999, 0, 0, 0, false},
		{46 - 1, 998, 0, 0, 0, true}, {46, 998, 0, 0, 0, false},
		{0, 900, 99, 0, 0, true}, {0, 900, 100, 0, 0, false}, {31, 900, 99, 0, 0, false},
		{0, 984, 0, 15, 0, true}, {0, 985, 0, 15, 0, false}, {0, 985, 0, 15, 1, true}, {31, 985, 0, 15, 1, false}, {30, 985, 0, 15, 1, true},
		{31, 984, 0, 15, 20, true}, // more than are kept
	} {
		s.shares = shares{}
		s.shares.add(web, p.key, uint16(c.has))
		s.inUse, s.reserved, s.kept, s.own = c.inUse, c.reserved, c.kept, c.own
		if got := p.mayTake(s, web, 2000, 2999); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
		if got := p.mayTake(s, mail, 2000, 2999); got != (c.inUse+c.reserved+max(0, c.kept-c.own) < 1000) {
			t.Errorf("%+v: another host: %v", c, got)
		}
	}
	// Of a part of the pool at either end only what is free there counts.
	for _, part := range [][2]uint16{{2000, 2009}, {2990, 2999}, {2500, 2509}} {
		*s = *newSpace(1000)
		for i, port := 0, part[0]; port <= part[1]; i, port = i+1, port+1 {
			s.shares = shares{}
			s.shares.add(web, p.key, uint16(15*(10-i)+15))
			if !p.mayTake(s, web, part[0], part[1]) {
				t.Errorf("%v with %d free: not as many as %d", part, 10-i, 15*(10-i)+16)
			}
			s.shares.add(web, p.key, 1)
			if p.mayTake(s, web, part[0], part[1]) {
				t.Errorf("%v with %d free: more than %d", part, 10-i, 15*(10-i)+16)
			}
			s.used[port/64] |= 1 << (port % 64)
		}
		if p.mayTake(s, mail, part[0], part[1]) || !p.mayTake(s, mail, 2000, 2999) {
			t.Errorf("%v is used up: %v", part, p.mayTake(s, mail, part[0], part[1]))
		}
	}
}

// TestCellsAreSpread: hosts of a network have cells all over both rows, those of
// one row say nothing about the other, and another key gives others.
func TestCellsAreSpread(t *testing.T) {
	const n = 2000
	last := map[packet.Addr][2]uint64{}
	for _, key := range []uint64{0, 1, 0x0123456789abcdef, 1 << 63} {
		var rows [2]map[uint64]bool
		rows[0], rows[1] = map[uint64]bool{}, map[uint64]bool{}
		both, same, equal := map[[2]uint64]bool{}, 0, 0
		for i := range packet.Addr(n) {
			a, b := cells(0x0a000000+i, key)
			if a >= 1<<shareBits || b >= 1<<shareBits {
				t.Fatalf("cells %d and %d", a, b)
			}
			rows[0][a], rows[1][b], both[[2]uint64{a, b}] = true, true, true
			if last[0x0a000000+i] == [2]uint64{a, b} {
				same++
			}
			if a == b {
				equal++
			}
			last[0x0a000000+i] = [2]uint64{a, b}
		}
		// 4096 cells: n at random are in 4096 * (1 - exp(-n/4096)), or 1582.
		if len(rows[0]) < 1500 || len(rows[0]) > 1660 || len(rows[1]) < 1500 || len(rows[1]) > 1660 || len(both) < n-3 || same > 2 || equal > 10 {
			t.Errorf("key %#x: %d and %d cells, %d pairs, %d as before, %d alike", key, len(rows[0]), len(rows[1]), len(both), same, equal)
		}
	}
	// The hash is SplitMix64's: its first outputs after the seed 1234567.
	for i, h := range []uint64{6457827717110365317, 3203168211198807973} {
		if a, b := cells(0, 1234567+uint64(i+1)*0x9e3779b97f4a7c15); a != h&0xfff || b != h>>32&0xfff {
			t.Errorf("cells %#x and %#x, want %#x and %#x", a, b, h&0xfff, h>>32&0xfff)
		}
	}
	// The lower of two cells counts.
	var s shares
	a, b := cells(web, 1)
	s[0][a], s[1][b] = 7, 3
	if s.of(web, 1) != 3 {
		t.Error(s.of(web, 1))
	}
	s[0][a], s[1][b] = 2, 3
	if s.of(web, 1) != 2 {
		t.Error(s.of(web, 1))
	}
}
