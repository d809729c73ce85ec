package nat

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestAim: the slot that is prefetched first is that where the search for an endpoint begins.
func TestAim(t *testing.T) {
	n := aheadOf(t)
	r := rand.New(rand.NewPCG(1, 2))
	var g Guess
	for range 2000 {
		addr, port := packet.Addr(0x0a000000+r.Uint32N(256)), uint16(1900+r.Uint32N(60000))
		proto := Protocols[r.IntN(len(Protocols))]
		s := n.pools[0].space[spaceOf(proto)]
		slot, ok := n.Aim(&g, proto, addr, port)
		n.Map(proto, addr, port, r.Uint64())
		if at := uintptr(unsafe.Pointer(&s.index[s.home(addr, port, n.pools[0].key)])); !ok || slot != at {
			t.Fatalf("%v %d: the index at %#x, not %#x", addr, port, slot, at)
		}
	}
}

// TestNoGuess: nothing is guessed of what has no pool, or perhaps a static mapping; what was
// guessed before of another endpoint is not left.
func TestNoGuess(t *testing.T) {
	n := aheadOf(t)
	for _, x := range []struct {
		proto uint8
		addr  packet.Addr
		port  uint16
	}{{packet.UDP, 0x0a000100, 3000}, {47, 0x0a000001, 3000}, {packet.UDP, 0x0a000005, 80}, {packet.UDP, 0x0a000006, 80}} {
		var g Guess
		if !n.Foretell(&g, packet.UDP, 0x0a000001, 5000) || g.Port != 5000 {
			t.Fatalf("%+v", g)
		}
		was := g
		if n.Take(&g, x.proto, x.addr, x.port) || g != was {
			t.Errorf("%+v: took another's guess", x)
		}
		if n.Foretell(&g, x.proto, x.addr, x.port) || n.Take(&g, packet.UDP, 0x0a000001, 5000) {
			t.Errorf("%+v: %+v", x, g)
		}
		if _, ok := n.Aim(&g, x.proto, x.addr, x.port); ok {
			t.Errorf("%+v: aimed", x)
		}
	}
	// Of TCP and of ICMP the server has no port.
	for _, proto := range []uint8{packet.TCP, packet.ICMP} {
		if g := (Guess{}); !n.Foretell(&g, proto, 0x0a000005, 80) || g.Port != 0 {
			t.Errorf("%d: %+v", proto, g)
		}
	}
	var g Guess
	n.Aim(&g, packet.UDP, 0x0a000001, 5001)
	if n.Take(&g, packet.UDP, 0x0a000001, 5001) {
		t.Error("a port was taken that nobody has looked for")
	}
}

// guessed makes a guess, by as many steps as there are.
func guessed(n *NAT, g *Guess, proto uint8, addr packet.Addr, port uint16, rnd uint64) bool {
	return n.Foretell(g, proto, addr, port) && (g.Port != 0 || n.Draw(g, rnd))
}

// TestForetell: what is foretold of a flow is what it gets with the same random number, and the
// place of it; nothing changes by it.
func TestForetell(t *testing.T) {
	n := aheadOf(t)
	r := rand.New(rand.NewPCG(3, 4))
	drawn, known, refused := 0, 0, 0
	for range 100_000 {
		addr, port := packet.Addr(0x0a000000+r.Uint32N(16)), uint16(1024+r.Uint32N(64000))
		proto, rnd := Protocols[r.IntN(len(Protocols))], r.Uint64()
		s := n.pools[0].space[spaceOf(proto)]
		was := s.inUse
		var g, again Guess
		if r.IntN(2) == 0 {
			n.Aim(&g, proto, addr, port)
		}
		ok := guessed(n, &g, proto, addr, port, rnd)
		if guessed(n, &again, proto, addr, port, rnd); again != g || s.inUse != was {
			t.Fatal("something has changed")
		}
		got, o := n.Map(proto, addr, port, rnd)
		switch {
		case o != Mapped:
			refused++ // the host has its share, or no port is free
		case !ok || g.Mapping != got:
			t.Fatalf("%d %v %d: %+v foretold (%v), %+v given", proto, addr, port, g, ok, got)
		case n.Line(&g) != uintptr(unsafe.Pointer(&s.byExt[got.Port-2000])):
			t.Fatalf("%v %d: the mapping at %#x", addr, port, n.Line(&g))
		case s.inUse == was:
			known++
		case got.Port != port:
			drawn++
		}
		if r.IntN(2) == 0 {
			n.Give(got.Pool, proto, got.Port)
		}
	}
	if drawn < 1000 || known < 100 {
		t.Errorf("%d drawn, %d known, %d refused", drawn, known, refused)
	}
}

// twins returns two translations that are the same: two pools, one of which has a range of ports
// for some hosts, and so few ports that everybody is in everybody's way.
func twins(t *testing.T) (a, b *NAT) {
	wan := external.To16()
	of := func(net, mask packet.Addr, lo, hi uint16, ext [16]byte) ruleset.SNAT {
		return ruleset.SNAT{Interface: 1, PortLo: lo, PortHi: hi, External: ext, Source: net.To16(), SourceMask: mask.To16()}
	}
	p := &ruleset.Policy{Interfaces: []ruleset.Interface{{Role: ruleset.LAN}, {Role: ruleset.WAN, Address: wan}},
		SNAT: []ruleset.SNAT{of(0x0a000000, 0xfffffffc, 1000, 1015, wan), of(0x0a000000, 0xffffff00, 1000, 1063, wan), of(0x0a000000, 0xffffff00, 1000, 1063, (external + 1).To16())},
		DNAT: []ruleset.DNAT{{External: wan, Proto: packet.UDP, PortLo: 1010, PortHi: 1010, To: packet.Addr(0x0a000005).To16(), ToPort: 1020}}}
	for _, n := range []**NAT{&a, &b} {
		var err error
		if *n, err = New(p, 99); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// TestGuessIsMap: whatever happens between a guess and its flow, one that is taken, or Map where
// it cannot be, gives the flow what Map gives its twin that has no guesses, and leaves the same.
func TestGuessIsMap(t *testing.T) {
	type ahead struct {
		Guess
		proto uint8
		addr  packet.Addr
		port  uint16
		rnd   uint64
	}
	a, b := twins(t)
	r := rand.New(rand.NewPCG(5, 6))
	type held struct {
		Mapping
		proto uint8
	}
	var flows []held
	var own []uint16
	taken, moved, spoiled := 0, 0, 0
	for round := range 20_000 {
		var gs [4]ahead
		for i := range gs {
			g := &gs[i]
			g.proto, g.addr, g.port, g.rnd = Protocols[r.IntN(3)], packet.Addr(0x0a000000+r.Uint32N(12)), uint16(990+r.Uint32N(80)), r.Uint64()
			if i > 0 && r.IntN(3) == 0 {
				g.proto, g.addr, g.port = gs[i-1].proto, gs[i-1].addr, gs[i-1].port
			}
			if r.IntN(4) == 0 {
				a.Foretell(&g.Guess, g.proto, g.addr, g.port) // and no number was drawn
			} else {
				guessed(a, &g.Guess, g.proto, g.addr, g.port, g.rnd)
			}
		}
		for i := range gs {
			g := &gs[i]
			for range r.IntN(3) {
				switch n := len(flows); {
				case n > 0 && r.IntN(100) < min(50, n/2):
					j := r.IntN(n)
					a.Give(flows[j].Pool, flows[j].proto, flows[j].Port)
					b.Give(flows[j].Pool, flows[j].proto, flows[j].Port)
					flows[j] = flows[n-1]
					flows = flows[:n-1]
				case r.IntN(8) == 0 && len(own) > 0:
					a.Own().Give(packet.UDP, own[0])
					b.Own().Give(packet.UDP, own[0])
					own = own[1:]
				case r.IntN(8) == 0:
					rnd := r.Uint64()
					x, ok := a.Own().Take(packet.UDP, rnd)
					if y, same := b.Own().Take(packet.UDP, rnd); x != y || ok != same {
						t.Fatalf("own port %d and %d", x, y)
					} else if ok {
						own = append(own, x)
					}
				}
			}
			if r.IntN(8) == 0 { // goes on with what was begun before
				guessed(a, &g.Guess, g.proto, g.addr, g.port, g.rnd)
			}
			was, s := g.Guess, a.pools[0].space[max(spaceOf(g.proto), 0)]
			mappings, others := s.inUse, a.pools[1].space[spaceOf(g.proto)].inUse
			got, o := Mapping{}, Mapped
			if a.Take(&g.Guess, g.proto, g.addr, g.port) {
				got = g.Mapping
				if g.Fresh != (s.inUse != mappings || a.pools[1].space[spaceOf(g.proto)].inUse != others) {
					t.Fatalf("round %d: %+v", round, g)
				}
				if a.Take(&g.Guess, g.proto, g.addr, g.port) {
					t.Fatal("a guess is taken twice")
				}
				if taken++; s.inUse != mappings && got.Port != g.port {
					moved++
				}
			} else {
				if spoiled++; g.Guess != was {
					t.Fatalf("a guess that was not taken has changed: %+v, %+v", was, g.Guess)
				}
				got, o = a.Map(g.proto, g.addr, g.port, g.rnd)
			}
			if want, out := b.Map(g.proto, g.addr, g.port, g.rnd); got != want || o != out {
				t.Fatalf("round %d: %+v gives %+v (%d), Map %+v (%d)", round, was, got, o, want, out)
			}
			if o == Mapped {
				flows = append(flows, held{got, g.proto})
			}
		}
		if round%64 == 0 {
			if err := equal(a, b); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	t.Logf("%d guesses taken, %d of them of another port, %d spoiled", taken, moved, spoiled)
	if taken < 5000 || moved < 500 || spoiled < 5000 {
		t.Errorf("%d guesses taken, %d of them of another port, %d spoiled", taken, moved, spoiled)
	}
}

// equal compares what two translations hold.
func equal(a, b *NAT) error {
	for i := range a.pools {
		if x, y := a.pools[i], b.pools[i]; x.Failed != y.Failed {
			return fmt.Errorf("pool %d has failed %d and %d times", i, x.Failed, y.Failed)
		}
		for j := range a.pools[i].space {
			x, y := *a.pools[i].space[j], *b.pools[i].space[j]
			if x.pool, y.pool = nil, nil; !reflect.DeepEqual(&x, &y) {
				return fmt.Errorf("space %d of pool %d differs", j, i)
			}
		}
	}
	return nil
}
