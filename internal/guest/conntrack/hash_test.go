package conntrack

import (
	"math/bits"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSequentialPorts: the ports of a translated host are consecutive; with no secret do
// they share few buckets. With these secrets up to 9 of 64 flows once had no place.
func TestSequentialPorts(t *testing.T) {
	seeds := []uint64{646, 3744, 4900}
	for i := range uint64(200) {
		seeds = append(seeds, i)
	}
	for _, seed := range seeds {
		tab := New(64, [2]uint64{seed, 7}, Timeouts{}, nil)
		for i := range 64 {
			k := Key{Src: 1, Dst: 99, SrcPort: uint16(i), DstPort: 5353, Proto: packet.UDP}
			if tab.Insert(&k, &packet.Rewrite{Src: 77, Dst: 99, SrcPort: uint16(i), DstPort: 5353}, Established, outward, 1) == None {
				t.Fatalf("secret %d: flow %d of 64 does not fit", seed, i)
			}
		}
	}
}

// TestHashBits: every bit of a key and of the secret changes about half of the bits
// of a hash, and those of a bucket and of a tag on average half of theirs.
func TestHashBits(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	var low, high, n int
	for range 50 {
		secret := [2]uint64{r.Uint64(), r.Uint64()}
		tab := New(1, secret, Timeouts{}, nil)
		k := Key{Src: packet.Addr(r.Uint32()), Dst: packet.Addr(r.Uint32()), SrcPort: uint16(r.Uint32()), DstPort: uint16(r.Uint32()), Proto: packet.TCP}
		h := tab.Hash(&k)
		for i := range 2 * 64 {
			if i >= 64+40 {
				break // nothing is there
			}
			words(&k)[i/64] ^= 1 << (i % 64)
			d := h ^ tab.Hash(&k)
			words(&k)[i/64] ^= 1 << (i % 64)
			if c := bits.OnesCount64(d); c < 8 || c > 56 {
				t.Fatalf("bit %d of a key changes %d bits of its hash", i, c)
			}
			low, high, n = low+bits.OnesCount64(d&0xffff), high+bits.OnesCount64(d>>48), n+16
		}
		for i := range 2 * 64 {
			s := secret
			s[i/64] ^= 1 << (i % 64)
			if c := bits.OnesCount64(h ^ New(1, s, Timeouts{}, nil).Hash(&k)); c < 8 || c > 56 {
				t.Fatalf("bit %d of a secret changes %d bits of a hash", i, c)
			}
		}
		for i, x := range tab.k {
			for _, y := range tab.k[:i] {
				if c := bits.OnesCount64(x ^ y); c < 8 || c > 56 {
					t.Fatalf("parts of the secret are alike: %x", tab.k)
				}
			}
		}
	}
	if 100*low < 47*n || 100*low > 53*n || 100*high < 47*n || 100*high > 53*n {
		t.Fatalf("of %d bits of bucket and tag %d and %d change", n, low, high)
	}
	// The two buckets of a key are rarely the same, and the second one is uniformly
	// distributed.
	tab := New(1024, [2]uint64{5, 6}, Timeouts{}, nil)
	count := make([]int, tab.mask+1)
	for i := range 16 * len(count) {
		k := Key{Src: packet.Addr(i), Dst: 9, SrcPort: 1, DstPort: 2, Proto: packet.TCP}
		h := tab.Hash(&k)
		if h&tab.mask == 0 {
			count[tab.second(h)]++
		}
		if tag(h)&1 == 0 || tag(h) != h>>48|1 {
			t.Fatal("a tag is never 0")
		}
	}
	most := 0
	for _, c := range count {
		most = max(most, c)
	}
	if most > 5 { // of 16
		t.Fatalf("%d of 16 keys with one first bucket have the same second one", most)
	}
}

// TestMix: the finaliser of SplitMix64, as published: the first outputs for seed 0.
func TestMix(t *testing.T) {
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := mix(uint64(i+1) * 0x9e3779b97f4a7c15); got != want {
			t.Errorf("output %d: %#x, want %#x", i, got, want)
		}
	}
}

// TestBytes: tables allocate the memory that they report, and no more; all of the index and
// of the limits is zeroed.
func TestBytes(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 8, 9, 64, 100, 1000} {
		sum, zeroes := 0, 0
		alloc := func(b int, zeroed bool) []byte {
			sum += b
			if zeroed {
				zeroes += b
			}
			return make([]byte, b)
		}
		tab := New(n, [2]uint64{1, 2}, Timeouts{}, alloc)
		buckets := 1
		for buckets*8 < 4*n {
			buckets *= 2
		}
		if Bytes(n) != sum || sum != 64*buckets+192*n || zeroes != 64*buckets || tab.Cap() != n || len(tab.dirs) != 2*n {
			t.Errorf("%d flows: says %d bytes, takes %d, %d of them zeroed", n, Bytes(n), sum, zeroes)
		}
		for _, limits := range [][2]uint32{{0, 0}, {1, 0}, {0, 1}, {1, 1}} {
			sum, zeroes = 0, 0
			s := NewSources(n, limits[0], limits[1], 5, alloc)
			if got := SourcesBytes(n, limits[0], limits[1]); got != sum || zeroes != sum || (s == nil) != (limits == [2]uint32{}) {
				t.Errorf("limits %v of %d flows: says %d bytes, takes %d", limits, n, got, sum)
			}
			if s != nil && (len(s.slots) < 2*n || len(s.slots) > max(4*n, 8) || uint64(len(s.slots)) != 8*(s.mask+1)) {
				t.Errorf("%d slots for %d flows", len(s.slots), n)
			}
		}
	}
	if unsafe.Sizeof(origin{}) != 24 {
		t.Errorf("an origin takes %d bytes", unsafe.Sizeof(origin{}))
	}
}

// alike is a key with the tag of k, and not k, in a table of one bucket.
func alike(tab *Table, k Key) Key {
	for want := tag(tab.Hash(&k)); ; {
		if k.Src++; tag(tab.Hash(&k)) == want {
			return k
		}
	}
}

// TestTags: flows with the same tag in one bucket are distinguished, in any slot, by every
// way to find them; and the tag of 1, from which a free slot differs least, finds nothing
// in free slots.
func TestTags(t *testing.T) {
	tab := New(2, [2]uint64{3, 4}, Timeouts{Established: 10}, dirty) // one bucket
	if len(tab.buckets) != 1 {
		t.Fatal("more buckets")
	}
	keyOf := func(src packet.Addr) Key { return Key{Src: src, Dst: 9, SrcPort: 1, DstPort: 2, Proto: packet.UDP} }
	first := keyOf(1)
	for tag(tab.Hash(&first)) != 1 {
		first.Src++
	}
	for _, a := range []Key{first, keyOf(7)} {
		b := alike(tab, a)
		c := alike(tab, b)
		for _, order := range [][2]Key{{a, b}, {b, a}} {
			tab := New(2, [2]uint64{3, 4}, Timeouts{Established: 10}, dirty)
			flows := map[Key]Ref{}
			for _, k := range order {
				r := tab.Insert(&k, &packet.Rewrite{Src: k.Src, Dst: 9, SrcPort: 1, DstPort: 2}, Established, outward, 1)
				if flows[k] = r; r == None {
					t.Fatal("does not fit")
				}
				tab.check(t, flows)
				if tab.Lookup(&c, 1) != None || tab.Taken(&c) {
					t.Fatal("a tag alone is a flow")
				}
			}
			var batch Batch
			for _, k := range []Key{a, b, c} {
				*batch.Next() = k
				batch.Add()
			}
			tab.Prepare(&batch)
			if tab.LookupBatch(&batch, 0, 1) != flows[a] || tab.LookupBatch(&batch, 1, 1) != flows[b] || tab.LookupBatch(&batch, 2, 1) != None {
				t.Fatal("by batch")
			}
			if _, d := tab.Hint(&batch, 2); d == nil || tab.IsFast(d, &c, outward, 1) {
				t.Fatal("a hint is as good as a flow")
			}
			for _, k := range order {
				tab.Remove(flows[k], Closed)
				delete(flows, k)
				tab.check(t, flows)
			}
		}
	}
}
