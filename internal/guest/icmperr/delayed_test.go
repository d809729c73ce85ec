package icmperr

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
)

// plainSYN is a SYN in the model.
type plainSYN struct {
	key   conntrack.Key
	due   int64
	group uint8
}

// TestDelayedModel runs SYNs of few and of many sources through Delayed, and compares it
// with a plain list.
func TestDelayedModel(t *testing.T) {
	for _, sources := range []int{1, 2, 5, 60} {
		h := new(Delayed)
		r := rand.New(rand.NewPCG(uint64(sources), 2))
		var list []plainSYN
		now, given, lost := second, 0, 0
		full, relieved := false, false
		for step := range 2500 {
			now += second / 100 * int64(r.IntN(3))
			k := conntrack.Key{Src: packet.Addr(min(r.IntN(sources), r.IntN(sources))), Dst: 99, SrcPort: uint16(1000 + r.IntN(200)), DstPort: 22, Proto: packet.TCP}
			if h.Add(&k, make([]byte, 60), 28, 0x9e3779b97f4a7c15, now) {
				lost++
			}
			if !slices.ContainsFunc(list, func(s plainSYN) bool { return s.key == k }) {
				count := map[uint8]int{}
				for _, s := range list {
					count[s.group]++
				}
				// The group of the lost SYN is the queue's choice: one with the most.
				room := len(list) < MaxDelayed
				if !room {
					full = true
					given++
					worst := 0
					for _, n := range count {
						worst = max(worst, n)
					}
					if h.n > 0 && h.at(h.n-1).Key == k { // the one that has most lost its latest
						relieved = true
						g := h.at(h.n - 1).group
						if count[g] >= worst {
							t.Fatalf("step %d: a group with %d displaces one with %d", step, count[g], worst)
						}
						at := -1
						for i, s := range list {
							if count[s.group] == worst && (at < 0 || list[at].group == s.group || s.group < list[at].group) {
								at = i
							}
						}
						list = slices.Delete(list, at, at+1)
						room = true
					} else if sources == 1 && count[list[0].group] != worst {
						t.Fatal("another group than the only one")
					}
				}
				if room {
					list = append(list, plainSYN{k, now + Delay, h.at(h.n - 1).group})
				}
			}
			if r.IntN(20) == 0 {
				for s := h.Next(now); s != nil; s = h.Next(now) {
					if len(list) == 0 || s.Key != list[0].key || list[0].due > now || len(s.Quote()) != 28 {
						t.Fatalf("step %d: %+v is due", step, s)
					}
					list = list[1:]
				}
				if len(list) > 0 && list[0].due <= now {
					t.Fatalf("step %d: %v is late", step, list[0])
				}
			}
			// The same, in order.
			var by [256]uint8
			due := int64(math.MaxInt64)
			for i, s := range list {
				by[s.group]++
				due = min(due, s.due)
				if x := h.at(uint32(i)); x.Key != s.key || x.due != s.due || x.group != s.group || x.len != 28 {
					t.Fatalf("step %d: place %d is %+v, want %+v", step, i, *x, s)
				}
			}
			if h.Len() != len(list) || h.by != by || h.Due() != due || lost != given {
				t.Fatalf("step %d: %d held, due %d, %d given up; want %d, %d, %d", step, h.n, h.Due(), lost, len(list), due, given)
			}
			if r.IntN(300) == 0 {
				now += 3 * second
			}
		}
		if !full || relieved != (sources > 1) {
			t.Errorf("%d sources: full: %v, relieved: %v", sources, full, relieved)
		}
	}
}

// TestDelayedEmpty: an empty queue has nothing due, from the beginning and after its last
// SYN.
func TestDelayedEmpty(t *testing.T) {
	var d Delayed
	empty := func(when string) {
		t.Helper()
		if d.Due() != math.MaxInt64 || d.Next(math.MaxInt64) != nil || d.Len() != 0 {
			t.Errorf("%s: due %d, %d in it", when, d.Due(), d.Len())
		}
	}
	empty("at first")
	for i := range uint16(3) {
		d.Add(&conntrack.Key{SrcPort: i}, make([]byte, 60), 28, 7, second)
		if d.Due() != second+Delay || d.Next(second+Delay-1) != nil {
			t.Errorf("SYN %d is due at %d", i, d.Due())
		}
		if s := d.Next(second + Delay); s == nil || s.Key.SrcPort != i {
			t.Errorf("SYN %d: %+v", i, s)
		}
		empty("again")
	}
}

// TestDelayedQuotes: as much of a packet as is asked for, as there is, and as there is room
// for.
func TestDelayedQuotes(t *testing.T) {
	ip := make([]byte, 100)
	for i := range ip {
		ip[i] = byte(i + 1)
	}
	for i, c := range []struct{ have, head, want int }{{100, 28, 28}, {20, 28, 20}, {100, quoteLen - 1, quoteLen - 1}, {100, quoteLen, quoteLen}, {100, quoteLen + 1, quoteLen}, {100, 100, quoteLen}, {0, 28, 0}} {
		var d Delayed
		d.Add(&conntrack.Key{SrcPort: uint16(i)}, ip[:c.have], c.head, 7, second)
		if q := d.Next(second + Delay).Quote(); !slices.Equal(q, ip[:c.want]) {
			t.Errorf("%d of %d: %d bytes, want %d", c.head, c.have, len(q), c.want)
		}
	}
}
