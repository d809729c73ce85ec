package filter

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/ruleset/rulesettest"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// randomMatch returns a match such as a policy can have, and some that only a
// segment made by hand can: masks that are no prefixes, addresses of another
// family, bits outside of the mask. Few values, so that matches overlap.
func randomMatch(r *rand.Rand, names int) ruleset.Match {
	m := ruleset.Match{PortHi: 65535, Direction: verdict.Direction(r.IntN(3)), State: uint8(r.IntN(4))}
	m.Proto = []uint8{0, packet.TCP, packet.UDP, packet.ICMP, 47, 50}[r.IntN(6)]
	value := func() uint32 {
		if r.IntN(3) == 0 {
			return r.Uint32()
		}
		return 10<<24 | r.Uint32N(4)<<16 | r.Uint32N(4)<<6 | r.Uint32N(4)
	}
	length := func() int { return []int{0, 0, 1, 8, 15, 16, 22, 24, 27, 30, 31, 32}[r.IntN(12)] }
	m.Src, m.SrcMask = prefix(value(), length())
	m.Dst, m.DstMask = prefix(value(), length())
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

// randomPolicy returns a policy whose rules have one or several matches.
func randomPolicy(r *rand.Rand, matches, names int) *ruleset.Policy {
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
			m := randomMatch(r, names)
			m.Action, m.Rule = rule.Action, uint32(len(p.Rules)-1)
			p.Matches = append(p.Matches, m)
		}
	}
	return p
}

// randomPacket returns a packet at the edge of a match, or any.
func randomPacket(r *rand.Rand, p *ruleset.Policy) Packet {
	m := randomMatch(r, 0)
	if len(p.Matches) > 0 && r.IntN(8) != 0 {
		m = p.Matches[r.IntN(len(p.Matches))]
	}
	q := packetFor(r, &m)
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

// same fails unless the classifier decides about n packets as the linear scan
// does.
func same(t testing.TB, r *rand.Rand, p *ruleset.Policy, n int) {
	t.Helper()
	if err := Build(p); err != nil {
		t.Fatal(err)
	}
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	l := NewLinear(p)
	for range n {
		q := randomPacket(r, p)
		if got, want := c.Decide(&q), l.Decide(&q); got != want {
			t.Fatalf("%d matches, packet %+v: classifier %+v, linear scan %+v", len(p.Matches), q, got, want)
		}
	}
}

// TestClassifierIsLinearScan: the classifier decides as the definition says, on
// random policies of all sizes, with shadow rules, names and odd masks.
func TestClassifierIsLinearScan(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 1))
		same(t, r, randomPolicy(r, r.IntN(1<<r.IntN(11)), r.IntN(6)), 300)
	}
	for _, v := range variants {
		for _, n := range []int{1, 5, 11, 100, 3000} {
			same(t, rand.New(rand.NewPCG(uint64(n), 2)), v.policy(n), 1000)
		}
	}
}

// TestClassifierThroughSegment: the tables survive the segment, and the same
// policy gives the same bytes.
func TestClassifierThroughSegment(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	p := randomPolicy(r, 500, 3)
	if err := Build(p); err != nil {
		t.Fatal(err)
	}
	b := ruleset.Encode(p)
	if err := Build(p); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b, ruleset.Encode(p)) {
		t.Error("two compilations differ")
	}
	q, err := ruleset.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(q)
	if err != nil {
		t.Fatal(err)
	}
	l := NewLinear(q)
	for range 2000 {
		k := randomPacket(r, p)
		if c.Decide(&k) != l.Decide(&k) {
			t.Fatalf("%+v", k)
		}
	}
}

// TestNewNeedsTables: a policy with rules and without a classifier is refused;
// it must not be taken for one without rules.
func TestNewNeedsTables(t *testing.T) {
	if _, err := New(policy()); err == nil {
		t.Error("accepted")
	}
}

// hard returns policies made to defeat decision trees.
func hard(n int) map[string]*ruleset.Policy {
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
		m.Src, m.SrcMask = prefix(r.Uint32(), 1+r.IntN(8))
		return m
	})
	add("crosses: sources to any, any to destinations", func(i int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		if i%2 == 0 {
			m.Src, m.SrcMask = prefix(r.Uint32(), 8+r.IntN(25))
		} else {
			m.Dst, m.DstMask = prefix(r.Uint32(), 8+r.IntN(25))
		}
		return m
	})
	add("all the same but for protocols that are one kind", func(i int) ruleset.Match {
		return ruleset.Match{Proto: uint8(100 + i%100), PortHi: 65535}
	})
	add("masks that are no prefixes", func(i int) ruleset.Match {
		m := ruleset.Match{PortHi: 65535}
		m.Src, m.SrcMask = prefix(0, 32)
		copy(m.SrcMask[12:], []byte{0, 0, 0xff, 0xff})
		copy(m.Src[12:], []byte{0, 0, byte(i >> 8), byte(i)})
		return m
	})
	return ps
}

// TestHardPolicies: policies made to defeat decision trees stay correct, and
// memory stays within bounds.
func TestHardPolicies(t *testing.T) {
	const n = 5000
	for name, p := range hard(n) {
		same(t, rand.New(rand.NewPCG(1, 1)), p, 3000)
		if got, most := p.Classifier.Bytes(), 1<<20+n*3*growth*32; got > most {
			t.Errorf("%s: %d bytes of tables, want at most %d", name, got, most)
		} else {
			t.Logf("%s: %d KiB, longest leaf %d", name, got/1024, p.Classifier.Longest())
		}
	}
}

func TestDecideDoesNotAllocate(t *testing.T) {
	p := variants[3].policy(1000)
	if err := Build(p); err != nil {
		t.Fatal(err)
	}
	c, _ := New(p)
	ps := packets(p, "any")
	i := 0
	if n := testing.AllocsPerRun(1000, func() { sink += c.Decide(&ps[i%numPackets]).Rule; i++ }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// steps counts what a decision looks at: nodes and entries.
func steps(c *Classifier, q *Packet) (n int) {
	k := key{uint32(q.Src), uint32(q.Dst), uint32(q.DstPort), kindField(q.Proto, q.Direction, q.State)}
	r := c.t.Roots[0]
	best := none
	for _, t := range c.t.Trees[r.Tree:][:r.Trees] {
		ref := t.Ref
		for ref&ruleset.LeafBit == 0 {
			n++
			d := &c.t.Nodes[ref]
			ref = uint32(c.t.Cells[d.Cell+min((k[d.Field]-d.Base)>>d.Shift, d.Parts)])
		}
		for j := ref &^ ruleset.LeafBit; j < uint32(len(c.t.Entries)) && t.First < best; j++ {
			n++
			e := &c.t.Entries[j]
			if matches(e, &k, kind(q.Proto, q.Direction, q.State)) {
				best = min(best, e.Match&^ruleset.Last)
				break
			}
			if e.Match&ruleset.Last != 0 {
				break
			}
		}
	}
	return n
}

// TestFlatCost: what a decision looks at, on average, hardly grows from 10 to
// 10,000 rules. (Times are printed by make bench; counts do not depend on what
// else the machine does.)
func TestFlatCost(t *testing.T) {
	for _, v := range variants {
		for _, place := range places {
			count := func(n int) float64 {
				p := v.policy(n)
				if err := Build(p); err != nil {
					t.Fatal(err)
				}
				c, err := New(p)
				if err != nil {
					t.Fatal(err)
				}
				sum := 0
				ps := packets(p, place)
				for i := range ps {
					sum += steps(c, &ps[i])
				}
				return float64(sum) / float64(len(ps))
			}
			small, large := count(10), count(10000)
			if large > 2*small+4 || large > 12 {
				t.Errorf("%s, match at %s: %.1f steps with 10,000 rules, %.1f with 10", v.name, place, large, small)
			}
		}
	}
}

// FuzzClassifier compares with the linear scan on policies and packets made of
// the input.
func FuzzClassifier(f *testing.F) {
	f.Add(uint64(1), uint16(10), uint8(2))
	f.Add(uint64(2), uint16(700), uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, matches uint16, names uint8) {
		r := rand.New(rand.NewPCG(seed, 3))
		same(t, r, randomPolicy(r, int(matches%1500), int(names%8)), 100)
	})
}

// FuzzTables: tables that Open accepts, whatever they hold, lead neither outside
// of a table nor in a circle.
func FuzzTables(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 5))
	p := randomPolicy(r, 40, 2)
	if err := Build(p); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3, 4}, uint64(1))
	f.Fuzz(func(t *testing.T, edits []byte, seed uint64) {
		// Each edit overwrites four bytes of a table.
		q := *p
		c := &q.Classifier
		c.Roots, c.Trees, c.Nodes, c.Cells, c.Entries = slices.Clone(c.Roots), slices.Clone(c.Trees), slices.Clone(c.Nodes), slices.Clone(c.Cells), slices.Clone(c.Entries)
		for ; len(edits) >= 7; edits = edits[7:] {
			var b []byte
			switch edits[0] % 5 {
			case 0:
				b = bytesOf(c.Roots)
			case 1:
				b = bytesOf(c.Trees)
			case 2:
				b = bytesOf(c.Nodes)
			case 3:
				b = bytesOf(c.Cells)
			case 4:
				b = bytesOf(c.Entries)
			}
			at := int(binary.LittleEndian.Uint16(edits[1:])) % len(b) &^ 3
			copy(b[at:at+4], edits[3:7])
		}
		o, err := ruleset.Open(ruleset.Encode(&q))
		if err != nil {
			return
		}
		d, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(seed, 6))
		for range 50 {
			k := randomPacket(r, p)
			k.Names = append(k.Names, 99)
			v := d.Decide(&k)
			if v.Rule > uint32(len(q.Rules)) || v.Shadow != NoRule && v.Shadow >= uint32(len(q.Rules)) {
				t.Fatalf("%+v", v)
			}
		}
	})
}

func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// BenchmarkDecide classifies packets whose match is anywhere in the policy.
func BenchmarkDecide(b *testing.B) {
	for _, v := range variants {
		for _, n := range []int{10, 10000} {
			b.Run(fmt.Sprintf("%s/rules=%d", v.name, n), func(b *testing.B) {
				p := v.policy(n)
				if err := Build(p); err != nil {
					b.Fatal(err)
				}
				c, _ := New(p)
				ps := packets(p, "any")
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					sink += c.Decide(&ps[i%numPackets]).Rule
				}
			})
		}
	}
}

// BenchmarkOpen is what boot does with a policy of 10,000 rules: digest and
// checks.
func BenchmarkOpen(b *testing.B) {
	p := variants[3].policy(10000)
	p.Settings.MaxFlows = 1024
	if err := Build(p); err != nil {
		b.Fatal(err)
	}
	s := ruleset.Encode(p)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		if _, err := ruleset.Open(s); err != nil {
			b.Fatal(err)
		}
	}
}
