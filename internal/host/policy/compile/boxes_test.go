package compile

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/host/policy/linear"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestShortPrefixes: prefixes of every length, each with the addresses on either
// side of its two ends, as source and as destination.
func TestShortPrefixes(t *testing.T) {
	for length := range 33 {
		for _, v := range []uint32{0x0a0b0c0d, 0xffffffff, 0, 0x80000000} {
			for dst := range 2 {
				m := ruleset.Match{PortHi: 65535, Action: ruleset.Accept}
				if dst == 1 {
					m.Dst, m.DstMask = filtertest.Prefix(v, length)
				} else {
					m.Src, m.SrcMask = filtertest.Prefix(v, length)
				}
				p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}, Matches: []ruleset.Match{m}, Rules: []ruleset.Rule{{Action: ruleset.Accept}}}
				if err := Classifier(p); err != nil {
					t.Fatal(err)
				}
				c, err := filter.New(p)
				if err != nil {
					t.Fatal(err)
				}
				size := uint64(1) << (32 - length)
				lo := uint64(v) / size * size
				for _, a := range []uint64{lo, lo + size - 1, lo - 1, lo + size, 0, 1<<32 - 1} {
					q := filter.Packet{Src: packet.Addr(a), Dst: packet.Addr(a), Proto: packet.TCP, Direction: verdict.Egress, State: ruleset.StateNew}
					want := ruleset.Deny
					if x := uint64(uint32(a)); lo <= x && x < lo+size {
						want = ruleset.Accept
					}
					if got, lin := c.Decide(&q).Action, linear.New(p).Decide(&q).Action; got != want || lin != want {
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
		m := filtertest.RandomMatch(r, 0)
		m.Proto = []uint8{0, 1, 6, 17, 47, 255, 2}[r.IntN(7)]
		p := &ruleset.Policy{Matches: []ruleset.Match{{}, {}, m}, Rules: make([]ruleset.Rule, 8)}
		p.Matches[2].Rule, p.Matches[2].Action = 5, ruleset.Reject
		var x box
		ok := x.set(p, 2)
		q := filtertest.PacketFor(r, &m)
		if ok != filtertest.Holds(&m, &q) {
			t.Fatalf("%+v: can match %v", m, ok)
		}
		if !ok {
			continue
		}
		if x.entry.Match != 2 || x.entry.Rule != 5|3<<24 || x.Lo[2] != uint32(m.PortLo) || x.Hi[2] != uint32(m.PortHi) {
			t.Fatalf("%+v: %+v", m, x)
		}
		exact := true
		for f, mask := range []ruleset.Addr{m.SrcMask, m.DstMask} {
			v, k := []uint32{x.entry.Src, x.entry.Dst}[f], uint32(packet.Mask(mask))
			if x.Lo[f] != v || x.Hi[f] != v+^k {
				t.Fatalf("%+v: field %d from %#x to %#x", m, f, x.Lo[f], x.Hi[f])
			}
			for n := range 33 { // a prefix's mask is one of these
				if k == uint32(0xffffffff<<n&0xffffffff) {
					break
				} else if n == 32 {
					exact = false
				}
			}
		}
		var some, all packetset.Kinds
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
				does := filtertest.Holds(&m, &q)
				if does {
					n++
				}
				if got := ruleset.KindField(q.Proto, q.Direction, q.State); got != uint32(kd) {
					t.Fatalf("kind %d of %+v, want %d", got, q, kd)
				}
				if x.entry.Matches(&ruleset.Key{uint32(q.Src), uint32(q.Dst), uint32(q.DstPort)}, ruleset.EntryKind(q.Proto, q.Direction, q.State)) != does {
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
		if x.Kinds != some || x.exact != all {
			t.Fatalf("%+v: kinds %016b, entirely %016b, want %016b and %016b", m, x.Kinds, x.exact, some, all)
		}
	}
}

// TestHardPolicies: policies made to defeat decision trees stay correct, and
// memory stays within bounds.
func TestHardPolicies(t *testing.T) {
	const n = 5000
	for name, p := range filtertest.Hard(n) {
		same(t, rand.New(rand.NewPCG(1, 1)), p, 3000)
		if got, most := p.Classifier.Bytes(), 1<<20+n*3*growth*32; got > most {
			t.Errorf("%s: %d bytes of tables, want at most %d", name, got, most)
		} else {
			t.Logf("%s: %d KiB, longest leaf %d", name, got/1024, p.Classifier.Longest())
		}
	}
}

// same fails unless the classifier decides about n packets as the linear scan
// does.
func same(t testing.TB, r *rand.Rand, p *ruleset.Policy, n int) {
	t.Helper()
	if err := Classifier(p); err != nil {
		t.Fatal(err)
	}
	c, err := filter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	filtertest.Same(t, r, p, n, c, linear.New(p))
}
