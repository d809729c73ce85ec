package diff

import (
	"cmp"
	"maps"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// An Accepted is new flows that one rule accepts.
type Accepted struct {
	packetset.Region
	Rule int // index into Policy.Rules; Policy.DefaultRule: the default action
}

// newFlows are the kinds of the first packets of flows that the firewall passes.
const newFlows = packetset.Reaching &^ packetset.OtherKinds & 0x00ff

// AcceptedFlows returns the new flows that a policy's rules accept, as disjoint sets in
// the order of the rules, by comparing the policy with one that decides nothing. With
// limit it stops after as many sets, accepted or not, and reports that it did not end.
func AcceptedFlows(p *policy.Policy, rs *ruleset.Policy, limit int) (s *packetset.Space, all []Accepted, complete bool) {
	s = packetset.NewSpace(compile.Patterns(rs))
	const nothing = -1
	w := &walker{Space: s, def: [2]int{p.DefaultRule(), nothing}, found: map[[2]int][]packetset.Region{}, limit: limit}
	var conds []*cond
	for i := range rs.Matches {
		m := &rs.Matches[i]
		box, _, ok := packetset.FromMatch(m)
		if !ok || rs.Rules[m.Rule].Mode == ruleset.Shadow {
			continue
		}
		c := &cond{Region: packetset.Region{Box: box}, to: int(m.Rule)}
		if c.Kinds &= newFlows; m.Name != 0 {
			c.Kinds &= packetset.Named
			c.Names = s.Pattern(compile.Pattern(rs, &rs.Names[m.Name-1]))
		}
		if c.Kinds != 0 {
			conds = append(conds, c)
		}
	}
	for _, r := range packetset.Whole() {
		if r.Kinds &= newFlows; r.Kinds != 0 {
			w.walk(r, w.meeting(&r, conds), nil)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(w.found), func(a, b [2]int) int { return cmp.Compare(a[0], b[0]) }) {
		action := p.Defaults.Action
		if k[0] != p.DefaultRule() {
			action = p.Rules[k[0]].Action
		}
		if action != ruleset.Accept {
			continue
		}
		for _, r := range s.Merge(w.found[k]) {
			all = append(all, Accepted{r, k[0]})
		}
	}
	return s, all, !w.full()
}
