package packetset

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The oracle is a small universe, packet by packet: three values of each range,
// all kinds, and all sets of names that a destination can have for its source.

const values = 3

func newTestSpace() *Space {
	return NewSpace([]string{"b.x.org", "a.x.org", "*.x.org", "c.y.org", "a.x.org"})
}

// universe returns all packets.
func universe(s *Space) (ps []Packet) {
	var names []Names
	for set := range 1 << len(s.patterns) {
		var n nameSet
		for i := range s.patterns {
			if set>>i&1 == 1 {
				n.yes = append(n.yes, i)
			}
		}
		if !slices.ContainsFunc(n.yes, func(i int) bool { return s.wildcard[i] >= 0 && !slices.Contains(n.yes, s.wildcard[i]) }) {
			names = append(names, s.number(n))
		}
	}
	for src := range uint32(values) {
		for dst := range uint32(values) {
			for port := range uint32(values) {
				for kind := range uint8(16) {
					for _, n := range names {
						ps = append(ps, Packet{[NumRanges]uint32{src, dst, port}, kind, n})
					}
				}
			}
		}
	}
	return ps
}

// isIn is what a Region means, without the functions under test.
func isIn(s *Space, r *Region, p *Packet) bool {
	for d := range p.Value {
		if p.Value[d] < r.Lo[d] || r.Hi[d] < p.Value[d] {
			return false
		}
	}
	want, have := s.sets[r.Names], s.sets[p.Names].yes
	for _, i := range want.yes {
		if !slices.Contains(have, i) {
			return false
		}
	}
	for _, i := range want.no {
		if slices.Contains(have, i) {
			return false
		}
	}
	return r.Kinds&(1<<p.Kind) != 0
}

// count returns how many Regions of a set have a packet.
func count(s *Space, set []Region, p *Packet) (n int) {
	for i := range set {
		if isIn(s, &set[i], p) {
			n++
		}
	}
	return n
}

// regions draws Regions of the universe.
func regions(s *Space) *rapid.Generator[Region] {
	return rapid.Custom(func(t *rapid.T) Region {
		var r Region
		for d := range r.Lo {
			r.Lo[d] = rapid.Uint32Range(0, values-1).Draw(t, "lo")
			r.Hi[d] = rapid.Uint32Range(r.Lo[d], values-1).Draw(t, "hi")
		}
		r.Kinds = Kinds(rapid.SampledFrom([]uint16{0xffff, 0x0fff, 0x1111, 0x000f, 0x0077, 0x8001, 1, 0}).Draw(t, "kinds"))
		if rapid.Bool().Draw(t, "any kinds") {
			r.Kinds = Kinds(rapid.Uint16().Draw(t, "kinds"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "names") {
			i := rapid.IntRange(0, len(s.patterns)-1).Draw(t, "pattern")
			switch yes := rapid.Bool().Draw(t, "yes"); {
			case yes && !s.hasNot(r.Names, i):
				r.Names = s.with(r.Names, i)
			case !yes && !s.has(r.Names, i):
				r.Names = s.without(r.Names, i)
			}
		}
		return r
	})
}

// whole fails when a Region of a set is empty or has a range that ends before it
// begins.
func whole(t *rapid.T, set []Region) {
	for _, r := range set {
		if r.Kinds == 0 || r.Lo[0] > r.Hi[0] || r.Lo[1] > r.Hi[1] || r.Lo[2] > r.Hi[2] {
			t.Fatalf("%+v in %+v", r, set)
		}
	}
}

// TestTwoRegions: what is said of two Regions, and what is cut out of one, is
// what every packet of the universe says.
func TestTwoRegions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTestSpace()
		a, b := regions(s).Draw(t, "a"), regions(s).Draw(t, "b")
		ps := universe(s)
		both, onlyA := 0, 0
		for i := range ps {
			inA, inB := isIn(s, &a, &ps[i]), isIn(s, &b, &ps[i])
			if s.Has(&a, &ps[i]) != inA {
				t.Fatalf("Has(%+v, %+v): %v", a, ps[i], !inA)
			}
			if inA && inB {
				both++
			} else if inA {
				onlyA++
			}
		}
		if got := s.Meets(&a, &b); got != (both > 0) || s.Meets(&b, &a) != got {
			t.Fatalf("Meets(%+v, %+v): %v, %d packets", a, b, got, both)
		}
		if got := s.Within(&a, &b); got != (onlyA == 0) {
			t.Fatalf("Within(%+v, %+v): %v, %d packets of a are not in b", a, b, got, onlyA)
		}
		if a.Kinds != 0 {
			if p := s.First(&a); !isIn(s, &a, &p) {
				t.Fatalf("First(%+v): %+v", a, p)
			}
		}
		if both == 0 {
			return
		}
		in, out := s.Cut(a, &b)
		whole(t, append(out, in))
		if !s.Within(&in, &a) || !s.Within(&in, &b) {
			t.Fatalf("%+v is not within %+v and %+v", in, a, b)
		}
		for _, q := range out {
			if s.Meets(&q, &b) || !s.Within(&q, &a) || s.Within(&a, &q) {
				t.Fatalf("%+v outside of %+v in %+v", q, b, a)
			}
		}
		for i := range ps {
			inA, inB := isIn(s, &a, &ps[i]), isIn(s, &b, &ps[i])
			if isIn(s, &in, &ps[i]) != (inA && inB) {
				t.Fatalf("Cut(%+v, %+v): %+v within: wrong at %+v", a, b, in, ps[i])
			}
			if n, want := count(s, out, &ps[i]), inA && !inB; n > 1 || (n == 1) != want {
				t.Fatalf("Cut(%+v, %+v): %+v outside: %d times %+v, want %v", a, b, out, n, ps[i], want)
			}
		}
	})
}

// unionOf returns the packets of some Regions as disjoint Regions: of each, what
// those before it have not.
func unionOf(s *Space, regions ...Region) (out []Region) {
	for i, r := range regions {
		left := []Region{r}
		if r.Kinds == 0 {
			left = nil
		}
		for j := range regions[:i] {
			left = s.Subtract(left, &regions[j])
		}
		out = append(out, left...)
	}
	return out
}

// TestSets: union, intersection and difference of sets, and what merging makes of
// them, are right for every packet of the universe; what was
// disjoint stays so.
func TestSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newTestSpace()
		rs := rapid.SliceOfN(regions(s), 0, 5).Draw(t, "regions")
		b := regions(s).Draw(t, "b")
		ps := universe(s)
		union := unionOf(s, rs...)
		minus, meet := s.Subtract(union, &b), s.Intersect(union, &b)
		merged := s.Merge(slices.Clone(union))
		if len(merged) > len(union) || len(s.Merge(slices.Clone(merged))) != len(merged) {
			t.Fatalf("%d Regions merge to %d", len(union), len(merged))
		}
		for i := range ps {
			p := &ps[i]
			inSome, inB := count(s, rs, p) > 0, isIn(s, &b, p)
			for name, c := range map[string]struct {
				set  []Region
				want bool
			}{"union": {union, inSome}, "merged": {merged, inSome}, "difference": {minus, inSome && !inB}, "intersection": {meet, inSome && inB}} {
				if n := count(s, c.set, p); n > 1 || (n == 1) != c.want {
					t.Fatalf("%s of %+v with %+v: %d times %+v, want %v: %+v", name, rs, b, n, *p, c.want, c.set)
				}
			}
		}
		for _, set := range [][]Region{union, minus, meet, merged} {
			whole(t, set)
		}
	})
}

// TestMergeIsMaximal: Regions that were made by cutting one come back as one,
// where no pattern implies another.
func TestMergeIsMaximal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := NewSpace([]string{"a.x.org", "*.y.org", "c.z.org"})
		a, b := regions(s).Draw(t, "a"), regions(s).Draw(t, "b")
		if !s.Meets(&a, &b) {
			return
		}
		in, out := s.Cut(a, &b)
		merged := s.Merge(append(out, in))
		if len(merged) != 1 || s.Compare(&merged[0], &a) != 0 {
			t.Fatalf("%+v cut at %+v and merged: %+v", a, b, merged)
		}
	})
}

// TestConditions: every pair of conditions on names, with every set of names that
// a destination can have.
func TestConditions(t *testing.T) {
	s := newTestSpace()
	var names []Packet
	for _, p := range universe(s) {
		if p.Value == [NumRanges]uint32{} && p.Kind == 0 {
			names = append(names, p)
		}
	}
	all := []Names{0}
	for i := 0; i < len(all); i++ {
		for p := range s.patterns {
			var next []Names
			if !s.hasNot(all[i], p) {
				next = append(next, s.with(all[i], p))
			}
			if !s.has(all[i], p) {
				next = append(next, s.without(all[i], p))
			}
			for _, n := range next {
				if !slices.Contains(all, n) {
					all = append(all, n)
				}
			}
		}
	}
	if len(names) != 10 || len(all) != 14*3 {
		t.Fatalf("%d sets of names, %d conditions", len(names), len(all))
	}
	r := func(n Names) *Region { return &Region{Box: All(), Names: n} }
	for _, a := range all {
		for _, b := range all {
			meet, within := false, true
			for i := range names {
				inA, inB := isIn(s, r(a), &names[i]), isIn(s, r(b), &names[i])
				meet, within = meet || inA && inB, within && (!inA || inB)
				if s.AllowsNames(a, &names[i]) != inA {
					t.Errorf("condition %+v, names %+v", s.sets[a], s.sets[names[i].Names])
				}
			}
			if s.namesMeet(a, b) != meet || s.namesWithin(a, b) != within {
				t.Errorf("%+v and %+v: meet %v, within %v", s.sets[a], s.sets[b], !meet, !within)
			}
		}
	}
}

// TestOrderOfConditions: Compare orders by what conditions say, whichever was met
// first.
func TestOrderOfConditions(t *testing.T) {
	s, u := newTestSpace(), newTestSpace()
	c, a := 3, 1
	r1, r2 := Region{Box: All(), Names: s.without(0, c)}, Region{Box: All(), Names: s.without(0, a)}
	v2, v1 := Region{Box: All(), Names: u.without(0, a)}, Region{Box: All(), Names: u.without(0, c)}
	if x, y := s.Compare(&r1, &r2), u.Compare(&v1, &v2); x <= 0 || y <= 0 {
		t.Errorf("%d and %d", x, y)
	}
}

// TestDescribe: the words for a Region say which kinds it has, each once.
func TestDescribe(t *testing.T) {
	s := newTestSpace()
	descriptions := 0
	for k := range 1 << 16 {
		r := Region{Box: All()}
		r.Kinds = Kinds(k) & Reaching
		var said Kinds
		sum := 0
		for _, d := range s.Describe(&r) {
			descriptions++
			for _, dir := range d.Directions {
				for _, st := range d.States {
					for _, proto := range d.Protocols {
						kind := Kinds(1) << (slices.Index(ClassNames[:], proto) + 4*slices.Index(directions, dir) + 8*slices.Index(states, st))
						if kind&Reaching != 0 {
							sum++
						}
						said |= kind
					}
				}
			}
		}
		if said&Reaching != r.Kinds || sum != bits.OnesCount16(uint16(r.Kinds)) {
			t.Fatalf("%016b: said are %016b, %d times", r.Kinds, said, sum)
		}
	}
	if descriptions != 241848 {
		t.Errorf("%d Descriptions of all sets of kinds: products are not found, or found where there are none", descriptions)
	}
}
