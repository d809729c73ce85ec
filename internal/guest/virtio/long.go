package virtio

import "github.com/thurward/thurward/internal/guest/framebuf"

// While large frames come, the receive queue has long buffers in place of ordinary ones
// (framebuf.LongSize): the device then takes one descriptor for each frame, and does not wait
// for new ones after seven. With other traffic it has none, since a small frame is copied out
// of one.

const (
	manyLong = 16 // how many the receive queue has
	fewLong  = manyLong / 2
	// One large frame in nine keeps long buffers posted: each gives credit for creditLarge
	// ordinary ones, of which there is no more than creditMost.
	creditLarge = 8
	creditMost  = 64
)

// longs are the long buffers of a receive queue.
type longs struct {
	credit int // how many ordinary frames may come until no more are posted
	posted int // how many the device has
}

// saw takes note of the frames of a batch, of which some are large.
func (l *longs) saw(large, all int) {
	l.credit = max(min(l.credit+large*creditLarge, creditMost)-(all-large), 0)
}

// refillLong posts long buffers.
func (n *Net) refillLong() {
	for q := n.rx; n.long.posted < manyLong && q.room() > 0; n.long.posted++ {
		b, ok := n.pool.GetLong()
		if !ok {
			return
		}
		q.post(n.pool.Bus(b)+framebuf.Headroom-netHeader, framebuf.LongSize-(framebuf.Headroom-netHeader), descWrite, b)
	}
}

// shorten copies an ordinary frame out of a long buffer, and returns it and its length,
// which is 0 where there is no other buffer.
func (n *Net) shorten(f framebuf.Frame) (short framebuf.Frame, total uint32) {
	if b, ok := n.pool.Get(); ok {
		short = framebuf.Frame{Buf: b, Len: f.Len}
		copy(n.pool.Bytes(short), n.pool.Whole(f.Buf)[framebuf.Headroom:])
	} else {
		n.c.RxNoBuffer++
	}
	n.pool.Put(f.Buf)
	return short, short.Len
}
