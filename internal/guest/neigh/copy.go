package neigh

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Where several workers send on one link, one of them asks for neighbours and learns. The
// caches of the others are copies: frames wait there too, and requests are messages to that
// worker, which tells all what it has learned.

// Limit bounds the frames that wait, where a worker has a part of the buffers.
func (c *Cache) Limit(frames int) { c.room = min(c.room, max(frames, 1)) }

// Want notes that another worker has frames for a neighbour that is not known here either.
func (c *Cache) Want(hop packet.Addr, holder uint64, now int64) (r Resolution) {
	h := c.group(holder)
	n := c.Find(hop)
	if n != nil {
		return r
	}
	if n, r.Evicted, r.Drop = c.claim(hop, h, now); n == nil {
		return r
	}
	n.State, n.tries, n.holder = Incomplete, 1, h
	c.asked[h]++
	c.await(n, now)
	r.Request = true
	return r
}

// Told notes what the worker that learns has told: the link-layer address of a neighbour,
// until the time expires. It returns the frames that waited for it. A neighbour for which
// there is no entry is not noted.
func (c *Cache) Told(a packet.Addr, mac [6]byte, expires int64) (send framebuf.Queue) {
	n := c.Find(a)
	if n == nil {
		return send
	}
	c.settle(n)
	n.MAC, n.State, n.tries, n.Expires, n.Learned = mac, Reachable, 0, expires, false
	return c.release(n)
}

// ToldLost notes that a neighbour that was known does not answer any more.
func (c *Cache) ToldLost(a packet.Addr) {
	if n := c.Find(a); n != nil && n.State != Incomplete {
		c.forget(n) // no frames wait for what is known
	}
}
