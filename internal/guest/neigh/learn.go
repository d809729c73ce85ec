package neigh

import (
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Addresses are learned only from answers to our own questions and from those
// who ask us, and nobody can move a known address to another link-layer address.

// Conflict returns the entry of a neighbour whom a message contradicts that says
// that mac is its link-layer address, or nil. The message must not be believed;
// with probe the known neighbour is to be asked, itself, whether it is still
// there.
func (c *Cache) Conflict(a packet.Addr, mac [6]byte, now int64) (n *Neighbour, probe bool) {
	n = c.Find(a)
	if n == nil || !c.disputes(n, mac, now) {
		return nil, false
	}
	if n.State == Reachable {
		c.probe(n, now)
		return n, true
	}
	return n, false
}

// disputes reports whether another link-layer address contradicts what is known
// of n. What is stale may change, but for the gateway.
func (c *Cache) disputes(n *Neighbour, mac [6]byte, now int64) bool {
	if n.State == Incomplete || n.MAC == mac {
		return false
	}
	return n.State == Probe || now < n.Expires || n.Addr == c.gateway
}

// A Learned is what is to be done when an address has become known.
type Learned struct {
	Send    framebuf.Queue // frames that waited for it, in order
	Evicted bool           // another neighbour was forgotten
}

// Expect notes that the gateway was asked for although no frame waits for it: its answer is
// believed if it comes within RequestEvery. A frame that comes meanwhile asks for it anew.
func (c *Cache) Expect(now int64) { c.expects = now + RequestEvery }

// Learn notes that a, with the link-layer address mac, has asked us or, with
// answer, has answered us. Conflict has found nothing against it. An answer that
// nobody asked for is ignored.
func (c *Cache) Learn(a packet.Addr, mac [6]byte, answer bool, now int64) (l Learned) {
	n := c.Find(a)
	asked := n != nil && n.State != Reachable
	expected := n == nil && a == c.gateway && now < c.expects
	if answer && !asked && !expected {
		return Learned{}
	}
	if !answer && a == c.gateway && (n == nil || n.State == Incomplete) {
		// Whoever asks first in the gateway's name would be the gateway from
		// then on. Its address is only learned from answers to our questions.
		return Learned{}
	}
	if n == nil {
		if n, l.Evicted = c.claimLearned(a, now); n == nil {
			return Learned{}
		}
		n.Learned = !answer
	}
	if asked {
		n.Learned = !answer
	}
	c.settle(n)
	n.MAC, n.State, n.tries, n.Expires = mac, Reachable, 0, now+Lifetime
	l.Send = c.release(n)
	return l
}
