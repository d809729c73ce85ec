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

// TestAddReturns: each outcome of a segment of a message that has not gone on.
func TestAddReturns(t *testing.T) {
	tab := New()
	m := tab.Open(0, 1, 1000, 0)
	segment := func(at uint32, data string) Action {
		return m.Add(&Segment{Packet: packet.Packet{Seq: 1000 + at, Payload: uint16(len(data))}}, []byte(data))
	}
	for _, c := range []struct {
		at   uint32
		data string
		want Action
	}{
		{0, "abc", Hold}, {0, "abc", Repeat}, {1, "b", Repeat}, {2, "cde", Hold}, {1, "x", Refuse}, {^uint32(0), "a", Repeat},
		{9, "jkl", Hold}, {5, "fgh", Hold}, {20, "u", Hold}, {30, "v", Hold}, {40, "w", Repeat}, {8, "i", Refuse}, // seven
	} {
		if got := segment(c.at, c.data); got != c.want {
			t.Errorf("%q at %d: %d, want %d", c.data, int32(c.at), got, c.want)
		}
	}
	if len(m.Held()) != MaxSegments || m.End() != 1008 {
		t.Errorf("%d held, to %d", len(m.Held()), m.End())
	}
}

// TestFollows: what a client may send when its message has gone on: the same bytes; behind
// them nothing before the server has answered, but early data.
func TestFollows(t *testing.T) {
	for _, early := range []bool{false, true} {
		m := Message{first: 1000, len: 4, early: early}
		copy(m.data[:], "abcd")
		for _, c := range []struct {
			seq     uint32
			data    string
			arrived bool
			want    Action
		}{
			{1000, "abcd", false, Pass}, {1001, "bc", false, Pass}, {1001, "bx", false, Refuse}, {999, "a", false, Repeat}, {999, "a", true, Repeat},
			{1003, "de", false, map[bool]Action{true: Pass, false: Repeat}[early]}, {1003, "xe", false, Refuse},
			{1004, "e", false, map[bool]Action{true: Pass, false: Repeat}[early]}, {1005, "f", false, map[bool]Action{true: Pass, false: Repeat}[early]},
			{1005, "f", true, map[bool]Action{true: Pass, false: Repeat}[early]},
		} {
			n := m
			if got := n.Follows(c.seq, []byte(c.data), c.arrived); got != c.want {
				t.Errorf("early %v: %q at %d, arrived %v: %d, want %d", early, c.data, c.seq, c.arrived, got, c.want)
			}
		}
	}
}
