package neigh

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestWant: what another worker wants is asked for once, for the group of holders that it says,
// and bounded like what is wanted here.
func TestWant(t *testing.T) {
	c := newBench(t, 12345, 64).Cache
	if r := c.Want(5, holders, 0); r.Request || c.Len() != 0 {
		t.Error("for a group that there is not")
	}
	for range 2 {
		r := c.Want(5, 7, 0)
		if n := c.Find(5); r.Request != (c.Len() == 1 && n.tries == 1 && n.Expires == RequestEvery && c.asked[7] == 1 && n.Holder() == 7) && r.Request {
			t.Errorf("%+v, %+v", r, n)
		}
	}
	if c.Len() != 1 || c.Pending() != 1 || c.asked[7] != 1 {
		t.Errorf("%d entries, %d pending", c.Len(), c.Pending())
	}
	asked := 1
	for a := packet.Addr(1000); a < 1000+4*MaxEntries; a++ {
		if c.Want(a, 7, 0).Request {
			asked++
		}
	}
	if int(c.asked[7]) > MaxEntries/2 || asked < MaxEntries/2 {
		t.Errorf("one group has %d of %d entries, and has asked for %d", c.asked[7], MaxEntries, asked)
	}
	if !c.Want(packet.Addr(1<<30), 8, 0).Request {
		t.Error("nothing is left for others")
	}
}

// TestOwed: each neighbour about which words are due is found, in turn, until they are said or it
// is forgotten.
func TestOwed(t *testing.T) {
	c := newBench(t, 12345, 64).Cache
	if n, _ := c.Owed(); n != nil || c.Owing() {
		t.Fatal("something is due")
	}
	for a := packet.Addr(1); a <= 3; a++ {
		c.Want(a, 0, 0)
		c.Owe(c.Find(a), 0)
		if c.Owing() != (a > 1) {
			t.Error("nothing was to be said to nobody")
		}
		c.Owe(c.Find(a), 2)
		c.Owe(c.Find(a), 4)
	}
	seen := map[packet.Addr]int{}
	for range 6 {
		n, to := c.Owed()
		if n == nil || to != 6 {
			t.Fatalf("%+v, to %b", n, to)
		}
		seen[n.Addr]++
	}
	if len(seen) != 3 || seen[1] != 2 || seen[2] != 2 {
		t.Errorf("%v", seen)
	}
	c.Paid(c.Find(1), 2)
	if c.owing != 3 || c.Find(1).owed != 4 {
		t.Error("both words are said with one")
	}
	c.Paid(c.Find(1), 4)
	c.Paid(c.Find(1), 4)
	if c.owing != 2 {
		t.Errorf("%d are due", c.owing)
	}
	c.forget(c.Find(2))
	if c.owing != 1 || !c.Owing() {
		t.Errorf("%d are due after one was forgotten", c.owing)
	}
	c.Paid(c.Find(3), 255)
	if n, _ := c.Owed(); n != nil || c.Owing() {
		t.Errorf("%+v is due", n)
	}
}

// TestFresh: what changes nothing is what is known by the same address since less than a second.
func TestFresh(t *testing.T) {
	c := newBench(t, 12345, 64).Cache
	mac := [6]byte{2, 1}
	if c.Fresh(5, mac, 0) {
		t.Error("nobody is known")
	}
	if c.Want(5, 0, 0); c.Fresh(5, mac, 0) {
		t.Error("it is asked for")
	}
	c.Learn(5, mac, true, 0)
	if !c.Fresh(5, mac, 0) || !c.Fresh(5, mac, RequestEvery-1) || c.Fresh(5, mac, RequestEvery) || c.Fresh(5, [6]byte{2, 2}, 0) {
		t.Error("known by its address for a second")
	}
	if n, probe := c.Use(5, Lifetime); !probe || c.Fresh(5, mac, Lifetime) {
		t.Errorf("%+v", n)
	}
}

// TestTold: a copy takes what it is told of neighbours that it has, and forgets what is lost, but
// for those that frames wait for.
func TestTold(t *testing.T) {
	c := newBench(t, 12345, 64).Cache
	if q := c.Told(5, [6]byte{2, 1}, 100); q.Len() != 0 || c.Len() != 0 {
		t.Error("of one that it does not have")
	}
	c.Want(5, 3, 0)
	if c.ToldLost(5); c.Len() != 1 {
		t.Error("one that is asked for is lost")
	}
	c.Told(5, [6]byte{2, 1}, 100)
	if n := c.Find(5); n.State != Reachable || n.MAC != [6]byte{2, 1} || n.Expires != 100 || c.Pending() != 0 || c.asked[3] != 0 {
		t.Errorf("%+v", n)
	}
	if c.ToldLost(5); c.Len() != 0 {
		t.Error("it is not forgotten")
	}
	c.Limit(0)
	if c.room != 1 {
		t.Errorf("%d frames may wait", c.room)
	}
}
