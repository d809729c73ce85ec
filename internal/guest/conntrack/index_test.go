package conntrack

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// check compares the whole index and the free list with the flows: every direction is found
// and in one slot only, no slot is of anything else, and the free records are all the
// others, each once.
func (t *Table) check(tb testing.TB, flows map[Key]Ref) {
	tb.Helper()
	refs := map[Ref]int{}
	for i := range t.buckets {
		used := uint64(0)
		b := &t.buckets[i]
		for s, r := range b.refs {
			tagged := b.tags[s/4]>>(16*(s%4))&0xffff != 0
			if tagged {
				used++
				refs[r]++
			}
		}
		if b.used() != used {
			tb.Fatalf("bucket %d says that it has %d, and has %d", i, b.used(), used)
		}
	}
	if len(refs) != 2*len(flows) || t.Len() != len(flows) {
		tb.Fatalf("%d directions in the index, %d flows, want %d", len(refs), t.Len(), len(flows))
	}
	for k, r := range flows {
		reply := t.Dir(r ^ 1).Key
		if t.find(&k, t.Hash(&k)) != r || t.find(&reply, t.Hash(&reply)) != r^1 || refs[r] != 1 || refs[r^1] != 1 {
			tb.Fatalf("flow %d is found as %d and %d, in %d and %d slots", r, t.find(&k, t.Hash(&k)), t.find(&reply, t.Hash(&reply)), refs[r], refs[r^1])
		}
	}
	free := map[uint32]bool{}
	for i := t.freeHead; i != 0; i = uint32(t.shared[i-1].Created) {
		if free[i-1] || refs[Ref(2*(i-1))] != 0 || t.dirs[2*(i-1)].State != 0 || t.dirs[2*(i-1)+1].State != 0 || i > t.fresh {
			tb.Fatalf("record %d is in the free list, and should not be", i-1)
		}
		free[i-1] = true
	}
	if len(free)+len(flows) != int(t.fresh) || int(t.fresh) > t.Cap() {
		tb.Fatalf("%d records free and %d taken of %d", len(free), len(flows), t.fresh)
	}
}

// TestIndexModel: the index against a map, at full load and above it, for long:
// flows come and go in any order, most of the time in buckets that are full, so
// that others must move out of the way.
func TestIndexModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 3))
		n := []int{1, 2, 8, 31, 64, 500}[seed%6]
		tab := New(n, [2]uint64{seed, 5}, udpTimeouts(), dirty)
		flows := map[Key]Ref{}
		removed := 0
		tab.Removed = func(r Ref, _ Removal) {
			if flows[tab.Dir(r).Key] != r {
				t.Fatal("another flow is removed")
			}
			removed++
		}
		key := func() Key {
			return Key{Src: packet.Addr(r.IntN(4 * n)), Dst: 99, SrcPort: uint16(r.IntN(3)), DstPort: 80, Proto: packet.TCP}
		}
		for i := range 20_000 {
			k := key()
			old, there := flows[k]
			switch {
			case there && r.IntN(2) == 0:
				tab.Remove(old, Closed)
				tab.Remove(old, Closed) // once more does nothing
				if delete(flows, k); removed != 1 {
					t.Fatalf("%d removed", removed)
				}
				removed = 0
			case there:
				if tab.Lookup(&k, 1) != old || !tab.Taken(&k) {
					t.Fatal("not found")
				}
			default:
				if tab.Taken(&k) || tab.find(&k, tab.Hash(&k)) != None {
					t.Fatal("found, and was never there")
				}
				out := packet.Rewrite{Src: 1000 + k.Src, Dst: 99, SrcPort: k.SrcPort, DstPort: 80}
				full := tab.C.Full
				ref := tab.Insert(&k, &out, Established, pathOf(i%2 == 0), 1)
				if (ref == None) != (len(flows) == n) || tab.C.Full-full != uint64(len(flows)/n) {
					t.Fatalf("inserted %v with %d of %d flows", ref != None, len(flows), n)
				}
				if ref != None {
					if s := tab.Shared(ref); s.tcp != [2]side{} || s.synHigh != [2]uint16{} || s.Created != 1 || s.Pool != -1 || s.Port != 0 {
						t.Fatalf("what was there before is left: %+v", s)
					}
					flows[k] = ref
				}
			}
			if i%97 == 0 || n < 9 {
				tab.check(t, flows)
			}
		}
		tab.check(t, flows)
		for k, ref := range flows { // and until it is empty
			tab.Remove(ref, Closed)
			removed = 0
			delete(flows, k)
		}
		tab.check(t, flows)
	}
}

// TestIndexIsFull: keys that all belong in the same two buckets, as cannot choose them who
// does not know the secret. When there is no place for a direction the insert fails, is
// counted, and leaves nothing behind: neither the other direction nor the record.
func TestIndexIsFull(t *testing.T) {
	tab := New(64, [2]uint64{1, 2}, Timeouts{}, dirty) // 32 buckets
	home := func(k *Key) [2]uint64 {
		h := tab.Hash(k)
		return [2]uint64{h & tab.mask, tab.second(h)}
	}
	same := func(k *Key, want [2]uint64) bool {
		h := home(k)
		return h == want || h == [2]uint64{want[1], want[0]}
	}
	first := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.UDP}
	want := home(&first)
	flows := map[Key]Ref{}
	failed := [2]int{}
	for i := range packet.Addr(1 << 20) {
		k := Key{Src: i, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.UDP}
		reply := Key{Src: 2, Dst: i, SrcPort: 4, DstPort: 3, Proto: packet.UDP}
		a, b := same(&k, want), same(&reply, want)
		if !a && !b || failed[0] > 3 && a || failed[1] > 3 && b {
			continue
		}
		if failed[0] > 3 && failed[1] > 3 {
			break
		}
		full, inserts := tab.C.Full, tab.C.Inserts
		r := tab.Insert(&k, &packet.Rewrite{Src: i, Dst: 2, SrcPort: 3, DstPort: 4}, Established, outward, 1)
		if r == None {
			if len(flows) == tab.Cap() {
				t.Fatal("the table is full, not the buckets")
			}
			if a {
				failed[0]++
			} else {
				failed[1]++
			}
			if tab.C.Full != full+1 || tab.C.Inserts != inserts {
				t.Fatalf("not counted: %+v", tab.C)
			}
		} else {
			flows[k] = r
		}
		tab.check(t, flows)
	}
	if failed[0] < 4 || failed[1] < 4 {
		t.Fatalf("failed %v with %d flows", failed, len(flows))
	}
	// A removed one leaves room for a new one, wherever it was.
	for k, r := range flows {
		if !same(&k, want) {
			continue
		}
		tab.Remove(r, Closed)
		delete(flows, k)
		if r = tab.Insert(&k, &packet.Rewrite{Src: k.Src, Dst: 2, SrcPort: 3, DstPort: 4}, Established, outward, 1); r == None {
			t.Fatal("no room where there was some")
		}
		flows[k] = r
		tab.check(t, flows)
	}
}

// TestShiftMakesRoom: a full bucket gives one of its entries to that one's other
// bucket, and that is found there; if all of those are full, it does not.
func TestShiftMakesRoom(t *testing.T) {
	moved := 0
	for seed := range uint64(50) {
		tab := New(32, [2]uint64{seed, 9}, Timeouts{}, dirty)
		flows := map[Key]Ref{}
		for i := range packet.Addr(32) {
			k := Key{Src: i, Dst: 2, SrcPort: uint16(seed), DstPort: 4, Proto: packet.UDP}
			if r := tab.Insert(&k, &packet.Rewrite{Src: i, Dst: 2, SrcPort: uint16(seed), DstPort: 4}, Established, outward, 1); r != None {
				flows[k] = r
			}
		}
		for i := range tab.buckets {
			b := &tab.buckets[i]
			before := *b
			if b.used() != slots {
				continue
			}
			if tab.shift(uint64(i)) {
				moved++
				if b.used() != slots-1 {
					t.Fatalf("%d left of %d", b.used(), slots)
				}
			} else if *b != before {
				t.Fatal("it says that it did nothing")
			}
			tab.check(t, flows)
		}
	}
	if moved == 0 {
		t.Fatal("nothing ever moved")
	}
}

// TestRemovedWithinABatch: a flow removed after a batch was prepared is not found by it any
// more, nor is another flow that has its record by then.
func TestRemovedWithinABatch(t *testing.T) {
	for _, again := range []bool{false, true} {
		// A timeout for records without a state makes no difference.
		tab := New(4, [2]uint64{1, 2}, udpTimeouts(), dirty)
		k, out := flow(1)
		r := tab.Insert(&k, &out, UDPReplied, outward, 1000)
		tab.Dir(r).Verdict = Accepted
		tab.MarkFast(r)
		var b Batch
		for range 2 {
			*b.Next() = k
			b.Add()
		}
		tab.Prepare(&b)
		hint, d := tab.Hint(&b, 0)
		if hint != r || !tab.IsFast(d, &k, outward, 1001) || tab.LookupBatch(&b, 0, 1001) != r {
			t.Fatal("not found while it is there")
		}
		tab.Remove(r, Closed)
		if again {
			k2, out2 := flow(2)
			if r2 := tab.Insert(&k2, &out2, UDPReplied, outward, 1001); r2 != r {
				t.Fatalf("record %d, not %d", r2, r)
			}
			tab.Dir(r).Verdict = Accepted
			tab.MarkFast(r)
		}
		if _, d := tab.Hint(&b, 1); tab.IsFast(d, &k, outward, 1001) {
			t.Fatal("still marked")
		}
		if got := tab.LookupBatch(&b, 1, 1001); got != None {
			t.Fatalf("found as %d", got)
		}
		// And the other way round: it is there again.
		r = tab.Insert(&k, &out, UDPReplied, outward, 1001)
		if got := tab.LookupBatch(&b, 1, 1001); got != r {
			t.Fatalf("found as %d, not %d", got, r)
		}
	}
}

// TestDeadlines: a flow lasts for its state's time from the last packet of either
// direction, to the nanosecond, for lookups, for the sweep, and for eviction.
func TestDeadlines(t *testing.T) {
	var times Timeouts
	for n := range 2 * NumStates {
		s := n % NumStates
		if times[s] = 1000 * int64(s); n < NumStates { // of neighbours each is once the longer one
			times[s] = 1000 * int64(NumStates-s)
		}
		if s == 0 {
			continue
		}
		for _, way := range []string{"lookup", "batch", "fast path", "sweep", "over"} {
			for _, last := range []Ref{0, 1} { // which direction has sent last
				for _, early := range []int64{1, 0} {
					tab := New(2, [2]uint64{1, 2}, times, dirty)
					k, out := flow(1)
					r := tab.Insert(&k, &out, s, outward, 10)
					tab.Dir(r).Verdict = Accepted
					tab.MarkFast(r)
					tab.Dir(r | last).LastSeen = 50
					now := 50 + times[s] - early
					var b Batch
					*b.Next() = k
					b.Add()
					tab.Prepare(&b)
					gone := false
					switch way {
					case "lookup":
						gone = tab.Lookup(&k, now) == None
					case "batch":
						gone = tab.LookupBatch(&b, 0, now) == None
					case "fast path":
						if _, d := tab.Hint(&b, 0); last == 1 || d.fast != outward {
							continue // only the direction's own packets count there
						} else {
							gone = !tab.IsFast(d, &k, outward, now)
						}
					case "sweep":
						tab.Sweep(now)
						gone = tab.Len() == 0
					case "over":
						if gone = tab.RemoveOver(0, now); s.Over() {
							continue // at any time
						}
					}
					if gone != (early == 0) {
						t.Fatalf("%v by %s, direction %d, %d before its end: gone %v", s, way, last, early, gone)
					}
				}
			}
		}
	}
	tab := New(2, [2]uint64{1, 2}, times, dirty)
	if tab.RemoveOver(0, 1<<40) || tab.RemoveOver(1<<31-1, 1<<40) || tab.Sweep(1<<40) {
		t.Fatal("something was removed from nothing")
	}
	for _, s := range []State{TimeWait, Close} {
		k, out := flow(1)
		tab.Insert(&k, &out, s, outward, 10)
		if !tab.RemoveOver(0, 10) || tab.Len() != 0 {
			t.Fatalf("%v does not make way", s)
		}
	}
}

// TestInsert: both directions of a new flow are written whole, whatever was in their
// records, and what happened before.
func TestInsert(t *testing.T) {
	for _, fromWAN := range []bool{false, true} {
		tab := New(3, [2]uint64{1, 2}, Timeouts{}, dirty)
		for id := range uint64(3) {
			k := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: uint16(4 + id), Proto: packet.UDP}
			out := packet.Rewrite{Src: 5, Dst: 6, SrcPort: 7, DstPort: uint16(8 + id)}
			r := tab.Insert(&k, &out, Echo, pathOf(fromWAN), 99)
			there := Dir{Key: k, Out: out, LastSeen: 99, State: Echo, Path: pathOf(fromWAN)}
			back := Dir{Key: Key{Src: 6, Dst: 5, SrcPort: uint16(8 + id), DstPort: 7, Proto: packet.UDP},
				Out: packet.Rewrite{Src: 2, Dst: 1, SrcPort: uint16(4 + id), DstPort: 3}, LastSeen: 99, State: Echo, Path: pathOf(!fromWAN)}
			if r != Ref(2*id) || *tab.Dir(r) != there || *tab.Dir(r ^ 1) != back || *tab.Shared(r) != (Shared{ID: id + 1, Created: 99, Pool: -1}) {
				t.Fatalf("flow %d: %d, %+v and %+v, %+v", id, r, *tab.Dir(r), *tab.Dir(r ^ 1), *tab.Shared(r))
			}
			if tab.C != (Counters{Inserts: id + 1, HighWater: uint32(id + 1)}) {
				t.Fatalf("%+v", tab.C)
			}
		}
	}
}
