package diff

import (
	"slices"

	"github.com/thurward/thurward/internal/host/policy/packetset"
)

// A cond is a match of a policy: the packets, and the decision about them.
type cond struct {
	packetset.Region
	to int
}

// A walker compares the decisions of two lists of conditions, in each of which
// the first that matches decides, on all packets.
//
// It takes a region of packets and the conditions of both lists that meet it.
// When the first condition of each list holds for all of the region, or the two
// lists are the same from there on, the answer is known. Otherwise the region
// is divided: while there are many conditions by an edge of one of them near
// the middle, then into what is within one condition and what is not.
type walker struct {
	*packetset.Space
	def   [2]int // decisions where nothing matches
	found map[[2]int][]packetset.Region
	count int
	limit int // stop when so many regions have been found; 0: never
}

// few is the number of conditions from which on regions are divided by one
// condition rather than in the middle.
const few = 12

// meeting returns the conditions that meet a region, up to the first that holds
// for all of it.
func (w *walker) meeting(r *packetset.Region, cs []*cond) []*cond {
	var kept []*cond
	for _, c := range cs {
		if w.Meets(r, &c.Region) {
			kept = append(kept, c)
			if w.Within(r, &c.Region) {
				break
			}
		}
	}
	return kept
}

// decided returns the decision for a region if its first condition, or having
// none, makes it.
func (w *walker) decided(r *packetset.Region, side int, cs []*cond) (int, bool) {
	if len(cs) == 0 {
		return w.def[side], true
	}
	return cs[0].to, w.Within(r, &cs[0].Region)
}

// same reports whether two lists decide the same wherever one is.
func (w *walker) same(r *packetset.Region, a, b []*cond) bool {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if x == y || *x == *y {
			continue
		}
		return false
	}
	if len(a) == len(b) {
		return w.def[0] == w.def[1] || len(a) > 0 && w.Within(r, &a[len(a)-1].Region)
	}
	return false
}

func (w *walker) full() bool { return w.limit > 0 && w.count >= w.limit }

// walk compares on a region; a and b are the conditions that meet it.
func (w *walker) walk(r packetset.Region, a, b []*cond) {
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
	in, out := w.Cut(r, &by[0].Region)
	for _, q := range append(out, in) {
		w.walk(q, w.meeting(&q, a), w.meeting(&q, b))
	}
}

// middle divides a region at the edge of a condition that leaves the fewest
// conditions on the larger side; false when no edge helps much.
func middle(r packetset.Region, a, b []*cond) (lo, hi packetset.Region, ok bool) {
	total := len(a) + len(b)
	best, bestDim, bestAt := total*7/8, -1, uint32(0)
	for d := range packetset.NumRanges {
		// Conditions that begin at or below an edge are on the lower side,
		// those that end at or above it on the upper one.
		var begin, end []uint32
		for _, cs := range [...][]*cond{a, b} {
			for _, c := range cs {
				begin = append(begin, max(c.Lo[d], r.Lo[d]))
				end = append(end, min(c.Hi[d], r.Hi[d]))
			}
		}
		slices.Sort(begin)
		slices.Sort(end)
		try := func(at uint32) { // the upper side begins at
			if at <= r.Lo[d] || at > r.Hi[d] {
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
			if e := end[total*i/8]; e < r.Hi[d] {
				try(e + 1)
			}
		}
	}
	if bestDim < 0 {
		return lo, hi, false
	}
	lo, hi = r, r
	lo.Hi[bestDim], hi.Lo[bestDim] = bestAt-1, bestAt
	return lo, hi, true
}
