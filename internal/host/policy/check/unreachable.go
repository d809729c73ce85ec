package check

import (
	"math/bits"
	"slices"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A deadRule never decides: the rules of by together match all that it does.
type deadRule struct {
	rule int
	by   []int
}

// Limits on the search for dead rules: what would take longer is taken to be
// alive, and the whole search ends when its steps are used up.
const (
	maxParts = 20_000      // of one rule
	maxSteps = 100_000_000 // of the whole policy: under a second
)

// unreachable returns the rules that never decide. It asks which earlier match
// decides the first packet of a match, cuts that one out, and goes on with the
// parts that are left, until a packet is found that no earlier rule matches or
// nothing is left of any match. It reports false when the policy is too large to
// look at all of it.
func unreachable(s *ruleset.Policy) (dead []deadRule, all bool) {
	w := work{Space: packetset.NewSpace(compile.Patterns(s)), s: s, regions: make([]packetset.Region, len(s.Matches)), index: map[slot][]int32{}, steps: maxSteps}
	for i := range s.Matches {
		m, r := &s.Matches[i], &w.regions[i]
		r.Box, _, _ = packetset.FromMatch(m) // all that the language can say is exact
		if m.Name != 0 {
			r.Names = w.Pattern(compile.Pattern(s, &s.Names[m.Name-1]))
		}
	}
	for i := 0; i < len(s.Matches); {
		rule, first := s.Matches[i].Rule, i
		w.by, w.parts, w.shadow = w.by[:0], maxParts, s.Rules[rule].Mode == ruleset.Shadow
		alive := false
		for ; i < len(s.Matches) && s.Matches[i].Rule == rule; i++ {
			alive = alive || w.survives(w.regions[i])
		}
		if w.steps < 0 {
			return dead, false
		}
		if !alive {
			slices.Sort(w.by)
			dead = append(dead, deadRule{int(rule), slices.Clone(slices.Compact(w.by))})
		}
		for j := first; j < i; j++ {
			w.add(j)
		}
	}
	return dead, true
}

// A slot of the index holds matches with the same networks, in order. Those
// for one port are kept apart from those for several.
type slot struct {
	src, dst uint32
	port     uint32 // anyPorts: several
	shape    shape
}

const anyPorts = 1 << 16

// A shape is what slots have in common that a packet is looked up in: lengths of
// the networks, and whether there is one port.
type shape struct {
	src, dst uint8
	onePort  bool
}

// work is the state of the search.
type work struct {
	*packetset.Space
	s       *ruleset.Policy
	regions []packetset.Region // of the matches
	shapes  []shape
	index   map[slot][]int32 // matches of the rules before the one looked at
	shadow  bool             // the rule looked at is a shadow rule
	by      []int
	parts   int
	steps   int
}

// add makes a match one of those before the rule looked at.
func (w *work) add(i int) {
	b := &w.regions[i]
	length := func(d int) uint8 { return uint8(bits.LeadingZeros32(b.Lo[d] ^ b.Hi[d])) }
	t := slot{src: b.Lo[packetset.Src], dst: b.Lo[packetset.Dst], port: anyPorts, shape: shape{length(packetset.Src), length(packetset.Dst), b.Lo[packetset.Port] == b.Hi[packetset.Port]}}
	if t.shape.onePort {
		t.port = b.Lo[packetset.Port]
	}
	if !slices.Contains(w.shapes, t.shape) {
		w.shapes = append(w.shapes, t.shape)
	}
	w.index[t] = append(w.index[t], int32(i))
}

// decides returns the first match before the rule looked at that has a packet, or
// -1.
func (w *work) decides(p *packetset.Packet) int {
	best := int32(-1)
	for _, h := range w.shapes {
		t := slot{src: p.Value[packetset.Src] & prefixMask(h.src), dst: p.Value[packetset.Dst] & prefixMask(h.dst), port: anyPorts, shape: h}
		if h.onePort {
			t.port = p.Value[packetset.Port]
		}
		w.steps--
		for _, j := range w.index[t] {
			w.steps--
			if best >= 0 && j > best {
				break
			}
			if !w.Has(&w.regions[j], p) {
				continue
			}
			// A shadow rule takes nothing from rules that are enforced.
			if !w.shadow && w.s.Rules[w.s.Matches[j].Rule].Mode == ruleset.Shadow {
				continue
			}
			best = j
			break
		}
	}
	return int(best)
}

func prefixMask(n uint8) uint32 { return ^uint32(0xffffffff >> n) }

// survives reports whether a part of a Region is matched by no rule before it.
func (w *work) survives(r packetset.Region) bool {
	if w.parts--; w.parts < 0 || w.steps < 0 {
		return true
	}
	first := w.First(&r)
	j := w.decides(&first)
	if j < 0 {
		return true
	}
	w.by = append(w.by, int(w.s.Matches[j].Rule))
	_, left := w.Cut(r, &w.regions[j])
	return slices.ContainsFunc(left, w.survives)
}
