package sni

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// TestHeldSegments compares what is held of a first message with a model that
// marks each byte: what a segment is to it, the order, and what is there without
// a gap. Numbers of sequence wrap within it.
func TestHeldSegments(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const size = 40
	var h Message
	n := map[coverage]int{}
	for range 20_000 {
		h.first, h.n, h.len = -uint32(r.IntN(2*size)), 0, 0
		var there [size]bool
		for range MaxSegments {
			at := r.IntN(size) - 3
			data := make([]byte, 1+r.IntN(min(12, size-max(at, 0))))
			for i := range data {
				data[i] = byte(at + i) // as all of the message is
				if r.IntN(40) == 0 {
					data[i] ^= 0x80
				}
			}
			want := known
			for i, b := range data {
				switch {
				case at < 0:
				case there[at+i] && b != h.data[at+i]:
					want = contradicts
				case !there[at+i] && want == known:
					want = fresh
				}
			}
			got := h.covers(uint32(at), data)
			if n[got]++; got != want {
				t.Fatalf("at %d, %v: %d, want %d; there is %v", at, data, got, want, there)
			}
			if got != fresh {
				continue
			}
			h.insert(&Segment{Frame: framebuf.Frame{Buf: uint32(at)}, Packet: packet.Packet{Seq: h.first + uint32(at), Payload: uint16(len(data))}})
			copy(h.data[at:], data)
			for i := range data {
				there[at+i] = true
			}
			h.grow()
			gap := 0
			for gap < size && there[gap] {
				gap++
			}
			if h.len != gap {
				t.Fatalf("%d bytes without a gap, want %d: %v", h.len, gap, there)
			}
			for k := range h.n {
				if h.held[k].Frame.Buf != h.begin(k) || k > 0 && h.begin(k-1) > h.begin(k) {
					t.Fatalf("segment %d of %d begins at %d", k, h.n, h.begin(k))
				}
			}
		}
	}
	for _, c := range []coverage{fresh, known, contradicts} {
		if n[c] < 1000 {
			t.Errorf("%d segments are %d", n[c], c)
		}
	}
}
