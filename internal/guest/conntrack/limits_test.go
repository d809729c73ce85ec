package conntrack

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestSourcesExactly: the limits of flows and of new ones are exact, compared with a token
// bucket of one second's worth.
func TestSourcesExactly(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		limit, rate := uint32(r.IntN(4)), []uint32{0, 1, 2, 5, 10, 1000}[r.IntN(6)]
		if seed < 4 {
			limit, rate = uint32(seed&1)*3, uint32(seed>>1)*5
		}
		s := NewSources(64, limit, rate, seed, nil)
		type purse struct {
			ns    int64
			at    int64
			flows uint32
		}
		model := map[packet.Addr]*purse{}
		now := int64(1e12)
		for step := range 4000 {
			a := packet.Addr(r.IntN(6)) // 0 is an address, too
			m := model[a]
			if m == nil {
				m = &purse{ns: 1e9, at: now}
				model[a] = m
			}
			switch r.IntN(4) {
			case 0, 1:
				m.ns, m.at = min(1e9, m.ns+now-m.at), now
				each := int64(0)
				if rate > 0 {
					each = 1e9 / int64(rate)
				}
				want := (limit == 0 || m.flows < limit) && m.ns >= each
				if want {
					m.ns -= each
					m.flows++
				}
				if got := s.Admit(a, now); got != want {
					t.Fatalf("seed %d, limit %d, rate %d, step %d: admitted %v with %d flows and %d ns", seed, limit, rate, step, got, m.flows, m.ns)
				}
			case 2:
				s.Release(a)
				if m.flows > 0 {
					m.flows--
				}
			case 3:
				switch each := int64(1e9); r.IntN(3) {
				case 0:
					if rate > 0 {
						each /= int64(rate)
					}
					now += each - int64(r.IntN(2))
				case 1:
					now++
				default:
					now += r.Int64N(1e8)
				}
			}
			if s == nil {
				if limit != 0 || rate != 0 || s.Flows(a) != 0 {
					t.Fatal("no limits")
				}
				continue
			}
			if s.Flows(a) != m.flows || s.AtLimit(a) != (limit != 0 && m.flows >= limit) {
				t.Fatalf("seed %d, step %d: %d flows, want %d; at the limit %v", seed, step, s.Flows(a), m.flows, s.AtLimit(a))
			}
		}
		if s != nil && s.Untracked != 0 {
			t.Fatalf("%d without a slot", s.Untracked)
		}
	}
}

// TestSourcesAreForgotten: a source keeps its slot while it has flows or has begun so many
// that it must wait; then the slot may be reused. A full table of sources that are idle has
// room for others, one of those that are not has none.
func TestSourcesAreForgotten(t *testing.T) {
	fill := func(s *Sources, now int64) (list []packet.Addr) {
		for a := packet.Addr(1); a < 5000 && len(list) < len(s.slots); a++ {
			if n := s.Untracked; s.Admit(a, now) && s.Untracked == n {
				list = append(list, a)
			}
		}
		if len(list) != len(s.slots) {
			t.Fatalf("%d of %d slots", len(list), len(s.slots))
		}
		return list
	}
	const now = 1e12
	s := NewSources(8, 2, 10, 5, nil)
	list := fill(s, now)
	for _, a := range list {
		s.Release(a)
	}
	// They have no flows, and are due in a tenth of a second.
	before := s.Untracked
	if !s.Admit(9000, now+1e8-1) || s.Untracked != before+1 {
		t.Fatal("a source that must wait is forgotten")
	}
	for i, a := range list { // and they have waited
		if s.Flows(a) != 0 {
			t.Fatalf("source %d has flows", i)
		}
	}
	if !s.Admit(9000, now+1e8) || s.Untracked != before+1 || s.Flows(9000) != 1 {
		t.Fatal("no slot, although all are idle")
	}
	// Kept, even if too early.
	s = NewSources(8, 2, 0, 5, nil)
	list = fill(s, now)
	a := list[3]
	s.Release(a)
	s.Keep(a, now)
	if s.Flows(a) != 1 {
		t.Fatalf("%d flows", s.Flows(a))
	}
	if s.Keep(9000, now); s.Flows(9000) != 0 {
		t.Fatal("there is no slot for it")
	}
	s.Release(a)
	if s.Keep(9000, now); s.Flows(9000) != 1 && s.Flows(9000) != 0 {
		t.Fatal("two")
	}
	s = NewSources(8, 2, 0, 5, nil)
	if s.Keep(7, now); s.Flows(7) != 1 {
		t.Fatal("a source that was forgotten is known again")
	}
	s.Release(7)
	s.Release(7)
	if s.Flows(7) != 0 {
		t.Fatal("less than none")
	}
	var none *Sources
	if f, ok := none.Oldest(1); f != 0 || ok {
		t.Fatal("one of none")
	}
	none.Keep(1, 1)
	none.Release(1)
	none.Settled(1, 1)
	if none.Flows(1) != 0 {
		t.Fatal("none")
	}
}

// TestSourcesOfRubbish: flows that do not exist, are in no list, or are in another source's
// list, change no list.
func TestSourcesOfRubbish(t *testing.T) {
	s := NewSources(4, 2, 0, 5, nil)
	oldest := func(a packet.Addr, want uint32, ok bool) {
		t.Helper()
		if got, k := s.Oldest(a); k != ok || got != want {
			t.Fatalf("oldest of %d: %d, %v", a, got, k)
		}
	}
	oldest(1, 0, false)
	s.Begin(1, 0) // it has no slot
	oldest(1, 0, false)
	s.Settled(1, 0)
	s.Admit(1, 0)
	s.Begin(1, 4) // there are 4
	oldest(1, 0, false)
	s.Begin(1, 3)
	oldest(1, 3, true)
	s.Begin(1, 3) // twice
	s.Settled(1, 4)
	s.Settled(1, 2)
	oldest(1, 3, true)
	s.Admit(1, 0)
	s.Begin(1, 0)
	oldest(1, 3, true)
	s.Begin(1, 3)   // it is in the list, and stays where it is
	s.Settled(9, 3) // of a source without a slot
	oldest(1, 3, true)
	s.Settled(1, 3)
	oldest(1, 0, true)
	s.Settled(1, 3)
	oldest(1, 0, true)
	s.Settled(1, 0)
	oldest(1, 0, false)
	if s.Flows(1) != 2 || !s.AtLimit(1) || s.Admit(1, 0) {
		t.Fatalf("%d flows; they count though they are settled", s.Flows(1))
	}
	s.End(1, 0)
	s.End(1, 3)
	if s.Flows(1) != 0 || s.AtLimit(1) {
		t.Fatalf("%d flows", s.Flows(1))
	}
	// Without a limit of flows there are no lists.
	s = NewSources(4, 0, 5, 5, nil)
	s.Admit(1, 0)
	s.Begin(1, 0)
	s.Settled(1, 0)
	if _, ok := s.Oldest(1); ok || s.AtLimit(1) || s.Flows(1) != 1 {
		t.Fatal("a list")
	}
}

// TestSourcesSpread: of its two buckets a source takes the emptier one, so that as
// many sources as the table has flows all have a slot, whatever the key.
func TestSourcesSpread(t *testing.T) {
	for key := range uint64(200) {
		for _, n := range []int{8, 64, 512} {
			s := NewSources(n, 1, 0, key, nil)
			for a := range packet.Addr(n) {
				s.Admit(0x0a000000+a, 0)
			}
			if s.Untracked > 0 {
				t.Fatalf("key %d: %d of %d sources without a slot", key, s.Untracked, n)
			}
		}
	}
}
