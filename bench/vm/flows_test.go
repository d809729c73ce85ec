package main

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestFrames: every frame that the generator makes is valid, flows are
// distinct, and an answer belongs to its question.
func TestFrames(t *testing.T) {
	const flows = 3 * endpoints
	for _, size := range []int{60, 590, 1514, 0} {
		s := newStream(flows, size, false, [6]byte{2, 1}, [6]byte{2, 2})
		seen := map[[2]uint64]bool{}
		var b [2048]byte
		for i := range flows {
			f := b[:s.fill(b[:])]
			var p packet.Packet
			if _, why := packet.ParseIPv4(f, &p); why != 0 || !isUDP(f) {
				t.Fatalf("size %d, frame %d: %v", size, i, why)
			}
			k := [2]uint64{uint64(p.Src)<<32 | uint64(p.Dst), uint64(p.SrcPort)}
			if seen[k] {
				t.Fatalf("size %d: frame %d repeats a flow", size, i)
			}
			seen[k] = true
			var q packet.Packet
			if _, why := packet.ParseIPv4(answer(f), &q); why != 0 || q.Src != p.Dst || q.Dst != p.Src || q.SrcPort != p.DstPort || q.DstPort != p.SrcPort {
				t.Fatalf("answer %+v to %+v", q, p)
			}
		}
	}
}
