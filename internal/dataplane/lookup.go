package dataplane

import (
	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/packet"
)

// lookupAll finds the flow of every packet of the batch and handles it. The
// memory that the look-ups need is asked for all of them first, so that the
// batch waits for it once and not each packet for its own.
func (e *Engine) lookupAll(in *port, now int64) {
	b := &e.b
	flows, out, way := e.flows, &e.port[1-in.n], steadyWay(in)
	flows.Prepare(&b.keys)
	for j := range b.keys.Len() {
		j &= Batch - 1
		i := int(b.idx[j]) & (Batch - 1)
		if b.usual[j] {
			if d, r := flows.LookupSteady(&b.keys, j, way, now); d != nil && !e.plain && e.steady(out, d, r, i, now) {
				continue
			}
			packet.ParseUsual(e.pool.Bytes(b.frame[i]), b.keys.Key(j), &b.pk[i])
		}
		if b.pk[i].Class == packet.Error {
			e.icmpError(in, i, now)
			continue
		}
		if r := e.flows.LookupBatch(&b.keys, j, now); r != conntrack.None {
			e.forward(in, i, r, now)
			continue
		}
		e.decide(in, i, b.keys.Key(j), now)
	}
}
