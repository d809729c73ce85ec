package neigh

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// TestWhoGivesWay compares claim and claimLearned with what is said of them, for
// full runs of every mixture of neighbours.
func TestWhoGivesWay(t *testing.T) {
	b := newBench(t, 1, 8)
	c := b.Cache
	r := rand.New(rand.NewPCG(5, 1))
	const now, me = 1000 * second, 7
	waits := b.frame(99)
	for round := range 4000 {
		a := packet.Addr(r.Uint32() | 1)
		*c = Cache{key: uint64(round), gateway: gateway, entries: 100, links: c.links, last: &c.slot[0]}
		w := c.run(a)
		if r.IntN(4) == 0 { // the run begins near the end of the table, too
			for c.base(a)%MaxEntries < MaxEntries-window {
				c.key += 2
			}
			w = c.run(a)
		}
		var mine uint16
		switch r.IntN(3) {
		case 0:
			mine = uint16(r.IntN(4))
		case 1:
			mine = fewAsked - 1 + uint16(r.IntN(3))
		}
		c.asked = [holders]uint16{0: uint16(1 + r.IntN(2)), 1: uint16(8 + r.IntN(3)), 2: 40, me: mine}
		for i, n := range w {
			*n = Neighbour{Addr: a + 1 + packet.Addr(i), State: State(1 + r.IntN(3)), holder: uint16(r.IntN(3)), Learned: r.IntN(3) == 0, Expires: now + int64(r.IntN(7)) - 3}
			if n.State == Incomplete && mine > 0 && r.IntN(6) == 0 {
				n.holder = me
			}
			if n.State != Reachable {
				n.Learned = false
			}
		}
		if r.IntN(3) == 0 {
			w[r.IntN(8)].Addr = gateway
		}
		if r.IntN(5) == 0 {
			*w[r.IntN(8)] = Neighbour{}
		}
		for _, n := range w {
			if n.State == Incomplete || n.State == Probe {
				c.pending++
			}
		}
		held := w[r.IntN(8)] // a frame waits for one of them
		if held.State == Incomplete {
			c.links.Push(&held.queue, waits, uint32(held.holder))
			c.by[held.holder], c.waiting = 1, 1
		}
		if r.IntN(8) == 0 {
			c.entries = MaxEntries - int(mine) - 1 + r.IntN(3)
		}
		before := slices.Clone(c.slot[:])
		entries, asked, pending, waiting := c.entries, c.asked, c.pending, c.waiting

		// What is said of claim: those that may give way, the first of them first.
		learned := r.IntN(3) == 0
		want := slices.IndexFunc(w, func(n *Neighbour) bool { return n.State == free })
		unused := want >= 0
		stale := func(n *Neighbour) bool { return n.State == Reachable && n.Expires <= now && n.Addr != gateway }
		var can []*Neighbour
		switch {
		case learned: // the first that is free or stale
			want = slices.IndexFunc(w, func(n *Neighbour) bool { return n.State == free || stale(n) })
			unused = want >= 0 && w[want].State == free
		case mine > 0 && int(mine)+entries >= MaxEntries:
			want, unused = -1, false
		case !unused:
			rank := func(n *Neighbour) (class, most int) {
				switch {
				case stale(n):
					return 0, 0
				case n.State == Incomplete:
					return 1, -int(asked[n.holder])
				case n.Learned:
					return 2, 0
				}
				return 3, 0
			}
			for _, n := range w {
				class, _ := rank(n)
				if n.Addr == gateway || class == 1 && asked[n.holder] < mine || class > 1 && mine > fewAsked {
					continue
				}
				can = append(can, n)
			}
			slices.SortStableFunc(can, func(x, y *Neighbour) int {
				cx, mx := rank(x)
				cy, my := rank(y)
				return cmp.Or(cmp.Compare(cx, cy), cmp.Compare(mx, my), cmp.Compare(x.Expires, y.Expires))
			})
			if len(can) > 0 {
				want = slices.Index(w, can[0])
			}
		}
		var victim Neighbour
		if want >= 0 {
			victim = *w[want]
		}
		var got *Neighbour
		var evicted bool
		var drop framebuf.Queue
		if learned {
			got, evicted = c.claimLearned(a, now)
		} else {
			got, evicted, drop = c.claim(a, me, now)
		}
		if evicted != (want >= 0 && !unused) {
			t.Fatalf("round %d: evicted: %v", round, evicted)
		}
		if want < 0 {
			if got != nil || drop.Len() != 0 || !slices.Equal(before, c.slot[:]) || c.entries != entries || c.waiting != waiting {
				t.Fatalf("round %d: a place where there is none: %+v", round, got)
			}
			continue
		}
		if got != w[want] || *got != (Neighbour{Addr: a}) {
			t.Fatalf("round %d, learned %v: %+v gave way, want %d of %+v", round, learned, got, want, before)
		}
		if drop.Len() != victim.Waiting() || drop.Len() == 1 && drop.First() != waits || c.waiting != waiting-drop.Len() || int(c.by[victim.holder]) != c.waiting && victim.Waiting() > 0 {
			t.Fatalf("round %d: %d frames of %d are dropped; %d still counted", round, drop.Len(), victim.Waiting(), c.waiting)
		}
		if unused {
			entries++
		}
		if victim.State == Incomplete {
			asked[victim.holder]--
		}
		if victim.State == Incomplete || victim.State == Probe {
			pending--
		}
		if c.entries != entries || c.asked != asked || c.pending != pending {
			t.Fatalf("round %d: %d entries, %d pending; want %d, %d", round, c.entries, c.pending, entries, pending)
		}
	}
}

// TestForgetKnown: who is known is forgotten, being asked whether he is still there or not;
// who is asked for stays, with the frames that wait for him.
func TestForgetKnown(t *testing.T) {
	b := newBench(t, 1, 8)
	c := b.Cache
	mac := [6]byte{2, 0, 0, 0, 0, 1}
	const known, probed, asked = packet.Addr(0x0a000005), packet.Addr(0x0a000006), packet.Addr(0x0a000007)
	c.Learn(known, mac, false, 0)
	c.Learn(probed, mac, false, 0)
	if _, probe := c.Use(probed, Lifetime); !probe {
		t.Fatal("a stale neighbour is not asked")
	}
	c.Resolve(asked, b.frame(1), 1, 0)
	c.ForgetKnown()
	if c.Find(known) != nil || c.Find(probed) != nil {
		t.Error("a known neighbour stays")
	}
	if n := c.Find(asked); n == nil || n.Waiting() != 1 || c.Len() != 1 || c.Pending() != 1 || c.Waiting() != 1 {
		t.Errorf("%+v; %d entries, %d pending, %d frames wait", n, c.Len(), c.Pending(), c.Waiting())
	}
	c.ForgetKnown()
	if l := c.Learn(asked, mac, true, 1); c.Find(asked) == nil || c.Len() != 1 {
		t.Errorf("an answer afterwards: %+v", l)
	}
}
