package fqdn

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// patterns returns a set of patterns; "*." makes a wildcard.
func patterns(t testing.TB, list ...string) *Patterns {
	t.Helper()
	p := &ruleset.Policy{}
	for _, s := range list {
		rest, wild := strings.CutPrefix(s, "*.")
		n := ruleset.Name{Text: ruleset.Text{Off: uint32(len(p.Strings)), Len: uint32(len(rest))}}
		if wild {
			n.Wildcard = 1
		}
		p.Strings = append(p.Strings, rest...)
		p.Names = append(p.Names, n)
	}
	c, err := NewPatterns(p, p.Names)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wire(t testing.TB, s string) []byte {
	t.Helper()
	w, ok := Encode(s)
	if !ok {
		t.Fatalf("%q is not a name", s)
	}
	return w
}

func ids(s *Set, client, addr packet.Addr, now int64) []uint32 {
	var f Found
	s.Find(client, addr, now, &f)
	r := slices.Clone(f.IDs)
	slices.Sort(r)
	return r
}

// TestS26_Wildcards: a wildcard matches exactly one more label.
func TestS26_Wildcards(t *testing.T) {
	p := patterns(t, "example.com", "*.example.com", "*.b.example.com", "example.com", "*.com")
	for name, want := range map[string][]uint32{
		"example.com":       {0, 3, 4},
		"EXAMPLE.com.":      {0, 3, 4},
		"a.example.com":     {1},
		"b.example.com":     {1},
		"a.b.example.com":   {2},
		"a.b.c.example.com": nil,
		"com":               nil,
		"notexample.com":    {4},
		"example.com.evil":  nil,
		".":                 nil,
	} {
		got := p.Match(wire(t, strings.TrimSuffix(name, ".")), make([]uint32, 0, 8))
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s has the patterns %v, want %v", name, got, want)
		}
	}
	// A dot inside a label is not a border between two.
	odd := append([]byte{9}, "a.example\x03com\x00"...)
	if got := p.Match(odd, make([]uint32, 0, 8)); !slices.Equal(got, []uint32{4}) {
		t.Errorf("a label with a dot has the patterns %v", got)
	}
}

func TestWithin(t *testing.T) {
	p := patterns(t, "ads.example", "*.tracker.example")
	for name, want := range map[string]bool{"ads.example": true, "x.ads.example": true, "y.x.ads.example": true, "bads.example": false,
		"tracker.example": false, "a.tracker.example": true, "b.a.tracker.example": true, "example": false, "": false} {
		if got := p.Within(wire(t, name)); got != want {
			t.Errorf("%q within the list: %v", name, got)
		}
	}
}

func TestFind(t *testing.T) {
	s := New(Config{Capacity: 100, Patterns: patterns(t, "a.example", "*.example", "b.example")})
	s.Bind(1, wire(t, "a.example"), 10, 60, 0, 7)
	s.Bind(1, wire(t, "b.example"), 10, 30, 0, 8) // one address, two names
	s.Bind(1, wire(t, "a.example"), 11, 30, 0, 9) // one name, two addresses
	for _, c := range []struct {
		client, addr packet.Addr
		now          int64
		want         []uint32
	}{
		{1, 10, 0, []uint32{0, 1, 2}}, {1, 10, 30*second - 1, []uint32{0, 1, 2}}, {1, 10, 30 * second, []uint32{0, 1}},
		{1, 10, 60 * second, nil}, {1, 11, 0, []uint32{0, 1}}, {1, 11, 30 * second, nil}, {2, 10, 0, nil}, {1, 12, 0, nil},
	} {
		if got := ids(s, c.client, c.addr, c.now); !slices.Equal(got, c.want) {
			t.Errorf("client %d, address %d at %d s: patterns %v, want %v", c.client, c.addr, c.now/second, got, c.want)
		}
	}
	var f Found
	s.Find(1, 10, 0, &f)
	var buf [MaxName]byte
	if len(f.Names) != 2 || string(s.Text(f.Names[0].Name, 0, &buf)) != "\x01b\x07example\x00" && string(s.Text(f.Names[0].Name, 0, &buf)) != "\x01a\x07example\x00" {
		t.Errorf("names %+v", f.Names)
	}
	// Other clients, and expired bindings.
	if s.FindAnyClient(10, 0, &f); len(f.IDs) != 3 {
		t.Errorf("others: %v", f.IDs)
	}
	if s.FindExpired(1, 10, 61*second, &f); len(f.IDs) != 3 {
		t.Errorf("later: %v", f.IDs)
	}
	if !s.FindName(1, 10, wire(t, "b.example"), 0, &f) || !slices.Equal(f.IDs, []uint32{2, 1}) {
		t.Errorf("one name: %v", f.IDs)
	}
	if s.FindName(1, 11, wire(t, "b.example"), 0, &f) || s.FindName(2, 10, wire(t, "b.example"), 0, &f) || s.FindName(1, 10, wire(t, "b.example"), 30*second, &f) {
		t.Error("a name that this client does not know at this address now")
	}
	if !s.Knows(1, wire(t, "a.example"), 59*second) || s.Knows(1, wire(t, "a.example"), 60*second) || s.Knows(2, wire(t, "a.example"), 0) || s.Knows(1, wire(t, "c.example"), 0) {
		t.Error("Knows")
	}
}

// TestLifetime: unusual TTLs, floor, grace, and names learned again.
func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		ttl          uint32
		floor, grace int64
		want         int64 // seconds
	}{
		{60, 0, 0, 60}, {0, 0, 0, 1}, {1 << 31, 0, 0, 1}, {1<<31 + 60, 0, 0, 1}, {1<<31 - 1, 0, 0, 7 * 24 * 3600},
		{5, 30, 0, 30}, {60, 30, 0, 60}, {5, 0, 10, 15}, {5, 30, 10, 40},
	} {
		s := New(Config{Capacity: 4, Floor: c.floor * second, Grace: c.grace * second, Patterns: patterns(t, "a.example")})
		s.Bind(1, wire(t, "a.example"), 10, c.ttl, 5*second, 1)
		if len(ids(s, 1, 10, (5+c.want)*second-1)) != 1 || len(ids(s, 1, 10, (5+c.want)*second)) != 0 {
			t.Errorf("TTL %d, floor %d, grace %d does not last %d s", c.ttl, c.floor, c.grace, c.want)
		}
	}
	s := New(Config{Capacity: 4, Patterns: patterns(t, "a.example")})
	s.Bind(1, wire(t, "a.example"), 10, 60, 0, 1)
	s.Bind(1, wire(t, "a.example"), 10, 10, second, 2) // what was promised stays
	if len(ids(s, 1, 10, 59*second)) != 1 || s.Len() != 1 || s.c.Refreshed != 1 {
		t.Error("a shorter TTL took from a longer one")
	}
	s.Bind(1, wire(t, "a.example"), 10, 60, 50*second, 3)
	if len(ids(s, 1, 10, 109*second)) != 1 {
		t.Error("not prolonged")
	}
}

func TestEveryone(t *testing.T) {
	s := New(Config{Capacity: 4, Patterns: patterns(t, "a.example", "b.example")})
	s.Bind(Everyone, wire(t, "a.example"), 10, 60, 0, 1)
	s.Bind(1, wire(t, "b.example"), 10, 60, 0, 2)
	if got := ids(s, 1, 10, 0); !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("client 1: %v", got)
	}
	if got := ids(s, 2, 10, 0); !slices.Equal(got, []uint32{0}) {
		t.Errorf("client 2: %v", got)
	}
}

// TestS34_OldestGivesWay: a full set evicts the oldest binding; expired ones, and
// those outside the policy, before.
func TestS34_OldestGivesWay(t *testing.T) {
	name := func(i int) []byte { return wire(t, fmt.Sprintf("n%d.example", i)) }
	s := New(Config{Capacity: 10, Patterns: patterns(t, "*.example")})
	for i := range 10 {
		s.Bind(1, name(i), packet.Addr(i), 1000, int64(i), 0)
	}
	s.Bind(1, name(0), 0, 1000, 11, 0) // now 1 is the oldest
	s.Bind(1, name(10), 10, 1000, 12, 0)
	if len(ids(s, 1, 0, 20)) != 1 || len(ids(s, 1, 1, 20)) != 0 || len(ids(s, 1, 10, 20)) != 1 || s.c.EvictedFull != 1 || s.Len() != 10 {
		t.Fatalf("the oldest did not give way: %+v", s.c)
	}
	// Names without a rule push out each other, and never one with a rule.
	s.Bind(1, wire(t, "other.test"), 50, 1000, 13, 0) // takes the place of 2
	for i := range 100 {
		s.Bind(1, wire(t, fmt.Sprintf("x%d.test", i)), 60, 1000, 14, 0)
	}
	for _, i := range []packet.Addr{0, 3, 4, 5, 6, 7, 8, 9, 10} {
		if len(ids(s, 1, i, 20)) != 1 {
			t.Errorf("address %d has been pushed out by names that no rule needs", i)
		}
	}
	// Expired bindings are evicted first.
	e := New(Config{Capacity: 3, Patterns: patterns(t, "*.example")})
	e.Bind(1, name(0), 0, 1000, 0, 0)
	e.Bind(1, name(1), 1, 10, 1, 0)
	e.Bind(1, name(2), 2, 1000, 2, 0)
	e.Sweep(3, 11*second)
	e.Bind(1, name(3), 3, 1000, 11*second, 0)
	if len(ids(e, 1, 0, 12*second)) != 1 || e.c.EvictedFull != 0 || e.c.Expired != 1 || e.Len() != 3 {
		t.Errorf("an expired entry was not the first to go: %+v", e.c)
	}
}

// TestPerAddress: the number of one client's names for one address is limited.
func TestPerAddress(t *testing.T) {
	s := New(Config{Capacity: 1000, Patterns: patterns(t, "n0.example", "*.example")})
	s.Bind(2, wire(t, "n0.example"), 10, 60, 0, 0)
	for i := range 3 * PerAddress {
		s.Bind(1, wire(t, fmt.Sprintf("n%d.example", i)), 10, 60, int64(i), 0)
	}
	if s.Len() != PerAddress+1 || s.c.EvictedAddress != 2*PerAddress {
		t.Errorf("%d bindings, %+v", s.Len(), s.c)
	}
	if got := ids(s, 1, 10, 200); !slices.Equal(got, []uint32{1}) {
		t.Errorf("patterns %v", got)
	}
	if got := ids(s, 2, 10, 200); !slices.Equal(got, []uint32{0, 1}) {
		t.Errorf("another client's: %v", got)
	}
	check(t, s)
}

// TestLongNames: the memory for names is limited, too.
func TestLongNames(t *testing.T) {
	long := strings.Repeat("x", 60) + "."
	s := New(Config{Capacity: 50, Patterns: patterns(t, "*.example")})
	for i := range 200 {
		s.Bind(1, wire(t, fmt.Sprintf("%d.%s%s%sexample", i, long, long, long)), packet.Addr(i), 60, int64(i), 0)
		check(t, s)
	}
	if s.c.EvictedText == 0 || s.Len() == 0 {
		t.Errorf("%+v, %d bindings", s.c, s.Len())
	}
	if _, ok := Encode(long + long + long + long + long + "com"); ok {
		t.Error("a name of more than 255 bytes")
	}
	if s.Bind(1, []byte("\x03abc"), 1, 1, 0, 0) || s.Bind(1, []byte{0xc0, 0}, 1, 1, 0, 0) || s.Bind(1, nil, 1, 1, 0, 0) {
		t.Error("bound what is not a name")
	}
}

// TestTextOfFreedName: another name may have the record of a freed one.
func TestTextOfFreedName(t *testing.T) {
	s := New(Config{Capacity: 1})
	s.Bind(1, wire(t, "a.example"), 10, 60, 0, 0)
	var f Found
	s.Find(1, 10, 0, &f)
	n := f.Names[0].Name
	var buf [MaxName]byte
	if string(s.Text(n, 0, &buf)) != "\x01a\x07example\x00" {
		t.Fatal("no text")
	}
	for i := range 5 {
		s.Bind(1, wire(t, fmt.Sprintf("b%d.example", i)), 10, 60, 10, 0)
		if x := s.Text(n, 5, &buf); x != nil {
			t.Fatalf("the name has become %q", x)
		}
	}
}

func TestAllocations(t *testing.T) {
	s := New(Config{Capacity: 64, Patterns: patterns(t, "*.example", "a.b.example")})
	var names [100][]byte
	for i := range names {
		names[i] = wire(t, fmt.Sprintf("n%d.example", i))
	}
	var f Found
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		i++
		s.Bind(packet.Addr(i%5), names[i%100], packet.Addr(i%7), 60, int64(i), 0)
		s.Find(packet.Addr(i%5), packet.Addr(i%7), int64(i), &f)
		s.FindName(1, 2, names[i%100], int64(i), &f)
		s.FindAnyClient(1, int64(i), &f)
		s.Sweep(10, int64(i))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// check verifies all lists, chains and counts of a set.
func check(t testing.TB, s *Set) {
	t.Helper()
	refs := map[uint32]uint32{}
	inList, live := walk(t, s, &s.expired, 0, refs), 0
	alive, held := [numClasses]int{}, 0
	for c, heap := range s.shares.heap {
		for k, v := range heap {
			h := &s.shares.h[v-1]
			alive[c] += walk(t, s, &h.list, v, refs)
			sum := uint32(0)
			for i := h.list.oldest; i != 0; i = s.b[i-1].age.next {
				r := &s.names.rec[s.b[i-1].name-1]
				sum += cellsOf(int(r.len))
				if r.class() != uint32(c) || s.b[i-1].client != h.client {
					t.Fatalf("binding %d is in a wrong list", i)
				}
			}
			if h.list.n == 0 || h.cells != sum || int(h.heapAt) != k || h.class != uint32(c) || s.shareOf(h.client, h.class) != v || k > 0 && s.before(v, heap[(k-1)/2]) {
				t.Fatalf("holder %d of class %d: %+v, charge %d", k, c, h, sum)
			}
			held++
		}
		inList += alive[c]
	}
	if alive != s.shares.n {
		t.Fatalf("%v bindings are alive, says %v", alive, s.shares.n)
	}
	for i := s.shares.free; i != 0; i = s.shares.h[i-1].next {
		held++
	}
	if held != len(s.shares.h) {
		t.Fatalf("%d holders are free or in use, of %d", held, len(s.shares.h))
	}
	chained := [2]int{}
	for c, heads := range [][]uint32{s.pairs, s.addrs} {
		for _, h := range heads {
			for i := h; i != 0; i = s.b[i-1].link(c).next {
				chained[c]++
			}
		}
	}
	everyone := 0
	for i := range s.b {
		if s.b[i].name != 0 {
			live++
			if s.b[i].client == Everyone {
				everyone++
			}
		}
	}
	if everyone != s.everyone {
		t.Fatalf("%d bindings of everyone, says %d", everyone, s.everyone)
	}
	if chained[0] != inList || chained[1] != inList || live != inList {
		t.Fatalf("%d in lists, %v in chains, %d in use", inList, chained, live)
	}
	free := 0
	for i := s.free; i != 0; i = s.b[i-1].byPair.next {
		free++
	}
	if free+live != len(s.b) {
		t.Fatalf("%d free and %d in use of %d", free, live, len(s.b))
	}
	cells := 0
	for i := range s.names.rec {
		r := &s.names.rec[i]
		if r.refs != refs[uint32(i+1)] {
			t.Fatalf("name %d has %d bindings, says %d", i, refs[uint32(i+1)], r.refs)
		}
		n := 0
		for j := r.first; j != 0; j = s.b[j-1].byName.next {
			n++
		}
		if n != int(r.refs) {
			t.Fatalf("name %d: chain of %d, %d bindings", i, n, r.refs)
		}
		if r.refs > 0 {
			cells += (int(r.len) + cellBytes - 1) / cellBytes
		}
	}
	if cells+s.names.nCells != len(s.names.cells) {
		t.Fatalf("%d cells in use, %d free of %d", cells, s.names.nCells, len(s.names.cells))
	}
}

// walk checks a list and returns its length.
func walk(t testing.TB, s *Set, l *list, holder uint32, refs map[uint32]uint32) int {
	t.Helper()
	n, prev := 0, uint32(0)
	for i := l.oldest; i != 0; i = s.b[i-1].age.next {
		if s.b[i-1].age.prev != prev || s.b[i-1].share != holder || prev != 0 && holder != 0 && s.b[prev-1].learned > s.b[i-1].learned {
			t.Fatalf("the list of holder %d is broken at %d", holder, i)
		}
		prev = i
		n++
		refs[s.b[i-1].name]++
	}
	if n != int(l.n) || l.newest != prev {
		t.Fatalf("the list of holder %d has %d entries, says %d", holder, n, l.n)
	}
	return n
}

// TestFindExpired: a binding is found as expired from the moment at which Find does
// not find it, for its client or for everyone.
func TestFindExpired(t *testing.T) {
	s := New(Config{Capacity: 10, Patterns: patterns(t, "*.r")})
	s.Bind(1, wire(t, "own.r"), 10, 60, 0, 7)
	s.Bind(Everyone, wire(t, "all.r"), 10, 30, 0, 8)
	s.Bind(2, wire(t, "other.r"), 10, 1, 0, 9)
	var now, later Found
	for _, c := range []struct {
		client packet.Addr
		at     int64
		n, old int
	}{{1, 30*second - 1, 2, 0}, {1, 30 * second, 1, 1}, {1, 60*second - 1, 1, 1}, {1, 60 * second, 0, 2}, {3, 60 * second, 0, 1}, {3, 0, 1, 0}} {
		s.Find(c.client, 10, c.at, &now)
		s.FindExpired(c.client, 10, c.at, &later)
		if len(now.Names) != c.n || len(later.Names) != c.old {
			t.Errorf("client %d at %d: %d and %d, want %d and %d", c.client, c.at, len(now.Names), len(later.Names), c.n, c.old)
		}
		for _, k := range later.Names {
			if want := map[uint64]int64{7: 60 * second, 8: 30 * second}[k.Lookup]; k.Expires != want || !k.InPolicy {
				t.Errorf("query %d has ended at %d, want %d", k.Lookup, k.Expires, want)
			}
		}
	}
	s.FindExpired(1, 11, 100*second, &later)
	if len(later.Names) != 0 {
		t.Error("of another address")
	}
}

// TestPass: a binding does not outlive its TTL by time that the clock did not count; what is
// said of it is in times of that clock; later bindings live as long as ever.
func TestPass(t *testing.T) {
	s := New(Config{Capacity: 8, Patterns: patterns(t, "a.example")})
	name := wire(t, "a.example")
	s.Bind(1, name, 9, 60, 10*second, 5)
	s.Pass(-5 * second)
	s.Pass(20 * second)
	var f Found
	if s.Find(1, 9, 49*second, &f); len(f.Names) != 1 || f.Names[0].Expires != 50*second || f.Names[0].Learned != -10*second {
		t.Fatalf("%+v", f.Names)
	}
	var buf [MaxName]byte
	if got := s.Text(f.Names[0].Name, 49*second, &buf); string(got) != string(name) {
		t.Errorf("the name is %q", got)
	}
	if !s.FindName(1, 9, name, 49*second, &f) || s.FindName(1, 9, name, 50*second, &f) {
		t.Error("FindName: not until 50 seconds")
	}
	if !s.Knows(1, name, 49*second) || s.Knows(1, name, 50*second) {
		t.Error("Knows: not until 50 seconds")
	}
	if s.FindAnyClient(9, 50*second, &f); len(f.Names) != 0 {
		t.Error("another client's name lives longer")
	}
	if s.FindExpired(1, 9, 50*second, &f); len(f.Names) != 1 {
		t.Error("it is not among the expired")
	}
	if s.Sweep(8, 50*second); s.Len() != 0 {
		t.Error("Sweep does not find it")
	}
	s.Bind(1, name, 9, 60, 50*second, 6)
	if s.Find(1, 9, 109*second, &f); len(f.Names) != 1 || f.Names[0].Expires != 110*second || f.Names[0].Learned != 50*second {
		t.Errorf("bound afterwards: %+v", f.Names)
	}
	// However long, and however often, times do not wrap.
	for range 1 << 16 {
		s.Pass(1<<63 - 1)
	}
	if s.Find(1, 9, 50*second, &f); len(f.Names) != 0 {
		t.Error("alive after for ever")
	}
	if s.Bind(1, name, 9, 60, 50*second, 7); !s.Knows(1, name, 109*second) || s.Knows(1, name, 110*second) {
		t.Error("bound after for ever: not for 60 seconds")
	}
}
