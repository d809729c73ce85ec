package filtertest

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Decider decides about packets.
type Decider interface {
	Decide(*filter.Packet) filter.Verdict
}

// Same fails unless two ways to decide agree about n packets of a policy.
func Same(t testing.TB, r *rand.Rand, p *ruleset.Policy, n int, got, want Decider) {
	t.Helper()
	for range n {
		q := RandomPacket(r, p)
		if g, w := got.Decide(&q), want.Decide(&q); g != w {
			t.Fatalf("%d matches, packet %+v: classifier %+v, linear scan %+v", len(p.Matches), q, g, w)
		}
	}
}

// Holds reports whether a packet matches, by comparing byte by byte.
func Holds(m *ruleset.Match, q *filter.Packet) bool {
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
