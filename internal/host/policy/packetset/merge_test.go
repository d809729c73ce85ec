package packetset

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestRanges: every pair of intervals of a small universe, in each range while
// the others are equal.
func TestRanges(t *testing.T) {
	var all [][2]uint32
	for lo := range uint32(values) {
		for hi := lo; hi < values; hi++ {
			all = append(all, [2]uint32{lo, hi})
		}
	}
	for d := range NumRanges {
		for _, x := range all {
			for _, y := range all {
				a, b := Box{Lo: [...]uint32{5, 6, 7}, Hi: [...]uint32{5, 6, 7}, Kinds: 1}, Box{Lo: [...]uint32{5, 6, 7}, Hi: [...]uint32{5, 6, 7}, Kinds: 1}
				a.Lo[d], a.Hi[d], b.Lo[d], b.Hi[d] = x[0], x[1], y[0], y[1]
				if got, want := a.RangesWithin(&b), y[0] <= x[0] && x[1] <= y[1]; got != want {
					t.Errorf("range %d: %v within %v: %v", d, x, y, got)
				}
				if got, want := a.Meets(&b), x[0] <= y[1] && y[0] <= x[1]; got != want {
					t.Errorf("range %d: %v meets %v: %v", d, x, y, got)
				}
			}
		}
	}
}

// TestCompare: Regions that differ in one field are told apart by it, whichever
// it is, and the fields before it decide first.
func TestCompare(t *testing.T) {
	s := newTestSpace()
	r := Region{Box: Box{Lo: [...]uint32{1, 1, 1}, Hi: [...]uint32{5, 5, 5}, Kinds: 3}}
	var larger []Region // each differs in a later field than the one before it
	for d := range NumRanges {
		q := r
		q.Lo[d]++
		larger = append(larger, q)
		q = r
		q.Hi[d]++
		larger = append(larger, q)
	}
	q := r
	q.Kinds = 5
	larger = append(larger, q)
	q = r
	q.Names = s.Pattern("a.x.org")
	larger = append(larger, q)
	for i := range larger {
		if s.Compare(&r, &larger[i]) != -1 || s.Compare(&larger[i], &r) != 1 || s.Compare(&larger[i], &larger[i]) != 0 {
			t.Errorf("field %d", i)
		}
		for j := range i {
			if i/2 != j/2 && s.Compare(&larger[i], &larger[j]) != -1 {
				t.Errorf("fields %d and %d", i, j)
			}
		}
	}
}

// TestMergeNames: pairs of Regions that differ in a name are joined in whichever
// order they stand, and only within their Box.
func TestMergeNames(t *testing.T) {
	s := NewSpace([]string{"a.x.org", "b.y.org", "c.z.org"})
	var rs []Region
	for i := range uint32(20) {
		r := Region{Box: Box{Lo: [...]uint32{3 * i, 0, 0}, Hi: [...]uint32{3*i + 1, 9, 9}, Kinds: 1 << (i % 4)}}
		q := r
		if i%5 != 0 {
			q.Names = s.without(s.with(0, 2), int(i%2))
			r.Names = s.with(s.with(0, 2), int(i%2))
		} else { // these differ in two
			q.Names = s.without(s.with(0, 1), 0)
			r.Names = s.with(s.without(0, 1), 0)
		}
		rs = append(rs, r, q)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(rs), func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
	merged := s.Merge(rs)
	if len(merged) != 16+2*4 {
		t.Errorf("%d Regions", len(merged))
	}
	for _, r := range merged {
		if i := r.Lo[Src] / 3; i%5 != 0 && r.Names != s.with(0, 2) {
			t.Errorf("%+v", r)
		}
	}
}

// TestMergeGivesUp: of more than 256 conditions on names for one Box none are
// joined.
func TestMergeGivesUp(t *testing.T) {
	var patterns []string
	for i := range 256 {
		patterns = append(patterns, fmt.Sprintf("n%03d.d%03d.org", i, i))
	}
	s := NewSpace(patterns)
	rs := []Region{{Box: All(), Names: s.without(0, 0)}}
	for i := range 255 {
		rs = append(rs, Region{Box: All(), Names: s.with(0, i)})
	}
	if got := len(s.Merge(slices.Clone(rs))); got != 255 {
		t.Errorf("%d of 256 are left", got)
	}
	rs = append(rs, Region{Box: All(), Names: s.with(0, 255)})
	if got := len(s.Merge(rs)); got != 257 {
		t.Errorf("%d of 257 are left", got)
	}
}

// TestMergeKindsAndNames: Regions with the same ranges, whose order by names is
// not that by kinds.
func TestMergeKindsAndNames(t *testing.T) {
	s := NewSpace([]string{"a.x.org", "b.y.org"})
	box := func(kinds Kinds) Box { b := All(); b.Kinds = kinds; return b }
	merged := s.Merge([]Region{{box(1), s.with(0, 0)}, {box(2), s.with(0, 1)}, {box(1), s.without(0, 0)}, {box(2), s.without(0, 1)}})
	if len(merged) != 1 || merged[0] != (Region{Box: box(3)}) {
		t.Errorf("%+v", merged)
	}
}

func TestExtra(t *testing.T) {
	for _, c := range []struct {
		a, b []int
		want bool
	}{{[]int{3}, nil, true}, {[]int{1, 2}, []int{2}, true}, {[]int{1, 2}, []int{1}, true}, {[]int{1, 2, 3}, []int{1, 3}, true}, {[]int{1, 2}, []int{3}, false},
		{[]int{1, 2}, []int{1, 2}, false}, {[]int{1, 2, 3}, []int{1}, false}, {[]int{2, 3, 4}, []int{1, 4}, false}, {nil, nil, false}} {
		if extra(c.a, c.b) != c.want {
			t.Errorf("%v, %v: %v", c.a, c.b, !c.want)
		}
	}
}

// TestPatterns: patterns are in order, without repetitions, and the conditions
// that they are present are numbered in that order.
func TestPatterns(t *testing.T) {
	s := newTestSpace()
	if got := fmt.Sprint(s.Patterns()); got != "[*.x.org a.x.org b.x.org c.y.org]" {
		t.Error(got)
	}
	for i, p := range slices.Backward(s.Patterns()) {
		if n := s.Pattern(p); n != Names(i+1) {
			t.Errorf("%s: %d", p, n)
		}
	}
}

// TestWhole: packets without ports have port 0.
func TestWhole(t *testing.T) {
	w := Whole()
	if len(w) != 2 || w[0].Kinds|w[1].Kinds != Reaching || w[0].Kinds&Portless != 0 || w[1].Kinds&^Portless != 0 || w[0].Hi != All().Hi || w[0].Lo != w[1].Lo || w[1].Lo != (Box{}).Lo ||
		w[1].Hi != [NumRanges]uint32{^uint32(0), ^uint32(0), 0} {
		t.Errorf("%+v", w)
	}
}

// TestMergeNeighbours: neighbours in one range are joined in whichever order they
// stand, and others are not.
func TestMergeNeighbours(t *testing.T) {
	s := newTestSpace()
	for d := range NumRanges {
		for _, order := range [][]uint32{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
			var rs, apart []Region
			for _, v := range order {
				r := Region{Box: All()}
				r.Lo[d], r.Hi[d] = 10*v, 10*v+9
				rs = append(rs, r)
				r.Hi[d]--
				apart = append(apart, r)
			}
			if m := s.Merge(rs); len(m) != 1 || m[0].Lo[d] != 0 || m[0].Hi[d] != 29 {
				t.Errorf("range %d, %v: %+v", d, order, m)
			}
			if m := s.Merge(apart); len(m) != 3 {
				t.Errorf("range %d, %v, apart: %+v", d, order, m)
			}
		}
	}
}
