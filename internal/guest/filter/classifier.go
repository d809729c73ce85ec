package filter

import (
	"errors"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Classifier decides from the tables that the host's compiler has made. A look-up walks a few decision trees: in each it follows at most
// ruleset.MaxLevel nodes to a leaf, and compares the leaf's entries, which are
// in the order of the policy, until one matches. A tree whose first match comes
// behind what has been found already is not looked at.
//
// It allocates nothing and may be used by several goroutines.
type Classifier struct {
	t        ruleset.Classifier
	nameless []ruleset.Tree // of enforced rules without names, which every packet is looked up in
	shadows  []ruleset.Tree // of shadow rules without names
	fallback ruleset.Action
	def      uint32
}

// New returns the classifier of a policy, which has its tables.
func New(p *ruleset.Policy) (*Classifier, error) {
	if len(p.Matches) > 0 && len(p.Classifier.Roots) != len(p.Names)+1 {
		return nil, errors.New("filter: the policy has rules but no classifier (build the image anew)")
	}
	c := &Classifier{t: p.Classifier, fallback: p.Settings.DefaultAction, def: p.DefaultRule()}
	if len(c.t.Roots) > 0 {
		r := &c.t.Roots[0]
		c.nameless, c.shadows = c.trees(r.Tree, r.Trees), c.trees(r.ShadowTree, r.ShadowTrees)
	}
	return c, nil
}

// trees returns n trees from the one with an index on.
func (c *Classifier) trees(from, n uint32) []ruleset.Tree { return c.t.Trees[from:][:n] }

// none is no entry, and comes behind all of them.
const none = ^uint32(0)

// Decide returns what the policy says about a packet.
func (c *Classifier) Decide(p *Packet) Verdict {
	k := ruleset.Key{uint32(p.Src), uint32(p.Dst), uint32(p.DstPort), ruleset.KindField(p.Proto, p.Direction, p.State)}
	kd := ruleset.EntryKind(p.Proto, p.Direction, p.State)
	best, rule := c.first(c.nameless, &k, kd, none, none)
	shadow, shadowRule := none, none
	if len(c.shadows) != 0 {
		shadow, shadowRule = c.first(c.shadows, &k, kd, best, none)
	}
	for _, n := range p.Names {
		if int(n) >= len(c.t.Roots)-1 {
			continue
		}
		r := &c.t.Roots[n+1]
		best, rule = c.first(c.trees(r.Tree, r.Trees), &k, kd, best, rule)
		shadow, shadowRule = c.first(c.trees(r.ShadowTree, r.ShadowTrees), &k, kd, min(shadow, best), shadowRule)
	}
	v := Verdict{Action: c.fallback, Rule: c.def, Shadow: NoRule}
	if best != none {
		v.Action, v.Rule = ruleset.Action(rule>>ruleset.ActionShift), rule&(1<<ruleset.ActionShift-1)
	}
	if shadow < best {
		v.Shadow = shadowRule & (1<<ruleset.ActionShift - 1)
	}
	return v
}

// first returns the first match of some trees, if it comes before best, and
// otherwise best and rule as they are.
func (c *Classifier) first(trees []ruleset.Tree, k *ruleset.Key, kd uint16, best, rule uint32) (uint32, uint32) {
	nodes, cells, entries := c.t.Nodes, c.t.Cells, c.t.Entries
	var leaf [ruleset.MaxTrees]uint32
	// The trees' nodes first, then the leaves: the processor looks ahead into
	// the next tree, which a leaf's unpredictable end would stop.
	for i := range trees {
		ref := trees[i].Ref
		for ref&ruleset.LeafBit == 0 {
			d := &nodes[ref]
			part := min((k[d.Field&3]-d.Base)>>(d.Shift&31), d.Parts)
			ref = uint32(cells[d.Cell+part])
		}
		leaf[i%ruleset.MaxTrees] = ref &^ ruleset.LeafBit
	}
	for i := range trees {
		if trees[i].First >= best {
			break
		}
		for j := leaf[i%ruleset.MaxTrees]; j < uint32(len(entries)); j++ {
			e := &entries[j]
			m := e.Match &^ ruleset.Last
			if m >= best {
				break
			}
			if e.Matches(k, kd) {
				best, rule = m, e.Rule
				break
			}
			if e.Match&ruleset.Last != 0 {
				break
			}
		}
	}
	return best, rule
}
