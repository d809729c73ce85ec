package filter

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A walker makes packets that know the classifier's cuts: it descends a tree by
// parts that it chooses, and takes the edges of the region that it arrives at, and
// those of the matches within it. Random packets hit few of the places where a
// region's borders are wrong.
type walker struct {
	r     *rand.Rand
	p     *ruleset.Policy
	boxes []box
}

func newWalker(r *rand.Rand, p *ruleset.Policy) *walker {
	w := &walker{r: r, p: p}
	for i := range p.Matches {
		var x box
		if x.set(p, i) {
			w.boxes = append(w.boxes, x)
		}
	}
	return w
}

// ranges is a region as closed ranges of the fields.
type ranges [ruleset.NumFields][2]uint32

// packet returns a packet at an edge of the region of a leaf.
func (w *walker) packet() Packet {
	t := &w.p.Classifier
	root := w.r.IntN(len(t.Roots))
	g := ranges{{0, ^uint32(0)}, {0, ^uint32(0)}, {0, 65535}, {0, numKinds - 1}}
	if r := &t.Roots[root]; r.Trees+r.ShadowTrees > 0 {
		i := w.r.Uint32N(r.Trees + r.ShadowTrees)
		if i < r.Trees {
			i += r.Tree
		} else {
			i += r.ShadowTree - r.Trees
		}
		w.descend(t.Trees[i].Ref, &g)
	}
	var k key
	x := &box{hi: whole.hi}
	if len(w.boxes) > 0 {
		x = &w.boxes[w.r.IntN(len(w.boxes))]
	}
	for f := range k {
		lo, hi := g[f][0], g[f][1]
		k[f] = [...]uint32{lo, hi, lo, hi, lo + uint32(uint64(hi-lo)*uint64(w.r.Uint32())>>32)}[w.r.IntN(5)]
		if f < ruleset.FieldKind && w.r.IntN(2) == 0 {
			if v := [...]uint32{x.lo[f], x.hi[f], x.lo[f] - 1, x.hi[f] + 1}[w.r.IntN(4)]; lo <= v && v <= hi {
				k[f] = v
			}
		}
	}
	q := Packet{Src: packet.Addr(k[0]), Dst: packet.Addr(k[1]), DstPort: uint16(k[2]), Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew}
	switch k[ruleset.FieldKind] & 3 {
	case 1:
		q.Proto = packet.UDP
	case 2:
		q.Proto = packet.ICMP
	case 3:
		q.Proto = []uint8{47, 50, 99, 0, 255}[w.r.IntN(5)]
	}
	if k[ruleset.FieldKind]&4 != 0 {
		q.Direction = verdict.Ingress
	}
	if k[ruleset.FieldKind]&8 != 0 {
		q.State = ruleset.StateEstablished
	}
	if root > 0 {
		q.Names = append(q.Names, uint32(root-1))
	}
	for i := range w.p.Names {
		if w.r.IntN(6) == 0 {
			q.Names = append(q.Names, uint32(i))
		}
	}
	return q
}

// descend chooses parts down to a leaf and makes the region smaller by each.
func (w *walker) descend(ref uint32, g *ranges) {
	t := &w.p.Classifier
	for ref&ruleset.LeafBit == 0 {
		n := &t.Nodes[ref]
		r := &g[n.Field]
		// The parts that the region has, and what is outside of them.
		lo, hi := (r[0]-n.Base)>>n.Shift, (r[1]-n.Base)>>n.Shift
		part := n.Parts
		if r[0] >= n.Base || r[1] >= n.Base {
			if r[0] < n.Base {
				lo = 0
			}
			if lo = min(lo, n.Parts); lo <= min(hi, n.Parts) {
				part = lo + w.r.Uint32N(min(hi, n.Parts)-lo+1)
			}
		}
		from := uint64(n.Base) + uint64(part)<<n.Shift
		switch {
		case part < n.Parts:
			r[0], r[1] = max(r[0], uint32(from)), uint32(min(uint64(r[1]), from+1<<n.Shift-1))
		case r[0] < n.Base && (from > uint64(r[1]) || w.r.IntN(2) == 0):
			r[1] = min(r[1], n.Base-1)
		default:
			r[0] = max(r[0], uint32(from))
		}
		ref = uint32(t.Cells[n.Cell+part])
	}
}

// grid returns a policy of matches whose edges lie on few lines, so that they
// begin and end together, cover each other in one field and cross in another:
// what pruning and shared subtrees have to get right. A part of them may be
// single ports, which make that the field to cut first.
func grid(r *rand.Rand, n int) *ruleset.Policy {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}, Strings: []byte("x")}
	names := r.IntN(3)
	for range names {
		p.Names = append(p.Names, ruleset.Name{Text: ruleset.Text{Len: 1}})
	}
	// Lines far from each other, not where parts begin: so that matches end in
	// the midst of parts.
	var lines [12]uint16
	for i := range lines {
		lines[i] = uint16(1 + r.IntN(65534)>>r.IntN(8))
	}
	wide, single := 1+r.IntN(4), r.IntN(4)
	for i := range n {
		m := ruleset.Match{PortHi: 65535, Rule: uint32(i), Action: ruleset.Action(1 + r.IntN(3))}
		if r.IntN(4) != 0 {
			lo, hi := lines[r.IntN(len(lines))], lines[r.IntN(len(lines))]
			m.PortLo, m.PortHi = min(lo, hi), max(lo, hi)
			if r.IntN(4) == 0 {
				m.PortLo = 0
			}
		}
		if r.IntN(4) < single {
			m.PortLo = uint16(r.Uint32())
			m.PortHi = m.PortLo
			p.Matches, p.Rules = append(p.Matches, m), append(p.Rules, ruleset.Rule{Action: m.Action})
			continue
		}
		if r.IntN(wide) == 0 {
			m.Src, m.SrcMask = prefix(10<<24|r.Uint32N(4)<<23|r.Uint32N(4)<<12|r.Uint32N(4), []int{1, 7, 8, 9, 12, 15, 16, 20, 30, 32}[r.IntN(10)])
		}
		if r.IntN(wide) == 0 {
			m.Dst, m.DstMask = prefix(r.Uint32N(16)<<28|r.Uint32N(3), []int{1, 2, 3, 4, 5, 31, 32}[r.IntN(7)])
		}
		if r.IntN(3) == 0 {
			m.Proto = []uint8{packet.TCP, packet.UDP, packet.ICMP, 47}[r.IntN(4)]
		}
		if r.IntN(4) == 0 {
			m.Direction, m.State = verdict.Direction(r.IntN(3)), uint8(r.IntN(4))
		}
		if names > 0 && r.IntN(4) == 0 {
			m.Name = 1 + r.Uint32N(uint32(names))
		}
		rule := ruleset.Rule{Action: m.Action}
		if r.IntN(7) == 0 {
			rule.Mode = ruleset.Shadow
		}
		p.Matches, p.Rules = append(p.Matches, m), append(p.Rules, rule)
	}
	return p
}

// crossing returns a policy whose trees cut ports first, into parts that share
// subtrees: what begins at one of them is hidden there by an earlier match of its
// direction, while one of the other direction, narrow in its source, covers the
// first of the parts and ends in the midst of another.
func crossing(r *rand.Rand) *ruleset.Policy {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny, MaxFlows: 1024}}
	add := func(m ruleset.Match) {
		m.Rule, m.Action = uint32(len(p.Matches)), ruleset.Action(1+r.IntN(3))
		p.Matches, p.Rules = append(p.Matches, m), append(p.Rules, ruleset.Rule{Action: m.Action})
	}
	for range r.IntN(30) {
		v := uint16(r.Uint32())
		add(ruleset.Match{PortLo: v, PortHi: v})
	}
	wide := func(d verdict.Direction, narrow bool) {
		m := ruleset.Match{Direction: d, PortLo: uint16(r.IntN(20000)), PortHi: uint16(30000 + r.IntN(35000))}
		if narrow {
			m.Src, m.SrcMask = prefix(10<<24|r.Uint32N(4)<<22, []int{8, 9, 10}[r.IntN(3)])
		}
		add(m)
	}
	wide(verdict.Egress, false)
	for range 1 + r.IntN(3) {
		wide(verdict.Ingress, true)
	}
	for range 2 + r.IntN(8) {
		wide(verdict.Egress, r.IntN(2) == 0)
	}
	for range 1 + r.IntN(2) {
		add(ruleset.Match{PortHi: 65535, Direction: verdict.Ingress})
	}
	r.Shuffle(len(p.Matches)*r.IntN(2), func(i, j int) { p.Matches[i], p.Matches[j] = p.Matches[j], p.Matches[i] })
	for i := range p.Matches {
		p.Matches[i].Rule, p.Rules[i].Action = uint32(i), p.Matches[i].Action
	}
	return p
}

// smallLeaves divide as far as there is anything to divide, so that small
// policies have deep trees.
var smallLeaves = []plan{
	{leaf: 1, trees: 1, copies: 8, spread: 64},
	{leaf: 2, trees: 3, copies: 2, spread: 16},
	{leaf: 1, trees: maxTrees, copies: 1 << 20, spread: 2},
}

// TestCutsAreRight: whichever plan makes the trees, at the edges of its cuts the
// classifier decides as the linear scan does.
func TestCutsAreRight(t *testing.T) {
	all := append(append([]plan{}, plans...), smallLeaves...)
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 8))
		p := grid(r, 1+r.IntN(1<<(1+r.IntN(7))))
		if seed%4 == 0 {
			p = randomPolicy(r, 1+r.IntN(120), r.IntN(3))
		}
		pl := all[seed%uint64(len(all))]
		if err := build(p, []plan{pl}); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, fmt.Sprintf("seed %d, plan %+v", seed, pl))
	}
	for _, v := range variants {
		r := rand.New(rand.NewPCG(1, 8))
		p := v.policy(400)
		if err := Build(p); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, v.name)
	}
}

// TestSharedSubtrees: neighbouring parts with the same matches share a subtree,
// whose region is all of them.
func TestSharedSubtrees(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := crossing(r)
		pl := smallLeaves[seed%2]
		if err := build(p, []plan{pl}); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, fmt.Sprintf("seed %d, plan %+v", seed, pl))
	}
}

func atEdges(t *testing.T, r *rand.Rand, p *ruleset.Policy, n int, what string) {
	t.Helper()
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	l, w := NewLinear(p), newWalker(r, p)
	for range n {
		q := w.packet()
		if got, want := c.Decide(&q), l.Decide(&q); got != want {
			t.Fatalf("%s, %d matches, packet %+v: classifier %+v, linear scan %+v", what, len(p.Matches), q, got, want)
		}
	}
}
