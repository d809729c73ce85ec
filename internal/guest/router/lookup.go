package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
)

// lookupAll finds the flow of every packet of the batch and handles it. The
// memory that the look-ups need is asked for all of them first, so that the
// batch waits for it once and not each packet for its own.
func (e *Engine) lookupAll(in *port, now int64) {
	b := &e.b
	flows, out, way := e.flows, &e.port[1-in.n], steadyWay(in)
	flows.Prepare(&b.keys)
	n := b.keys.Len()
	for j := e.steady(out, way, 0, now); j < n; j = e.steady(out, way, j+1, now) {
		e.lookup(in, j&(Batch-1), now)
	}
}

// lookup finds the flow of the packet with key j and handles it.
func (e *Engine) lookup(in *port, j int, now int64) {
	b := &e.b
	i := int(b.idx[j]) & (Batch - 1)
	if b.usual[j] {
		packet.ParseUsual(e.pool.Bytes(b.frame[i]), b.keys.Key(j), &b.pk[i])
	}
	if b.pk[i].Class == packet.Error {
		e.icmpError(in, i, now)
		return
	}
	if r := e.flows.LookupBatch(&b.keys, j, now); r != conntrack.None {
		e.forward(in, i, r, now)
		return
	}
	e.decide(in, i, b.keys.Key(j), conntrack.None, now)
}
