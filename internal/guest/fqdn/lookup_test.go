package fqdn

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestLookups compares a large set with a list of all bindings: every lookup, with
// all fields and their order, before and after each expiry, to the nanosecond.
func TestLookups(t *testing.T) {
	type bound struct {
		client, addr packet.Addr
		name         int
		k            Known
	}
	names := []string{"a.r", "b.r", "a.x", "b.x", "c.d.r", strings.Repeat("l", 27) + ".x", strings.Repeat("l", 28) + ".x", strings.Repeat("l", 60) + ".r", "d.x", "e.x", "f.x", "g.x"}
	pats := []string{"b.r", "*.r", "a.r", "*.r", strings.Repeat("l", 60) + ".r"}
	of := func(n int) (l []uint32) {
		for i, p := range pats {
			p, wild := strings.CutPrefix(p, "*.")
			if _, parent, _ := strings.Cut(names[n], "."); !wild && p == names[n] || wild && p == parent {
				l = append(l, uint32(i))
			}
		}
		return l
	}
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(Config{Capacity: 1000, Floor: int64(seed) * second, Grace: int64(seed%2) * 7, Patterns: patterns(t, pats...), Secret: [2]uint64{seed, 77}})
		if seed >= 3 {
			s.mask = 1 // hardly two have the same hash in such a set; here half of all have
		}
		var all []bound
		var want Counters
		var f Found
		now := int64(0)
		found := func(what string, at int64, match func(*bound) bool) {
			t.Helper()
			var ids []uint32
			var list []Known
			for i := range all {
				if b := &all[i]; match(b) {
					ids, list = append(ids, of(b.name)...), append(list, b.k)
				}
			}
			slices.SortFunc(list, func(a, b Known) int {
				if a.InPolicy != b.InPolicy {
					if a.InPolicy {
						return -1
					}
					return 1
				}
				return int(b.Learned - a.Learned)
			})
			slices.Sort(ids)
			ids = slices.Compact(ids)
			got := slices.Clone(f.IDs)
			slices.Sort(got)
			if list = list[:min(len(list), MaxKnown)]; !slices.Equal(got, ids) || f.Full || !slices.Equal(f.Names, list) {
				t.Fatalf("seed %d at %d, %s at %d: patterns %v, want %v; names\n%+v, want\n%+v", seed, now, what, at, got, ids, f.Names, list)
			}
		}
		for step := range 3000 {
			now += 1 + int64(r.IntN(int(second/8)))
			c, a, n := packet.Addr(r.IntN(4)), packet.Addr(10+r.IntN(3)), r.IntN(len(names))
			if r.IntN(30) == 0 {
				s.Sweep(r.IntN(300), now)
			}
			if r.IntN(3) == 0 {
				ttl := uint32(r.IntN(20))
				if !s.Bind(c, wire(t, names[n]), a, ttl, now, uint64(step)) {
					t.Fatal("not bound")
				}
				ends := now + max(int64(ttl)*second, s.cfg.Floor, second) + s.cfg.Grace
				k := Known{InPolicy: len(of(n)) > 0, Learned: now, Lookup: uint64(step), Expires: ends}
				if i := slices.IndexFunc(all, func(b bound) bool { return b.client == c && b.addr == a && b.name == n }); i >= 0 {
					k.Expires = max(k.Expires, all[i].k.Expires)
					k.Name = all[i].k.Name
					all[i].k = k
					want.Refreshed++
				} else {
					k.Name = Name(s.findName(wire(t, names[n]), s.hashName(wire(t, names[n]))))
					all = append(all, bound{c, a, n, k})
					want.Inserted++
				}
			}
			at := now
			if len(all) > 0 && r.IntN(2) == 0 { // just before or at some end
				at = all[r.IntN(len(all))].k.Expires - int64(r.IntN(2))
			}
			s.Find(c, a, at, &f)
			found("Find", at, func(b *bound) bool { return (b.client == c || b.client == Everyone) && b.addr == a && b.k.Expires > at })
			s.FindAnyClient(a, at, &f)
			if len(all) <= 2*PerAddress || s.mask > 1 { // it looks no further
				found("FindAnyClient", at, func(b *bound) bool { return b.addr == a && b.k.Expires > at })
			}
			if c != Everyone {
				s.FindExpired(c, a, at, &f)
				found("FindExpired", at, func(b *bound) bool {
					return (b.client == c || b.client == Everyone) && b.addr == a && b.k.Expires <= at
				})
			}
			ok := s.FindName(c, a, wire(t, names[n]), at, &f)
			first := func(c packet.Addr) *bound {
				i := slices.IndexFunc(all, func(b bound) bool { return b.client == c && b.addr == a && b.name == n && b.k.Expires > at })
				if i < 0 {
					return nil
				}
				return &all[i]
			}
			b := first(c)
			if b == nil {
				b = first(Everyone)
			}
			if ok != (b != nil) {
				t.Fatalf("seed %d at %d: FindName %v", seed, at, ok)
			}
			found("FindName", at, func(x *bound) bool { return x == b })
			knows := slices.ContainsFunc(all, func(b bound) bool {
				return (b.client == c || b.client == Everyone) && b.name == n && b.k.Expires > at
			})
			if s.Knows(c, wire(t, names[n]), at) != knows {
				t.Fatalf("seed %d at %d: Knows %v", seed, at, !knows)
			}
			if s.Len()+int(s.expired.n) != len(all) {
				t.Fatalf("%d alive and %d dead of %d", s.Len(), s.expired.n, len(all))
			}
		}
		// An expired binding that is bound again is found again; each expiry is counted.
		c := *s.Counters()
		if c.Inserted != want.Inserted || c.Refreshed != want.Refreshed || c.EvictedFull+c.EvictedText+c.EvictedAddress != 0 || c.Expired == 0 {
			t.Fatalf("%+v, want %+v", c, want)
		}
		end := int64(math.MaxInt64)
		living := s.Len()
		s.Sweep(s.Cap(), end)
		s.Sweep(s.Cap(), end)
		if s.Len() != 0 || s.c.Expired != c.Expired+uint64(living) {
			t.Fatalf("%d live for ever; %d ended of %d", s.Len(), s.c.Expired-c.Expired, living)
		}
		for _, b := range all {
			s.Patterns(b.k.Name, &f)
			if got := slices.Sorted(slices.Values(f.IDs)); !slices.Equal(got, of(b.name)) || len(f.Names) != 0 {
				t.Fatalf("%q has the patterns %v", names[b.name], f.IDs)
			}
			var buf [MaxName]byte
			if string(s.Text(b.k.Name, end, &buf)) != string(wire(t, names[b.name])) {
				t.Fatalf("%q has the text %q", names[b.name], s.Text(b.k.Name, end, &buf))
			}
		}
		check(t, s)
	}
}

// TestLookupsOfNothing: names, clients and references that do not exist.
func TestLookupsOfNothing(t *testing.T) {
	s := New(Config{Capacity: 3, Patterns: patterns(t, "a.r")})
	var f Found
	var buf [MaxName]byte
	s.Bind(1, wire(t, "a.r"), 10, 60, 5, 0)
	s.Find(1, 10, 5, &f)
	n := f.Names[0].Name
	if !f.Names[0].InPolicy {
		t.Fatal("the first pattern is none")
	}
	for _, n := range []Name{0, n + 1, 4, 5, math.MaxUint32} { // there are 4 places for names
		s.Find(1, 10, 5, &f)
		if s.Patterns(n, &f); len(f.IDs) != 0 || len(f.Names) != 0 || f.Full || s.Text(n, math.MaxInt64, &buf) != nil {
			t.Errorf("name %d: %+v, %q", n, f.IDs, s.Text(n, math.MaxInt64, &buf))
		}
	}
	if s.Text(n, 4, &buf) != nil || string(s.Text(n, 5, &buf)) != "\x01a\x01r\x00" {
		t.Error("a name is known from when it was learned")
	}
	for _, b := range [][]byte{nil, {0}, {1, 'a'}, {3, 'a', 1, 'r', 0}, []byte("\x01a\x01r\x00\x00")} {
		if s.FindName(1, 10, b, 5, &f) || len(f.IDs) != 0 || s.Knows(1, b, 5) {
			t.Errorf("%q is known", b)
		}
	}
	if s.Find(2, 10, 5, &f); len(f.Names) != 0 {
		t.Error("another client")
	}
	for i := range 3 { // each number, to the last one, which is taken when the set is full
		p := patterns(t, "1.r")
		s := New(Config{Capacity: 3, Patterns: p})
		for k := range i + 1 {
			s.Bind(1, wire(t, fmt.Sprintf("x%d.r", k)), 20, 60, int64(k), 0)
		}
		s.Bind(1, wire(t, "1.r"), 21, 60, 9, 0)
		s.Find(1, 21, 9, &f)
		n := f.Names[0].Name
		if s.Patterns(n, &f); len(f.IDs) != 1 || int(n) != i+2 || string(s.Text(n, 9, &buf)) != "\x011\x01r\x00" {
			t.Errorf("name %d, after %d others: %v", n, i+1, f.IDs)
		}
	}
	s.Bind(Everyone, wire(t, "a.r"), 11, 60, 5, 0)
	if s.Find(Everyone, 11, 5, &f); len(f.Names) != 1 { // once, and not also for everyone
		t.Errorf("%+v", f.Names)
	}
	s.Find(math.MaxUint32, 11, 5, &f)
	if len(f.Names) != 1 {
		t.Errorf("the last client: %+v", f.Names)
	}
}

// TestMostPatterns: an address has as many patterns as fit, without duplicates; with
// one more, Full is set.
func TestMostPatterns(t *testing.T) {
	var f Found
	for n, full := range map[int]bool{4 * PerAddress: false, 4*PerAddress + 1: true} {
		p := patterns(t, slices.Repeat([]string{"a.r"}, n)...)
		s := New(Config{Capacity: 3, Patterns: p})
		s.Bind(1, wire(t, "a.r"), 10, 60, 0, 0)
		s.Bind(1, wire(t, "b.r"), 10, 60, 0, 0)
		s.Bind(Everyone, wire(t, "a.r"), 10, 60, 0, 0)
		for range 2 {
			s.Find(1, 10, 0, &f)
			if len(f.IDs) != 4*PerAddress || f.Full != full || len(slices.Compact(slices.Sorted(slices.Values(f.IDs)))) != 4*PerAddress {
				t.Errorf("%d patterns: %d, full %v", n, len(f.IDs), f.Full)
			}
		}
		if s.Find(1, 11, 0, &f); f.Full || len(f.IDs) != 0 {
			t.Error("what the last look-up found is still there")
		}
	}
}

// TestLongChains: bounded lookups examine as many bindings as they say.
func TestLongChains(t *testing.T) {
	var f Found
	s := New(Config{Capacity: 1000, Patterns: patterns(t, "old.r")})
	s.Bind(1, wire(t, "old.r"), 10, 60, 0, 0)
	for i := range 2*PerAddress + 1 {
		s.FindAnyClient(10, 0, &f)
		if (len(f.IDs) == 1) != (i < 2*PerAddress) {
			t.Fatalf("behind %d others: %v", i, f.IDs)
		}
		s.Bind(packet.Addr(2+i), wire(t, fmt.Sprintf("n%d.r", i)), 10, 60, 0, 0)
	}
	s = New(Config{Capacity: 1000, Patterns: patterns(t, "old.r")})
	s.Bind(1, wire(t, "old.r"), 10, 60, 0, 0)
	for i := range 4*PerAddress + 1 {
		if s.Knows(1, wire(t, "old.r"), 0) != (i < 4*PerAddress) {
			t.Fatalf("behind %d others: %v", i, i >= 4*PerAddress)
		}
		s.Bind(packet.Addr(2+i), wire(t, "old.r"), 10, 60, 0, 0)
	}
}

// TestEqualAges: of names learned at the same time the last one comes first, and the
// first eight are kept in whatever order they come.
func TestEqualAges(t *testing.T) {
	s := New(Config{Capacity: 100, Patterns: patterns(t, "*.r")})
	var f Found
	var buf [MaxName]byte
	for i := range 12 {
		s.Bind(1, wire(t, fmt.Sprintf("n%c.x", 'a'+i)), 10, 60, 0, 0)
	}
	text := func() (l string) {
		s.Find(1, 10, 0, &f)
		for _, k := range f.Names {
			l += string(s.Text(k.Name, 0, &buf)[2])
		}
		return l
	}
	if got := text(); got != "lkjihgfe" {
		t.Fatalf("%q", got)
	}
	s.Bind(1, wire(t, "nz.r"), 10, 60, 0, 0)
	s.Bind(1, wire(t, "nm.x"), 10, 60, 0, 0)
	if got := text(); got != "zmlkjihg" {
		t.Fatalf("%q", got)
	}
	// With too many names for an address the first one bound is evicted.
	s = New(Config{Capacity: 100})
	for i := range PerAddress + 2 {
		s.Bind(1, wire(t, fmt.Sprintf("n%d.x", i)), 10, 60, 0, 0)
	}
	for i := range PerAddress + 2 {
		if s.Knows(1, wire(t, fmt.Sprintf("n%d.x", i)), 0) != (i >= 2) {
			t.Fatalf("name %d of %d: known %v", i, PerAddress+2, i < 2)
		}
	}
}

// TestHashes: each byte of a name, its length and each bit of the secret change
// about half of the bits of its hash, so that collisions cannot be made.
func TestHashes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	ones, all := 0, 0
	for range 20 {
		secret := [2]uint64{r.Uint64(), r.Uint64() | 1}
		s := &Set{cfg: Config{Secret: secret}, mask: math.MaxUint32}
		for _, n := range []int{1, 2, 7, 8, 9, 15, 16, 17, 100, 255} {
			name := make([]byte, n)
			for i := range name {
				name[i] = byte(r.IntN(256)) // as they may be, not as they are
			}
			h := s.hashName(name)
			ones, all = ones+bits.OnesCount64(h), all+64
			far := func(what string, g uint64) {
				t.Helper()
				if d := bits.OnesCount64(h ^ g); d < 8 || d > 56 {
					t.Fatalf("%d bytes, %s: %d bits of the hash change", n, what, d)
				}
			}
			for i := range name {
				for b := range 8 {
					name[i] ^= 1 << b
					far(fmt.Sprintf("bit %d of byte %d", b, i), s.hashName(name))
					name[i] ^= 1 << b
				}
			}
			far("one byte more", s.hashName(append(slices.Clone(name), 0)))
			far("one byte less", s.hashName(name[:n-1]))
			for b := range 64 {
				for k := range 2 {
					if other := (&Set{cfg: Config{Secret: secret}, mask: math.MaxUint32}); b > 0 || k == 0 {
						other.cfg.Secret[k] ^= 1 << b
						if d := bits.OnesCount32(s.addrHead(7) ^ other.addrHead(7)); d < 3 || d > 29 {
							t.Fatalf("bit %d of secret %d changes %d bits of an address's hash", b, k, d)
						}
						far(fmt.Sprintf("bit %d of secret %d", b, k), other.hashName(name))
					}
				}
			}
		}
		a, b := packet.Addr(r.Uint32()), packet.Addr(r.Uint32())
		for i := range 32 {
			x := packet.Addr(1) << i
			for _, d := range []uint32{s.pairHead(a, b) ^ s.pairHead(a^x, b), s.pairHead(a, b) ^ s.pairHead(a, b^x), s.addrHead(a) ^ s.addrHead(a^x)} {
				if n := bits.OnesCount32(d); n < 3 || n > 29 {
					t.Fatalf("bit %d of an address changes %d bits of its hash", i, n)
				}
			}
		}
	}
	for _, secret := range [][2]uint64{{}, {1, 0}, {0, 2}} { // even the worst ones tell names apart
		s := &Set{cfg: Config{Secret: secret}, mask: math.MaxUint32}
		seen := map[uint64]bool{}
		for i := range 1000 {
			seen[s.hashName(wire(t, fmt.Sprintf("n%d.example", i)))] = true
		}
		if len(seen) != 1000 || s.addrHead(1) == s.addrHead(2) {
			t.Fatalf("secret %v: %d hashes of 1000 names", secret, len(seen))
		}
	}
	if 100*ones < 47*all || 100*ones > 53*all {
		t.Fatalf("%d of %d bits of hashes are set", ones, all)
	}
}
