package nat

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// scan is search by looking at each port: from the one that rnd chooses on, and
// round again, first for those of want's parity.
func scan(used *[1024]uint64, lo, hi uint32, want uint16, rnd uint64) (uint16, bool) {
	n := hi - lo + 1
	for _, any := range []bool{false, true} {
		for i := range n {
			p := lo + (uint32(rnd>>32)%n+i)%n
			if used[p/64]>>(p%64)&1 == 0 && (any || p%2 == uint32(want)%2) {
				return uint16(p), true
			}
		}
	}
	return 0, false
}

// drawn is draw by looking at each port: at those of the words of three random places, from
// the place on.
func drawn(used *[1024]uint64, lo, hi uint32, want uint16, rnd uint64) (uint16, bool) {
	n := uint64(hi - lo + 1)
	for i := range 3 {
		at := uint64(lo) + rnd>>(21*i)%(1<<21)*n/(1<<21)
		for j := range uint64(64) {
			p := at/64*64 + (at+j)%64
			if p >= uint64(lo) && p <= uint64(hi) && used[p/64]>>(p%64)&1 == 0 && p%2 == uint64(want)%2 {
				return uint16(p), true
			}
		}
	}
	return 0, false
}

// bitmaps calls f with bitmaps of ports: full, empty, and with few or many free.
func bitmaps(r *rand.Rand, n int, f func(used *[1024]uint64)) {
	for i := range n {
		var used [1024]uint64
		free := []float64{0, 0.005, 0.05, 0.5, 1}[i%5]
		for w := range used {
			for b := range 64 {
				if r.Float64() >= free {
					used[w] |= 1 << b
				}
			}
		}
		f(&used)
	}
}

// TestSearch compares search with a plain one: ranges that begin and end at each
// place of a word of the bitmap, of one port up to all.
func TestSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 5))
	ranges := [][2]uint32{{1, 65535}, {1024, 65535}, {1, 1}, {65535, 65535}, {64, 127}, {63, 128}, {127, 128}, {1024, 1024}, {1, 63}, {65472, 65535}, {65471, 65472}}
	for range 40 {
		lo := 1 + uint32(r.IntN(65535))
		ranges = append(ranges, [2]uint32{lo, min(65535, lo+uint32(r.IntN(200)))})
	}
	bitmaps(r, 10, func(used *[1024]uint64) {
		for _, x := range ranges {
			for range 20 {
				want, rnd := uint16(r.Uint32()), r.Uint64()
				got, ok := search(used, x[0], x[1], want, rnd)
				if p, found := scan(used, x[0], x[1], want, rnd); ok != found || got != p {
					t.Fatalf("from %d to %d, for %d, beginning at %d: port %d, %v; want %d, %v", x[0], x[1], want, x[0]+uint32(rnd>>32)%(x[1]-x[0]+1), got, ok, p, found)
				}
			}
		}
	})
}

// TestChoose compares choose with a plain one: the endpoint's own port, then one
// of its class, then any.
func TestChoose(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 5))
	p := NewPool(external, 960, 1100, 1)
	s := p.space[0]
	bitmaps(r, 300, func(used *[1024]uint64) {
		s.used = *used
		first := uint16(960 + r.IntN(141))
		last := first + uint16(r.IntN(1101-int(first)))
		switch r.IntN(6) {
		case 0:
			first, last = 1000, 1024
		case 1:
			first, last = 1023, 1023
		case 2:
			first, last = 1000, 1023
		case 3:
			first, last = 1024, 1050
		}
		for range 20 {
			want, rnd := uint16(950+r.IntN(160)), r.Uint64()
			switch r.IntN(4) {
			case 0:
				want = 1023 + uint16(r.IntN(2))
			case 1:
				want = first - 1 + uint16(r.IntN(3))
			case 2:
				want = last - 1 + uint16(r.IntN(3))
			}
			lo, hi := uint32(first), uint32(last)
			exp, found := want, want >= first && want <= last && s.free(want)
			switch low := want < 1024; {
			case found:
			case low && lo < 1024:
				if exp, found = drawn(used, lo, min(hi, 1023), want, rnd); !found {
					exp, found = scan(used, lo, min(hi, 1023), want, rnd)
				}
			case !low && hi >= 1024:
				if exp, found = drawn(used, max(lo, 1024), hi, want, rnd); !found {
					exp, found = scan(used, max(lo, 1024), hi, want, rnd)
				}
			default: // none of its class, which does not matter
				exp, found = drawn(used, lo, hi, want, rnd)
			}
			if !found {
				exp, found = scan(used, lo, hi, want, rnd)
			}
			if !found {
				exp = 0
			}
			if got, ok := choose(s, want, first, last, rnd); ok != found || got != exp {
				t.Fatalf("for %d, from %d to %d: port %d, %v; want %d, %v", want, first, last, got, ok, exp, found)
			}
		}
	})
	// A space that is full by its counters is not searched.
	s.used = [1024]uint64{}
	for _, c := range [][2]int{{141, 0}, {0, 141}, {100, 41}} {
		s.inUse, s.reserved = c[0], c[1]
		if port, ok := choose(s, 1000, 960, 1100, 1); ok || port != 0 {
			t.Errorf("%d in use and %d reserved of 141: port %d", c[0], c[1], port)
		}
	}
	s.inUse, s.reserved = 100, 40
	if port, ok := choose(s, 1000, 960, 1100, 1); !ok || port != 1000 {
		t.Errorf("port %d, %v", port, ok)
	}
}

// TestFreeInEachRange compares the count of free ports with a plain one, for all
// ranges around the ends of words.
func TestFreeInEachRange(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 6))
	s := newSpace(64512)
	ports := []uint16{1, 2, 62, 63, 64, 65, 126, 127, 128, 191, 192, 1023, 1024, 65471, 65472, 65534, 65535}
	bitmaps(r, 10, func(used *[1024]uint64) {
		s.used = *used
		for i, lo := range ports {
			for _, hi := range ports[i:] {
				want := 0
				for p := uint32(lo); p <= uint32(hi); p++ {
					if used[p/64]>>(p%64)&1 == 0 {
						want++
					}
				}
				if got := s.freeIn(lo, hi); got != want {
					t.Fatalf("%d to %d: %d, want %d", lo, hi, got, want)
				}
			}
		}
	})
}

// TestSpaces: the index has room for twice the ports, so that looking for what is
// not there ends soon, and no more than four times.
func TestSpaces(t *testing.T) {
	for ports, want := range map[int]int{1: 2, 2: 4, 3: 8, 4: 8, 5: 16, 8: 16, 9: 32, 100: 256, 128: 256, 129: 512, 64512: 131072, 65535: 131072} {
		s := newSpace(ports)
		if len(s.index) != want || len(s.byExt) != ports || 1<<(64-s.shift) != want {
			t.Errorf("%d ports: an index of %d, %d mappings, shift %d; want %d", ports, len(s.index), len(s.byExt), s.shift, want)
		}
	}
	p := NewPool(external, 2000, 2099, 1)
	for _, s := range p.space {
		if len(s.byExt) != 100 {
			t.Errorf("%d ports of 100", len(s.byExt))
		}
	}
}

// TestHomesAreSpread: whatever the key, endpoints that follow one another begin in places
// all over the index, and other places with another key: collisions with one key do not
// tell those with another.
func TestHomesAreSpread(t *testing.T) {
	s := newSpace(64512)
	const n = 4096
	last := map[[2]uint32]uint32{}
	for _, key := range []uint64{0, 1, 2, 3, 1 << 40, 0x9e3779b97f4a7c15} {
		for name, at := range map[string]func(i uint32) (packet.Addr, uint16){
			"ports":     func(i uint32) (packet.Addr, uint16) { return 0x0a000002, uint16(1024 + i) },
			"addresses": func(i uint32) (packet.Addr, uint16) { return packet.Addr(0x0a000000 + i), 4000 },
			"networks":  func(i uint32) (packet.Addr, uint16) { return packet.Addr(i << 20), 4000 },
		} {
			seen, same := map[uint32]bool{}, 0
			for i := range uint32(n) {
				a, p := at(i)
				h := s.home(a, p, key)
				if h >= uint32(len(s.index)) {
					t.Fatalf("place %d of %d", h, len(s.index))
				}
				seen[h] = true
				k := [2]uint32{uint32(a), uint32(p)}
				if v, ok := last[k]; ok && v == h {
					same++
				}
				last[k] = h
			}
			if len(seen) < n*9/10 || same > n/20 {
				t.Errorf("key %#x, %s: %d places for %d endpoints, %d as before", key, name, len(seen), n, same)
			}
		}
	}
}
