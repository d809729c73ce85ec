package neigh

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Frames wait for the link-layer address of their next hop, all that there is
// room for, not only the latest (RFC 1122 section 2.3.2.2). The holders, those
// for whom frames wait, share that room: when it is full the oldest frame of the
// one that has most waiting gives way.

// A Resolution is what is to be done when a frame waits for its next hop.
type Resolution struct {
	Drop    framebuf.Queue // frames that give way, the new one perhaps among them
	Request bool           // the address is to be asked for, of all on the link
	Evicted bool           // another neighbour was forgotten
}

// Resolve keeps a frame until the address of its next hop is known, which Use
// has not found. The holder is a number for the host or conversation that the
// frame belongs to.
func (c *Cache) Resolve(hop packet.Addr, f framebuf.Frame, holder uint64, now int64) (r Resolution) {
	h, n := c.group(holder), c.Find(hop)
	if n == nil {
		if n, r.Evicted, r.Drop = c.claim(hop, h, now); n == nil {
			c.links.Push(&r.Drop, f, 0)
			return r
		}
		n.State, n.tries, n.holder = Incomplete, 1, h
		c.asked[h]++
		c.await(n, now)
		r.Request = true
	}
	if c.waiting >= c.room && !c.relieve(&r.Drop, n, h) || n.queue.Len() >= MaxPerHop && hop != c.gateway && !c.relieveHop(&r.Drop, n, h) {
		c.links.Push(&r.Drop, f, 0)
		return r
	}
	c.links.Push(&n.queue, f, uint32(h))
	c.by[h]++
	c.waiting++
	return r
}

// relieve moves the oldest frame of the group of holders that has most waiting,
// or of group h for the same hop, n, if that is the one, to drop. It reports
// false when it has moved none.
func (c *Cache) relieve(drop *framebuf.Queue, n *Neighbour, h uint16) bool {
	most := h
	for i, k := range c.by {
		if k > c.by[most] {
			most = uint16(i)
		}
	}
	if most == h {
		return c.move(drop, n, h)
	}
	for i := range c.slot {
		if n := &c.slot[i]; n.queue.Len() > 0 && c.move(drop, n, most) {
			return true
		}
	}
	return false // not reached: the holder has frames
}

// relieveHop does the same among the frames for one hop.
func (c *Cache) relieveHop(drop *framebuf.Queue, n *Neighbour, h uint16) bool {
	most := h
	f := n.queue.First()
	for range n.queue.Len() {
		if k := uint16(c.links.Tag(f)); c.by[k] > c.by[most] {
			most = k
		}
		f = c.links.Next(f)
	}
	return c.move(drop, n, most)
}

// move moves the first frame of group h that waits for n to drop, and reports
// whether there is one.
func (c *Cache) move(drop *framebuf.Queue, n *Neighbour, h uint16) bool {
	f := n.queue.First()
	for i := range n.queue.Len() {
		if c.links.Tag(f) == uint32(h) {
			c.links.Push(drop, c.links.Remove(&n.queue, i), 0)
			c.by[h]--
			c.waiting--
			return true
		}
		f = c.links.Next(f)
	}
	return false
}

// release takes all frames that wait for n.
func (c *Cache) release(n *Neighbour) framebuf.Queue {
	q := n.queue
	f := q.First()
	for range q.Len() {
		c.by[c.links.Tag(f)]--
		f = c.links.Next(f)
	}
	c.waiting -= q.Len()
	n.queue = framebuf.Queue{}
	return q
}
