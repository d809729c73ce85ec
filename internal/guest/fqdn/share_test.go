package fqdn

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestS34_FairShare: a client that resolves thousands of names of a wildcard rule
// evicts its own, and none of others up to an equal share.
func TestS34_FairShare(t *testing.T) {
	const capacity, quiet = 1000, 20
	long := strings.Repeat("x", 60) + "." + strings.Repeat("y", 60) + "." + strings.Repeat("z", 60) + "."
	for _, flood := range []struct {
		name string
		of   func(i int) (name string, addr packet.Addr)
	}{
		{"names", func(i int) (string, packet.Addr) { return fmt.Sprintf("f%d.example", i), packet.Addr(1000 + i) }},
		{"addresses of one name", func(i int) (string, packet.Addr) { return "f.example", packet.Addr(1000 + i) }},
		{"names of one address", func(i int) (string, packet.Addr) { return fmt.Sprintf("f%d.example", i), 1000 }},
		{"long names", func(i int) (string, packet.Addr) {
			return fmt.Sprintf("f%d.%sexample", i, long), packet.Addr(1000 + i)
		}},
		{"names without a rule", func(i int) (string, packet.Addr) { return fmt.Sprintf("f%d.test", i), packet.Addr(1000 + i) }},
		{"names that the others have", func(i int) (string, packet.Addr) {
			return fmt.Sprintf("n%d.example", i%800), packet.Addr(1000 + i)
		}},
	} {
		t.Run(flood.name, func(t *testing.T) {
			s := New(Config{Capacity: capacity, Patterns: patterns(t, "*.example", "*."+long+"example"), Secret: [2]uint64{1, 3}})
			// All that others have, each less than an equal share, is older.
			each := capacity/(quiet+1) - 1
			for c := range quiet {
				for k := range each {
					s.Bind(packet.Addr(1+c), wire(t, fmt.Sprintf("n%d.example", c*each+k)), packet.Addr(k), 3600, int64(c), 0)
				}
			}
			for i := range 20 * capacity {
				n, a := flood.of(i)
				s.Bind(99, wire(t, n), a, 3600, second+int64(i), 0)
			}
			check(t, s)
			for c := range quiet {
				for k := range each {
					if len(ids(s, packet.Addr(1+c), packet.Addr(k), 2*second)) != 1 {
						t.Fatalf("client %d has lost what it knew of address %d: %+v", 1+c, k, s.c)
					}
				}
			}
			// A new client finds room, too.
			for k := range each {
				s.Bind(50, wire(t, fmt.Sprintf("late%d.example", k)), packet.Addr(k), 3600, 2*second, 0)
			}
			for k := range each {
				if len(ids(s, 50, packet.Addr(k), 2*second)) != 1 {
					t.Fatalf("a client that came late has lost address %d", k)
				}
			}
			check(t, s)
		})
	}
}

// TestS34_ShareOfResolvers: bindings for everyone count a quarter.
func TestS34_ShareOfResolvers(t *testing.T) {
	s := New(Config{Capacity: 1000, Patterns: patterns(t, "*.example")})
	for k := range 790 {
		s.Bind(Everyone, wire(t, fmt.Sprintf("n%d.example", k)), packet.Addr(k), 3600, 0, 0)
	}
	for i := range 5000 {
		s.Bind(7, wire(t, fmt.Sprintf("f%d.example", i)), packet.Addr(i), 3600, 1, 0)
	}
	for k := range 790 {
		if len(ids(s, 1, packet.Addr(k), 2)) != 1 {
			t.Fatalf("one client has pushed out what all know of address %d", k)
		}
	}
	if n, most := s.Clients(); n != 2 || most != 210 {
		t.Fatalf("%d clients, the greater has %d", n, most)
	}
	check(t, s)
}

// TestS34_FairShareAtRandom: a client that never has more than an equal share never
// loses a binding, whatever others do.
func TestS34_FairShareAtRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const capacity, clients = 200, 10
	s := New(Config{Capacity: capacity, Patterns: patterns(t, "*.example"), Secret: [2]uint64{1, 3}})
	bound := map[int]bool{} // of client 1, by name and address
	for i := range 30000 {
		c := 1 + rnd.IntN(clients)
		n := rnd.IntN(1000)
		if c == 1 {
			n %= capacity / clients
			bound[n] = true
		}
		s.Bind(packet.Addr(c), wire(t, fmt.Sprintf("n%d%s.example", n, strings.Repeat("x", n%3*18/(1+n%2)*(min(c, 2)-1)))), packet.Addr(n), 3600, int64(i), 0)
		if i%1000 == 0 {
			check(t, s)
			for n := range bound {
				if len(ids(s, 1, packet.Addr(n), int64(i))) != 1 {
					t.Fatalf("after %d: client 1 has lost %d", i, n)
				}
			}
		}
	}
	if s.c.EvictedFull == 0 {
		t.Fatalf("%+v", s.c)
	}
}

// BenchmarkBindFull binds new names in a full set that a hundred clients share.
func BenchmarkBindFull(b *testing.B) {
	for _, clients := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			s := New(Config{Capacity: 16384, Patterns: patterns(b, "*.example"), Secret: [2]uint64{1, 3}})
			var names [1 << 12][]byte
			for i := range names {
				names[i] = wire(b, fmt.Sprintf("n%d.example", i))
			}
			i := 0
			bind := func() {
				s.Bind(packet.Addr(1+i%clients), names[i%len(names)], packet.Addr(i), 3600, int64(i), 0)
				i++
			}
			for range 20000 {
				bind()
			}
			b.ReportAllocs()
			for b.Loop() {
				bind()
			}
		})
	}
}
