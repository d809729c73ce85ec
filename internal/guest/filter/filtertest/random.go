package filtertest

import (
	"math/rand/v2"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// RandomMatch returns a match such as a policy can have, and some that only a
// ruleset made by hand can: masks that are no prefixes, addresses of another
// family, bits outside of the mask. Few values, so that matches overlap.
func RandomMatch(r *rand.Rand, names int) ruleset.Match {
	m := ruleset.Match{PortHi: 65535, Direction: verdict.Direction(r.IntN(3)), State: uint8(r.IntN(4))}
	m.Proto = []uint8{0, packet.TCP, packet.UDP, packet.ICMP, 47, 50}[r.IntN(6)]
	value := func() uint32 {
		if r.IntN(3) == 0 {
			return r.Uint32()
		}
		return 10<<24 | r.Uint32N(4)<<16 | r.Uint32N(4)<<6 | r.Uint32N(4)
	}
	length := func() int { return []int{0, 0, 1, 8, 15, 16, 22, 24, 27, 30, 31, 32}[r.IntN(12)] }
	m.Src, m.SrcMask = Prefix(value(), length())
	m.Dst, m.DstMask = Prefix(value(), length())
	switch r.IntN(40) {
	case 0:
		m.Src, m.SrcMask = packet.Addr(10<<24|value()&0x00ff00ff).To16(), packet.Addr(0xff00_ff00|0xff).To16()
		for i := range m.Src {
			m.Src[i] &= m.SrcMask[i]
		}
		m.Src[10], m.Src[11] = 0xff, 0xff
	case 1:
		m.Dst[0], m.DstMask[0] = 0x20, 0xff
	case 2:
		m.Src[15] ^= 1
	}
	if r.IntN(2) == 0 {
		m.PortLo = uint16(r.IntN(20))
		if r.IntN(4) == 0 {
			m.PortLo = uint16(r.IntN(65536))
		}
		m.PortHi = m.PortLo + uint16(r.IntN(int(min(1<<r.IntN(17), 65536-int(m.PortLo)))))
	}
	if names > 0 && r.IntN(3) == 0 {
		m.Name = uint32(1 + r.IntN(names))
	}
	return m
}

// RandomPolicy returns a policy whose rules have one or several matches.
func RandomPolicy(r *rand.Rand, matches, names int) *ruleset.Policy {
	p := &ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Action(1 + r.IntN(3)), MaxFlows: 1024}, Names: make([]ruleset.Name, names), Strings: []byte("x")}
	for i := range p.Names {
		p.Names[i].Text.Len = 1
	}
	for len(p.Matches) < matches {
		rule := ruleset.Rule{Action: ruleset.Action(1 + r.IntN(3))}
		if r.IntN(6) == 0 {
			rule.Mode = ruleset.Shadow
		}
		p.Rules = append(p.Rules, rule)
		for range 1 + r.IntN(3) {
			m := RandomMatch(r, names)
			m.Action, m.Rule = rule.Action, uint32(len(p.Rules)-1)
			p.Matches = append(p.Matches, m)
		}
	}
	return p
}

// RandomPacket returns a packet at the edge of a match, or any.
func RandomPacket(r *rand.Rand, p *ruleset.Policy) filter.Packet {
	m := RandomMatch(r, 0)
	if len(p.Matches) > 0 && r.IntN(8) != 0 {
		m = p.Matches[r.IntN(len(p.Matches))]
	}
	q := PacketFor(r, &m)
	if r.IntN(2) == 0 {
		sm, dm := packet.Mask(m.SrcMask), packet.Mask(m.DstMask)
		q.Src, q.Dst = q.Src&sm, q.Dst|^dm
		q.DstPort = []uint16{m.PortLo, m.PortHi, m.PortLo - 1, m.PortHi + 1}[r.IntN(4)]
		q.Src += packet.Addr(r.IntN(3) - 1)
		q.Dst += packet.Addr(r.IntN(3) - 1)
	}
	if r.IntN(8) == 0 {
		q.Proto = []uint8{packet.TCP, packet.UDP, packet.ICMP, 47, 99}[r.IntN(5)]
	}
	for i := range p.Names {
		if r.IntN(4) == 0 {
			q.Names = append(q.Names, uint32(i))
		}
	}
	r.Shuffle(len(q.Names), func(i, j int) { q.Names[i], q.Names[j] = q.Names[j], q.Names[i] })
	return q
}

// Hard returns policies made to defeat decision trees.
func Hard(n int) map[string]*ruleset.Policy {
	ps := map[string]*ruleset.Policy{}
	add := func(name string, f func(i int) ruleset.Match) {
		p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
		for i := range n {
			m := f(i)
			m.Rule, m.Action = uint32(i), ruleset.Accept
			p.Matches, p.Rules = append(p.Matches, m), append(p.Rules, ruleset.Rule{Action: ruleset.Accept})
		}
		ps[name] = p
	}
	r := rand.New(rand.NewPCG(4, 4))
	add("nested port ranges, small first", func(i int) ruleset.Match {
		return ruleset.Match{Proto: packet.TCP, PortLo: uint16(32768 - i*3), PortHi: uint16(32768 + i*3)}
	})
	add("wide port ranges with sources", func(i int) ruleset.Match {
		m := ruleset.Match{Proto: packet.TCP, PortLo: uint16(r.IntN(30000)), PortHi: uint16(35000 + r.IntN(30000))}
		m.Src, m.SrcMask = Prefix(r.Uint32(), 1+r.IntN(8))
		return m
	})
	add("crosses: sources to any, any to destinations", func(i int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		if i%2 == 0 {
			m.Src, m.SrcMask = Prefix(r.Uint32(), 8+r.IntN(25))
		} else {
			m.Dst, m.DstMask = Prefix(r.Uint32(), 8+r.IntN(25))
		}
		return m
	})
	add("all the same but for protocols that are one kind", func(i int) ruleset.Match {
		return ruleset.Match{Proto: uint8(100 + i%100), PortHi: 65535}
	})
	add("masks that are no prefixes", func(i int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		m.Src, m.SrcMask = Prefix(0, 32)
		copy(m.SrcMask[12:], []byte{0, 0, 0xff, 0xff})
		copy(m.Src[12:], []byte{0, 0, byte(i >> 8), byte(i)})
		return m
	})
	return ps
}

// Grid returns a policy of matches whose edges lie on few lines, so that they
// begin and end together, cover each other in one field and cross in another:
// what pruning and shared subtrees have to get right. A part of them may be
// single ports, which make that the field to cut first.
func Grid(r *rand.Rand, n int) *ruleset.Policy {
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
			m.Src, m.SrcMask = Prefix(10<<24|r.Uint32N(4)<<23|r.Uint32N(4)<<12|r.Uint32N(4), []int{1, 7, 8, 9, 12, 15, 16, 20, 30, 32}[r.IntN(10)])
		}
		if r.IntN(wide) == 0 {
			m.Dst, m.DstMask = Prefix(r.Uint32N(16)<<28|r.Uint32N(3), []int{1, 2, 3, 4, 5, 31, 32}[r.IntN(7)])
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

// Crossing returns a policy whose trees cut ports first, into parts that share
// subtrees: what begins at one of them is hidden there by an earlier match of its
// direction, while one of the other direction, narrow in its source, covers the
// first of the parts and ends within another.
func Crossing(r *rand.Rand) *ruleset.Policy {
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
			m.Src, m.SrcMask = Prefix(10<<24|r.Uint32N(4)<<22, []int{8, 9, 10}[r.IntN(3)])
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
