package dataplane

import (
	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/packet"
)

// lookupAll finds the flow of every packet of the batch and handles it. The
// memory that the look-ups need is loaded for all of them first, one round for
// the index and one for the records: while one load waits for memory, so do
// the others.
func (e *Engine) lookupAll(in *port, now int64) {
	b := &e.b
	var sink uint64
	for _, h := range b.hash[:b.n] {
		sink += e.flows.Touch(h)
	}
	for _, h := range b.hash[:b.n] {
		sink += e.flows.TouchRef(e.flows.Candidate(h))
	}
	e.sink += sink
	for j := range b.idx[:b.n] {
		i := int(b.idx[j]) & (Batch - 1)
		p := &b.pk[i]
		if p.Class == packet.Error {
			e.icmpError(in, i, now)
			continue
		}
		if r := e.flows.Lookup(&b.key[j], b.hash[j], now); r != conntrack.None {
			e.forward(in, i, r, now)
			continue
		}
		e.decide(in, i, &b.key[j], now)
	}
}
