package router

import (
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Neighbours of several workers. ARP is worker 0's: it asks and answers, learns, refuses and
// reports. The others ask it, and it tells them. A word for which there is no room is due, and is
// said when there is, so that no frame waits for another request.

// askFor asks worker 0 for a neighbour.
func (e *Engine) askFor(p *port, a packet.Addr) {
	if n := p.neigh.Find(a); n != nil && !e.sayAsk(p, n) {
		p.neigh.Owe(n, 1)
	}
}

func (e *Engine) sayAsk(p *port, n *neigh.Neighbour) bool {
	return e.handOver(0, &handover.Item{Kind: handover.Ask, Port: uint8(p.n), Addr: n.Addr, Flow: uint32(n.Holder())})
}

// tellLost tells all other workers that a neighbour does not answer any more. Who does not hear
// it finds out when it asks.
func (e *Engine) tellLost(p *port, a packet.Addr) {
	for to := range e.w.out {
		if to != e.w.k {
			e.handOver(to, &handover.Item{Kind: handover.Lost, Port: uint8(p.n), Addr: a})
		}
	}
}

// tellLearned tells all other workers what has been learned from an address, if anything is known.
func (e *Engine) tellLearned(p *port, a packet.Addr) {
	if n := p.neigh.Find(a); n != nil && n.State == neigh.Reachable {
		for to := range e.w.out {
			if to != e.w.k {
				e.tell(to, p, n)
			}
		}
	}
}

// tell tells a worker about a neighbour that is known.
func (e *Engine) tell(to int, p *port, n *neigh.Neighbour) {
	if e.sayKnown(to, p, n) {
		p.neigh.Paid(n, 1<<to)
	} else {
		p.neigh.Owe(n, 1<<to)
	}
}

func (e *Engine) sayKnown(to int, p *port, n *neigh.Neighbour) bool {
	return e.handOver(to, &handover.Item{Kind: handover.Neighbour, Port: uint8(p.n), Addr: n.Addr, MAC: n.MAC, At: n.Expires})
}

// wordsTick says what is due, as far as there is room.
func (e *Engine) wordsTick(p *port) {
	for n, due := p.neigh.Owed(); n != nil; n, due = p.neigh.Owed() {
		said := uint8(0)
		for to := range e.w.out {
			switch bit := uint8(1) << to; {
			case due&bit == 0:
			case e.w.k != 0:
				if n.State == neigh.Reachable || e.sayAsk(p, n) { // it has been told meanwhile
					said |= bit
				}
			case n.State == neigh.Incomplete || e.sayKnown(to, p, n): // it is told when it is learned
				said |= bit
			}
		}
		if p.neigh.Paid(n, said); said != due {
			return
		}
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

// asked answers a worker that asks for a neighbour, or has the neighbour asked. One that is asked
// whether it is still there is used meanwhile, by all workers.
func (e *Engine) asked(from int, p *port, x *handover.Item, now int64) {
	n, probe := p.neigh.Use(x.Addr, now)
	if n != nil {
		if probe {
			e.ask(p, x.Addr, &n.MAC)
		}
		e.tell(from, p, n)
		return
	}
	r := p.neigh.Want(x.Addr, uint16(x.Flow), now)
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
