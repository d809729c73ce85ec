// Package compile makes the tables that the image carries (package ruleset):
//
//	compile.go     a policy becomes tables: each combination of lists one match
//	classifier.go  decision trees over the matches (docs/classifier.md)
//	cut.go         how a node of a tree divides its matches
//	encode.go      the bytes of the tables
package compile

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A plan is how trees are made of a root's matches.
type plan struct {
	leaf   int    // entries that are compared rather than divided further
	trees  int    // at most; the last takes what the others have left
	copies uint32 // a tree leaves matches that its first cut would copy so often to the next
	spread int    // copies of a match that a cut may make, on average
}

// plans are tried one after the other, and the cheapest result is taken. What
// is best depends on whether matches are wide, and in which fields. The last
// one works for all, with leaves that are as long as they must be.
var plans = []plan{
	{leaf: 10, trees: 1, copies: 8, spread: 4},
	{leaf: 6, trees: 1, copies: 8, spread: 16},
	{leaf: 4, trees: 2, copies: 64, spread: 8},
	{leaf: 3, trees: 2, copies: 8, spread: 4},
	{leaf: 3, trees: 3, copies: 8, spread: 4},
	{leaf: 6, trees: maxTrees, copies: 8, spread: 4},
}

const (
	maxTrees = 6
	// growth is how many entries the leaves may have for each match, beside
	// some for small policies. A plan that needs more is given up.
	growth, growthFloor = 12, 1 << 12
	// effort bounds the time: how many steps a plan may take for each match.
	effort, effortFloor = 400, 1 << 18
)

// A box is a match: the packets that it may match, and the kinds of which it has
// all of them. It has no condition on the name: the matches of each name have
// trees of their own.
type box struct {
	packetset.Box
	exact packetset.Kinds // see packetset.FromMatch
	entry ruleset.Entry
}

// Classifier makes the classifier's tables from the matches of p, and puts them
// into p. The same matches give the same tables.
func Classifier(p *ruleset.Policy) error { return build(p, plans) }

// fits returns an error when there are more rules or matches than Open takes,
// which are fewer than an entry has bits for.
func fits(rules, matches int) error {
	if rules > ruleset.MaxRules || matches > ruleset.MaxMatches {
		return errors.New("filter: too many rules for the classifier")
	}
	return nil
}

// build is Classifier with a choice of plans.
func build(p *ruleset.Policy, plans []plan) error {
	if err := fits(len(p.Rules), len(p.Matches)); err != nil {
		return err
	}
	boxes := make([]box, len(p.Matches))
	groups := make([][2][]uint32, len(p.Names)+1)
	for i := range boxes {
		x := &boxes[i]
		if !x.set(p, i) {
			continue
		}
		g := &groups[p.Matches[i].Name]
		shadow := 0
		if p.Rules[p.Matches[i].Rule].Mode == ruleset.Shadow {
			shadow = 1
		}
		g[shadow] = append(g[shadow], uint32(i))
	}
	t := ruleset.Classifier{Roots: make([]ruleset.Root, len(groups))}
	for i := range groups {
		r := &t.Roots[i]
		r.Tree, r.Trees = add(&t, plans, boxes, groups[i][0])
		r.ShadowTree, r.ShadowTrees = add(&t, plans, boxes, groups[i][1])
	}
	p.Classifier = t
	return nil
}

// add makes trees by the best plan, adds them to t, and returns the index of
// the first and their number.
func add(t *ruleset.Classifier, plans []plan, boxes []box, ms []uint32) (first, n uint32) {
	var best *builder
	for i := range plans {
		b := newBuilder(plans[i], boxes, len(ms), i == len(plans)-1)
		b.root(ms)
		if b.over && !b.forced {
			continue
		}
		b.weigh(ms)
		if best == nil || b.cost < best.cost {
			best = b
		}
	}
	// Move the indexes behind what there is already.
	node, entry := uint32(len(t.Nodes)), uint32(len(t.Entries))
	move := func(ref uint32) uint32 {
		switch {
		case ref == ruleset.EmptyLeaf:
			return ref
		case ref&ruleset.LeafBit != 0:
			return ref + entry
		}
		return ref + node
	}
	first = uint32(len(t.Trees))
	for _, v := range best.t.Trees {
		t.Trees = append(t.Trees, ruleset.Tree{First: v.First, Ref: move(v.Ref)})
	}
	for i, v := range best.t.Nodes {
		v.Cell = uint32(len(t.Cells))
		t.Nodes = append(t.Nodes, v)
		for _, c := range best.cells[i] {
			t.Cells = append(t.Cells, ruleset.Cell(move(uint32(c))))
		}
	}
	t.Entries = append(t.Entries, best.t.Entries...)
	return first, uint32(len(best.t.Trees))
}

// set fills in match i of a policy. It reports false when no packet can match:
// addresses of another family, or bits of an address that its mask leaves out.
func (x *box) set(p *ruleset.Policy, i int) (ok bool) {
	m := &p.Matches[i]
	if x.Box, x.exact, ok = packetset.FromMatch(m); !ok {
		return false
	}
	x.entry = ruleset.Entry{Port: m.PortLo, PortSpan: m.PortHi - m.PortLo, Match: uint32(i), Rule: m.Rule | uint32(m.Action)<<ruleset.ActionShift,
		Src: x.Lo[packetset.Src], SrcMask: uint32(packet.Mask(m.SrcMask)), Dst: x.Lo[packetset.Dst], DstMask: uint32(packet.Mask(m.DstMask))}
	var kind, mask uint16
	if m.Proto != 0 {
		kind, mask = uint16(m.Proto), 0xff
	}
	if m.Direction != verdict.Either {
		kind, mask = kind|ruleset.EntryKind(0, m.Direction, 0), mask|ruleset.EntryKind(0, 3, 0)
	}
	if s := m.State; s == ruleset.StateNew || s == ruleset.StateEstablished {
		kind, mask = kind|ruleset.EntryKind(0, 0, s), mask|ruleset.EntryKind(0, 0, 3)
	}
	x.entry.Kind, x.entry.KindMask = kind, mask
	return true
}

// covers returns the kinds of which x matches every packet of the region.
func (x *box) covers(r *packetset.Box) packetset.Kinds {
	if !r.RangesWithin(&x.Box) {
		return 0
	}
	return x.exact & r.Kinds
}

// A builder makes the trees of one root by one plan.
type builder struct {
	plan
	boxes  []box
	t      ruleset.Classifier
	cells  [][]ruleset.Cell        // of each node
	leaves map[string]ruleset.Cell // by their matches
	budget int                     // entries that may still be made
	work   int                     // matches that may still be looked at
	over   bool                    // one of them has run out
	forced bool                    // go on beyond the bounds, with long leaves
	cost   float64                 // see weigh
	key    []byte
	diff   []int32
}

// newBuilder returns a builder of n matches. It goes on beyond its bounds when
// forced.
func newBuilder(pl plan, boxes []box, n int, forced bool) *builder {
	return &builder{plan: pl, boxes: boxes, leaves: map[string]ruleset.Cell{}, forced: forced,
		budget: growth*n + growthFloor, work: effort*n + effortFloor}
}

// root makes the trees for some matches, which are in order.
//
// A match that is wide in a field would be copied into most parts of a cut of
// that field. So each tree takes the matches that are narrow in the field that
// it cuts first, and leaves the others to the next.
func (b *builder) root(rest []uint32) {
	for len(rest) > 0 {
		take, leave := rest, []uint32(nil)
		if len(rest) > b.leaf && len(b.t.Trees) < b.trees-1 {
			if t, l := b.narrow(rest); len(t) > b.leaf/2 && len(l) > b.leaf/2 {
				take, leave = t, l
			}
		}
		b.t.Trees = append(b.t.Trees, ruleset.Tree{First: take[0], Ref: uint32(b.node(take, packetset.All(), ruleset.MaxLevel))})
		rest = leave
	}
	slices.SortFunc(b.t.Trees, func(x, y ruleset.Tree) int { return int(x.First) - int(y.First) })
}

// weigh estimates the cost of a look-up: what packets look at that some of the
// matches are made for, in units of about a nanosecond. More memory means that
// less of it is near.
func (b *builder) weigh(ms []uint32) {
	const sample = 1024
	b.cost = 0
	n := 0
	rnd := uint32(1)
	for i := 0; i < len(ms); i += 1 + len(ms)/sample {
		x := &b.boxes[ms[i]]
		var k ruleset.Key
		for f := range x.Lo {
			rnd = rnd*1664525 + 1013904223
			k[f] = x.Lo[f] + uint32(uint64(x.Hi[f]-x.Lo[f])*uint64(rnd)>>32)
		}
		k[ruleset.FieldKind] = uint32(bits.TrailingZeros16(uint16(x.Kinds)))
		kd := x.entry.Kind
		best := ^uint32(0) // none
		for _, t := range b.t.Trees {
			b.cost += 4
			if t.First >= best {
				continue // its nodes have been walked, see Classifier.first
			}
			ref := t.Ref
			for ref&ruleset.LeafBit == 0 {
				b.cost += 9
				d := &b.t.Nodes[ref]
				ref = uint32(b.cells[ref][min((k[d.Field]-d.Base)>>d.Shift, d.Parts)])
			}
			first := ref &^ ruleset.LeafBit
			for j := first; j < uint32(len(b.t.Entries)); j++ {
				b.cost += 2
				if j == first+1 {
					b.cost += 5 // where it ends is hard to predict
				}
				e := &b.t.Entries[j]
				if e.Match&^ruleset.Last >= best {
					break
				}
				if e.Matches(&k, kd) {
					best = e.Match &^ ruleset.Last
					break
				}
				if e.Match&ruleset.Last != 0 {
					break
				}
			}
		}
		n++
	}
	bytes := b.t.Bytes()
	for _, c := range b.cells {
		bytes += 4 * len(c)
	}
	b.cost = b.cost / float64(max(n, 1)) * (1 + float64(bytes)/(32<<20))
}

// narrow divides matches into those that are narrow in one field, which is
// chosen so that they are many and well divided by it, and the others.
func (b *builder) narrow(ms []uint32) (take, leave []uint32) {
	var best cut
	all := packetset.All()
	for f := range packetset.NumRanges {
		if c, ok := b.cut(ms, &all, f, b.copies); ok && c.score > best.score {
			best = c
		}
	}
	if best.score == 0 {
		return ms, nil
	}
	for _, m := range ms {
		if lo, hi := best.span(&b.boxes[m], &all); hi-lo < b.copies {
			take = append(take, m)
		} else {
			leave = append(leave, m)
		}
	}
	return take, leave
}

// prune removes matches that no packet of the region reaches, because earlier
// ones cover the region for all of their kinds.
func (b *builder) prune(ms []uint32, r *packetset.Box) []uint32 {
	covered := ^r.Kinds
	for i, m := range ms {
		if b.boxes[m].Kinds&^covered == 0 {
			kept := slices.Clone(ms[:i])
			for _, m := range ms[i+1:] {
				if covered == packetset.AllKinds {
					break
				}
				if x := &b.boxes[m]; x.Kinds&^covered != 0 {
					kept = append(kept, m)
					covered |= x.covers(r)
				}
			}
			return kept
		}
		covered |= b.boxes[m].covers(r)
	}
	return ms
}

// hidden removes, from a short list, matches of which no packet of the region is
// left by a single earlier one.
func (b *builder) hidden(ms []uint32, r *packetset.Box) []uint32 {
	const short = 48
	if len(ms) < 2 || len(ms) > short {
		return ms
	}
	b.work -= len(ms) * len(ms) / 4
	var kept []uint32
	for i, m := range ms {
		x := &b.boxes[m]
		if !slices.ContainsFunc(ms[:i], func(e uint32) bool { return b.boxes[e].hides(x, r) }) {
			kept = append(kept, m)
		}
	}
	return kept
}

// hides reports whether x matches every packet of the region that y matches.
func (x *box) hides(y *box, r *packetset.Box) bool {
	for f := range r.Lo {
		if x.Lo[f] > max(y.Lo[f], r.Lo[f]) || x.Hi[f] < min(y.Hi[f], r.Hi[f]) {
			return false
		}
	}
	return y.Kinds&r.Kinds&^x.exact == 0
}

// node makes the tree of some matches, in order, for a region.
func (b *builder) node(ms []uint32, r packetset.Box, level int) ruleset.Cell {
	if b.budget <= 0 || b.work <= 0 {
		b.over = true
	}
	if b.over && !b.forced {
		return ruleset.Cell(ruleset.EmptyLeaf) // the plan is given up
	}
	ms = b.hidden(b.prune(ms, &r), &r)
	if len(ms) <= b.leaf || level == 0 || b.over {
		return b.makeLeaf(ms)
	}
	c, ok := b.best(ms, &r)
	if !ok {
		return b.makeLeaf(ms)
	}
	at := len(b.t.Nodes)
	b.t.Nodes = append(b.t.Nodes, ruleset.Node{Base: c.base, Parts: c.parts, Field: uint8(c.field), Shift: uint8(c.shift), Level: uint8(level)})
	b.cells = append(b.cells, nil)
	cells := make([]ruleset.Cell, c.parts+1)
	runs := b.divide(ms, &r, &c)
	for i := 0; i < len(runs) && (!b.over || b.forced); {
		q := c.region(&r, runs[i].first, runs[i].last)
		list := b.prune(runs[i].ms, &q)
		// What is wide in this field may be all that is left after pruning;
		// such neighbours share a subtree.
		j := i + 1
		for ; j < len(runs)-1; j++ {
			w := c.region(&r, runs[j].first, runs[j].last)
			if !slices.Equal(list, b.prune(runs[j].ms, &w)) {
				break
			}
			if c.field == ruleset.FieldKind {
				q.Kinds |= w.Kinds
			} else {
				q.Hi[c.field] = w.Hi[c.field]
			}
		}
		cell := b.node(list, q, level-1)
		for ; i < j; i++ {
			for k := runs[i].first; k <= runs[i].last; k++ {
				cells[k] = cell
			}
		}
	}
	b.cells[at] = cells
	return ruleset.Cell(at)
}

// makeLeaf makes a leaf, or finds the one with the same entries.
func (b *builder) makeLeaf(ms []uint32) ruleset.Cell {
	if len(ms) == 0 {
		return ruleset.Cell(ruleset.EmptyLeaf)
	}
	b.key = b.key[:0]
	for _, m := range ms {
		b.key = binary.LittleEndian.AppendUint32(b.key, m)
	}
	if c, ok := b.leaves[string(b.key)]; ok {
		return c
	}
	c := ruleset.Cell(ruleset.LeafBit | uint32(len(b.t.Entries)))
	for _, m := range ms {
		b.t.Entries = append(b.t.Entries, b.boxes[m].entry)
	}
	b.t.Entries[len(b.t.Entries)-1].Match |= ruleset.Last
	b.leaves[string(b.key)] = c
	b.budget -= len(ms)
	return c
}
