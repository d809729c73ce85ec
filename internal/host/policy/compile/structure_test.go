package compile

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/host/policy/packetset"
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
func (w *walker) packet() filter.Packet {
	t := &w.p.Classifier
	root := w.r.IntN(len(t.Roots))
	g := ranges{{0, ^uint32(0)}, {0, ^uint32(0)}, {0, 65535}, {0, ruleset.NumKinds - 1}}
	if r := &t.Roots[root]; r.Trees+r.ShadowTrees > 0 {
		i := w.r.Uint32N(r.Trees + r.ShadowTrees)
		if i < r.Trees {
			i += r.Tree
		} else {
			i += r.ShadowTree - r.Trees
		}
		w.descend(t.Trees[i].Ref, &g)
	}
	var k ruleset.Key
	x := &box{Box: packetset.All()}
	if len(w.boxes) > 0 {
		x = &w.boxes[w.r.IntN(len(w.boxes))]
	}
	for f := range k {
		lo, hi := g[f][0], g[f][1]
		k[f] = [...]uint32{lo, hi, lo, hi, lo + uint32(uint64(hi-lo)*uint64(w.r.Uint32())>>32)}[w.r.IntN(5)]
		if f < ruleset.FieldKind && w.r.IntN(2) == 0 {
			if v := [...]uint32{x.Lo[f], x.Hi[f], x.Lo[f] - 1, x.Hi[f] + 1}[w.r.IntN(4)]; lo <= v && v <= hi {
				k[f] = v
			}
		}
	}
	q := filter.Packet{Src: packet.Addr(k[0]), Dst: packet.Addr(k[1]), DstPort: uint16(k[2]), Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew}
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
		p := filtertest.Grid(r, 1+r.IntN(1<<(1+r.IntN(7))))
		if seed%4 == 0 {
			p = filtertest.RandomPolicy(r, 1+r.IntN(120), r.IntN(3))
		}
		pl := all[seed%uint64(len(all))]
		if err := build(p, []plan{pl}); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, fmt.Sprintf("seed %d, plan %+v", seed, pl))
	}
	for _, v := range filtertest.Variants {
		r := rand.New(rand.NewPCG(1, 8))
		p := v.Policy(400)
		if err := Classifier(p); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, v.Name)
	}
}

// TestSharedSubtrees: neighbouring parts with the same matches share a subtree,
// whose region is all of them.
func TestSharedSubtrees(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := filtertest.Crossing(r)
		pl := smallLeaves[seed%2]
		if err := build(p, []plan{pl}); err != nil {
			t.Fatal(err)
		}
		atEdges(t, r, p, 500, fmt.Sprintf("seed %d, plan %+v", seed, pl))
	}
}

func atEdges(t *testing.T, r *rand.Rand, p *ruleset.Policy, n int, what string) {
	t.Helper()
	c, err := filter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	l, w := linear.New(p), newWalker(r, p)
	for range n {
		q := w.packet()
		if got, want := c.Decide(&q), l.Decide(&q); got != want {
			t.Fatalf("%s, %d matches, packet %+v: classifier %+v, linear scan %+v", what, len(p.Matches), q, got, want)
		}
	}
}
