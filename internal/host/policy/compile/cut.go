package compile

import (
	"math/bits"

	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	// maxParts bounds the parts of a cut.
	maxParts = 1 << 16
)

// A cut divides one field's range into equal parts, see ruleset.Node.
type cut struct {
	field int
	base  uint32
	shift uint
	parts uint32
	load  float64 // matches beside which a match finds itself, on average
	score float64 // for the choice of a tree's first field: matches that are narrow in it, less when it divides them badly
}

// span returns the first and the last part that a match lies in. A match that
// covers the region lies in all parts and outside of them, which is part
// c.parts.
func (c *cut) span(x *box, r *packetset.Box) (lo, hi uint32) {
	l, h := max(x.Lo[c.field], r.Lo[c.field]), min(x.Hi[c.field], r.Hi[c.field])
	if l == r.Lo[c.field] && h == r.Hi[c.field] {
		return 0, c.parts
	}
	return (l - c.base) >> c.shift, (h - c.base) >> c.shift
}

// region returns the region of parts i to j within r, or something larger.
func (c *cut) region(r *packetset.Box, i, j int) packetset.Box {
	q := *r
	switch {
	case c.field == ruleset.FieldKind:
		q.Kinds &= 1 << i
	case uint32(i) < c.parts:
		lo := uint64(c.base) + uint64(i)<<c.shift
		hi := uint64(c.base) + uint64(j+1)<<c.shift - 1
		q.Lo[c.field] = max(r.Lo[c.field], uint32(lo))
		q.Hi[c.field] = uint32(min(uint64(r.Hi[c.field]), hi))
	}
	return q
}

// cut returns the cut of field f that divides matches best, and whether it
// divides them at all. With narrow, matches in that many parts or more do not
// count.
func (b *builder) cut(ms []uint32, r *packetset.Box, f int, narrow uint32) (cut, bool) {
	if f == ruleset.FieldKind {
		return b.kindCut(ms, r)
	}
	lo, hi, some := ^uint32(0), uint32(0), false
	for _, m := range ms {
		x := &b.boxes[m]
		if x.Lo[f] > r.Lo[f] || x.Hi[f] < r.Hi[f] {
			lo, hi, some = min(lo, max(x.Lo[f], r.Lo[f])), max(hi, min(x.Hi[f], r.Hi[f])), true
		}
	}
	if !some {
		return cut{}, false
	}
	most := min(uint32(maxParts), uint32(4)<<bits.Len(uint(len(ms))))
	shift := uint(0)
	for (hi-lo)>>shift >= most {
		shift++
	}
	var best cut
	ok := false
	for ; shift < 32; shift++ {
		c := cut{field: f, shift: shift, base: lo &^ (1<<shift - 1)}
		c.parts = (hi-c.base)>>shift + 1
		total, n := b.copied(ms, r, &c, narrow)
		if n == 0 {
			return cut{}, false
		}
		if total <= b.spread*n {
			best, ok = c, true
			break
		}
		if c.parts <= 2 {
			break
		}
	}
	return best, ok
}

// copied fills in a cut's load and score, and returns how many copies it makes
// of how many matches.
func (b *builder) copied(ms []uint32, r *packetset.Box, c *cut, narrow uint32) (total, n int) {
	if cap(b.diff) < int(c.parts)+2 {
		b.diff = make([]int32, maxParts+3)
	}
	b.work -= len(ms) + int(c.parts)
	d := b.diff[:c.parts+2]
	clear(d)
	for _, m := range ms {
		lo, hi := c.span(&b.boxes[m], r)
		if narrow != 0 && hi-lo >= narrow {
			continue
		}
		n++
		d[lo]++
		d[hi+1]--
	}
	// Neighbours with the same matches share a subtree and count once.
	sum, size := 0.0, int32(0)
	for _, v := range d[:c.parts+1] {
		if size += v; v != 0 {
			total += int(size)
			sum += float64(size) * float64(size)
		}
	}
	if total > 0 {
		c.load = sum / float64(total)
		c.score = float64(n) / (1 + c.load/float64(b.leaf))
	}
	return total, n
}

// kindCut divides by protocol, direction and state.
func (b *builder) kindCut(ms []uint32, r *packetset.Box) (cut, bool) {
	var size [ruleset.NumKinds]int
	total := 0
	for _, m := range ms {
		for k := b.boxes[m].Kinds & r.Kinds; k != 0; k &= k - 1 {
			size[bits.TrailingZeros16(uint16(k))]++
			total++
		}
	}
	c := cut{field: ruleset.FieldKind, parts: ruleset.NumKinds}
	sum := 0.0
	for _, n := range size {
		sum += float64(n) * float64(n)
	}
	c.load = sum / float64(total) // each match has a kind of the region: see prune
	return c, true
}

// best returns the cut of a node.
func (b *builder) best(ms []uint32, r *packetset.Box) (cut, bool) {
	var best cut
	found := false
	for f := range ruleset.NumFields {
		c, ok := b.cut(ms, r, f, 0)
		if ok && c.load < 0.8*float64(len(ms)) && (!found || c.load < best.load) {
			best, found = c, true
		}
	}
	return best, found
}

// A run is neighbouring parts with the same matches, in order.
type run struct {
	first, last int
	ms          []uint32
}

// divide returns what is in the parts of a cut. The last run is what lies
// outside of the parts.
func (b *builder) divide(ms []uint32, r *packetset.Box, c *cut) []run {
	if c.field == ruleset.FieldKind {
		runs := make([]run, c.parts+1)
		for i := range runs {
			runs[i] = run{first: i, last: i}
		}
		for _, m := range ms {
			for k := b.boxes[m].Kinds & r.Kinds; k != 0; k &= k - 1 {
				u := &runs[bits.TrailingZeros16(uint16(k))]
				u.ms = append(u.ms, m)
			}
		}
		return runs
	}
	// of says in which run a part is; first it marks where runs begin. Some match
	// begins in the first part and some ends in the last: see cut.
	of := b.diff[:c.parts+2]
	clear(of)
	for _, m := range ms {
		lo, hi := c.span(&b.boxes[m], r)
		of[lo], of[hi+1] = 1, 1
	}
	var runs []run
	for i := range of[:c.parts+1] {
		if of[i] == 1 {
			runs = append(runs, run{first: i})
		}
		of[i] = int32(len(runs) - 1)
		runs[of[i]].last = i
	}
	for _, m := range ms {
		lo, hi := c.span(&b.boxes[m], r)
		for i := of[lo]; i <= of[hi]; i++ {
			runs[i].ms = append(runs[i].ms, m)
			b.work--
		}
	}
	return runs
}
