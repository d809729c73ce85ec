package filter

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// match is a ruleset.Match reduced to the data plane's address family.
type match struct {
	src, srcMask   packet.Addr
	dst, dstMask   packet.Addr
	portLo, portHi uint16
	proto          uint8
	direction      verdict.Direction
	state          uint8
	action         ruleset.Action
	mode           ruleset.Mode
	rule           uint32
	name           uint32 // 1 + index, 0: none
}

// A Linear filter looks at one match after the other. It is the definition of
// what a policy means; faster classifiers are tested against it.
type Linear struct {
	matches  []match
	fallback ruleset.Action
	def      uint32
}

// NewLinear reads the matches of a policy. Such as name addresses of another
// family can never match and are left out.
func NewLinear(p *ruleset.Policy) *Linear {
	f := &Linear{fallback: p.Settings.DefaultAction, def: p.DefaultRule()}
	for i := range p.Matches {
		m := &p.Matches[i]
		r := match{portLo: m.PortLo, portHi: m.PortHi, proto: m.Proto, direction: m.Direction, state: m.State, action: m.Action,
			mode: p.Rules[m.Rule].Mode, rule: m.Rule, name: m.Name}
		if r.state == 0 {
			r.state = ruleset.StateNew | ruleset.StateEstablished
		}
		var ok1, ok2 = true, true
		if m.SrcMask != (ruleset.Addr{}) {
			r.src, ok1 = packet.AddrFrom16(m.Src)
			r.srcMask = packet.Mask(m.SrcMask)
		}
		if m.DstMask != (ruleset.Addr{}) {
			r.dst, ok2 = packet.AddrFrom16(m.Dst)
			r.dstMask = packet.Mask(m.DstMask)
		}
		if ok1 && ok2 {
			f.matches = append(f.matches, r)
		}
	}
	return f
}

// Decide returns what the policy says about a packet.
func (f *Linear) Decide(p *Packet) Verdict {
	v := Verdict{Action: f.fallback, Rule: f.def, Shadow: NoRule}
	for i := range f.matches {
		m := &f.matches[i]
		if !m.matches(p) {
			continue
		}
		if m.mode != ruleset.Shadow {
			v.Action, v.Rule = m.action, m.rule
			break
		}
		if v.Shadow == NoRule {
			v.Shadow = m.rule
		}
	}
	return v
}

func (m *match) matches(p *Packet) bool {
	return p.Src&m.srcMask == m.src && p.Dst&m.dstMask == m.dst &&
		(m.proto == 0 || m.proto == p.Proto) &&
		p.DstPort >= m.portLo && p.DstPort <= m.portHi &&
		(m.direction == verdict.Either || m.direction == p.Direction) &&
		m.state&p.State != 0 &&
		(m.name == 0 || p.hasName(m.name-1))
}
