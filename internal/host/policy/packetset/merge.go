package packetset

import (
	"cmp"
	"slices"
)

// Merge joins Regions of a set of disjoint ones that together are one Region,
// until no two are left that differ in one field only and are neighbours there.
func (s *Space) Merge(rs []Region) []Region {
	for {
		n := len(rs)
		for d := range NumRanges {
			rs = s.joinAlong(rs, d)
		}
		rs = s.joinAlong(rs, byKinds)
		if len(s.sets) > 1 {
			rs = s.joinNames(rs)
		}
		if len(rs) == n {
			return rs
		}
	}
}

// The fields of a Region that are no ranges.
const (
	byKinds = NumRanges + iota
	byNames
)

// Compare orders Regions by their ranges, kinds and names.
func (s *Space) Compare(a, b *Region) int { return s.compareBut(a, b, -1) }

// compareBut is Compare without one field.
func (s *Space) compareBut(a, b *Region, but int) int {
	for d := range NumRanges {
		if d != but && (a.Lo[d] != b.Lo[d] || a.Hi[d] != b.Hi[d]) {
			return cmp.Or(cmp.Compare(a.Lo[d], b.Lo[d]), cmp.Compare(a.Hi[d], b.Hi[d]))
		}
	}
	if but != byKinds && a.Kinds != b.Kinds {
		return cmp.Compare(a.Kinds, b.Kinds)
	}
	if but != byNames && a.Names != b.Names {
		return s.compareNames(a.Names, b.Names)
	}
	return 0
}

// compareNames orders conditions by what they say, so that the order does not
// depend on which was met first.
func (s *Space) compareNames(a, b Names) int {
	x, y := &s.sets[a], &s.sets[b]
	return cmp.Or(slices.Compare(x.yes, y.yes), slices.Compare(x.no, y.no))
}

// joinAlong joins Regions that differ in one field only, and are neighbours
// there.
func (s *Space) joinAlong(rs []Region, d int) []Region {
	if len(rs) < 2 {
		return rs
	}
	slices.SortFunc(rs, func(a, b Region) int {
		if c := s.compareBut(&a, &b, d); c != 0 || d == byKinds {
			return c
		}
		return cmp.Compare(a.Lo[d], b.Lo[d])
	})
	out := rs[:1]
	for i := 1; i < len(rs); i++ {
		last := &out[len(out)-1]
		switch {
		case s.compareBut(last, &rs[i], d) != 0:
			out = append(out, rs[i])
		case d == byKinds:
			last.Kinds |= rs[i].Kinds
		case last.Hi[d]+1 == rs[i].Lo[d]:
			last.Hi[d] = rs[i].Hi[d]
		default:
			out = append(out, rs[i])
		}
	}
	return out
}

// joinNames joins two Regions when one has a name that the other has not, and
// nothing else tells them apart. (That a wildcard is absent says that those below
// it are, too: such Regions are not joined.)
func (s *Space) joinNames(rs []Region) []Region {
	slices.SortFunc(rs, func(a, b Region) int {
		return s.Compare(&a, &b)
	})
	var out []Region
	for len(rs) > 0 {
		n := 1
		for n < len(rs) && s.compareBut(&rs[n], &rs[0], byNames) == 0 {
			n++
		}
		out = append(out, s.joinGroup(slices.Clone(rs[:n]))...)
		rs = rs[n:]
	}
	return out
}

func (s *Space) joinGroup(g []Region) []Region {
	const most = 256 // pairs of more take too long
	if len(g) > most {
		return g
	}
	for i := 0; i < len(g); i++ {
		for j := i + 1; j < len(g); j++ {
			a, b := s.sets[g[i].Names], s.sets[g[j].Names]
			if len(a.yes) < len(b.yes) {
				a, b = b, a
			}
			// Disjoint conditions that differ in one pattern each do in the same.
			if extra(a.yes, b.yes) && extra(b.no, a.no) {
				g[i].Names = s.number(nameSet{b.yes, a.no})
				g = slices.Delete(g, j, j+1)
				i = -1
				break
			}
		}
	}
	return g
}

// extra reports whether sorted list a has one value more than b.
func extra(a, b []int) bool {
	if len(a) != len(b)+1 {
		return false
	}
	i := 0
	for i < len(b) && a[i] == b[i] {
		i++
	}
	return slices.Equal(a[i+1:], b[i:])
}
