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
	a := &l
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
