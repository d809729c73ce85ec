package filter

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// holds says what a match of a policy means, byte by byte.
func holds(m *ruleset.Match, q *Packet) bool {
	for _, a := range []struct {
		addr       packet.Addr
		want, mask ruleset.Addr
	}{{q.Src, m.Src, m.SrcMask}, {q.Dst, m.Dst, m.DstMask}} {
		b := a.addr.To16()
		for i := range b {
			if a.mask != (ruleset.Addr{}) && b[i]&a.mask[i] != a.want[i] {
				return false
			}
		}
	}
	if m.Proto != 0 && m.Proto != q.Proto || q.DstPort < m.PortLo || m.PortHi < q.DstPort {
		return false
	}
	if m.Direction != verdict.Either && m.Direction != q.Direction || m.State != 0 && m.State&q.State == 0 {
		return false
	}
	if m.Name == 0 {
		return true
	}
	for _, n := range q.Names {
		if n+1 == m.Name {
			return true
		}
	}
	return false
}

// TestLinearIsTheDefinition: the linear scan, by which the classifier is tested,
// decides as the policy's words say: the first enforced rule decides, and the
// first shadow rule before it is reported.
func TestLinearIsTheDefinition(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 10))
		p := randomPolicy(r, 40, 3)
		if seed%2 == 0 {
			p = grid(r, 40)
		}
		l := NewLinear(p)
		for range 200 {
			q := randomPacket(r, p)
			want := Verdict{p.Settings.DefaultAction, uint32(len(p.Rules)), NoRule}
			for i := range p.Matches {
				if m := &p.Matches[i]; holds(m, &q) {
					if p.Rules[m.Rule].Mode == ruleset.Enforce {
						want.Action, want.Rule = m.Action, m.Rule
						break
					} else if want.Shadow == NoRule {
						want.Shadow = m.Rule
					}
				}
			}
			if got := l.Decide(&q); got != want {
				t.Fatalf("seed %d, packet %+v: %+v, want %+v", seed, q, got, want)
			}
		}
	}
}

// TestShortPrefixes: prefixes of every length, each with the addresses on either
// side of its two ends, as source and as destination.
func TestShortPrefixes(t *testing.T) {
	for length := range 33 {
		for _, v := range []uint32{0x0a0b0c0d, 0xffffffff, 0, 0x80000000} {
			for dst := range 2 {
				m := ruleset.Match{PortHi: 65535, Action: ruleset.Accept}
				if dst == 1 {
					m.Dst, m.DstMask = prefix(v, length)
				} else {
					m.Src, m.SrcMask = prefix(v, length)
				}
				p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}, Matches: []ruleset.Match{m}, Rules: []ruleset.Rule{{Action: ruleset.Accept}}}
				if err := Build(p); err != nil {
					t.Fatal(err)
				}
				c, err := New(p)
				if err != nil {
					t.Fatal(err)
				}
				size := uint64(1) << (32 - length)
				lo := uint64(v) / size * size
				for _, a := range []uint64{lo, lo + size - 1, lo - 1, lo + size, 0, 1<<32 - 1} {
					q := Packet{Src: packet.Addr(a), Dst: packet.Addr(a), Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew}
					want := ruleset.Deny
					if x := uint64(uint32(a)); lo <= x && x < lo+size {
						want = ruleset.Accept
					}
					if got, lin := c.Decide(&q).Action, NewLinear(p).Decide(&q).Action; got != want || lin != want {
						t.Fatalf("%#x/%d, address %#x: %d, linear scan %d, want %d", v, length, uint32(a), got, lin, want)
					}
				}
			}
		}
	}
}

// TestBoxes: a box has the kinds of which any packet can match and, entirely,
// those of which all do; its entry matches what the match does.
func TestBoxes(t *testing.T) {
	part := func(proto int) int {
		return map[int]int{6: 0, 17: 1, 1: 2}[proto] + map[bool]int{true: 3}[proto != 6 && proto != 17 && proto != 1]
	}
	r := rand.New(rand.NewPCG(1, 11))
	for range 600 {
		m := randomMatch(r, 0)
		m.Proto = []uint8{0, 1, 6, 17, 47, 255, 2}[r.IntN(7)]
		p := &ruleset.Policy{Matches: []ruleset.Match{{}, {}, m}, Rules: make([]ruleset.Rule, 8)}
		p.Matches[2].Rule, p.Matches[2].Action = 5, ruleset.Reject
		var x box
		ok := x.set(p, 2)
		q := packetFor(r, &m)
		if ok != holds(&m, &q) {
			t.Fatalf("%+v: can match %v", m, ok)
		}
		if !ok {
			continue
		}
		if x.entry.Match != 2 || x.entry.Rule != 5|3<<24 || x.lo[2] != uint32(m.PortLo) || x.hi[2] != uint32(m.PortHi) {
			t.Fatalf("%+v: %+v", m, x)
		}
		exact := true
		for f, mask := range []ruleset.Addr{m.SrcMask, m.DstMask} {
			v, k := []uint32{x.entry.Src, x.entry.Dst}[f], uint32(packet.Mask(mask))
			if x.lo[f] != v || x.hi[f] != v+^k {
				t.Fatalf("%+v: field %d from %#x to %#x", m, f, x.lo[f], x.hi[f])
			}
			for n := range 33 { // a prefix's mask is one of these
				if k == uint32(0xffffffff<<n&0xffffffff) {
					break
				} else if n == 32 {
					exact = false
				}
			}
		}
		var some, all uint16
		for kd := range 16 {
			n, of := 0, 0
			for _, proto := range []int{0, 1, 2, 6, 17, 47, 50, 255} {
				if part(proto) != kd&3 {
					continue
				}
				q.Proto, q.Direction, q.State = uint8(proto), verdict.Egress, ruleset.StateNew
				if kd&4 != 0 {
					q.Direction = verdict.Ingress
				}
				if kd&8 != 0 {
					q.State = ruleset.StateEstablished
				}
				of++
				does := holds(&m, &q)
				if does {
					n++
				}
				if got := kindField(q.Proto, q.Direction, q.State); got != uint32(kd) {
					t.Fatalf("kind %d of %+v, want %d", got, q, kd)
				}
				if matches(&x.entry, &key{uint32(q.Src), uint32(q.Dst), uint32(q.DstPort)}, kind(q.Proto, q.Direction, q.State)) != does {
					t.Fatalf("%+v, %+v: the entry matches %v", m, q, !does)
				}
			}
			if n > 0 {
				some |= 1 << kd
			}
			if n == of && exact {
				all |= 1 << kd
			}
		}
		if x.kinds != some || x.full != all {
			t.Fatalf("%+v: kinds %016b, entirely %016b, want %016b and %016b", m, x.kinds, x.full, some, all)
		}
	}
}

// TestNewLooksAtRoots: a policy with rules has a root for each name; one without
// rules needs none, and gives the default.
func TestNewLooksAtRoots(t *testing.T) {
	p := policy()
	p.Names = make([]ruleset.Name, 2)
	for n, want := range map[int]bool{0: false, 1: false, 2: false, 3: true, 4: false} {
		p.Classifier.Roots = make([]ruleset.Root, n)
		if c, err := New(p); (err == nil) != want || (c != nil) != want {
			t.Errorf("%d roots: %v", n, err)
		}
	}
	p = &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Reject}, Rules: make([]ruleset.Rule, 3)}
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	if v := c.Decide(&Packet{Names: []uint32{0, 7}}); v != (Verdict{ruleset.Reject, 3, NoRule}) {
		t.Errorf("%+v", v)
	}
}

// TestMostTrees: a root of as many trees as there may be, each a leaf of one
// entry; every one of them decides, and names beyond the roots are none.
func TestMostTrees(t *testing.T) {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Reject}, Names: make([]ruleset.Name, 1), Rules: make([]ruleset.Rule, 2*ruleset.MaxTrees)}
	c := &p.Classifier
	c.Roots = []ruleset.Root{{Trees: ruleset.MaxTrees}, {Tree: ruleset.MaxTrees, Trees: ruleset.MaxTrees}}
	for i := range uint32(2 * ruleset.MaxTrees) {
		p.Matches = append(p.Matches, ruleset.Match{Rule: i, Action: ruleset.Accept})
		c.Trees = append(c.Trees, ruleset.Tree{First: i, Ref: ruleset.LeafBit | i})
		c.Entries = append(c.Entries, ruleset.Entry{Port: uint16(10 * i), PortSpan: 9, Match: i | ruleset.Last, Rule: uint32(ruleset.Accept)<<ruleset.ActionShift | i})
	}
	f, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	for port := range uint16(170) {
		for _, names := range [][]uint32{nil, {0}, {1, 0}, {1}, {^uint32(0)}} {
			want := Verdict{ruleset.Reject, uint32(len(p.Rules)), NoRule}
			if named := len(names) > 0 && names[len(names)-1] == 0; port < 80 || named && port < 160 {
				want = Verdict{ruleset.Accept, uint32(port / 10), NoRule}
			}
			if got := f.Decide(&Packet{DstPort: port, Names: names}); got != want {
				t.Fatalf("port %d, names %v: %+v, want %+v", port, names, got, want)
			}
		}
	}
}

// TestLeavesThatEnd: a leaf just behind the entries is empty, as one far behind
// them is, and the last entry of the table ends its leaf whatever it says.
func TestLeavesThatEnd(t *testing.T) {
	for _, c := range []struct {
		ref  uint32
		want ruleset.Action
	}{{ruleset.LeafBit | 2, ruleset.Deny}, {ruleset.LeafBit | 3, ruleset.Deny}, {ruleset.EmptyLeaf, ruleset.Deny}, {ruleset.LeafBit, ruleset.Accept}, {ruleset.LeafBit | 1, ruleset.Deny}} {
		p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}, Rules: make([]ruleset.Rule, 2), Matches: make([]ruleset.Match, 2)}
		p.Classifier = ruleset.Classifier{Roots: []ruleset.Root{{Trees: 1}}, Trees: []ruleset.Tree{{Ref: c.ref}},
			Entries: []ruleset.Entry{{Port: 7, Rule: uint32(ruleset.Accept) << ruleset.ActionShift}, {Port: 9, Match: 1, Rule: uint32(ruleset.Accept)<<ruleset.ActionShift | 1}}}
		f, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Decide(&Packet{DstPort: 7}).Action; got != c.want {
			t.Errorf("%#x: %d", c.ref, got)
		}
		if got := f.Decide(&Packet{DstPort: 8}).Action; got != ruleset.Deny {
			t.Errorf("%#x: %d", c.ref, got)
		}
	}
}
