package router

import (
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Neighbours of several workers. ARP is worker 0's: it asks and answers, learns, refuses and
// reports. The others ask it, and it tells them. A message for which there is no room is
// lost, like a request on a link: who waits for it asks again.

// askFor asks worker 0 for a neighbour.
func (e *Engine) askFor(p *port, a packet.Addr) {
	e.handOver(0, &handover.Item{Kind: handover.Ask, Port: uint8(p.n), Addr: a, Flow: uint32(e.source)})
}

// tell tells all other workers about a neighbour.
func (e *Engine) tell(kind handover.Kind, p *port, n *neigh.Neighbour) {
	for to := range e.w.out {
		if to != e.w.k {
			e.handOver(to, &handover.Item{Kind: kind, Port: uint8(p.n), Addr: n.Addr, MAC: n.MAC, At: n.Expires})
		}
	}
}

// tellLearned tells them what has been learned from an address, if anything is known.
func (e *Engine) tellLearned(p *port, a packet.Addr) {
	if n := p.neigh.Find(a); n != nil && n.State == neigh.Reachable {
		e.tell(handover.Neighbour, p, n)
	}
}

// takeWord handles what another worker says.
func (e *Engine) takeWord(from int, x *handover.Item, now int64) {
	p := &e.port[x.Port]
	switch x.Kind {
	case handover.Ask:
		e.asked(from, p, x, now)
	case handover.Neighbour:
		q := p.neigh.Told(x.Addr, x.MAC, x.At)
		for q.Len() > 0 {
			fr := e.links.Pop(&q)
			packet.PutEth(e.pool.Bytes(fr), &x.MAC, &p.mac, packet.TypeIPv4)
			e.enqueue(p, fr)
		}
	case handover.Lost:
		p.neigh.ToldLost(x.Addr)
	}
}

// asked answers a worker that asks for a neighbour, or has the neighbour asked.
func (e *Engine) asked(from int, p *port, x *handover.Item, now int64) {
	n, probe := p.neigh.Use(x.Addr, now)
	switch {
	case probe:
		e.ask(p, x.Addr, &n.MAC)
	case n != nil && n.State == neigh.Reachable:
		e.handOver(from, &handover.Item{Kind: handover.Neighbour, Port: x.Port, Addr: x.Addr, MAC: n.MAC, At: n.Expires})
	case n == nil:
		r := p.neigh.Want(x.Addr, uint64(x.Flow), now)
		if r.Evicted {
			e.c.NeighbourEvictions[p.n]++
		}
		for r.Drop.Len() > 0 {
			e.dropOut(p, e.links.Pop(&r.Drop), verdict.NeighbourUnresolved)
		}
		if r.Request {
			e.ask(p, x.Addr, &broadcastMAC)
		}
	}
}
