package neigh

import (
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// TestRoomToWait: a quarter of the buffers may wait on one link, or 512; all of
// that for the gateway, and 64 for another hop. Long buffers, which have several numbers
// each, count as one.
func TestRoomToWait(t *testing.T) {
	mem := make([]byte, 4096*framebuf.Size)
	for buffers, room := range map[int]int{4: 1, 236: 59, 256: 64, 264: 66, 2044: 511, 2048: 512, 2052: 512, 4096: 512} {
		for hop, want := range map[int]int{0: room, 1: min(room, MaxPerHop)} {
			span := 1
			if buffers == 264 {
				span = 5
			}
			p := framebuf.NewPoolOf(mem[:buffers*span*framebuf.Size], 0, span)
			c := New(1, gateway, framebuf.NewLinks(p), p.Cap())
			for i := range want + 3 {
				r := c.Resolve(gateway+packet.Addr(hop), framebuf.Frame{Buf: uint32(i), Len: 60}, 5, 1)
				if full := i >= want; r.Drop.Len() != 0 != full || full && r.Drop.First().Buf != uint32(i-want) || r.Request != (i == 0) {
					t.Fatalf("%d buffers, hop %d, frame %d: %+v", buffers, hop, i, r)
				}
			}
			if c.Waiting() != want {
				t.Errorf("%d buffers, hop %d: %d wait", buffers, hop, c.Waiting())
			}
		}
	}
}

// TestFullQueues: who gives way when the room or a hop's queue is full: the oldest
// frame, of the group that has most waiting; of a group that has as many as that
// of the new frame none does.
func TestFullQueues(t *testing.T) {
	const hop, other = gateway + 1, gateway + 2
	type sent struct {
		hop    packet.Addr
		holder uint64
		n      int
	}
	for _, c := range []struct {
		name    string
		room    int
		before  []sent // in order; frames are numbered from 1
		hop     packet.Addr
		holder  uint64
		dropped int // number of the frame that gives way
	}{
		{"a hop's, of one holder", 100, []sent{{hop, 1, 64}}, hop, 1, 1},
		{"a hop's, of another holder", 100, []sent{{hop, 1, 64}}, hop, 2, 1},
		{"a hop's, of the one that has most", 100, []sent{{hop, 1, 20}, {hop, 2, 24}, {hop, 1, 20}}, hop, 3, 1},
		{"a hop's, of the one that has most, which came later", 100, []sent{{hop, 2, 20}, {hop, 1, 44}}, hop, 3, 21},
		{"a hop's, of the new frame's, which has most", 100, []sent{{hop, 2, 20}, {hop, 1, 44}}, hop, 1, 21},
		{"a hop's, of the new frame's, which has as many", 100, []sent{{hop, 2, 32}, {hop, 1, 32}}, hop, 1, 33},
		{"a hop's, of the first that has as many", 100, []sent{{hop, 2, 32}, {hop, 1, 32}}, hop, 3, 1},
		{"a hop's, of the one that has most on the link", 100, []sent{{other, 1, 30}, {hop, 2, 44}, {hop, 1, 20}}, hop, 3, 75},
		{"a hop's, new, of one that has most elsewhere", 100, []sent{{other, 3, 34}, {hop, 2, 33}, {hop, 1, 31}}, hop, 3, 99},
		{"the gateway's is not", 100, []sent{{gateway, 1, 64}}, gateway, 1, 0},
		{"the room, of one holder", 10, []sent{{hop, 1, 10}}, hop, 1, 1},
		{"the room, of another", 10, []sent{{hop, 1, 10}}, other, 2, 1},
		{"the room, of the one that has most", 10, []sent{{hop, 1, 3}, {other, 2, 7}}, hop, 1, 4},
		{"the room, of the new frame's, for the same hop", 10, []sent{{other, 1, 1}, {hop, 1, 5}, {hop, 2, 4}}, hop, 1, 2},
		{"the room, of the new frame's, with none for this hop", 10, []sent{{hop, 1, 6}, {other, 2, 4}}, other, 1, 11},
		{"the room is not full", 10, []sent{{hop, 1, 9}}, hop, 1, 0},
	} {
		b, id := newBench(t, 0x9e3779b97f4a7c15, 4*c.room), 0
		send := func(hop packet.Addr, holder uint64) []int {
			id++
			r := b.Resolve(hop, b.frame(id), holder, 1)
			return b.taken(r.Drop)
		}
		for _, s := range c.before {
			for range s.n {
				if got := send(s.hop, s.holder); got != nil {
					t.Fatalf("%s: frame %d: %v dropped", c.name, id, got)
				}
			}
		}
		var want []int
		if c.dropped != 0 {
			want = []int{c.dropped}
		}
		if got := send(c.hop, c.holder); !slices.Equal(got, want) {
			t.Errorf("%s: %v dropped, want %v", c.name, got, want)
		}
		b.check()
	}
}

// TestNoPlace: the frame is dropped when each entry that would have to give way has
// more right to its place; otherwise the frames that wait there are.
func TestNoPlace(t *testing.T) {
	const a = packet.Addr(500)
	for _, theirs := range []int{1, 30} {
		b := newBench(t, 7, 400)
		for i := range window { // each slot is somebody's, for whom a frame waits
			n := b.place(b.run(a)[i], b.neighbourOf(a, i))
			n.State, n.Expires = Incomplete, 100+int64(i)
			b.links.Push(&n.queue, b.frame(10+i), 0)
		}
		b.by[0], b.waiting, b.pending = window, window, window
		b.asked[0] = uint16(theirs)
		b.asked[b.group(3)] = 10
		r := b.Resolve(a, b.frame(99), 3, 50)
		got := b.taken(r.Drop)
		if theirs < 10 && (!slices.Equal(got, []int{99}) || r.Request || r.Evicted || b.Find(a) != nil) {
			t.Errorf("of %d: %+v, %v dropped", theirs, r, got)
		}
		if theirs >= 10 && (!slices.Equal(got, []int{10}) || !r.Request || !r.Evicted || b.Find(a) == nil || b.Find(a).Waiting() != 1) {
			t.Errorf("of %d: %+v, %v dropped", theirs, r, got)
		}
	}
}
