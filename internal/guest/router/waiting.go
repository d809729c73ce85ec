package router

import (
	"encoding/binary"
	"math/bits"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Frames that wait for the link-layer address of their next hop. There is room
// for a bounded number on each side, for the sources behind it to share: in a
// full queue the oldest frame of the one that has most waiting gives way.

const (
	queued  = perDatagram // frames kept for one hop that is not the gateway: a datagram waits with all its fragments
	waitMax = 512         // frames kept on one side, if there are four times as many buffers
	holders = 1024        // sources are counted by groups, of a keyed hash
)

// waiting counts the frames that wait on one side.
type waiting struct {
	room int             // how many may
	n    int             // how many do
	by   [holders]uint16 // by holder
}

// holder returns for whom a frame is that is leaving through port p: the host
// that has sent it; of the firewall's own messages, of which each query to an
// upstream has another port, the conversation.
func (e *Engine) holder(p *port, f []byte) uint16 {
	a := uint64(e.source)
	if a == 0 {
		ip := f[packet.EthLen:]
		a = uint64(binary.BigEndian.Uint32(ip[16:]))
		if l4 := int(ip[0]&15) * 4; ip[9] == packet.UDP && len(ip) >= l4+2 {
			a |= uint64(binary.BigEndian.Uint16(ip[l4:])) << 32
		}
	}
	hi, lo := bits.Mul64(a^p.arp.key, p.arp.key|1)
	return uint16((hi ^ lo) % holders)
}

// resolve keeps a frame until the address of its next hop is known, and asks
// for it. n is the hop's entry, or nil.
func (e *Engine) resolve(p *port, n *neighbour, hop packet.Addr, fr framebuf.Frame, now int64) {
	w, h := &p.arp.held, e.holder(p, e.pool.Bytes(fr))
	if n == nil {
		if n = e.claim(p, hop, h, now); n == nil {
			e.dropOut(p, fr, verdict.NeighbourUnresolved)
			return
		}
		n.state, n.tries, n.holder = unresolved, 1, h
		p.arp.asked[h]++
		p.arp.await(n, now)
		e.ask(p, hop, &broadcastMAC)
	}
	if w.n >= w.room && !e.relieveWaiting(p, n, h) || n.n >= queued && hop != p.gateway && !e.relieveQueue(p, n, h) {
		e.dropOut(p, fr, verdict.NeighbourUnresolved)
		return
	}
	e.push(&n.queue, fr)
	e.nodes[fr.Buf].off = h
	w.by[h]++
	w.n++
}

// relieveWaiting drops the oldest frame of the holder that has most waiting, or
// of holder h for the same hop, n, if that is the one. It reports false when it
// has dropped none.
func (e *Engine) relieveWaiting(p *port, n *neighbour, h uint16) bool {
	most := h
	for i, k := range p.arp.held.by {
		if k > p.arp.held.by[most] {
			most = uint16(i)
		}
	}
	if most == h {
		return e.dropWaiting(p, n, h)
	}
	for i := range p.arp.slot {
		if n := &p.arp.slot[i]; n.n > 0 && e.dropWaiting(p, n, most) {
			return true
		}
	}
	return false // not reached: the holder has frames
}

// relieveQueue does the same among the frames for one hop.
func (e *Engine) relieveQueue(p *port, n *neighbour, h uint16) bool {
	by := &p.arp.held.by
	most := h
	fr := n.first
	for range n.n {
		if k := e.nodes[fr.Buf].off % holders; by[k] > by[most] {
			most = k
		}
		fr = e.nodes[fr.Buf].next
	}
	return e.dropWaiting(p, n, most)
}

// dropWaiting drops the first frame of holder h that waits for n, and reports
// whether there is one.
func (e *Engine) dropWaiting(p *port, n *neighbour, h uint16) bool {
	var before framebuf.Frame
	fr := n.first
	for j := range n.n {
		next := e.nodes[fr.Buf].next
		if e.nodes[fr.Buf].off == h {
			switch {
			case j == 0:
				n.first = next
			case j == n.n-1:
				n.last = before
				fallthrough
			default:
				e.nodes[before.Buf].next = next
			}
			n.n--
			p.arp.held.n--
			p.arp.held.by[h%holders]--
			e.dropOut(p, fr, verdict.NeighbourUnresolved)
			return true
		}
		before, fr = fr, next
	}
	return false
}

// takeWaiting takes the first frame that waits for n, which has one.
func (e *Engine) takeWaiting(p *port, n *neighbour) framebuf.Frame {
	fr := e.pop(&n.queue)
	p.arp.held.n--
	p.arp.held.by[e.nodes[fr.Buf].off%holders]--
	return fr
}
