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

// Holder returns the group of holders for which n was asked for, which is the same one in the
// caches of all workers: they have one key.
func (n *Neighbour) Holder() uint16 { return n.holder }

// Want notes that another worker has frames for a neighbour that is not known here either, and
// for which group of holders.
func (c *Cache) Want(hop packet.Addr, h uint16, now int64) (r Resolution) {
	n := c.Find(hop)
	if n != nil || h >= holders {
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

// Fresh reports whether a is known by mac, and has been since less than RequestEvery, so that to
// learn it again changes nothing.
func (c *Cache) Fresh(a packet.Addr, mac [6]byte, now int64) bool {
	n := c.Find(a)
	return n != nil && n.State == Reachable && n.MAC == mac && now+Lifetime-n.Expires < RequestEvery
}

// Owe notes that a word about n is due to some workers, which could not be said.
func (c *Cache) Owe(n *Neighbour, to uint8) {
	if n.owed == 0 && to != 0 {
		c.owing++
	}
	n.owed |= to
}

// Owing reports whether words are due.
func (c *Cache) Owing() bool { return c.owing > 0 }

// Owed returns the next neighbour about which words are due, and to whom, or nil.
func (c *Cache) Owed() (n *Neighbour, to uint8) {
	if c.owing == 0 {
		return nil, 0
	}
	for range MaxEntries {
		c.teller = (c.teller + 1) % MaxEntries
		if n := &c.slot[c.teller]; n.owed != 0 {
			return n, n.owed
		}
	}
	return nil, 0 // not reached
}

// Paid notes that words about n have been said to some workers.
func (c *Cache) Paid(n *Neighbour, to uint8) {
	if n.owed != 0 && n.owed&^to == 0 {
		c.owing--
	}
	n.owed &^= to
}
