package policy

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A box is the set of packets that a match is for: ranges of addresses and
// ports, a set of kinds, and a condition on the name.
type box struct {
	lo, hi [3]uint32 // source, destination, destination port; inclusive
	kinds  uint16    // of direction × state × protocol, see kindBit
	name   uint32    // as in ruleset.Match
}

// protoBit numbers the protocols that rules tell apart; 3 stands for all others.
func protoBit(p uint8) int {
	switch p {
	case 6:
		return 0
	case 17:
		return 1
	case 1:
		return 2
	}
	return 3
}

// kindBit is the bit of a direction, a state and a protocol.
func kindBit(d verdict.Direction, state uint8, proto int) uint16 {
	return 1 << (int(d-verdict.Egress)*8 + int(state-1)*4 + proto)
}

func boxOf(m *ruleset.Match) box {
	b := box{name: m.Name}
	for i, v := range [][2]ruleset.Addr{{m.Src, m.SrcMask}, {m.Dst, m.DstMask}} {
		a, mask := binary.BigEndian.Uint32(v[0][12:]), binary.BigEndian.Uint32(v[1][12:])
		b.lo[i], b.hi[i] = a, a|^mask
	}
	b.lo[2], b.hi[2] = uint32(m.PortLo), uint32(m.PortHi)
	for _, d := range []verdict.Direction{verdict.Egress, verdict.Ingress} {
		for _, st := range []uint8{ruleset.StateNew, ruleset.StateEstablished} {
			if m.Direction != verdict.Either && m.Direction != d || m.State != 0 && m.State&st == 0 {
				continue
			}
			for p := range 4 {
				if m.Proto == 0 || protoBit(m.Proto) == p {
					b.kinds |= kindBit(d, st, p)
				}
			}
		}
	}
	return b
}

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

// unreachable returns the rules that never decide. It asks which earlier rule
// decides one packet of a match, takes away all that this rule matches, and goes
// on with what is left, until a packet is found that no earlier rule matches or
// nothing is left of any match. It reports false when the policy is too large to
// look at all of it.
func unreachable(s *ruleset.Policy) (dead []deadRule, all bool) {
	w := work{s: s, boxes: make([]box, len(s.Matches)), index: map[slot][]int32{}, steps: maxSteps}
	for i := range s.Matches {
		w.boxes[i] = boxOf(&s.Matches[i])
	}
	for i := 0; i < len(s.Matches); {
		rule, first := s.Matches[i].Rule, i
		w.by, w.parts, w.shadow = w.by[:0], maxParts, s.Rules[rule].Mode == ruleset.Shadow
		alive := false
		for ; i < len(s.Matches) && s.Matches[i].Rule == rule; i++ {
			alive = alive || w.survives(w.boxes[i])
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
	s      *ruleset.Policy
	boxes  []box
	shapes []shape
	index  map[slot][]int32 // matches of the rules before the one looked at
	shadow bool             // the rule looked at is a shadow rule
	by     []int
	parts  int
	steps  int
}

// add makes a match one of those before the rule looked at.
func (w *work) add(i int) {
	b := &w.boxes[i]
	length := func(d int) uint8 { return uint8(bits.LeadingZeros32(b.lo[d] ^ b.hi[d])) }
	t := slot{src: b.lo[0], dst: b.lo[1], port: anyPorts, shape: shape{length(0), length(1), b.lo[2] == b.hi[2]}}
	if t.shape.onePort {
		t.port = b.lo[2]
	}
	if !slices.Contains(w.shapes, t.shape) {
		w.shapes = append(w.shapes, t.shape)
	}
	w.index[t] = append(w.index[t], int32(i))
}

// first returns the first match before the rule looked at that matches the
// first packet of b whatever its name, or -1.
func (w *work) first(b *box) int {
	kind := b.kinds & -b.kinds
	best := int32(-1)
	for _, h := range w.shapes {
		t := slot{src: b.lo[0] & prefixMask(h.src), dst: b.lo[1] & prefixMask(h.dst), port: anyPorts, shape: h}
		if h.onePort {
			t.port = b.lo[2]
		}
		w.steps--
		for _, j := range w.index[t] {
			w.steps--
			c := &w.boxes[j]
			if best >= 0 && j > best {
				break
			}
			if c.kinds&kind == 0 || b.lo[2] < c.lo[2] || b.lo[2] > c.hi[2] || !coversName(w.s, c.name, b.name) {
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

// survives reports whether a part of b is matched by no rule before it.
func (w *work) survives(b box) bool {
	if w.parts--; w.parts < 0 || w.steps < 0 {
		return true
	}
	j := w.first(&b)
	if j < 0 {
		return true
	}
	c := &w.boxes[j]
	w.by = append(w.by, int(w.s.Matches[j].Rule))
	if k := b.kinds &^ c.kinds; k != 0 {
		part := b
		part.kinds = k
		if w.survives(part) {
			return true
		}
		b.kinds &= c.kinds
	}
	for i := range b.lo {
		if b.lo[i] < c.lo[i] {
			part := b
			part.hi[i] = c.lo[i] - 1
			if w.survives(part) {
				return true
			}
			b.lo[i] = c.lo[i]
		}
		if b.hi[i] > c.hi[i] {
			part := b
			part.lo[i] = c.hi[i] + 1
			if w.survives(part) {
				return true
			}
			b.hi[i] = c.hi[i]
		}
	}
	return false // what is left of b is in c
}

// coversName reports whether a condition on the name holds whenever the other
// does.
func coversName(s *ruleset.Policy, a, b uint32) bool {
	if a == 0 || a == b {
		return true
	}
	if b == 0 {
		return false
	}
	n, m := &s.Names[a-1], &s.Names[b-1]
	if n.Wildcard == 0 || m.Wildcard == 1 {
		return false
	}
	_, parent, ok := strings.Cut(s.Text(m.Text), ".")
	return ok && parent == s.Text(n.Text)
}
