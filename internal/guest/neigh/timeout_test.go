package neigh

import (
	"math"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestAskedAgain: each neighbour that is asked for is asked again when its own
// second is over, three times in all, whatever the others do, and the deadline is
// that of the first.
func TestAskedAgain(t *testing.T) {
	const start = 1000 * second
	b := newBench(t, 7, 40)
	if _, ok := b.Timeout(start); ok || b.Due() != math.MaxInt64 {
		t.Fatal("there is nothing to ask for")
	}
	const first = packet.Addr(50)
	if r := b.Resolve(first, b.frame(1), 9, start); !r.Request {
		t.Fatal("not asked for")
	}
	b.Resolve(first, b.frame(2), 9, start)
	b.put(0, first+1, Reachable, start+3*second/10)
	if _, probe := b.Use(first+1, start+3*second/10); !probe {
		t.Fatal("not probed")
	}
	b.Resolve(first+2, b.frame(3), 8, start+6*second/10)
	b.put(0, first+3, Reachable, start)
	if x, ok := b.Timeout(start + RequestEvery - 1); ok || x != (Timeout{}) {
		t.Fatalf("%+v before its time", x)
	}
	if b.Due() != start+RequestEvery || b.Pending() != 3 {
		t.Fatalf("due in %d, %d asked for", b.Due()-start, b.Pending())
	}
	asked, given, dropped := map[packet.Addr][]int64{}, map[packet.Addr]int64{}, map[packet.Addr][]int{}
	for tenth := range int64(45) {
		at := start + tenth*second/10
		for _, now := range []int64{at - 1, at} {
			for x, ok := b.Timeout(now); ok; x, ok = b.Timeout(now) {
				if x.Request {
					asked[x.Addr] = append(asked[x.Addr], now-start)
					if x.Drop.Len() != 0 {
						t.Fatal("frames are dropped too early")
					}
					continue
				}
				given[x.Addr], dropped[x.Addr] = now-start, b.taken(x.Drop)
			}
			b.check()
			// The deadline is that of the first, and never past.
			due := int64(math.MaxInt64)
			for i := range b.slot {
				if n := &b.slot[i]; n.State == Incomplete || n.State == Probe {
					due = min(due, n.Expires)
				}
			}
			if b.Pending() > 0 && (b.Due() > due || b.Due() <= now && due > now) {
				t.Fatalf("at %d: due in %d, want %d", now-start, b.Due()-start, due-start)
			}
		}
	}
	for i, at := range []int64{10, 13, 16} {
		a := first + packet.Addr(i)
		want := []int64{at * second / 10, (at + 10) * second / 10}
		if got := asked[a]; !slices.Equal(got, want) || given[a] != (at+20)*second/10 {
			t.Errorf("asked for %d at %v and given up at %d, want %v", i, got, given[a], want)
		}
		if n := b.Find(a); n != nil {
			t.Errorf("%+v has not been given up", n)
		}
	}
	if !slices.Equal(dropped[first], []int{1, 2}) || len(dropped[first+1]) != 0 || !slices.Equal(dropped[first+2], []int{3}) {
		t.Errorf("dropped: %v", dropped)
	}
	if b.Pending() != 0 || b.Len() != 1 {
		t.Errorf("%d asked for, %d entries", b.Pending(), b.Len())
	}
}

// TestTimeoutGoesOn: who stops between two neighbours goes on with the next, and
// entries that have come meanwhile are looked at in their time.
func TestTimeoutGoesOn(t *testing.T) {
	const start = 1000 * second
	b := newBench(t, 7, 40)
	for i := range packet.Addr(5) {
		b.Resolve(100+i, b.frame(1), 9, start)
	}
	now := start + RequestEvery
	seen := map[packet.Addr]int{}
	for i := range 5 {
		x, ok := b.Timeout(now)
		if !ok || !x.Request {
			t.Fatalf("%+v, %v", x, ok)
		}
		seen[x.Addr]++
		b.Resolve(200+packet.Addr(i), b.frame(1), 8, now)
	}
	if x, ok := b.Timeout(now); ok || len(seen) != 5 || b.Due() != now+RequestEvery {
		t.Fatalf("%+v; %v asked again; due in %d", x, seen, b.Due()-now)
	}
	b.check()
}
