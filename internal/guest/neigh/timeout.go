package neigh

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A Timeout is what is to be done about a neighbour that has not answered in
// time.
type Timeout struct {
	Addr    packet.Addr
	Request bool           // it is to be asked for again, of all on the link; otherwise it has been given up
	Drop    framebuf.Queue // frames that waited for it in vain
}

// Timeout returns the next neighbour whose answer is overdue. It is called until
// it reports false.
func (c *Cache) Timeout(now int64) (t Timeout, ok bool) {
	if c.hand == 0 {
		if now < c.Due() {
			return Timeout{}, false
		}
		c.next = now + RequestEvery
	}
	for c.hand < MaxEntries {
		n := &c.slot[c.hand]
		c.hand++
		if n.State != Incomplete && n.State != Probe {
			continue
		}
		if now < n.Expires {
			c.next = min(c.next, n.Expires)
			continue
		}
		t.Addr = n.Addr
		if n.tries >= MaxRequests {
			t.Drop = c.forget(n)
			return t, true
		}
		n.tries++
		n.Expires = now + RequestEvery
		t.Request = true
		return t, true
	}
	c.hand = 0
	return Timeout{}, false
}
