package sni

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
)

// pass moves a message on, for which there is room.
func pass(t *testing.T, tab *Table, m *Message, now int64) {
	t.Helper()
	if tab.ToPass(m) != nil {
		t.Fatal("there is no room")
	}
	tab.Pass(m, 0, now)
}

// TestWhoMakesRoom: in a full table the client that has most, the new one counted,
// loses the oldest of them; of two that have as many, the one with the oldest.
func TestWhoMakesRoom(t *testing.T) {
	a, b, c := packet.Addr(1), packet.Addr(2), packet.Addr(3)
	for state, limit := range limit {
		for _, x := range []struct {
			name   string
			of     func(i int) packet.Addr // source of message i
			due    func(i int) int64
			source packet.Addr // of the new one
			want   int         // which gives way
		}{
			{"one has all", func(i int) packet.Addr { return a }, func(i int) int64 { return int64(1000 + (i+limit-7)%limit) }, b, 7},
			{"its own", func(i int) packet.Addr { return a }, func(i int) int64 { return int64(1000 + (i+limit-5)%limit) }, a, 5},
			{"the one that has more", func(i int) packet.Addr { return []packet.Addr{a, b}[min(i/(limit/2-1), 1)] }, func(i int) int64 { return int64(1000 + i) }, c, limit/2 - 1},
			{"the new one makes it most", func(i int) packet.Addr { return []packet.Addr{a, b}[i%2] }, func(i int) int64 { return int64(1000 + i) }, b, 1},
			{"the oldest of as many", func(i int) packet.Addr { return []packet.Addr{a, b}[i%2] }, func(i int) int64 { return int64(5000 - i) }, c, limit - 1},
			{"each has one", func(i int) packet.Addr { return packet.Addr(100 + i) }, func(i int) int64 { return int64(1000 + (i+limit-9)%limit) }, a, 9},
		} {
			tab := New()
			for i := range limit {
				m := tab.Open(conntrack.Ref(2*i), x.of(i), 0, 0)
				if state == unanswered {
					pass(t, &tab, m, 0)
				}
				tab.slot[m.slot].due = x.due(i)
			}
			victim := tab.victim(uint8(state), x.source)
			if victim == nil || victim.Flow != conntrack.Ref(2*x.want) {
				t.Errorf("%s, state %d: %v gives way, not %d", x.name, state, victim, x.want)
				continue
			}
			tab.Close(victim)
			if tab.victim(uint8(state), x.source) != nil || tab.n[state] != limit-1 || tab.Find(victim.Flow) != nil {
				t.Errorf("%s, state %d: another one gives way where there is room", x.name, state)
			}
		}
	}
}

// TestTableModel compares the slots, and how many each client has, with a plain count
// over a long run of random operations at full load.
func TestTableModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	tab := New()
	type message struct {
		source packet.Addr
		state  uint8
		due    int64
	}
	model := map[conntrack.Ref]message{}
	most := [2]int{}
	now := int64(0)
	refuse := func(m *Message) {
		if m != nil {
			delete(model, m.Flow)
			tab.Close(m)
		}
	}
	pick := func() *Message {
		if len(model) == 0 {
			return nil
		}
		return tab.Find(slices.Sorted(maps.Keys(model))[r.IntN(len(model))])
	}
	for i := range 12_000 {
		source := packet.Addr(min(r.IntN(6), 3))
		switch n := r.IntN(20); {
		case n == 0:
			now += second / 20
		case n == 1:
			for m := tab.Due(nil, now); m != nil; m = tab.Due(m, now) {
				if model[m.Flow].due > now {
					t.Fatalf("%d: %v is not due", i, m.Flow)
				}
				refuse(m)
			}
			for f, x := range model {
				if x.due <= now {
					t.Fatalf("%d: %v is due and was not found", i, f)
				}
			}
		case n == 2:
			refuse(pick())
		case n < 10:
			if m := pick(); m != nil && !m.Passed {
				refuse(tab.ToPass(m))
				tab.Pass(m, 7, now)
				model[m.Flow] = message{model[m.Flow].source, unanswered, now + AnsweredWithin}
			}
		case n == 10:
			if m := pick(); m != nil && m.Passed {
				refuse(tab.ToSecond(m))
				tab.Second(m, now)
				model[m.Flow] = message{model[m.Flow].source, incomplete, now + ReadWithin}
			}
		default:
			refuse(tab.ToOpen(source))
			m := tab.Open(conntrack.Ref(2*i), source, uint32(i), now)
			model[m.Flow] = message{source, incomplete, now + ReadWithin}
		}
		var n [states]int
		share := map[message]int{}
		for f, x := range model {
			m := tab.Find(f)
			if m == nil || m.Flow != f || m.Passed != (x.state == unanswered) || tab.slot[m.slot].due != x.due {
				t.Fatalf("%d: %v is %+v, want %+v", i, f, m, x)
			}
			n[x.state]++
			share[message{source: x.source, state: x.state}]++
		}
		for f, x := range model {
			if s := tab.slot[tab.Find(f).slot]; int(s.share) != share[message{source: x.source, state: x.state}] {
				t.Fatalf("%d: %v has a share of %d, counted %d", i, f, s.share, share[message{source: x.source, state: x.state}])
			}
		}
		if reading, waiting := tab.Len(); n != tab.n || reading != n[0] || waiting != n[1] || tab.Any() != (len(model) > 0) || len(tab.free)+len(model) != len(tab.at) {
			t.Fatalf("%d: %v counted, %v noted, %d free", i, n, tab.n, len(tab.free))
		}
		most[0], most[1] = max(most[0], n[0]), max(most[1], n[1])
	}
	if most != [2]int{MaxIncomplete, MaxUnanswered} {
		t.Errorf("at most %v were taken", most)
	}
}

// TestBytes: what a machine's memory is reckoned by.
func TestBytes(t *testing.T) {
	tab := New()
	want := len(tab.at)*int(unsafe.Sizeof(tab.at[0])) + len(tab.slot)*int(unsafe.Sizeof(tab.slot[0])) + len(tab.free)
	if Bytes != want || Bytes > 2<<20 {
		t.Errorf("%d bytes, counted are %d", Bytes, want)
	}
	var none Table
	if none.On() || none.Any() || none.Find(0) != nil || none.Due(nil, 1<<62) != nil || !tab.On() {
		t.Error("the zero table has room")
	}
}

// TestDueGoesOn: the search for messages that are due goes on behind the one before, also
// when that stays.
func TestDueGoesOn(t *testing.T) {
	tab := New()
	for i := range conntrack.Ref(4) {
		tab.Open(2*i, 1, 0, int64(i))
	}
	var got []conntrack.Ref
	for m := tab.Due(nil, ReadWithin+2); m != nil && len(got) < 10; m = tab.Due(m, ReadWithin+2) {
		got = append(got, m.Flow)
	}
	slices.Sort(got)
	if !slices.Equal(got, []conntrack.Ref{0, 2, 4}) {
		t.Errorf("due are %v", got)
	}
}
