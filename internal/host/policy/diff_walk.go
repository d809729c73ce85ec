package policy

import (
	"cmp"
	"slices"
)

// A walker compares the decisions of two lists of conditions, in each of which
// the first that matches decides, on all packets.
//
// It takes a region of packets and the conditions of both lists that meet it.
// When the first condition of each list holds for all of the region, or the two
// lists are the same from there on, the answer is known. Otherwise the region
// is divided: while there are many conditions by an edge of one of them near
// the middle, then into what is within one condition and what is not.
type walker struct {
	*space
	def   [2]int // decisions where nothing matches
	found map[[2]int][]region
	count int
	limit int // stop when so many regions have been found; 0: never
}

// few is the number of conditions from which on regions are divided by one
// condition rather than in the middle.
const few = 12

// meeting returns the conditions that meet a region, up to the first that holds
// for all of it.
func (w *walker) meeting(r *region, cs []*cond) []*cond {
	var kept []*cond
	for _, c := range cs {
		if w.meets(r, c) {
			kept = append(kept, c)
			if w.within(r, c) {
				break
			}
		}
	}
	return kept
}

// decided returns the decision for a region if its first condition, or having
// none, makes it.
func (w *walker) decided(r *region, side int, cs []*cond) (int, bool) {
	if len(cs) == 0 {
		return w.def[side], true
	}
	return cs[0].to, w.within(r, cs[0])
}

// same reports whether two lists decide the same wherever one is.
func (w *walker) same(r *region, a, b []*cond) bool {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if x == y || *x == *y {
			continue
		}
		return false
	}
	if len(a) == len(b) {
		return w.def[0] == w.def[1] || len(a) > 0 && w.within(r, a[len(a)-1])
	}
	return false
}

func (w *walker) full() bool { return w.limit > 0 && w.count >= w.limit }

// walk compares on a region; a and b are the conditions that meet it.
func (w *walker) walk(r region, a, b []*cond) {
	if w.full() || w.same(&r, a, b) {
		return
	}
	x, okA := w.decided(&r, 0, a)
	y, okB := w.decided(&r, 1, b)
	if okA && okB {
		if x != y {
			k := [2]int{x, y}
			w.found[k] = append(w.found[k], r)
			w.count++
		}
		return
	}
	if len(a)+len(b) > few {
		if lo, hi, ok := middle(r, a, b); ok {
			w.walk(lo, w.meeting(&lo, a), w.meeting(&lo, b))
			w.walk(hi, w.meeting(&hi, a), w.meeting(&hi, b))
			return
		}
	}
	by := b
	if !okA {
		by = a
	}
	in, out := w.cut(r, by[0])
	for _, q := range append(out, in) {
		w.walk(q, w.meeting(&q, a), w.meeting(&q, b))
	}
}

// middle divides a region at the edge of a condition that leaves the fewest
// conditions on the larger side; false when no edge helps much.
func middle(r region, a, b []*cond) (lo, hi region, ok bool) {
	total := len(a) + len(b)
	best, bestDim, bestAt := total*7/8, -1, uint32(0)
	for d := range numDims {
		// Conditions that begin at or below an edge are on the lower side,
		// those that end at or above it on the upper one.
		var begin, end []uint32
		for _, cs := range [...][]*cond{a, b} {
			for _, c := range cs {
				begin = append(begin, max(c.lo[d], r.lo[d]))
				end = append(end, min(c.hi[d], r.hi[d]))
			}
		}
		slices.Sort(begin)
		slices.Sort(end)
		try := func(at uint32) { // the upper side begins at
			if at <= r.lo[d] || at > r.hi[d] {
				return
			}
			below, _ := slices.BinarySearch(begin, at)
			above, _ := slices.BinarySearch(end, at)
			if n := max(below, total-above); n < best {
				best, bestDim, bestAt = n, d, at
			}
		}
		for i := 1; i < 8; i++ {
			try(begin[total*i/8])
			if e := end[total*i/8]; e < r.hi[d] {
				try(e + 1)
			}
		}
	}
	if bestDim < 0 {
		return lo, hi, false
	}
	lo, hi = r, r
	lo.hi[bestDim], hi.lo[bestDim] = bestAt-1, bestAt
	return lo, hi, true
}

// merge joins regions that together are one.
func (s *space) merge(rs []region) []region {
	for {
		n := len(rs)
		for d := range numDims {
			rs = joinAlong(rs, d)
		}
		rs = joinAlong(rs, dimKinds)
		if len(s.sets) > 1 {
			rs = s.joinNames(rs)
		}
		if len(rs) == n {
			return rs
		}
	}
}

// The dimensions of a region that are no ranges.
const (
	dimKinds = numDims + iota
	dimNames
)

// compareBut compares regions, without one dimension.
func compareBut(a, b *region, but int) int {
	for d := range numDims {
		if d != but && (a.lo[d] != b.lo[d] || a.hi[d] != b.hi[d]) {
			return cmp.Or(cmp.Compare(a.lo[d], b.lo[d]), cmp.Compare(a.hi[d], b.hi[d]))
		}
	}
	if but != dimKinds && a.kinds != b.kinds {
		return cmp.Compare(a.kinds, b.kinds)
	}
	if but != dimNames && a.names != b.names {
		return cmp.Compare(a.names, b.names)
	}
	return 0
}

// joinAlong joins regions that differ in one dimension only, and are neighbours
// there.
func joinAlong(rs []region, d int) []region {
	if len(rs) < 2 {
		return rs
	}
	slices.SortFunc(rs, func(a, b region) int {
		if c := compareBut(&a, &b, d); c != 0 || d == dimKinds {
			return c
		}
		return cmp.Compare(a.lo[d], b.lo[d])
	})
	out := rs[:1]
	for i := 1; i < len(rs); i++ {
		last := &out[len(out)-1]
		switch {
		case compareBut(last, &rs[i], d) != 0:
			out = append(out, rs[i])
		case d == dimKinds:
			last.kinds |= rs[i].kinds
		case last.hi[d]+1 == rs[i].lo[d]:
			last.hi[d] = rs[i].hi[d]
		default:
			out = append(out, rs[i])
		}
	}
	return out
}

// joinNames joins two regions when one has a name that the other has not.
func (s *space) joinNames(rs []region) []region {
	slices.SortFunc(rs, func(a, b region) int {
		return cmp.Or(compareBut(&a, &b, dimNames), cmp.Compare(a.names, b.names))
	})
	var out []region
	for len(rs) > 0 {
		n := 1
		for n < len(rs) && compareBut(&rs[n], &rs[0], dimNames) == 0 {
			n++
		}
		out = append(out, s.joinGroup(slices.Clone(rs[:n]))...)
		rs = rs[n:]
	}
	return out
}

func (s *space) joinGroup(g []region) []region {
	const most = 256 // pairs of more take too long
	if len(g) > most {
		return g
	}
	for i := 0; i < len(g); i++ {
		for j := i + 1; j < len(g); j++ {
			a, b := s.sets[g[i].names], s.sets[g[j].names]
			if len(a.yes) < len(b.yes) {
				a, b = b, a
			}
			n, ok := extra(a.yes, b.yes)
			if m, ok2 := extra(b.no, a.no); ok && ok2 && m == n {
				g[i].names = s.set(nameSet{b.yes, a.no})
				g = slices.Delete(g, j, j+1)
				i = -1
				break
			}
		}
	}
	return g
}

// extra returns the one value that sorted list a has more than b.
func extra(a, b []int) (n int, ok bool) {
	if len(a) != len(b)+1 {
		return 0, false
	}
	i := 0
	for i < len(b) && a[i] == b[i] {
		i++
	}
	return a[i], slices.Equal(a[i+1:], b[i:])
}
