package neigh

import (
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestConflict: what contradicts what is known, and when the known neighbour is
// asked whether it is still there.
func TestConflict(t *testing.T) {
	const gw, now = gateway, 1000 * second
	other := [6]byte{2, 2}
	for _, c := range []struct {
		addr  packet.Addr
		state State
		left  int64 // until it expires
		same  bool  // the link-layer address that is known
		want  bool
	}{
		{5, free, 0, false, false},
		{5, Incomplete, 100, false, false}, {5, Incomplete, 0, true, false}, {gw, Incomplete, 100, false, false},
		{5, Reachable, 1, true, false}, {5, Reachable, 1, false, true}, {5, Reachable, 0, false, false}, {5, Reachable, -1, false, false},
		{gw, Reachable, 1, true, false}, {gw, Reachable, 1, false, true}, {gw, Reachable, 0, false, true}, {gw, Reachable, -1, false, true}, {gw, Reachable, -1, true, false},
		{5, Probe, 1, true, false}, {5, Probe, 1, false, true}, {5, Probe, 0, false, true}, {5, Probe, -1, false, true},
	} {
		b := newBench(t, 7, 4)
		if c.state != free {
			b.put(2, c.addr, c.state, now+c.left)
			b.next = now - 1
		}
		mac := other
		if c.same {
			mac = macOf(c.addr)
		}
		n, probe := b.Conflict(c.addr, mac, now)
		if (n != nil) != c.want || probe != (c.want && c.state == Reachable) {
			t.Errorf("%+v: %+v, %v", c, n, probe)
		}
		if n != nil && (n.Addr != c.addr || n.MAC != macOf(c.addr) || n.State != Probe || probe && (n.tries != 1 || n.Expires != now+RequestEvery)) {
			t.Errorf("%+v: %+v", c, n)
		}
		b.check()
	}
}

// TestLearn: what is learned from requests and from answers, in each state.
func TestLearn(t *testing.T) {
	const other, now = packet.Addr(77), 1000 * second
	for _, c := range []struct {
		name    string
		addr    packet.Addr
		state   State // before
		answer  bool
		learned bool // it is what we know afterwards
		request bool // from a request
	}{
		{"a host asks", other, free, false, true, true},
		{"a host answers unasked", other, free, true, false, false},
		{"a host answers", other, Incomplete, true, true, false},
		{"a host asks while it is asked for", other, Incomplete, false, true, true},
		{"a known host asks", other, Reachable, false, true, false},
		{"a known host answers unasked", other, Reachable, true, false, false},
		{"a known host answers its probe", other, Probe, true, true, false},
		{"a known host asks while it is probed", other, Probe, false, true, true},
		{"the gateway asks", gateway, free, false, false, false},
		{"the gateway answers unasked", gateway, free, true, false, false},
		{"the gateway asks while it is asked for", gateway, Incomplete, false, false, false},
		{"the gateway answers", gateway, Incomplete, true, true, false},
		{"the known gateway asks", gateway, Reachable, false, true, false},
		{"the known gateway asks while it is probed", gateway, Probe, false, true, true},
		{"the known gateway answers its probe", gateway, Probe, true, true, false},
	} {
		b := newBench(t, 7, 12)
		if c.state != free {
			n := b.put(4, c.addr, c.state, now+5)
			n.tries = 2
			b.next = now - 1
		}
		want := []int(nil)
		if c.state == Incomplete {
			for id := range 3 {
				if r := b.Resolve(c.addr, b.frame(100+id), 1, now); r.Drop.Len() != 0 || r.Request || r.Evicted {
					t.Fatalf("%s: %+v", c.name, r)
				}
			}
			if want = []int{100, 101, 102}; !c.learned {
				want = nil
			}
		}
		b.check()
		var before Neighbour
		if n := b.Find(c.addr); n != nil {
			before = *n
		}
		l := b.Learn(c.addr, macOf(c.addr), c.answer, now)
		if got := b.taken(l.Send); !slices.Equal(got, want) || l.Evicted {
			t.Errorf("%s: %v leave, want %v; evicted: %v", c.name, got, want, l.Evicted)
		}
		b.check()
		n := b.Find(c.addr)
		switch {
		case !c.learned && c.state == free:
			if n != nil {
				t.Errorf("%s: %+v", c.name, n)
			}
		case !c.learned:
			if *n != before {
				t.Errorf("%s: %+v, want %+v", c.name, n, before)
			}
		case *n != (Neighbour{Addr: c.addr, MAC: macOf(c.addr), State: Reachable, Learned: c.request, Expires: now + Lifetime, holder: before.holder}):
			t.Errorf("%s: %+v", c.name, n)
		}
	}
}

// TestLearnDisplacesNothingAlive: in a full run somebody new is learned in the
// place of what is stale, or not at all.
func TestLearnDisplacesNothingAlive(t *testing.T) {
	const now, a = 1000 * second, packet.Addr(500)
	for _, stale := range []int{-1, 5} {
		b := newBench(t, 7, 4)
		for i, n := range b.run(a) {
			expires := now + int64(1)
			if i == stale {
				expires = now
			}
			*n = Neighbour{Addr: a, State: Reachable, MAC: macOf(a), Expires: expires} // of this run, in any case
			n.Addr = b.neighbourOf(a, i)
			b.entries++
		}
		l := b.Learn(a, macOf(a), false, now)
		if n := b.Find(a); (n != nil) != (stale >= 0) || l.Evicted != (n != nil) || n != nil && n != b.run(a)[stale] {
			t.Errorf("stale %d: %+v, evicted: %v", stale, n, l.Evicted)
		}
		b.check()
	}
}

// neighbourOf returns an address other than a that may be in slot i of a's run.
func (c *Cache) neighbourOf(a packet.Addr, i int) packet.Addr {
	slot := c.run(a)[i]
	for o := a + 1; ; o++ {
		if n := c.Find(o); n == nil && slices.Contains(c.run(o), slot) {
			return o
		}
	}
}
