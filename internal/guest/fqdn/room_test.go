package fqdn

import (
	"fmt"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestBytes: a set allocates as much memory as Bytes says.
func TestBytes(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 100, 1024, 1025} {
		sum := 0
		s := New(Config{Capacity: n, Alloc: func(b int, zeroed bool) []byte {
			if !zeroed {
				t.Fatal("not zeroed")
			}
			sum += b
			return make([]byte, b)
		}})
		if Bytes(n) != sum || s.Cap() != max(n, 1) {
			t.Errorf("%d: says %d bytes, takes %d; holds %d", n, Bytes(n), sum, s.Cap())
		}
	}
	for n, want := range map[int]int{-5: 1, 0: 1, 1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 8: 8, 9: 16} {
		if powerOfTwo(n) != want {
			t.Errorf("power of two not below %d: %d", n, powerOfTwo(n))
		}
	}
}

// nameOf returns a name of n bytes, different for each i.
func nameOf(n, i int) []byte {
	if n < 10 {
		panic("too short")
	}
	b := append([]byte{5}, fmt.Sprintf("%05d", i)...)
	for n -= 7; n > 0; {
		k := min(n-1, 63)
		if n-1-k == 1 { // no label is empty
			k--
		}
		b = append(append(b, byte(k)), strings.Repeat("x", k)...)
		n -= 1 + k
	}
	return append(b, 0)
}

// TestRoomForNames: there is room for one and a half names of one cell for each
// binding, and for the longest name, and for no more.
func TestRoomForNames(t *testing.T) {
	if cellsOf(1) != 1 || cellsOf(28) != 1 || cellsOf(29) != 2 || cellsOf(56) != 2 || cellsOf(57) != 3 || cellsOf(255) != 10 {
		t.Fatal("charge")
	}
	for _, n := range []int{40, 100, 101} {
		cells := n + n/2 + 10
		for _, bytes := range []int{28, 29, 56, 57, 84, 85, 255} {
			s := New(Config{Capacity: n, Patterns: patterns(t, "a.b")})
			each := (bytes + 27) / 28
			for i := range n {
				name := nameOf(bytes, i)
				if len(name) != bytes || !s.Bind(1, name, packet.Addr(i), 60, int64(i), 0) {
					t.Fatalf("%q of %d", name, len(name))
				}
				fits := (i+1)*each <= cells
				if (s.c.EvictedText == 0) != fits || s.c.EvictedFull != 0 || fits && s.names.nCells != cells-(i+1)*each {
					t.Fatalf("%d bytes, name %d of %d: %+v", bytes, i, n, s.c)
				}
				var f Found
				if s.Find(1, packet.Addr(i), int64(i), &f); len(f.Names) != 1 {
					t.Fatal("not found")
				}
				var buf [MaxName]byte
				if got := s.Text(f.Names[0].Name, int64(i), &buf); string(got) != string(name) {
					t.Fatalf("%d bytes: %q is kept as %q", bytes, name, got)
				}
			}
			if cells/each < n && s.Len() != cells/each {
				t.Fatalf("%d names of %d bytes", s.Len(), bytes)
			}
			check(t, s)
		}
	}
	// Distinct names in as many bindings as there are: no name lacks a record.
	for _, n := range []int{1, 2, 3} {
		s := New(Config{Capacity: n})
		for i := range 5 * n {
			s.Bind(1, nameOf(20, i), packet.Addr(i), 60, int64(i), 0)
			if s.c.EvictedText != 0 || s.c.EvictedFull != uint64(max(i+1-n, 0)) {
				t.Fatalf("%d of %d: %+v", i, n, s.c)
			}
			check(t, s)
		}
	}
	// The longest name fits into the smallest set, again and again.
	s := New(Config{Capacity: 1})
	for i := range 5 {
		s.Bind(1, nameOf(255, i), 1, 60, int64(i), 0)
		if s.Len() != 1 {
			t.Fatal("no room")
		}
		check(t, s)
	}
}

// TestNamesOfOneHash: names with the same hash are compared byte by byte.
func TestNamesOfOneHash(t *testing.T) {
	for _, n := range []int{10, 27, 28, 29, 56, 57, 255} {
		s := New(Config{Capacity: 2, Secret: [2]uint64{3, 5}})
		name := nameOf(n, 1)
		s.Bind(1, name, 1, 60, 0, 0)
		i := s.findName(name, s.hashName(name))
		if i == 0 || !s.equal(&s.names.rec[i-1], name) {
			t.Fatal("not found")
		}
		differ := func(other []byte) {
			t.Helper()
			h := s.hashName(other)
			s.names.rec[i-1].hash = h
			*s.head(h) = i
			if s.findName(other, h) != 0 || s.equal(&s.names.rec[i-1], other) {
				t.Fatalf("%q is taken for %q", other, name)
			}
		}
		for k := range name {
			other := append([]byte(nil), name...)
			other[k] ^= 1
			differ(other)
		}
		differ(name[:n-1])
		differ(append(append([]byte(nil), name...), 0))
		differ(nil)
	}
}

// TestEvictedIsGone: no lookup finds an evicted binding, and it does not count in
// any share.
func TestEvictedIsGone(t *testing.T) {
	var f Found
	for _, client := range []packet.Addr{Everyone, 1, 2} {
		s := New(Config{Capacity: 4, Patterns: patterns(t, "*.r")})
		for i := range 100 {
			s.Bind(client, wire(t, fmt.Sprintf("n%d.r", i)), packet.Addr(i), 60, int64(i), 0)
			check(t, s)
			for k := range i - 3 {
				name := wire(t, fmt.Sprintf("n%d.r", k))
				if k < i-6 {
					continue
				}
				s.FindExpired(client, packet.Addr(k), 1<<60, &f)
				if len(f.Names) != 0 || len(ids(s, 1, packet.Addr(k), 0)) != 0 || s.Knows(client, name, 0) || s.FindName(client, packet.Addr(k), name, 0, &f) {
					t.Fatalf("name %d of %d of client %d is still there", k, i, client)
				}
			}
		}
		if n, most := s.Clients(); n != 1 || most != 4 {
			t.Fatalf("%d clients, the greater has %d", n, most)
		}
		if s.c.EvictedFull != 96 || s.c.Inserted != 100 {
			t.Fatalf("%+v", s.c)
		}
		s.Sweep(3, 1<<60)
		s.Sweep(1, 1<<60)
		if n, most := s.Clients(); n != 0 || most != 0 || s.Len() != 0 {
			t.Fatalf("%d clients, the greater has %d", n, most)
		}
		// Expired bindings are evicted in the order in which Sweep found them, and not counted.
		for i := range 4 {
			s.Bind(client, wire(t, "new.r"), packet.Addr(1000+i), 60, 1<<60, 0)
			check(t, s)
		}
		if s.c.EvictedFull != 96 || s.c.Expired != 4 || s.Len() != 4 {
			t.Fatalf("%+v", s.c)
		}
	}
}

// TestSweepContinues: a sweep continues where the last one stopped, and starts again
// at the end.
func TestSweepContinues(t *testing.T) {
	s := New(Config{Capacity: 10})
	for i := range 10 {
		s.Bind(1, wire(t, "a.b"), packet.Addr(i), 1, 0, 0)
	}
	if s.Sweep(10, second-1); s.Len() != 10 {
		t.Fatal("before their time")
	}
	for _, n := range []int{0, 1, 2, 3} {
		before := s.Len()
		if s.Sweep(n, second); s.Len() != before-n {
			t.Fatalf("%d of %d looks found something", before-s.Len(), n)
		}
		check(t, s)
	}
	if s.Sweep(100, second); s.Len() != 0 || s.c.Expired != 10 {
		t.Fatalf("%d left, %+v", s.Len(), s.c)
	}
}
