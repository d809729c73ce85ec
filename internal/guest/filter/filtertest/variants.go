// Package filtertest makes policies and packets for tests of what decides about
// packets: package filter and what makes its tables.
package filtertest

import (
	"math/rand/v2"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Variant is a kind of rule set, by the match of rule i of n.
type Variant struct {
	Name string
	Rule func(r *rand.Rand, i, n int) ruleset.Match
}

// Prefix returns a network as matches have it.
func Prefix(v uint32, length int) (a, m ruleset.Addr) {
	if length == 0 {
		return a, m
	}
	mask := ^uint32(0) << (32 - length)
	a, m = packet.Addr(v&mask).To16(), packet.Addr(mask).To16()
	for i := range m[:10] {
		m[i] = 0xff
	}
	return a, m
}

// Variants are the rule sets of the sweep.
var Variants = []Variant{
	// Each rule has a source of its own, as a list of allowed or blocked
	// hosts and networks has.
	{"source prefixes", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		m.Src, m.SrcMask = Prefix(r.Uint32(), []int{32, 32, 24, 24, 22, 20, 16}[r.IntN(7)])
		return m
	}},
	// Networks of one site to networks elsewhere.
	{"prefix pairs", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535, Proto: packet.TCP, Direction: verdict.Egress}
		m.Src, m.SrcMask = Prefix(10<<24|r.Uint32N(1<<24), []int{32, 28, 24, 24, 20, 16, 8}[r.IntN(7)])
		m.Dst, m.DstMask = Prefix(r.Uint32(), []int{32, 32, 28, 24, 24, 20, 16}[r.IntN(7)])
		m.PortLo, m.PortHi = 443, 443
		return m
	}},
	// One network, many ports and ranges.
	{"ports", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{Proto: []uint8{packet.TCP, packet.UDP}[r.IntN(2)]}
		m.Src, m.SrcMask = Prefix(10<<24, 8)
		m.PortLo = uint16(1 + r.IntN(65000))
		m.PortHi = m.PortLo
		if r.IntN(4) == 0 {
			m.PortHi += uint16(r.IntN(500))
		}
		return m
	}},
	// Everything together: who may go where at which port, who may not, and
	// some rules that leave most open.
	{"mixed", func(r *rand.Rand, i, n int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535, Proto: []uint8{0, packet.TCP, packet.TCP, packet.UDP}[r.IntN(4)], Direction: verdict.Direction(r.IntN(3))}
		if k := r.IntN(4); k != 0 {
			m.Src, m.SrcMask = Prefix([]uint32{10 << 24, 172<<24 | 16<<16, 192<<24 | 168<<16}[r.IntN(3)]|r.Uint32N(1<<16), []int{32, 30, 24, 24, 22}[r.IntN(5)])
			if k == 1 {
				m.Proto = max(m.Proto, packet.TCP)
				m.PortLo = []uint16{22, 53, 80, 443, 8080, uint16(r.IntN(65535))}[r.IntN(6)]
				m.PortHi = m.PortLo + uint16(r.IntN(3)*r.IntN(100))
			}
		}
		if m.SrcMask == (ruleset.Addr{}) || r.IntN(2) == 0 {
			m.Dst, m.DstMask = Prefix(r.Uint32(), []int{32, 32, 24, 24, 16, 12}[r.IntN(6)])
		}
		return m
	}},
}

// Policy returns a policy of n rules.
func (v *Variant) Policy(n int) *ruleset.Policy {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	p := &ruleset.Policy{Interfaces: rulesettest.Interfaces(), Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	for i := range n {
		m := v.Rule(r, i, n)
		m.Rule, m.Action = uint32(i), ruleset.Action(1+r.IntN(2))
		p.Matches = append(p.Matches, m)
		p.Rules = append(p.Rules, ruleset.Rule{Action: m.Action})
	}
	return p
}

// PacketFor returns a random packet that match m covers.
func PacketFor(r *rand.Rand, m *ruleset.Match) filter.Packet {
	sm, dm := uint32(packet.Mask(m.SrcMask)), uint32(packet.Mask(m.DstMask))
	s, _ := packet.AddrFrom16(m.Src)
	d, _ := packet.AddrFrom16(m.Dst)
	p := filter.Packet{Src: s | packet.Addr(r.Uint32()&^sm), Dst: d | packet.Addr(r.Uint32()&^dm), Proto: m.Proto, Direction: m.Direction, State: m.State & -m.State}
	p.DstPort = m.PortLo + uint16(r.IntN(int(m.PortHi-m.PortLo)+1))
	if p.Proto == 0 {
		p.Proto = packet.TCP
	}
	if p.Direction == verdict.Either {
		p.Direction = verdict.Direction(1 + r.IntN(2))
	}
	if p.State == 0 {
		p.State = 1 << r.IntN(2)
	}
	return p
}

// NumPackets is the number of different packets of a measurement: the same for
// all sizes of policies.
const NumPackets = 8192

// Packets returns packets whose match lies at a place: the first rule, the
// last, any, or none.
func Packets(p *ruleset.Policy, place string) []filter.Packet {
	r := rand.New(rand.NewPCG(3, uint64(len(p.Matches))))
	ps := make([]filter.Packet, NumPackets)
	for i := range ps {
		n := len(p.Matches)
		switch place {
		case "first":
			ps[i] = PacketFor(r, &p.Matches[0])
		case "last":
			ps[i] = PacketFor(r, &p.Matches[n-1])
		case "any":
			ps[i] = PacketFor(r, &p.Matches[r.IntN(n)])
		case "none":
			ps[i] = filter.Packet{Src: packet.Addr(r.Uint32()), Dst: packet.Addr(r.Uint32()), Proto: packet.ICMP, Direction: verdict.Ingress, State: ruleset.StateNew}
		}
	}
	return ps
}

// Places are those of Packets.
var Places = []string{"first", "any", "last", "none"}
