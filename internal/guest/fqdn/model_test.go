package fqdn

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A model of a set is a list of bindings, oldest first. It finds the binding to
// evict by counting.
type model struct {
	cap int
	all []modelBinding
}

type modelBinding struct {
	client, addr     packet.Addr
	name             int
	expires, learned int64
	dead             bool
}

// modelName returns a name of the model. The patterns are *.r, n0.r and n1.r; n8 to
// n15 match none. Half of them are long and count twice.
func modelName(i int) string {
	long := ""
	if i%8 >= 4 {
		long = strings.Repeat("x", 30)
	}
	if i >= 8 {
		return fmt.Sprintf("n%d%s.x", i, long)
	}
	return fmt.Sprintf("n%d%s.r", i, long)
}

func modelCharge(i int) int { return 1 + i%8/4 }

func modelIDs(i int) []uint32 {
	switch {
	case i >= 8:
		return nil
	case i < 2:
		return []uint32{0, uint32(i + 1)}
	}
	return []uint32{0}
}

func (m *model) class(b *modelBinding) int {
	switch {
	case b.dead:
		return 0
	case b.name >= 8:
		return 1
	}
	return 2
}

func (m *model) bind(client, addr packet.Addr, name int, ttl, now int64) {
	for i, b := range m.all {
		if b.client == client && b.addr == addr && b.name == name {
			b.expires, b.learned, b.dead = max(b.expires, now+max(ttl, 1)*second), now, false
			m.all = append(slices.Delete(m.all, i, i+1), b)
			return
		}
	}
	if len(m.all) == m.cap {
		victim := m.victim(client, name)
		m.all = slices.Delete(m.all, victim, victim+1)
	}
	m.all = append(m.all, modelBinding{client, addr, name, now + max(ttl, 1)*second, now, false})
}

// victim returns what gives way to a new binding: what has expired, then what no
// rule needs, then the rest; of the living the oldest of the client that has
// the most, with the new one, and among equals the one with the oldest.
func (m *model) victim(client packet.Addr, name int) int {
	class := 2
	for i := range m.all {
		class = min(class, m.class(&m.all[i]))
	}
	first, charge := map[packet.Addr]int{}, map[packet.Addr]int{}
	for i, b := range m.all {
		if m.class(&b) != class {
			continue
		}
		if _, ok := first[b.client]; !ok {
			first[b.client] = i
		}
		charge[b.client] += modelCharge(b.name)
	}
	if class == 0 { // which one is not to be seen
		return slices.IndexFunc(m.all, func(b modelBinding) bool { return b.dead })
	}
	weigh := func(c packet.Addr, n int) int {
		if c == Everyone {
			return n / 4
		}
		return n
	}
	most := packet.Addr(99)
	for c, n := range charge {
		w, v := weigh(c, n), weigh(most, charge[most])
		if most == 99 || w > v || w == v && (m.all[first[c]].learned < m.all[first[most]].learned || m.all[first[c]].learned == m.all[first[most]].learned && c < most) {
			most = c
		}
	}
	if n, ok := charge[client]; ok && m.class(&modelBinding{name: name}) == class && weigh(client, n+modelCharge(name)) > weigh(most, charge[most]) {
		most = client
	}
	return first[most]
}

// pass makes all bindings older.
func (m *model) pass(d int64) {
	for i := range m.all {
		m.all[i].expires -= d
		m.all[i].learned -= d
	}
}

func (m *model) sweep(now int64) {
	for i := range m.all {
		m.all[i].dead = m.all[i].dead || m.all[i].expires <= now
	}
}

func (m *model) find(client, addr packet.Addr, now int64, anyone bool) []uint32 {
	var r []uint32
	for _, b := range m.all {
		if b.addr == addr && b.expires > now && (anyone || b.client == client || b.client == Everyone) {
			r = append(r, modelIDs(b.name)...)
		}
	}
	slices.Sort(r)
	return slices.Compact(r)
}

// FuzzSet drives a set and its model by the bytes of the input.
func FuzzSet(f *testing.F) {
	f.Add([]byte{3, 0, 1, 2, 3, 4, 1, 1, 2, 3, 4, 2, 9, 9, 9, 9})
	f.Add([]byte("\x01a quick brown fox jumps over the lazy dog and then does it again, and again"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || len(in) > 2000 {
			return
		}
		capacity := 1 + int(in[0]%40)
		s := New(Config{Capacity: capacity, Patterns: patterns(t, "*.r", "n0.r", "n1.r"), Secret: [2]uint64{uint64(len(in)), 77}})
		m := &model{cap: capacity}
		now := int64(0)
		var fd Found
		for in = in[1:]; len(in) >= 5; in = in[5:] {
			client, addr, name := packet.Addr(in[1]%4), packet.Addr(in[2]%6), int(in[3]%16)
			switch in[0] % 4 {
			case 0, 1:
				ttl := int64(in[4] % 32)
				s.Bind(client, wire(t, modelName(name)), addr, uint32(ttl), now, 0)
				m.bind(client, addr, name, ttl, now)
			case 2:
				now += int64(in[4]) * second / 16
			case 3:
				s.Sweep(capacity, now)
				m.sweep(now)
			}
			for c := range packet.Addr(4) {
				got := ids(s, c, addr, now)
				if c == Everyone {
					continue // not a client
				}
				if want := m.find(c, addr, now, false); !slices.Equal(got, want) {
					t.Fatalf("client %d, address %d: patterns %v, want %v", c, addr, got, want)
				}
			}
			s.FindAnyClient(addr, now, &fd)
			got := slices.Clone(fd.IDs)
			slices.Sort(got)
			if want := m.find(0, addr, now, true); !slices.Equal(got, want) {
				t.Fatalf("anyone, address %d: patterns %v, want %v", addr, got, want)
			}
			alive := 0
			for i := range m.all {
				if !m.all[i].dead {
					alive++
				}
			}
			if s.Len() != alive {
				t.Fatalf("%d bindings, want %d", s.Len(), alive)
			}
		}
		check(t, s)
	})
}

func TestModel(t *testing.T) {
	// The same as the fuzz target, on random inputs that are always run.
	s := New(Config{Capacity: 7, Patterns: patterns(t, "*.r", "n0.r", "n1.r")})
	m := &model{cap: 7}
	x := uint64(1)
	rnd := func(n int) int { x = x*6364136223846793005 + 1442695040888963407; return int(x>>33) % n }
	for i := range 20000 {
		now := int64(i) * second / 8
		c, a, n, ttl := packet.Addr(rnd(4)), packet.Addr(rnd(5)), rnd(16), int64(rnd(20))
		s.Bind(c, wire(t, modelName(n)), a, uint32(ttl), now, 0)
		m.bind(c, a, n, ttl, now)
		if rnd(5) == 0 {
			s.Sweep(7, now)
			m.sweep(now)
		}
		if rnd(50) == 0 {
			d := int64(rnd(20)-2) * second / 2
			s.Pass(d)
			m.pass(max(d, 0))
		}
		client, addr := packet.Addr(1+rnd(3)), packet.Addr(rnd(5))
		if got, want := ids(s, client, addr, now), m.find(client, addr, now, false); !slices.Equal(got, want) {
			t.Fatalf("step %d, client %d, address %d: patterns %v, want %v", i, client, addr, got, want)
		}
	}
	check(t, s)
	if s.c.EvictedFull == 0 || s.c.Expired == 0 || s.c.Refreshed == 0 {
		t.Fatalf("the test did not reach everything: %+v", s.c)
	}
}

func BenchmarkFind(b *testing.B) {
	s := New(Config{Capacity: 16384, Patterns: patterns(b, "*.example"), Secret: [2]uint64{1, 3}})
	for i := range 10000 {
		s.Bind(packet.Addr(1+i%100), wire(b, fmt.Sprintf("n%d.example", i%2000)), packet.Addr(i), 3600, 0, 0)
	}
	var f Found
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.Find(packet.Addr(1+i%100), packet.Addr(i), 1, &f)
		if i++; i == 10000 {
			i = 0
		}
	}
}
