package nat

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// aheadOf returns the translation of a small network, with a server that has a port of its own.
func aheadOf(t *testing.T) *NAT {
	n, err := New(&ruleset.Policy{Interfaces: []ruleset.Interface{{Role: ruleset.LAN}, {Role: ruleset.WAN}}, SNAT: []ruleset.SNAT{{Interface: 1, PortLo: 2000, PortHi: 60000, External: external.To16(),
		Source: packet.Addr(0x0a000000).To16(), SourceMask: packet.Addr(0xffffff00).To16()}},
		DNAT: []ruleset.DNAT{{External: external.To16(), Proto: packet.UDP, PortLo: 3000, PortHi: 3000, To: packet.Addr(0x0a000005).To16(), ToPort: 80}}}, 99)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDraw: a port that is not the endpoint's own is free, within the range, of its parity;
// and those behind many that are taken are not given out more often than others.
func TestDraw(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	bitmaps(r, 20, func(used *[1024]uint64) {
		for range 200 {
			lo := 1 + r.Uint32N(65535)
			hi := min(65535, lo+r.Uint32N(1<<r.IntN(17)))
			want := uint16(r.Uint32())
			port, ok := draw(used, lo, hi, want, r.Uint64())
			if ok && (uint32(port) < lo || uint32(port) > hi || used[port/64]>>(port%64)&1 != 0 || (port^want)&1 != 0) {
				t.Fatalf("from %d to %d, for %d: port %d", lo, hi, want, port)
			}
		}
	})
	// The first quarter is taken.
	var used [1024]uint64
	for w := range 256 {
		used[w] = ^uint64(0)
	}
	const tries = 200_000
	count, failed := map[uint16]int{}, 0
	for range tries {
		port, ok := draw(&used, 1024, 65535, 4000, r.Uint64())
		if !ok {
			failed++
			continue
		}
		count[port]++
	}
	// All three in the first quarter less 1024 ports.
	if p := float64(failed) / tries; p < 0.010 || p > 0.017 {
		t.Errorf("%.4f of the draws find nothing, want 0.0133", p)
	}
	mean := tries / (768 * 32)
	for port, n := range count {
		if n > 6*mean {
			t.Errorf("port %d was drawn %d times, the mean is %d", port, n, mean)
		}
	}
	if len(count) < 768*32*95/100 {
		t.Errorf("%d ports of %d were ever drawn", len(count), 768*32)
	}
}

// TestAheadOfGive: the lines that are prefetched before a mapping ends are those of its slot,
// unless another has its home there, and of the mapping.
func TestAheadOfGive(t *testing.T) {
	n := aheadOf(t)
	r := rand.New(rand.NewPCG(5, 6))
	homes := 0
	for range 1000 {
		addr, port, proto := packet.Addr(0x0a000000+r.Uint32N(256)), uint16(2000+r.Uint32N(50000)), Protocols[r.IntN(len(Protocols))]
		m, o := n.Map(proto, addr, port, r.Uint64())
		if o != Mapped || m.Pool == NoPool {
			continue
		}
		s := n.pools[0].space[spaceOf(proto)]
		slot, at, ok := n.AheadOfGive(m.Pool, proto, m.Port, addr, port)
		if !ok || at != uintptr(unsafe.Pointer(&s.byExt[m.Port-2000])) {
			t.Fatalf("%v %d: %#x, %v", addr, port, at, ok)
		}
		if slot == uintptr(unsafe.Pointer(&s.index[n.pools[0].find(s, addr, port)])) {
			homes++
		}
	}
	if homes < 950 {
		t.Errorf("%d slots", homes)
	}
	for _, x := range []struct {
		pool  int16
		proto uint8
		port  uint16
	}{{NoPool, packet.UDP, 2000}, {1, packet.UDP, 2000}, {0, 47, 2000}, {0, packet.UDP, 1999}, {0, packet.UDP, 60001}} {
		if _, _, ok := n.AheadOfGive(x.pool, x.proto, x.port, 1, 2); ok {
			t.Errorf("%+v", x)
		}
	}
}
