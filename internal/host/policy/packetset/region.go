package packetset

import (
	"math"
	"math/bits"
	"slices"
)

// A Region is the packets of a Box whose destination has names as a condition of
// a Space says.
type Region struct {
	Box
	Names Names
}

// Whole returns disjoint Regions that together hold every packet that reaches
// rules. Packets without ports have port 0.
func Whole() []Region {
	r, q := Region{Box: All()}, Region{Box: All()}
	r.Kinds = Reaching &^ Portless
	q.Kinds, q.Hi[Port] = Reaching&Portless, 0
	return []Region{r, q}
}

// Meets reports whether some packet of a is in b.
func (s *Space) Meets(a, b *Region) bool { return a.Box.Meets(&b.Box) && s.namesMeet(a.Names, b.Names) }

// Within reports whether every packet of a is in b.
func (s *Space) Within(a, b *Region) bool {
	return a.Kinds == 0 || a.Kinds&^b.Kinds == 0 && a.RangesWithin(&b.Box) && s.namesWithin(a.Names, b.Names)
}

// Cut divides a Region, which meets b, into its intersection with b and disjoint
// Regions of what is outside of b.
func (s *Space) Cut(a Region, b *Region) (in Region, out []Region) {
	if k := a.Kinds &^ b.Kinds; k != 0 {
		q := a
		q.Kinds = k
		out = append(out, q)
		a.Kinds &= b.Kinds
	}
	for d := range a.Lo {
		if a.Lo[d] < b.Lo[d] {
			q := a
			q.Hi[d] = b.Lo[d] - 1
			out = append(out, q)
			a.Lo[d] = b.Lo[d]
		}
		if a.Hi[d] > b.Hi[d] {
			q := a
			q.Lo[d] = b.Hi[d] + 1
			out = append(out, q)
			a.Hi[d] = b.Hi[d]
		}
	}
	// Wildcards come first in the order of patterns. A name is decided before the
	// wildcard that it implies, and that no name has a wildcard before that one has
	// not: so that there are few parts.
	n := s.sets[b.Names]
	for _, i := range slices.Backward(n.yes) {
		if !s.has(a.Names, i) {
			q := a
			q.Names = s.without(a.Names, i)
			out = append(out, q)
			a.Names = s.with(a.Names, i)
		}
	}
	for _, i := range n.no {
		if !s.hasNot(a.Names, i) {
			q := a
			q.Names = s.with(a.Names, i)
			out = append(out, q)
			a.Names = s.without(a.Names, i)
		}
	}
	return a, out
}

// Intersect returns the packets of a set that are in b.
func (s *Space) Intersect(set []Region, b *Region) (out []Region) {
	for _, a := range set {
		if s.Meets(&a, b) {
			in, _ := s.Cut(a, b)
			out = append(out, in)
		}
	}
	return out
}

// Subtract returns the packets of a set that are not in b: nothing, when b contains
// the set. A disjoint union of sets is one, followed by what Subtract leaves of the
// other.
func (s *Space) Subtract(set []Region, b *Region) (out []Region) {
	for _, a := range set {
		if !s.Meets(&a, b) {
			out = append(out, a)
			continue
		}
		_, rest := s.Cut(a, b)
		out = append(out, rest...)
	}
	return out
}

// A Packet is one packet. The names that its source knows the destination by have
// the patterns that its condition says they have, and no others.
type Packet struct {
	Value [NumRanges]uint32
	Kind  uint8 // number of the kind, see Kinds
	Names Names
}

// First returns a packet of a Region that is not empty: the lowest value of each
// range, the lowest kind, and no names but those that it must have.
func (s *Space) First(r *Region) Packet {
	return Packet{Value: r.Lo, Kind: uint8(bits.TrailingZeros16(uint16(r.Kinds))), Names: r.Names}
}

// Has reports whether a packet is in a Region.
func (s *Space) Has(r *Region, p *Packet) bool {
	if r.Kinds>>p.Kind&1 == 0 {
		return false
	}
	for d, v := range p.Value {
		if v < r.Lo[d] || v > r.Hi[d] {
			return false
		}
	}
	return s.AllowsNames(r.Names, p)
}

// AllowsNames reports whether a packet's names are as a condition says.
func (s *Space) AllowsNames(n Names, p *Packet) bool {
	if n == 0 || n == p.Names {
		return true
	}
	return !slices.ContainsFunc(s.sets[n].yes, func(i int) bool { return !s.has(p.Names, i) }) &&
		!slices.ContainsFunc(s.sets[n].no, func(i int) bool { return s.has(p.Names, i) })
}

// Weight returns a number that grows with how many packets a Region holds, to
// list the largest first.
func (s *Space) Weight(r *Region) float64 {
	return r.Box.Weight() / math.Exp2(float64(len(s.sets[r.Names].yes)+len(s.sets[r.Names].no)))
}
