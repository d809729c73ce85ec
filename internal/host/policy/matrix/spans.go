package matrix

import (
	"cmp"
	"slices"
)

// A span is a range of values, both ends inclusive.
type span struct{ lo, hi uint32 }

// A set is values as sorted spans, between any two of which there is a gap.
type set []span

// normal returns spans in any order as a set.
func normal(all []span) set {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b span) int { return cmp.Or(cmp.Compare(a.lo, b.lo), cmp.Compare(a.hi, b.hi)) })
	var out set
	for _, s := range all {
		if n := len(out); n > 0 && (out[n-1].hi == ^uint32(0) || s.lo <= out[n-1].hi+1) {
			out[n-1].hi = max(out[n-1].hi, s.hi)
			continue
		}
		out = append(out, s)
	}
	return out
}

// and returns what is in both.
func (a set) and(b set) (out set) {
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if lo, hi := max(a[i].lo, b[j].lo), min(a[i].hi, b[j].hi); lo <= hi {
			out = append(out, span{lo, hi})
		}
		if a[i].hi < b[j].hi {
			i++
		} else {
			j++
		}
	}
	return out
}

// but returns what is in a and not in b.
func (a set) but(b set) (out set) {
	j := 0
	for _, s := range a {
		for lo := s.lo; ; {
			for j < len(b) && b[j].hi < lo {
				j++
			}
			if j == len(b) || b[j].lo > s.hi {
				out = append(out, span{lo, s.hi})
				break
			}
			if b[j].lo > lo {
				out = append(out, span{lo, b[j].lo - 1})
			}
			if b[j].hi >= s.hi {
				break
			}
			lo = b[j].hi + 1
		}
	}
	return out
}

func (a set) has(v uint32) bool {
	i, found := slices.BinarySearchFunc(a, v, func(s span, v uint32) int { return cmp.Compare(s.lo, v) })
	return found || i > 0 && a[i-1].hi >= v
}

// where returns the values for which a predicate holds that is the same between one edge
// and the next.
func where(edges []uint32, holds func(uint32) bool) set {
	var all []span
	at := uint32(0)
	add := func(hi uint32) {
		if holds(at) {
			all = append(all, span{at, hi})
		}
	}
	for _, e := range edges {
		if e > at {
			add(e - 1)
			at = e
		}
	}
	add(^uint32(0))
	return normal(all)
}
