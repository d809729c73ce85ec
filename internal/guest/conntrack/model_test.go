package conntrack

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
)

func udpTimeouts() (t Timeouts) {
	for i := range t {
		t[i] = 100
	}
	t[UDPReplied], t[UDPAnswered] = 300, 200
	return t
}

// key and out are a flow from a small set, so that the model meets collisions.
func flow(n int) (Key, packet.Rewrite) {
	k := Key{Src: packet.Addr(10<<24 + n), Dst: 99, SrcPort: uint16(n), DstPort: 5353, Proto: packet.UDP}
	return k, packet.Rewrite{Src: 77, Dst: 99, SrcPort: uint16(1000 + n), DstPort: 5353}
}

// TestTableModel compares the table with a map: every operation in any order,
// with time going on, and the index never loses or invents a direction.
func TestTableModel(t *testing.T) {
	type entry struct {
		ref   Ref
		id    uint64
		state State
		last  int64
	}
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(1, 24).Draw(t, "capacity")
		tab := New(capacity, [2]uint64{rapid.Uint64().Draw(t, "k0"), rapid.Uint64().Draw(t, "k1")}, udpTimeouts(), dirty)
		to := udpTimeouts()
		now := int64(1000)
		model := map[int]*entry{}
		tab.Removed = func(r Ref, _ Removal) {
			n := int(tab.Dir(r).Key.SrcPort)
			if e := model[n]; e == nil || e.ref != r&^1 || e.id != tab.Shared(r).ID {
				t.Fatalf("flow %d removed, which the model does not have", n)
			}
			delete(model, n)
		}
		draw := rapid.IntRange(0, 40)
		alive := func(e *entry) bool { return e != nil && now-e.last < to[e.state] }
		t.Repeat(map[string]func(*rapid.T){
			"packet": func(t *rapid.T) {
				n, reply := draw.Draw(t, "flow"), rapid.Bool().Draw(t, "reply")
				k, out := flow(n)
				ask := k
				if reply {
					ask = Key{Src: out.Dst, Dst: out.Src, SrcPort: out.DstPort, DstPort: out.SrcPort, Proto: k.Proto}
				}
				e := model[n]
				was := alive(e)
				var b Batch
				*b.Next() = ask
				b.Add()
				tab.Prepare(&b)
				r := tab.LookupBatch(&b, 0, now)
				if r2 := tab.Lookup(&ask, now); r2 != r {
					t.Fatalf("flow %d: %v and %v", n, r, r2)
				}
				if (r != None) != was {
					t.Fatalf("flow %d at %d: found %v, want %v", n, now, r != None, was)
				}
				if r != None {
					if r&^1 != e.ref || r.Reply() != reply {
						t.Fatalf("flow %d: ref %d, want %d", n, r, e.ref)
					}
					tab.Dir(r).LastSeen, e.last = now, now
					tab.UDP(r)
					switch {
					case reply && e.state == UDPUnreplied:
						e.state = UDPAnswered
					case !reply && e.state == UDPAnswered:
						e.state = UDPReplied
					}
					return
				}
				if reply {
					return
				}
				half := false
				for _, m := range model {
					half = half || !alive(m) || m.state == UDPUnreplied || m.state == UDPAnswered
				}
				full := len(model) == capacity && !half
				r = tab.Insert(&k, &out, UDPUnreplied, outward, now)
				if (r == None) != full {
					t.Fatalf("inserted %v with %d of %d flows", r != None, len(model), capacity)
				}
				if r != None {
					model[n] = &entry{r, tab.Shared(r).ID, UDPUnreplied, now}
				}
			},
			"sweep": func(t *rapid.T) {
				for tab.Sweep(now) {
				}
				for n, e := range model {
					if !alive(e) {
						t.Fatalf("flow %d outlived the sweep", n)
					}
				}
			},
			"remove": func(t *rapid.T) {
				if e := model[draw.Draw(t, "flow")]; e != nil {
					tab.Remove(e.ref, Closed)
				}
			},
			"wait": func(t *rapid.T) { now += int64(rapid.IntRange(1, 120).Draw(t, "time")) },
			"": func(t *rapid.T) {
				if tab.Len() != len(model) {
					t.Fatalf("%d flows, want %d", tab.Len(), len(model))
				}
				for n, e := range model {
					k, _ := flow(n)
					if r := tab.find(&k, tab.Hash(&k)); r != e.ref {
						t.Fatalf("flow %d: ref %d, want %d", n, r, e.ref)
					}
				}
				counts(t, tab)
			},
		})
	})
}

// TestFillsUp: a table takes as many flows as its capacity, and finds them all.
func TestFillsUp(t *testing.T) {
	for _, n := range []int{1, 2, 3, 64, 1000, 4096, 65536} {
		tab := New(n, [2]uint64{12345, 67890}, udpTimeouts(), dirty)
		for i := range n {
			k := Key{Src: packet.Addr(i), Dst: 5, SrcPort: 7, DstPort: 8, Proto: packet.UDP}
			if tab.Insert(&k, &packet.Rewrite{Src: packet.Addr(i), Dst: 5, SrcPort: 7, DstPort: 8}, Established, outward, 1) == None {
				t.Fatalf("flow %d of %d has no room", i, n)
			}
		}
		for i := range n {
			k := Key{Src: packet.Addr(i), Dst: 5, SrcPort: 7, DstPort: 8, Proto: packet.UDP}
			if r := tab.Lookup(&k, 2); r == None || r.Reply() {
				t.Fatalf("flow %d of %d is not found", i, n)
			}
		}
		k := Key{Src: packet.Addr(n), Dst: 5, SrcPort: 7, DstPort: 8, Proto: packet.UDP}
		if tab.Insert(&k, &packet.Rewrite{}, Established, outward, 3) != None || tab.C.Full != 1 || tab.C.HighWater != uint32(n) {
			t.Fatalf("one more than %d: %+v", n, tab.C)
		}
	}
}

// TestHashSpreads: flows that differ in few bits fall into all buckets.
func TestHashSpreads(t *testing.T) {
	tab := New(1024, [2]uint64{0x9e3779b97f4a7c15, 0xd1342543de82ef95}, udpTimeouts(), dirty)
	for name, key := range map[string]func(i int) Key{
		"ports":   func(i int) Key { return Key{Src: 1, Dst: 2, SrcPort: uint16(i), DstPort: 5353, Proto: 17} },
		"sources": func(i int) Key { return Key{Src: packet.Addr(i), Dst: 2, SrcPort: 9, DstPort: 5353, Proto: 17} },
		"both": func(i int) Key {
			return Key{Src: packet.Addr(i << 16), Dst: 2, SrcPort: 9, DstPort: uint16(i), Proto: 6}
		},
	} {
		count := make([]int, tab.mask+1)
		tags := map[uint64]bool{}
		for i := range 16 * len(count) {
			k := key(i)
			h := tab.Hash(&k)
			count[h&tab.mask]++
			tags[tag(h)] = true
		}
		for i, n := range count {
			if n > 48 { // the mean is 16
				t.Errorf("%s: %d keys in bucket %d", name, n, i)
			}
		}
		if len(tags) < 5000 {
			t.Errorf("%s: only %d tags", name, len(tags))
		}
	}
}

// dirty is an Alloc whose memory has been used before.
func dirty(n int, zeroed bool) []byte {
	b := make([]byte, n)
	if !zeroed {
		for i := range b {
			b[i] = byte(i*7 + 1)
		}
	}
	return b
}

// TestFillsToTheLast: the index has room for every flow that the table has,
// whatever their hashes.
func TestFillsToTheLast(t *testing.T) {
	for seed := range uint64(2) {
		const n = 8 << 10
		tab := New(n, [2]uint64{seed, 7}, udpTimeouts(), nil)
		for i := range n {
			k := Key{Src: packet.Addr(10<<24 + i), Dst: 99, SrcPort: uint16(i), DstPort: 53, Proto: packet.UDP}
			out := packet.Rewrite{Src: 77, Dst: 99, SrcPort: uint16(i), DstPort: uint16(1 + i>>16)}
			if tab.Insert(&k, &out, UDPReplied, outward, 1) == None {
				t.Fatalf("seed %d: flow %d of %d does not fit", seed, i, n)
			}
		}
		// Turn half of them over many times: a table that is full for long.
		for i := range 8 * n {
			k := Key{Src: packet.Addr(11<<24 + i), Dst: 99, SrcPort: uint16(i), DstPort: 53, Proto: packet.UDP}
			out := packet.Rewrite{Src: 77, Dst: 98, SrcPort: uint16(i), DstPort: uint16(2 + i>>16)}
			tab.Remove(Ref(i%(n/2)*2), Closed)
			if tab.Insert(&k, &out, UDPReplied, outward, 1) == None {
				t.Fatalf("seed %d: flow %d in place of an old one does not fit", seed, i)
			}
		}
		for r := range Ref(2 * n) {
			if d := tab.Dir(r); tab.find(&d.Key, tab.Hash(&d.Key)) != r {
				t.Fatalf("seed %d: direction %d is not found", seed, r)
			}
		}
	}
}

// TestSweepKeepsUp: in a table of 256 k flows that all end at once, no step
// removes more than its share, and a million flows a second is no more than the
// steps of that time can remove.
func TestSweepKeepsUp(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 300 MB")
	}
	const n = 1 << 18
	tab := New(n, [2]uint64{3, 7}, udpTimeouts(), nil)
	for i := range n {
		k := Key{Src: packet.Addr(10<<24 + i), Dst: 99, SrcPort: uint16(i), DstPort: 53, Proto: packet.UDP}
		out := packet.Rewrite{Src: 77, Dst: 99, SrcPort: uint16(i), DstPort: uint16(1 + i>>16)}
		if tab.Insert(&k, &out, UDPUnreplied, outward, 1) == None {
			t.Fatal("does not fit")
		}
	}
	steps, before := 0, tab.Len()
	for more := true; tab.Len() > 0; steps++ {
		more = tab.Sweep(1000)
		if ended := before - tab.Len(); ended > sweepEnds || more != (ended == sweepEnds) {
			t.Fatalf("a step removed %d flows; more to do: %v", ended, more)
		}
		before = tab.Len()
	}
	if steps > n/sweepEnds+n/sweepLooks+1 {
		t.Fatalf("%d steps", steps)
	}
}
