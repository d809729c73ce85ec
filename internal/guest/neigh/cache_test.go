package neigh

import (
	"math"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

const gateway = packet.Addr(10<<24 | 1)

// macOf is the link-layer address of a test host.
func macOf(a packet.Addr) [6]byte {
	return [6]byte{2, 9, byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}
}

// A bench is a cache with the frames that may wait in it.
type bench struct {
	*Cache
	t    tester
	pool *framebuf.Pool
}

// A tester is a *testing.T or a *rapid.T.
type tester interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func newBench(t testing.TB, key uint64, buffers int) *bench {
	pool := framebuf.NewPool(make([]byte, buffers*framebuf.Size), 0)
	return &bench{New(key, gateway, framebuf.NewLinks(pool), buffers), t, pool}
}

// frame returns a frame, whose length tells it from others.
func (b *bench) frame(id int) framebuf.Frame {
	b.t.Helper()
	buf, ok := b.pool.Get()
	if !ok {
		b.t.Fatal("no buffer")
	}
	return framebuf.Frame{Buf: buf, Len: uint32(id)}
}

// taken empties a queue and returns the numbers of its frames.
func (b *bench) taken(q framebuf.Queue) (ids []int) {
	for q.Len() > 0 {
		f := b.links.Pop(&q)
		ids = append(ids, int(f.Len))
		b.pool.Put(f.Buf)
	}
	return ids
}

// waitingFor returns the numbers of the frames that wait for n.
func (b *bench) waitingFor(n *Neighbour) (ids []int) {
	f := n.queue.First()
	for range n.queue.Len() {
		ids = append(ids, int(f.Len))
		f = b.links.Next(f)
	}
	return ids
}

// run returns the slots that an address may be in.
func (c *Cache) run(a packet.Addr) (s []*Neighbour) {
	for i := range uint32(window) {
		s = append(s, &c.slot[(c.base(a)+i)%MaxEntries])
	}
	return s
}

// put makes an entry in a slot of an address's run, in a state.
func (c *Cache) put(slot int, a packet.Addr, s State, expires int64) *Neighbour {
	n := c.place(c.run(a)[slot], a)
	n.State, n.Expires = s, expires
	switch s {
	case Incomplete:
		n.tries = 1
		c.asked[0]++
		c.pending++
	case Probe:
		n.tries = 1
		n.MAC = macOf(a)
		c.pending++
	case Reachable:
		n.MAC = macOf(a)
	}
	return n
}

// check compares the counts of a cache with its entries.
func (b *bench) check() {
	b.t.Helper()
	waiting, entries, pending := 0, 0, 0
	var by, asked [holders]uint16
	for i := range b.slot {
		n := &b.slot[i]
		f := n.queue.First()
		for range n.queue.Len() {
			by[b.links.Tag(f)]++
			waiting++
			f = b.links.Next(f)
		}
		if n.State != free {
			entries++
			if !slices.Contains(b.run(n.Addr), n) {
				b.t.Fatalf("%+v is not in its run", n)
			}
		}
		if n.State == Incomplete {
			asked[n.holder]++
		} else if n.queue.Len() > 0 {
			b.t.Fatalf("frames wait for %+v", n)
		}
		if n.State == Incomplete || n.State == Probe {
			pending++
			if b.hand == 0 && b.Due() > n.Expires {
				b.t.Fatalf("due at %d, but %+v", b.Due(), n)
			}
		}
	}
	if waiting != b.Waiting() || by != b.by || entries != b.Len() || asked != b.asked || pending != b.Pending() {
		b.t.Fatalf("%d wait, counted %d; %d entries, counted %d; %d pending, counted %d", waiting, b.Waiting(), entries, b.Len(), pending, b.Pending())
	}
	if pending == 0 && b.Due() != math.MaxInt64 {
		b.t.Fatalf("due at %d without reason", b.Due())
	}
	if b.pool.Free()+waiting != b.pool.Cap() {
		b.t.Fatalf("%d buffers free and %d waiting of %d", b.pool.Free(), waiting, b.pool.Cap())
	}
}

// TestFindIsExact: an address is found in each of its slots, and only itself;
// what has been found last is not found when it has been forgotten.
func TestFindIsExact(t *testing.T) {
	for key := range uint64(300) {
		b := newBench(t, key*0x9e3779b97f4a7c15+1, 4)
		a := packet.Addr(0xcb007100 + key)
		for i := range window {
			n := b.put(i, a, State(1+i%3), 1)
			first, again, other, last := b.Find(a), b.Find(a), b.Find(a^1), b.Find(a)
			if first != n || again != n || other != nil || last != n {
				t.Fatalf("slot %d: found %+v", i, last)
			}
			b.check()
			b.forget(n)
			if got := b.Find(a); got != nil || *n != (Neighbour{}) {
				t.Fatalf("forgotten, and found: %+v", got)
			}
			b.check()
			if b.Find(0) != nil {
				t.Fatal("a free slot is found")
			}
		}
		*b.run(a)[0] = Neighbour{Addr: a} // free, whatever it says
		if b.Find(a) != nil {
			t.Fatal("a free slot is found")
		}
		// Behind its run it is not looked for.
		n := &b.slot[(b.base(a)+window)%MaxEntries]
		if *n = (Neighbour{Addr: a, State: Reachable}); b.Find(a) != nil {
			t.Fatal("found behind its run")
		}
	}
}

// TestRunsAreSpread: the addresses of a network have runs all over the cache, and
// others with another key; so have holders their groups.
func TestRunsAreSpread(t *testing.T) {
	for _, x := range []struct {
		name   string
		at     func(c *Cache, a packet.Addr) uint32
		places int
		keys   []uint64
	}{
		{"runs", func(c *Cache, a packet.Addr) uint32 { return c.base(a) % MaxEntries }, MaxEntries, []uint64{0, 1, 2, 1 << 50, 0x123456789abcdef1}},
		{"groups", func(c *Cache, a packet.Addr) uint32 { return uint32(c.group(uint64(a))) }, holders, []uint64{0, 0x5851f42d4c957f2d, 0x14057b7ef767814e, 0x123456789abcdef1}},
	} {
		last := map[packet.Addr]uint32{}
		for _, key := range x.keys {
			c := &Cache{key: key}
			seen, same := map[uint32]bool{}, 0
			for i := range packet.Addr(x.places) {
				a := gateway + i
				at := x.at(c, a)
				if at >= uint32(x.places) {
					t.Fatalf("%s, key %#x: place %d", x.name, key, at)
				}
				if v, ok := last[a]; ok && v == at {
					same++
				}
				seen[at], last[a] = true, at
			}
			if len(seen) < x.places*58/100 || same > 20 { // at random 1 - 1/e
				t.Errorf("%s, key %#x: %d places, %d as before", x.name, key, len(seen), same)
			}
		}
	}
}

// TestUse: which entries are used, and which of them are asked for, themselves,
// from the end of their time on.
func TestUse(t *testing.T) {
	const now = 1000 * second
	for _, c := range []struct {
		state        State
		left         int64 // until it expires
		found, probe bool
	}{
		{free, 0, false, false},
		{Incomplete, 1, false, false}, {Incomplete, -1, false, false},
		{Reachable, 1, true, false}, {Reachable, 0, true, true}, {Reachable, -1, true, true},
		{Probe, 1, true, false}, {Probe, 0, true, false}, {Probe, -1, true, false},
	} {
		b := newBench(t, 7, 4)
		if c.state != free {
			b.put(3, 5, c.state, now+c.left)
			b.next = now - 1
		}
		n, probe := b.Use(5, now)
		if (n != nil) != c.found || probe != c.probe || c.found && n.Addr != 5 {
			t.Errorf("%+v: %+v, %v", c, n, probe)
		}
		if probe && (n.State != Probe || n.tries != 1 || n.Expires != now+RequestEvery || b.Due() != n.Expires) {
			t.Errorf("%+v: %+v, due %d", c, n, b.Due())
		}
		if stale := (&Neighbour{State: c.state, Expires: now + c.left}).Stale(now); stale != c.probe {
			t.Errorf("%+v is stale: %v", c, stale)
		}
		b.check()
	}
}
