package policy

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// This file is the algebra of sets of packets that diff works with.

// The kinds of packets that reach rules, as bits: protocol, direction, state.
const (
	kindTCP = iota
	kindUDP
	kindICMP
	kindOther // all protocols that the firewall does not pass: rules only say whether it rejects them
	numProtos
	kindIngress     = numProtos     // added
	kindEstablished = 2 * numProtos // added
	numKinds        = 4 * numProtos
	allKinds        = 1<<numKinds - 1 - otherAnswers
)

// Packets of other protocols belong to no flow, so that none is an answer.
const (
	otherKinds   = 1<<kindOther | 1<<(kindOther+kindIngress)
	otherAnswers = 1<<(kindOther+kindEstablished) | 1<<(kindOther+kindIngress+kindEstablished)
)

// portlessKinds are those whose packets have no ports, namedKinds those whose
// destination can have a name: the source asks the DNS proxy on the LAN before
// it begins a flow.
const (
	portlessKinds = 1<<kindICMP | 1<<(kindICMP+kindIngress) | 1<<(kindICMP+kindEstablished) | 1<<(kindICMP+kindIngress+kindEstablished) | otherKinds
	namedKinds    = 1<<kindTCP | 1<<kindUDP | 1<<kindICMP
)

// The dimensions of a region that are ranges.
const (
	dimSrc = iota
	dimDst
	dimPort
	numDims
)

// A region is a set of packets: all whose kind is one of kinds, whose addresses
// and port lie in the ranges, and whose destination has some names and has not
// some others.
type region struct {
	kinds  uint16
	names  uint32 // index into space.sets
	lo, hi [numDims]uint32
}

// A nameSet says what names a destination has (yes) and has not (no), as sorted
// indexes into space.names.
type nameSet struct{ yes, no []int }

// A space is what regions have in common: the name patterns of both policies,
// and the sets of them that are in use.
type space struct {
	names []string
	// implied are the patterns that a pattern implies: an exact name that of
	// the wildcard it falls under. implying is the reverse.
	implied, implying [][]int
	sets              []nameSet // the first is empty
	setOf             map[string]uint32
}

// set returns the index of a set of names.
func (s *space) set(n nameSet) uint32 {
	k := fmt.Sprint(n)
	i, ok := s.setOf[k]
	if !ok {
		i = uint32(len(s.sets))
		s.sets, s.setOf[k] = append(s.sets, n), i
	}
	return i
}

func (s *space) has(r *region, name int) bool {
	_, ok := slices.BinarySearch(s.sets[r.names].yes, name)
	return ok
}

func (s *space) hasNot(r *region, name int) bool {
	_, ok := slices.BinarySearch(s.sets[r.names].no, name)
	return ok
}

// with returns a sorted list with some more values.
func with(list []int, more ...int) []int {
	list = append(slices.Clone(list), more...)
	slices.Sort(list)
	return slices.Compact(list)
}

// whole returns the regions that together hold all packets.
func (s *space) whole() []region {
	r := region{kinds: allKinds &^ portlessKinds, hi: [numDims]uint32{^uint32(0), ^uint32(0), 65535}}
	q := r
	q.kinds, q.hi[dimPort] = portlessKinds, 0
	return []region{r, q}
}

// A cond is a match of a policy in this space.
type cond struct {
	kinds  uint16
	lo, hi [numDims]uint32
	name   int // index into space.names, -1: none
	to     int // decision
}

// cond converts a match; false when nothing matches it.
func (s *space) cond(m *ruleset.Match, name int) (c cond, ok bool) {
	c = cond{name: name, lo: [numDims]uint32{dimPort: uint32(m.PortLo)}, hi: [numDims]uint32{dimPort: uint32(m.PortHi)}}
	for i, a := range [...]struct{ addr, mask ruleset.Addr }{{m.Src, m.SrcMask}, {m.Dst, m.DstMask}} {
		var v, mask packet.Addr
		if a.mask != (ruleset.Addr{}) {
			if v, ok = packet.AddrFrom16(a.addr); !ok {
				return c, false
			}
			mask = packet.Mask(a.mask)
		}
		c.lo[i], c.hi[i] = uint32(v), uint32(v|^mask)
	}
	for k := range numKinds {
		proto := [...]uint8{kindTCP: packet.TCP, kindUDP: packet.UDP, kindICMP: packet.ICMP, kindOther: 0}[k%numProtos]
		dir, state := verdict.Egress, uint8(ruleset.StateNew)
		if k/numProtos%2 == 1 {
			dir = verdict.Ingress
		}
		if k/numProtos/2 == 1 {
			state = ruleset.StateEstablished
		}
		if (m.Proto == 0 || m.Proto == proto) && (m.Direction == verdict.Either || m.Direction == dir) && (m.State == 0 || m.State&state != 0) {
			c.kinds |= 1 << k
		}
	}
	c.kinds &= allKinds
	if name >= 0 {
		c.kinds &= namedKinds
	}
	return c, c.kinds != 0
}

// meets reports whether a packet of the region matches c.
func (s *space) meets(r *region, c *cond) bool {
	return r.kinds&c.kinds != 0 &&
		c.lo[0] <= r.hi[0] && c.hi[0] >= r.lo[0] && c.lo[1] <= r.hi[1] && c.hi[1] >= r.lo[1] && c.lo[2] <= r.hi[2] && c.hi[2] >= r.lo[2] &&
		(c.name < 0 || !s.hasNot(r, c.name))
}

// within reports whether every packet of the region matches c.
func (s *space) within(r *region, c *cond) bool {
	return r.kinds&^c.kinds == 0 &&
		c.lo[0] <= r.lo[0] && c.hi[0] >= r.hi[0] && c.lo[1] <= r.lo[1] && c.hi[1] >= r.hi[1] && c.lo[2] <= r.lo[2] && c.hi[2] >= r.hi[2] &&
		(c.name < 0 || s.has(r, c.name))
}

// named returns the part of a region whose destinations have, or have not, a
// name; false when it is empty.
func (s *space) named(r region, name int, has bool) (region, bool) {
	n := s.sets[r.names]
	if has {
		more := append([]int{name}, s.implied[name]...)
		if slices.ContainsFunc(more, func(i int) bool { return s.hasNot(&r, i) }) {
			return r, false
		}
		r.names = s.set(nameSet{with(n.yes, more...), n.no})
		r.kinds &= namedKinds
		return r, r.kinds != 0
	}
	more := append([]int{name}, s.implying[name]...)
	if slices.ContainsFunc(more, func(i int) bool { return s.has(&r, i) }) {
		return r, false
	}
	r.names = s.set(nameSet{n.yes, with(n.no, more...)})
	return r, true
}

// cut divides a region, which meets c, into the part within c and the parts
// outside of it.
func (s *space) cut(r region, c *cond) (in region, out []region) {
	if k := r.kinds &^ c.kinds; k != 0 {
		q := r
		q.kinds = k
		out = append(out, q)
		r.kinds &= c.kinds
	}
	for d := range numDims {
		if r.lo[d] < c.lo[d] {
			q := r
			q.hi[d] = c.lo[d] - 1
			out = append(out, q)
			r.lo[d] = c.lo[d]
		}
		if r.hi[d] > c.hi[d] {
			q := r
			q.lo[d] = c.hi[d] + 1
			out = append(out, q)
			r.hi[d] = c.hi[d]
		}
	}
	if c.name >= 0 && !s.has(&r, c.name) {
		if q, ok := s.named(r, c.name, false); ok {
			out = append(out, q)
		}
		r, _ = s.named(r, c.name, true)
	}
	return r, out
}

// packets returns a number that grows with how many packets a region holds, to
// show the largest first.
func (s *space) packets(r *region) float64 {
	n := float64(bits.OnesCount16(r.kinds))
	for d := range numDims {
		n *= float64(r.hi[d]-r.lo[d]) + 1
	}
	return n / math.Exp2(float64(len(s.sets[r.names].yes)+len(s.sets[r.names].no)))
}
