// Package linear is the definition of what a compiled policy decides: its matches
// are looked at one after the other. The firewall does not do that (package
// filter does the same in a time that hardly depends on their number); tests
// compare the two, and thurward explain takes this one.
package linear

import (
	"slices"

	"github.com/thurward/thurward/internal/guest/filter"
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

// A Filter looks at one match after the other.
type Filter struct {
	matches  []match
	fallback ruleset.Action
	def      uint32
}

// New reads the matches of a policy. Those for addresses of another
// family can never match and are left out.
func New(p *ruleset.Policy) *Filter {
	f := &Filter{fallback: p.Settings.DefaultAction, def: p.DefaultRule()}
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
func (f *Filter) Decide(p *filter.Packet) filter.Verdict {
	v := filter.Verdict{Action: f.fallback, Rule: f.def, Shadow: filter.NoRule}
	for i := range f.matches {
		m := &f.matches[i]
		if !m.matches(p) {
			continue
		}
		if m.mode != ruleset.Shadow {
			v.Action, v.Rule = m.action, m.rule
			break
		}
		if v.Shadow == filter.NoRule {
			v.Shadow = m.rule
		}
	}
	return v
}

func (m *match) matches(p *filter.Packet) bool {
	return p.Src&m.srcMask == m.src && p.Dst&m.dstMask == m.dst &&
		(m.proto == 0 || m.proto == p.Proto) &&
		p.DstPort >= m.portLo && p.DstPort <= m.portHi &&
		(m.direction == verdict.Either || m.direction == p.Direction) &&
		m.state&p.State != 0 &&
		(m.name == 0 || slices.Contains(p.Names, m.name-1))
}
