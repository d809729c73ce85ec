package packetset

import (
	"encoding/binary"
	"slices"
	"strings"
)

// A Space is what the Regions of some policies have in common: the name patterns
// of their rules, numbered in their order as text, and the conditions on names
// that are in use. It is not safe for use by several goroutines.
//
// A pattern is a name, or "*." with a name for all that have exactly one label in
// front of it. Who knows a destination by a name that has a pattern of its own
// knows it by the wildcard above it, too: the exact pattern implies the wildcard.
type Space struct {
	patterns []string
	wildcard []int   // of a pattern, that which it implies; -1: none
	below    [][]int // of a wildcard, those that imply it
	sets     []nameSet
	numbers  map[string]Names
}

// Names is the number, in a Space, of a condition on the names that the source
// knows the destination by: that it has some and has not some others. 0 is no
// condition.
type Names uint32

// A nameSet is a condition on names, as sorted numbers of patterns. With a pattern
// yes has the wildcard that it implies, with a wildcard no has those that imply
// it; none is in both.
type nameSet struct{ yes, no []int }

// NewSpace returns a Space with these patterns.
func NewSpace(patterns []string) *Space {
	s := &Space{patterns: slices.Compact(slices.Sorted(slices.Values(patterns))), sets: make([]nameSet, 1), numbers: map[string]Names{key(nameSet{}): 0}}
	s.wildcard, s.below = make([]int, len(s.patterns)), make([][]int, len(s.patterns))
	for i, n := range s.patterns {
		s.wildcard[i] = -1
		_, parent, _ := strings.Cut(n, ".")
		if j, ok := slices.BinarySearch(s.patterns, "*."+parent); ok && i != j {
			s.wildcard[i] = j
			s.below[j] = append(s.below[j], i)
		}
	}
	for i := range s.patterns {
		s.with(0, i) // numbers them in order
	}
	return s
}

// Patterns returns the patterns of the Space, in order.
func (s *Space) Patterns() []string { return s.patterns }

// Pattern returns the condition that the destination has a name of a pattern,
// which must be one of the Space.
func (s *Space) Pattern(pattern string) Names {
	i, ok := slices.BinarySearch(s.patterns, pattern)
	if !ok {
		panic("packetset: no pattern " + pattern)
	}
	return s.with(0, i)
}

// key returns the text by which a condition is found.
func key(n nameSet) string {
	b := make([]byte, 0, 4*(len(n.yes)+len(n.no)+1))
	for _, v := range n.yes {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	b = append(b, "|no|"...)
	for _, v := range n.no {
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	}
	return string(b)
}

// number returns the number of a condition.
func (s *Space) number(n nameSet) Names {
	k := key(n)
	i, ok := s.numbers[k]
	if !ok {
		i = Names(len(s.sets))
		s.sets, s.numbers[k] = append(s.sets, n), i
	}
	return i
}

// has reports whether a condition says that the destination has a name of a
// pattern.
func (s *Space) has(n Names, pattern int) bool {
	_, ok := slices.BinarySearch(s.sets[n].yes, pattern)
	return ok
}

// hasNot reports whether a condition says that it has none.
func (s *Space) hasNot(n Names, pattern int) bool {
	_, ok := slices.BinarySearch(s.sets[n].no, pattern)
	return ok
}

// insert returns a sorted list with some more values.
func insert(list []int, more ...int) []int {
	list = append(slices.Clone(list), more...)
	slices.Sort(list)
	return slices.Compact(list)
}

// with returns a condition with one more: that the destination has a name of a
// pattern, of which the condition has not said that it has none.
func (s *Space) with(n Names, pattern int) Names {
	c := s.sets[n]
	yes := insert(c.yes, pattern)
	if w := s.wildcard[pattern]; w >= 0 {
		yes = insert(yes, w)
	}
	return s.number(nameSet{yes, c.no})
}

// without returns a condition with one more: that the destination has no name of
// a pattern, of which the condition has not said that it has one.
func (s *Space) without(n Names, pattern int) Names {
	c := s.sets[n]
	return s.number(nameSet{c.yes, insert(insert(c.no, pattern), s.below[pattern]...)})
}

// namesMeet reports whether both conditions can hold.
func (s *Space) namesMeet(a, b Names) bool {
	if a == 0 || b == 0 {
		return true
	}
	return !slices.ContainsFunc(s.sets[a].yes, func(i int) bool { return s.hasNot(b, i) }) &&
		!slices.ContainsFunc(s.sets[a].no, func(i int) bool { return s.has(b, i) })
}

// namesWithin reports whether b holds wherever a does.
func (s *Space) namesWithin(a, b Names) bool {
	if b == 0 || a == b {
		return true
	}
	return !slices.ContainsFunc(s.sets[b].yes, func(i int) bool { return !s.has(a, i) }) &&
		!slices.ContainsFunc(s.sets[b].no, func(i int) bool { return !s.hasNot(a, i) })
}
