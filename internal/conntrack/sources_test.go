package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/packet"
	"pgregory.net/rapid"
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
