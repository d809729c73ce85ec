package reassembly

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
)

// plainDatagram is an incomplete datagram as said of it.
type plainDatagram struct {
	key      Key
	group    uint8
	began    int64
	extents  []extent
	end      int // 0: not known
	poisoned bool
}

func (d *plainDatagram) have() (n int) {
	for _, p := range d.extents {
		n += int(p.len)
	}
	return n
}

// plainTable is what reassembly is said to do, without slots and counts.
type plainTable struct {
	of      map[Key]*plainDatagram
	dropped int
}

func (g *plainTable) remove(d *plainDatagram) {
	g.dropped += len(d.extents)
	delete(g.of, d.key)
}

// oldest removes the oldest datagram of those for which ok.
func (g *plainTable) oldest(ok func(d *plainDatagram) bool) bool {
	var first *plainDatagram
	for _, d := range g.of {
		if ok(d) && (first == nil || d.began < first.began) {
			first = d
		}
	}
	if first != nil {
		g.remove(first)
	}
	return first != nil
}

func (g *plainTable) expire(now int64) {
	for g.oldest(func(d *plainDatagram) bool { return now-d.began >= Timeout }) {
	}
}

// count is how many datagrams and fragments each group has.
func (g *plainTable) count() (slots, held map[uint8]int, all int) {
	slots, held = map[uint8]int{}, map[uint8]int{}
	for _, d := range g.of {
		slots[d.group]++
		held[d.group] += len(d.extents)
		all += len(d.extents)
	}
	return slots, held, all
}

func most(m map[uint8]int) (n int) {
	for _, v := range m {
		n = max(n, v)
	}
	return n
}

// add takes a fragment, and returns the extents of its datagram when that is
// complete.
func (g *plainTable) add(k Key, group uint8, w extent, more bool, now int64) (whole []extent) {
	d := g.of[k]
	if d != nil && now-d.began >= Timeout {
		g.remove(d)
		d = nil
	}
	if d == nil {
		if len(g.of) == MaxDatagrams {
			slots, _, _ := g.count()
			g.oldest(func(o *plainDatagram) bool { return slots[o.group] == most(slots) })
		}
		d = &plainDatagram{key: k, group: group, began: now}
		g.of[k] = d
	}
	end := int(w.end())
	bad := d.poisoned || len(d.extents) == MaxPerDatagram || d.end != 0 && (!more || end > d.end)
	for _, p := range d.extents {
		if !d.poisoned && p == w && more == (end != d.end) {
			g.dropped++ // the same again
			return nil
		}
		bad = bad || int(w.off) < int(p.end()) && int(p.off) < end || !more && int(p.end()) > end
	}
	if bad {
		g.dropped += len(d.extents) + 1
		d.extents, d.poisoned = nil, true
		return nil
	}
	d.extents = append(d.extents, w)
	if !more {
		d.end = end
	}
	if d.end != 0 && d.have() == d.end {
		extents := d.extents
		d.extents = nil
		g.remove(d)
		slices.SortFunc(extents, func(a, b extent) int { return int(a.off) - int(b.off) })
		return extents
	}
	if _, held, _ := g.count(); held[group] > MaxPerSource {
		g.oldest(func(o *plainDatagram) bool { return o.group == group && len(o.extents) > 0 })
	}
	if _, held, all := g.count(); all > MaxFragments {
		if !g.oldest(func(o *plainDatagram) bool { return o != d && len(o.extents) > 0 && held[o.group] == most(held) }) {
			g.oldest(func(o *plainDatagram) bool { return o != d && len(o.extents) > 0 })
		}
	}
	return nil
}

// A pair is a table and what it is said to be.
type pair struct {
	*bench
	m       *plainTable
	dropped int
}

func newPair(t tester) *pair { return &pair{newBench(t), &plainTable{of: map[Key]*plainDatagram{}}, 0} }

// put puts a fragment into both, and reports whether it completes its datagram.
func (p *pair) put(k Key, w extent, more bool, now int64) bool {
	p.t.Helper()
	dropped, whole, length := p.add(k, int(w.off), int(w.len), more, now)
	p.dropped += dropped
	want := p.m.add(k, p.group(k.Src), w, more, now)
	if !slices.Equal(whole, want) || whole != nil && length != int(want[len(want)-1].end()) {
		p.t.Fatalf("complete, of %d bytes: %v, want %v", length, whole, want)
	}
	return whole != nil
}

func (p *pair) expire(now int64) {
	p.t.Helper()
	for q, ok := p.Expired(now); ok; q, ok = p.Expired(now) {
		p.dropped += len(p.taken(q))
	}
	p.m.expire(now)
}

// same compares what is held with the model.
func (p *pair) same() {
	p.t.Helper()
	slots, held, all := p.m.count()
	if p.Len() != len(p.m.of) || p.Held() != all || p.dropped != p.m.dropped {
		p.t.Fatalf("%d datagrams, %d fragments, %d dropped; want %d, %d, %d", p.Len(), p.Held(), p.dropped, len(p.m.of), all, p.m.dropped)
	}
	due := int64(math.MaxInt64)
	for _, d := range p.m.of {
		due = min(due, d.began+Timeout)
		k := d.key.slot()
		n := p.find(&k)
		if n < 0 {
			p.t.Fatalf("a datagram is not found: %+v", *d)
		}
		x := &p.dg[n]
		if x.poisoned != d.poisoned || x.list.Len() != len(d.extents) || x.expires != d.began+Timeout || int(p.datagrams[x.group]) != slots[x.group] || int(p.fragments[x.group]) != held[x.group] {
			p.t.Fatalf("%+v, want %+v; its group has %d and %d, want %d and %d", *x, *d, p.datagrams[x.group], p.fragments[x.group], slots[x.group], held[x.group])
		}
		f := x.list.First()
		for range x.list.Len() {
			if !slices.Contains(d.extents, extentIn(f)) {
				p.t.Fatalf("extent %+v of %+v", extentIn(f), *d)
			}
			f = p.links.Next(f)
		}
	}
	if p.Due() != due {
		p.t.Fatalf("due at %d, want %d", p.Due(), due)
	}
	p.check() // and each extent once, in order
}

// TestReassemblyIsAsSaid runs random fragments of few and of many datagrams, from
// few and from many sources, through a table, and compares all that it holds,
// drops and completes with the model, at each of the limits.
func TestReassemblyIsAsSaid(t *testing.T) {
	const second = int64(1e9)
	for _, c := range []struct {
		name                   string
		steps                  int
		sources, ids, places   int
		step                   int64
		ends                   int // one in so many fragments is the last
		long                   bool
		datagrams, held, whole int // that the run must reach
	}{
		{"few datagrams", 3000, 2, 3, 12, second / 50, 6, false, 5, 12, 0},
		{"short datagrams", 3000, 2, 3, 3, second / 50, 6, false, 5, 5, 1},
		{"in order", 2000, 3, 3, 6, second / 5, 6, true, 5, 12, 10},
		{"many datagrams", 1200, 40, 6, 3, second / 100, 6, false, MaxDatagrams, 100, 5},
		{"many fragments", 3000, 6, 4, 120, second / 1000, 1000, false, 20, MaxFragments, 0},
		{"one source", 1000, 1, 400, 90, second / 1000, 500, false, 50, MaxPerSource, 0},
		{"two sources", 1200, 2, 100, 4, second / 1000, 1000, false, MaxDatagrams, 100, 0},
		{"long datagrams", 3000, 8, 1, 80, second / 1000, 80, true, 8, 200, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(c.sources), uint64(c.ids)))
			p, now, datagrams, held, whole := newPair(t), second, 0, 0, 0
			next := map[[2]int]int{}
			for step := range c.steps {
				now += c.step
				src, id := r.IntN(c.sources), r.IntN(c.ids)
				w := extent{uint16(8 * r.IntN(c.places)), 8}
				if c.long { // mostly in order
					k := [2]int{src, id}
					w.off = uint16(8 * (next[k] % c.places))
					next[k]++
				} else if r.IntN(8) == 0 {
					w.len = uint16(8 * (1 + r.IntN(3)))
				}
				more := r.IntN(c.ends) != 0
				if !more && r.IntN(2) == 0 {
					w.len -= uint16(r.IntN(8))
				}
				if w.off == 0 && !more {
					continue // not a fragment
				}
				if p.put(Key{Src: packet.Addr(10<<24 + 20 + src), Dst: 9, ID: uint16(id), Proto: packet.UDP}, w, more, now) {
					whole++
				}
				if r.IntN(50) == 0 {
					p.expire(now)
				}
				if r.IntN(400) == 0 {
					now += 29 * second
				}
				if p.Len() < 20 || step%8 == 0 {
					p.same()
				}
				datagrams, held = max(datagrams, p.Len()), max(held, p.Held())
			}
			if datagrams < c.datagrams || held < c.held || whole < c.whole {
				t.Errorf("the run reaches %d datagrams, %d fragments and %d whole ones, not %d, %d and %d", datagrams, held, whole, c.datagrams, c.held, c.whole)
			}
			p.expire(now + Timeout)
			p.same()
		})
	}
}

// TestTableModel does the same with fragments of few places, so that they meet,
// and shortens what fails.
func TestTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := newPair(t), int64(1)
		key := func(t *rapid.T) Key {
			return Key{Src: packet.Addr(rapid.IntRange(1, 3).Draw(t, "source")), Dst: 9, ID: rapid.Uint16Range(1, 2).Draw(t, "id"), Proto: packet.UDP}
		}
		t.Repeat(map[string]func(*rapid.T){
			"fragment": func(t *rapid.T) {
				now++
				w := extent{uint16(8 * rapid.IntRange(0, 5).Draw(t, "place")), uint16(8 * rapid.IntRange(1, 2).Draw(t, "blocks"))}
				more := rapid.IntRange(0, 3).Draw(t, "more") != 0
				if !more {
					w.len -= uint16(rapid.IntRange(0, 7).Draw(t, "less"))
				}
				if w.off != 0 || more {
					p.put(key(t), w, more, now)
				}
			},
			"datagram": func(t *rapid.T) { // most of one, in any order
				k := key(t)
				for _, i := range rapid.Permutation([]int{0, 1, 2, 3}).Draw(t, "order")[:rapid.IntRange(1, 4).Draw(t, "fragments")] {
					now++
					p.put(k, extent{uint16(8 * i), 8}, i != 3, now)
				}
			},
			"flood": func(t *rapid.T) { // of one source
				src := packet.Addr(rapid.IntRange(1, 6).Draw(t, "source"))
				n := rapid.SampledFrom([]int{3, 20, 70}).Draw(t, "datagrams")
				for i := range n {
					now++
					p.put(Key{Src: src, ID: uint16(100 + i)}, extent{0, 8}, true, now)
				}
			},
			"wait": func(t *rapid.T) {
				now += rapid.SampledFrom([]int64{1, Timeout / 3, Timeout - 1, Timeout}).Draw(t, "time")
				if rapid.Bool().Draw(t, "look") {
					p.expire(now)
				}
			},
			"": func(*rapid.T) { p.same() },
		})
	})
}
