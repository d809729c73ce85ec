package conntrack

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSourcesModel compares the limits with a map that forgets nothing. With as
// many sources as the table has flows there is a slot for each.
func TestSourcesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, rate := rapid.Uint32Range(0, 4).Draw(t, "limit"), rapid.Uint32Range(0, 4).Draw(t, "rate")
		s := NewSources(64, limit, rate, rapid.Uint64().Draw(t, "key"), nil)
		type m struct {
			flows uint32
			begun []int64
		}
		model := map[packet.Addr]*m{}
		now := int64(1e12)
		src := func(t *rapid.T) packet.Addr { return packet.Addr(rapid.IntRange(1, 20).Draw(t, "source")) }
		t.Repeat(map[string]func(*rapid.T){
			"admit": func(t *rapid.T) {
				a := src(t)
				e := model[a]
				if e == nil {
					e = &m{}
					model[a] = e
				}
				recent := uint32(0)
				for _, b := range e.begun {
					if now-b < 1e9 {
						recent++
					}
				}
				got := s.Admit(a, now)
				if limit != 0 && e.flows >= limit && got {
					t.Fatalf("flow %d of %d", e.flows+1, limit)
				}
				// Never more than two seconds' worth within one second, and
				// always the first after a quiet second.
				if rate != 0 && recent >= 2*rate && got {
					t.Fatalf("%d flows within a second, at most %d", recent+1, rate)
				}
				if !got && recent == 0 && (limit == 0 || e.flows < limit) {
					t.Fatal("refused after a quiet second")
				}
				if got {
					e.flows++
					e.begun = append(e.begun, now)
				}
			},
			"release": func(t *rapid.T) {
				a := src(t)
				s.Release(a)
				if e := model[a]; e != nil && e.flows > 0 {
					e.flows--
				}
			},
			"wait": func(t *rapid.T) { now += rapid.Int64Range(1, 2e9).Draw(t, "time") },
			"": func(t *rapid.T) {
				for a, e := range model {
					if s != nil && s.Flows(a) != e.flows {
						t.Fatalf("source %d has %d flows, want %d", a, s.Flows(a), e.flows)
					}
				}
			},
		})
	})
}

// TestSourcesRate: a second's worth at once, then one at a time.
func TestSourcesRate(t *testing.T) {
	s := NewSources(64, 0, 10, 1, nil)
	admitted := 0
	for now := int64(1e12); now < 1e12+10e9; now += 1e6 {
		if s.Admit(7, now) {
			admitted++
		}
		if now == 1e12+20e6 && admitted != 10 {
			t.Fatalf("%d at once", admitted)
		}
	}
	if admitted < 105 || admitted > 110 {
		t.Fatalf("%d in 10 seconds", admitted)
	}
}

// TestSourcesFlood: any number of sources that come and go leave those that
// have flows alone, and cost a bounded search.
func TestSourcesFlood(t *testing.T) {
	s := NewSources(1024, 3, 100, 5, nil)
	now := int64(1e12)
	for a := range packet.Addr(1024) {
		for range 3 {
			if !s.Admit(1+a, now) {
				t.Fatalf("source %d refused", a)
			}
		}
	}
	for i := range packet.Addr(200_000) {
		now += 1e6
		if s.Admit(1<<20+i, now) {
			s.Release(1<<20 + i)
		}
	}
	for a := range packet.Addr(1024) {
		if s.Flows(1+a) != 3 || s.Admit(1+a, now) {
			t.Fatalf("source %d has %d flows", a, s.Flows(1+a))
		}
	}
	if s.Untracked > 20 {
		t.Fatalf("%d flows without a slot", s.Untracked)
	}
}

func TestSourcesAllocations(t *testing.T) {
	s := NewSources(1024, 3, 100, 5, nil)
	i := packet.Addr(0)
	if n := testing.AllocsPerRun(1000, func() { i++; s.Admit(i, int64(i)); s.Release(i / 2) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// TestSourcesLists: a source's list has its flows oldest first, whatever ends or
// settles in between; long random operations against plain slices.
func TestSourcesLists(t *testing.T) {
	const n = 256
	s := NewSources(n, 100, 0, 5, nil)
	r := rand.New(rand.NewPCG(4, 2))
	lists := map[packet.Addr][]uint32{}
	owner := map[uint32]packet.Addr{}
	for step := range 200_000 {
		flow := uint32(r.IntN(n))
		a, live := owner[flow]
		if !live {
			a = packet.Addr(1 + r.IntN(5))
			if s.AtLimit(a) != (s.Flows(a) >= 100) {
				t.Fatal("limit")
			}
			if !s.Admit(a, 0) {
				continue
			}
			s.Begin(a, flow)
			owner[flow] = a
			lists[a] = append(lists[a], flow)
		} else if r.IntN(2) == 0 {
			s.End(a, flow)
			delete(owner, flow)
			lists[a] = slices.DeleteFunc(lists[a], func(f uint32) bool { return f == flow })
		} else {
			s.Settled(a, flow)
			lists[a] = slices.DeleteFunc(lists[a], func(f uint32) bool { return f == flow })
		}
		got, ok := s.Oldest(a)
		if want := lists[a]; ok != (len(want) > 0) || ok && got != want[0] {
			t.Fatalf("step %d: oldest of %d is %d, %v; want %v", step, a, got, ok, want)
		}
	}
}

// TestSourcesWithoutSlot: a source for which there is no slot is admitted, counted as
// untracked, and does not change the others' counts; it gets a slot as soon as one is free.
func TestSourcesWithoutSlot(t *testing.T) {
	s := NewSources(8, 2, 0, 5, nil) // two buckets of eight
	tracked := map[packet.Addr]bool{}
	without := packet.Addr(0)
	for a := packet.Addr(1); a < 1000; a++ {
		before := s.Untracked
		if !s.Admit(a, 0) {
			t.Fatalf("source %d is refused", a)
		}
		if s.Untracked == before {
			tracked[a] = true
		} else {
			without = a
		}
	}
	if len(tracked) != len(s.slots) || s.Untracked != 999-uint64(len(tracked)) || without == 0 {
		t.Fatalf("%d of %d slots, %d untracked", len(tracked), len(s.slots), s.Untracked)
	}
	for range 5 { // any number, as the table bounds it
		if !s.Admit(without, 0) || s.AtLimit(without) || s.Flows(without) != 0 {
			t.Fatal("a source without a slot is refused")
		}
	}
	s.Begin(without, 3)
	if _, ok := s.Oldest(without); ok {
		t.Fatal("it has a list")
	}
	s.End(without, 3)
	s.Release(without)
	for a := range tracked {
		if s.Flows(a) != 1 || !s.Admit(a, 0) || s.Admit(a, 0) || !s.AtLimit(a) {
			t.Fatalf("source %d has %d flows", a, s.Flows(a))
		}
	}
	for a := range tracked {
		s.Release(a)
		s.Release(a)
	}
	if !s.Admit(without, 0) || s.Flows(without) != 1 {
		t.Fatal("no slot when all are free")
	}
	var none *Sources
	none.Begin(1, 1)
	none.End(1, 1)
	if _, ok := none.Oldest(1); ok || none.AtLimit(1) || !none.Admit(1, 0) {
		t.Fatal("without limits there are none")
	}
}
