package filter

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
)

// drawMatch draws conditions over a small world, so that packets meet them.
func drawMatch(t *rapid.T, rule uint32) segment.Match {
	m := segment.Match{Rule: rule, Action: rapid.SampledFrom([]segment.Action{segment.Accept, segment.Deny}).Draw(t, "action"),
		Proto: rapid.SampledFrom([]uint8{0, 1, 6, 17}).Draw(t, "proto"), Direction: rapid.SampledFrom([]segment.Direction{0, 1, 2}).Draw(t, "dir"),
		State: rapid.Uint8Range(0, 3).Draw(t, "state"), PortLo: 0, PortHi: 65535}
	if rapid.Bool().Draw(t, "ports") {
		m.PortLo = rapid.Uint16Range(0, 5).Draw(t, "lo")
		m.PortHi = m.PortLo + rapid.Uint16Range(0, 3).Draw(t, "n")
	}
	prefix := func(name string) (a, mask segment.Addr) {
		bits := rapid.SampledFrom([]int{0, 30, 31, 32}).Draw(t, name)
		if bits == 0 {
			return a, mask
		}
		v := packet.Addr(uint64(0xffffffff) << (32 - bits))
		mask = v.To16()
		for i := range mask[:12] {
			mask[i] = 0xff
		}
		return (packet.Addr(0x0a000000+rapid.Uint32Range(0, 7).Draw(t, name+"addr")) & v).To16(), mask
	}
	m.Src, m.SrcMask = prefix("src")
	m.Dst, m.DstMask = prefix("dst")
	return m
}

// oracle decides as segment.Match says, on the 16-byte addresses.
func oracle(p *segment.Policy, k *Packet) (segment.Action, uint32) {
	in := func(a packet.Addr, want, mask segment.Addr) bool {
		b := a.To16()
		for i := range b {
			if b[i]&mask[i] != want[i] {
				return false
			}
		}
		return true
	}
	for _, m := range p.Matches {
		if in(k.Src, m.Src, m.SrcMask) && in(k.Dst, m.Dst, m.DstMask) && (m.Proto == 0 || m.Proto == k.Proto) && m.PortLo <= k.DstPort && k.DstPort <= m.PortHi &&
			(m.Direction == 0 || m.Direction == k.Direction) && (m.State == 0 || m.State&k.State != 0) {
			return m.Action, m.Rule
		}
	}
	return p.Settings.DefaultAction, p.DefaultRule()
}

func TestLinearAgainstOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &segment.Policy{Settings: segment.Settings{DefaultAction: rapid.SampledFrom([]segment.Action{segment.Accept, segment.Deny}).Draw(t, "default")}}
		for i := range rapid.IntRange(0, 12).Draw(t, "rules") {
			m := drawMatch(t, uint32(i))
			p.Rules = append(p.Rules, segment.Rule{Action: m.Action})
			p.Matches = append(p.Matches, m)
		}
		f := NewLinear(p)
		for range 20 {
			k := &Packet{Src: packet.Addr(0x0a000000 + rapid.Uint32Range(0, 9).Draw(t, "s")), Dst: packet.Addr(0x0a000000 + rapid.Uint32Range(0, 9).Draw(t, "d")),
				DstPort: rapid.Uint16Range(0, 9).Draw(t, "port"), Proto: rapid.SampledFrom([]uint8{1, 6, 17, 47}).Draw(t, "p"),
				Direction: rapid.SampledFrom([]segment.Direction{1, 2}).Draw(t, "way"), State: rapid.SampledFrom([]uint8{1, 2}).Draw(t, "st")}
			ga, gr := f.Decide(k)
			wa, wr := oracle(p, k)
			if ga != wa || gr != wr {
				t.Fatalf("%+v: got %v %d, want %v %d", *k, ga, gr, wa, wr)
			}
		}
	})
}

// TestOtherFamilyNeverMatches: a match on IPv6 addresses does not become one on
// everything.
func TestOtherFamilyNeverMatches(t *testing.T) {
	m := segment.Match{Action: segment.Accept, PortHi: 65535, Src: segment.Addr{0x20, 1}, SrcMask: segment.Addr{0xff, 0xff}}
	f := NewLinear(&segment.Policy{Settings: segment.Settings{DefaultAction: segment.Deny}, Rules: []segment.Rule{{Action: segment.Accept}}, Matches: []segment.Match{m}})
	if a, _ := f.Decide(&Packet{Proto: 6, Direction: segment.Egress, State: segment.StateNew}); a != segment.Deny {
		t.Fatal("accepted")
	}
}

func BenchmarkLinear10(b *testing.B)   { benchmarkLinear(b, 10) }
func BenchmarkLinear1000(b *testing.B) { benchmarkLinear(b, 1000) }

func benchmarkLinear(b *testing.B, n int) {
	p := &segment.Policy{Settings: segment.Settings{DefaultAction: segment.Deny}}
	for i := range n {
		p.Rules = append(p.Rules, segment.Rule{Action: segment.Accept})
		p.Matches = append(p.Matches, segment.Match{Rule: uint32(i), Action: segment.Accept, Proto: 6, PortLo: uint16(i), PortHi: uint16(i)})
	}
	f := NewLinear(p)
	k := &Packet{Proto: 6, DstPort: 65000, Direction: segment.Egress, State: segment.StateNew}
	b.ReportAllocs()
	for b.Loop() {
		f.Decide(k)
	}
}
