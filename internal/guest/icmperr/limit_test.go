package icmperr

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

const host packet.Addr = 0x0a000002

// TestBucket: a rate holds over any time, after a burst.
func TestBucket(t *testing.T) {
	for _, x := range []struct{ rate, burst int64 }{{1, 1}, {10, 4}, {1000, 50}, {3, 7}} {
		b := bucket{rate: x.rate, burst: x.burst}
		now, step := int64(1), second/x.rate
		take := func(want int64, when string) {
			t.Helper()
			n := int64(0)
			for range 3 * x.burst {
				if b.take(now) {
					n++
				}
			}
			if n != want {
				t.Errorf("%+v, %s: %d", x, when, n)
			}
		}
		take(x.burst, "at first")
		now += step - 1
		take(0, "a nanosecond early")
		now++
		take(1, "in time")
		now += 2 * step
		take(min(2, x.burst), "two later")
		now += 1000 * step
		take(x.burst, "much later")
	}
}

// TestLimit: the rate of all, the reserve for hosts that have had few, each from
// its burst on.
func TestLimit(t *testing.T) {
	l := NewLimit(9)
	a := l
	now := int64(5 * second)
	n := 0
	for range 1000 {
		if a.Take(Rule, host, now) {
			n++
		}
	}
	if n != Burst { // the first are few, but those of all come first
		t.Fatalf("%d answers at once", n)
	}
	// Others have some of the reserve, each a little.
	got := map[packet.Addr]int{}
	for range 20 {
		for i := range packet.Addr(30) {
			if a.Take(Rule, 0x0a000100+i, now) {
				got[i]++
				n++
			}
		}
	}
	if n != Burst+ReserveBurst {
		t.Fatalf("%d answers", n)
	}
	for i, c := range got {
		if c > groupBurst {
			t.Errorf("%d has %d", i, c)
		}
	}
	// Tokens refill: a thousand a second for all, ten for the group.
	for _, c := range []struct {
		after int64
		want  bool
	}{{second/Rate - 1, false}, {1, true}, {0, false}, {second / Rate, true}, {second/Rate - 1, false}} {
		now += c.after
		if got := a.Take(Rule, host, now); got != c.want {
			t.Errorf("%d ns later: %v", c.after, got)
		}
	}
	// A group that has used up its tokens gets another after a tenth of a second.
	m := NewLimit(9)
	b := &m.kind[Rule]
	for range Burst {
		m.Take(Rule, 0x0a000909, now)
	}
	for i := range 2 * groupBurst {
		if got := m.Take(Rule, host, now); got != (i < groupBurst) {
			t.Errorf("answer %d of the reserve: %v", i, got)
		}
	}
	b.all.tokens, b.all.rate, b.all.burst = 0, 1, 1 // only the reserve is left
	for _, c := range []struct {
		after int64
		want  bool
	}{{second/groupRate - 1, false}, {1, true}, {0, false}, {second / groupRate, true}} {
		now += c.after
		b.all.last, b.all.tokens = now, 0
		if got := m.Take(Rule, host, now); got != c.want {
			t.Errorf("%d ns later, of the reserve: %v", c.after, got)
		}
	}
	if !l.Used(Rule) || l.Used(TTL) || l.Used(Size) {
		t.Error("other kinds' rates are used up")
	}
}

// TestFirstOfAGroup: a group has its burst from the first answer on, however soon after the
// boot that is.
func TestFirstOfAGroup(t *testing.T) {
	for _, now := range []int64{1, second / groupRate, 100 * second} {
		l := NewLimit(9)
		for range Burst {
			l.Take(Rule, 0x0a000909, now)
		}
		n := 0
		for range 2 * groupBurst {
			if l.Take(Rule, host, now) {
				n++
			}
		}
		if n != groupBurst {
			t.Errorf("%d ns after the boot: %d answers", now, n)
		}
	}
}

// TestReserveRefills: at its own rate, for whichever host that has had few.
func TestReserveRefills(t *testing.T) {
	l := NewLimit(0x9e3779b97f4a7c15)
	a, now, next := &l.kind[TTL], 5*second, packet.Addr(0)
	take := func() bool { // of the reserve, for a host that has had none
		a.all.last, a.all.tokens = now, 0
		for next++; a.group[groupOf(next, l.key)].last != 0; next++ {
		}
		return l.Take(TTL, next, now)
	}
	for i := range ReserveBurst + 1 {
		if got := take(); got != (i < ReserveBurst) {
			t.Fatalf("answer %d: %v", i, got)
		}
	}
	for _, c := range []struct {
		after int64
		want  bool
	}{{second/ReserveRate - 1, false}, {1, true}, {second/ReserveRate - 1, false}, {1, true}} {
		now += c.after
		if got := take(); got != c.want {
			t.Errorf("%d ns later: %v", c.after, got)
		}
	}
}

// TestGroupsAreSpread: hosts fall into all groups, whatever the key.
func TestGroupsAreSpread(t *testing.T) {
	for _, key := range []uint64{0, 1, 2, 1 << 50, 0x9e3779b97f4a7c14, 0x123456789abcdef0} {
		seen := map[uint8]bool{}
		for i := range packet.Addr(2000) {
			seen[groupOf(host+i, key)] = true
		}
		if len(seen) < groups*9/10 {
			t.Errorf("key %#x: %d groups", key, len(seen))
		}
	}
}
