package neigh

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// claim returns a slot for an address that has none and is to be asked for, for
// a group of holders; or nil if all entries there have more right to theirs. In
// a full run gives way, in this order: what is stale; of unresolved addresses
// one of the holder that has most, and no less than this one; what was only
// learned from a request; what expires first. The gateway never does. What was
// evicted leaves the frames that waited for it.
func (c *Cache) claim(a packet.Addr, holder uint16, now int64) (n *Neighbour, evicted bool, drop framebuf.Queue) {
	mine := int(c.asked[holder])
	if mine > 0 && mine >= MaxEntries-c.entries {
		return nil, false, framebuf.Queue{} // it takes no more than it leaves
	}
	best, rank := (*Neighbour)(nil), 0
	b := c.base(a)
	for i := range uint32(window) {
		n := &c.slot[(b+i)%MaxEntries]
		r := 0
		switch {
		case n.State == free:
			return c.place(n, a), false, framebuf.Queue{}
		case n.Addr == c.gateway:
			continue
		case n.Stale(now):
			r = 3 + MaxEntries
		case n.State == Incomplete:
			if asked := int(c.asked[n.holder]); asked >= mine {
				r = 2 + asked
			}
		case mine > fewAsked:
		case n.Learned:
			r = 2
		default:
			r = 1
		}
		if r > rank || r == rank && r > 0 && n.Expires < best.Expires {
			best, rank = n, r
		}
	}
	if best == nil {
		return nil, false, framebuf.Queue{}
	}
	drop = c.forget(best)
	return c.place(best, a), true, drop
}

// claimLearned returns a slot for an address that nobody has asked for, or nil.
// It displaces nothing that is alive: who could do that with requests would have
// the firewall forget a neighbour, and be asked for it next.
func (c *Cache) claimLearned(a packet.Addr, now int64) (n *Neighbour, evicted bool) {
	b := c.base(a)
	for i := range uint32(window) {
		n := &c.slot[(b+i)%MaxEntries]
		if n.State == free {
			return c.place(n, a), false
		}
		if n.Addr != c.gateway && n.Stale(now) {
			c.forget(n) // no frames wait for what is known
			return c.place(n, a), true
		}
	}
	return nil, false
}

// place takes a free slot for an address.
func (c *Cache) place(n *Neighbour, a packet.Addr) *Neighbour {
	c.entries++
	*n = Neighbour{Addr: a}
	return n
}

// forget frees a slot and returns the frames that waited there.
func (c *Cache) forget(n *Neighbour) framebuf.Queue {
	q := c.release(n)
	c.settle(n)
	c.Paid(n, n.owed)
	c.entries--
	*n = Neighbour{}
	return q
}

// ForgetKnown forgets all neighbours whose addresses are known, as after a move to another
// link, where other stations may have their addresses. Those that are asked for stay, with
// the frames that wait for them.
func (c *Cache) ForgetKnown() {
	for i := range c.slot {
		if n := &c.slot[i]; n.State == Reachable || n.State == Probe {
			c.forget(n) // no frames wait for what is known
		}
	}
}
