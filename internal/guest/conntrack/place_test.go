package conntrack

import (
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/prefetch"
	"github.com/thurward/thurward/internal/shared/packet"
)

// put places a key alone, as a direction of a flow that is there already.
func put(tab *Table, k Key, r Ref) bool {
	tab.dirs[r].Key = k
	return tab.place(tab.Hash(&k), r)
}

// TestPlace: the first six of a bucket's keys lie in it; then the emptier of a key's
// two is taken; when both are full one entry of either moves to its other bucket;
// and when none can there is no place.
func TestPlace(t *testing.T) {
	moved, none := 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 6))
		tab := New(12, [2]uint64{seed, 8}, Timeouts{}, dirty) // 8 buckets of 8
		n := Ref(0)
		for range 100 {
			if n == Ref(len(tab.dirs)) {
				break
			}
			i, j := uint64(r.IntN(2)), uint64(r.IntN(2))
			if i == j || r.IntN(8) == 0 {
				j = uint64(r.IntN(8)) // it may lie elsewhere, too
			}
			k := Key{}
			tries := 0
			for ; tries < 2000; tries++ {
				k = Key{Src: packet.Addr(r.Uint32()), Dst: 9, SrcPort: 1, DstPort: 2, Proto: packet.UDP}
				if h := tab.Hash(&k); h&tab.mask == i && tab.second(h) == j {
					break
				}
			}
			if tries == 2000 {
				continue
			}
			used := func(b uint64) (u int) {
				for s := range slots {
					if tab.buckets[b].tags[s/4]>>(16*(s%4))&1 != 0 {
						u++
					}
				}
				return u
			}
			ui, uj := used(i), used(j)
			// Can an entry of a bucket go elsewhere?
			movable := func(b uint64) bool {
				for _, x := range tab.buckets[b].refs {
					h := tab.Hash(&tab.dirs[x].Key)
					if o := h&tab.mask ^ tab.second(h) ^ b; o != b && used(o) < 8 {
						return true
					}
				}
				return false
			}
			want := ui < 8 || uj < 8 || movable(i) || movable(j)
			if got := put(tab, k, n); got != want {
				t.Fatalf("seed %d: placed %v with %d and %d in its buckets", seed, got, ui, uj)
			}
			if !want {
				none++
				continue
			}
			if ui == 8 && uj == 8 {
				moved++
			}
			in := func(b uint64) bool {
				for s, x := range tab.buckets[b].refs {
					if x == n && tab.buckets[b].tags[s/4]>>(16*(s%4))&0xffff == tag(tab.Hash(&k)) {
						return true
					}
				}
				return false
			}
			inFirst := ui < 6 || ui <= uj && ui < 8
			if ui < 8 || uj < 8 {
				if in(i) != inFirst && i != j || !in(i) && !in(j) {
					t.Fatalf("seed %d: with %d in its first bucket and %d in its second it is in the first: %v", seed, ui, uj, in(i))
				}
			}
			n++
			for x := range n { // and all of before are found still
				if d := &tab.dirs[x]; tab.find(&d.Key, tab.Hash(&d.Key)) != x {
					t.Fatalf("seed %d: %d of %d is lost", seed, x, n)
				}
			}
		}
	}
	if moved < 20 || none < 20 {
		t.Fatalf("%d were placed where another one moved, %d had no place", moved, none)
	}
}

// TestHints: after Prepare each key's hint is its direction, in the first bucket or the
// second, but for the few whose tag another has; those that are not there have none. As
// many lines are prefetched as there are first buckets, and records or second buckets that
// they lead to, and the last ones are those of these records.
func TestHints(t *testing.T) {
	if group != 8 || BatchSize != 64 {
		t.Fatal("sizes")
	}
	tab := New(300, [2]uint64{1, 2}, udpTimeouts(), dirty)
	flows := map[Key]Ref{}
	var keys []Key
	for i := range 300 {
		k := Key{Src: packet.Addr(i), Dst: 9, SrcPort: 7, DstPort: uint16(80 + i%3), Proto: packet.TCP}
		if i%2 == 0 {
			k.Proto = packet.UDP
		}
		for tab.Hash(&k)&tab.mask >= 24 { // so that many lie in their second bucket
			k.Src += 300
		}
		r := tab.Insert(&k, &packet.Rewrite{Src: 77, Dst: 9, SrcPort: uint16(i), DstPort: k.DstPort}, UDPReplied, outward, 1)
		if r == None {
			t.Fatal("does not fit")
		}
		flows[k] = r
		keys = append(keys, k, tab.Dir(r|1).Key)
		flows[tab.Dir(r|1).Key] = r | 1
	}
	second, seconds := 0, 0
	at := func(p unsafe.Pointer) uintptr { return uintptr(p) }
	r := rand.New(rand.NewPCG(3, 3))
	wrong, all := 0, 0
	for _, n := range []int{0, 1, 2, 7, 8, 9, 15, 16, 17, 63, 64} {
		for kind := range 4 { // all there, none, some, TCP only
			var b Batch
			for i := range n {
				k := keys[r.IntN(len(keys))]
				for kind == 3 && k.Proto != packet.TCP {
					k = keys[r.IntN(len(keys))]
				}
				if kind == 1 || kind == 2 && r.IntN(2) == 0 {
					k.Dst = packet.Addr(1000 + r.IntN(1000))
				}
				if b.Len() != i {
					t.Fatal("length")
				}
				*b.Next() = k
				b.Add()
				if *b.Key(i) != k {
					t.Fatal("another key")
				}
			}
			tab.Prepare(&b)
			tab.Prepare(&b) // again is the same
			var lines, rest []uintptr
			for j := range n {
				want, there := flows[*b.Key(j)]
				h := tab.Hash(b.Key(j))
				hint, d := tab.Hint(&b, j)
				all++
				if there && hint != want || !there && hint != None || (d == nil) != (hint == None) || d != nil && d != tab.Dir(hint) {
					wrong++
				}
				if got := tab.LookupBatch(&b, j, 1); there && got != want || !there && got != None {
					t.Fatalf("key %d of %d: %d, want %d", j, n, got, want)
				}
				if r := None; true {
					if m := tab.buckets[h&tab.mask].matches(h); m != 0 {
						r = tab.buckets[h&tab.mask].ref(m)
					}
					if r != None {
						if hint != r {
							t.Fatalf("key %d: hint %d, its first bucket says %d", j, hint, r)
						}
						lines = append(lines, at(unsafe.Pointer(&tab.dirs[r])))
						if b.Key(j).Proto == packet.TCP {
							lines = append(lines, at(unsafe.Pointer(&tab.shared[r>>1])))
						}
						continue
					}
					lines = append(lines, at(unsafe.Pointer(&tab.buckets[tab.second(h)])))
					if m := tab.buckets[tab.second(h)].matches(h); m != 0 {
						r = tab.buckets[tab.second(h)].ref(m)
						seconds++
					}
					if hint != r {
						t.Fatalf("key %d: hint %d, its second bucket says %d", j, hint, r)
					}
					if hint != None {
						second++
						rest = append(rest, at(unsafe.Pointer(&tab.dirs[hint])), at(unsafe.Pointer(&tab.shared[hint>>1])))
					}
				}
			}
			if len(lines) > prefetch.Max {
				t.Fatal("too many")
			}
			if want := n + len(lines) + len(rest); b.fetched != want {
				t.Fatalf("%d keys, kind %d: %d lines asked for, want %d", n, kind, b.fetched, want)
			}
			// Those of second buckets come last, from the beginning.
			lines = append(rest, lines[min(len(lines), len(rest)):]...)
			for i := range lines {
				if b.line[i] != lines[i] {
					t.Fatalf("%d keys, kind %d: line %d of %d is another", n, kind, i, len(lines))
				}
			}
			b.Reset()
			if b.Len() != 0 || b.Next() != b.Key(0) {
				t.Fatal("not empty")
			}
		}
	}
	if wrong*100 > all || second < 100 || second != seconds {
		t.Fatalf("%d of %d hints are wrong; %d were in a second bucket", wrong, all, second)
	}
}
