package router

import (
	"math"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Poll receives up to one batch from each port and handles it; now is the time in monotonic
// nanoseconds. It returns the number of received frames.
func (e *Engine) Poll(now int64) int {
	e.now = now
	n := 0
	if e.w != nil {
		n = e.takeOver(now)
	}
	for i := range e.port {
		n += e.receive(&e.port[i], now)
	}
	if now >= e.tick {
		e.timers(now)
	}
	e.host.Poll(now)
	for i := range e.port {
		e.flush(&e.port[i]) // transmit
	}
	if e.w != nil {
		e.handBack()
		e.leave()
	}
	if e.events != nil {
		e.events.Publish()
	}
	return n
}

// receive runs a batch from a port through all stages. Frames to be sent are collected at
// the ports and transmitted at the end of Poll.
func (e *Engine) receive(in *port, now int64) int {
	for i := range e.port {
		if out := &e.port[i]; out != in && e.backedUp(out, now) {
			return 0
		}
	}
	b := &e.b
	n := in.Receive(b.frame[:])
	if n == 0 {
		return 0
	}
	if e.w != nil {
		e.parseSteered(in, n, now)
		e.run(in, now)
		e.leave()
		return n
	}
	e.c.RxPackets[in.n] += uint64(n)
	e.parse(in, n, now)
	e.run(in, now)
	return n
}

// run handles the packets of the batch that parse has left for look-up.
func (e *Engine) run(in *port, now int64) {
	b := &e.b
	// Find flows: the memory of all lookups is prefetched, so that the batch waits for
	// memory once and not once per packet.
	e.flows.Prepare(&b.keys)
	b.guess = [guesses]nat.Guess{}

	for j := 0; ; j++ {
		if j = e.fastPath(in, j, now); j >= b.keys.Len() {
			break
		}
		p, k := e.packet(in, j)
		if p.frame.IsLarge() {
			e.large(p, j, now)
		} else if p.Class == packet.ClassICMPError {
			e.icmpError(p, now)
		} else if r := e.flows.LookupBatch(&b.keys, j, now); r != conntrack.None {
			e.forward(p, r, now)
		} else {
			e.expect(in, j)
			b.hand = j
			e.admit(p, k, conntrack.None, now)
		}
	}
}

// packet returns the packet with key j, parsed now if it was left by the fast path.
func (e *Engine) packet(in *port, j int) (*received, *conntrack.Key) {
	b := &e.b
	j &= Batch - 1
	i := b.idx[j] & (Batch - 1)
	p, k := &b.pk[i], b.keys.Key(j)
	if b.fast[j] {
		p.in, p.frame, p.plain = in, b.frame[i], true
		packet.ParseFast(e.bytes(p), k, &p.Packet)
	}
	return p, k
}

// NextDeadline returns the time at which Poll must run even if nothing is received, in
// monotonic nanoseconds, or math.MaxInt64 when there is none.
func (e *Engine) NextDeadline() int64 {
	d := int64(math.MaxInt64)
	if e.flows.Len() > 0 {
		// Lookups do not find expired flows; the sweep only frees their ports and records,
		// and is not urgent.
		d = e.tick + second
	}
	d = min(d, e.delayed.Due(), e.frags.Due())
	if at := e.host.NextDeadline(); at != math.MaxInt64 {
		d = min(d, max(at, e.tick))
	}
	if e.sni.Any() {
		d = min(d, e.tick+second)
	}
	if e.again.due {
		d = min(d, max(e.again.at, e.tick))
	}
	if e.gate.due {
		d = min(d, max(e.gate.at, e.tick))
	}
	for i := range e.port {
		d = min(d, e.port[i].neigh.Due())
		if e.port[i].neigh.Owing() {
			d = min(d, e.tick)
		}
	}
	return d
}

// timers runs what depends on time alone.
func (e *Engine) timers(now int64) {
	// The sweep does as many steps as ticks have passed, so that its rate does not depend
	// on the rate of polls, for a millisecond or two at most. With more to remove it
	// continues in the next poll.
	more := false
	for range min(max((now-e.tick)/tickEvery, 1), 64) {
		if more = e.flows.Sweep(now); more {
			break
		}
	}
	e.tick = now
	if !more {
		e.tick += tickEvery
	}
	for i := range e.port {
		e.neighbourTick(&e.port[i], now)
		if e.w != nil {
			e.wordsTick(&e.port[i])
		}
	}
	e.announceTick(now)
	if e.gate.due {
		e.gatewayTick(now)
	}
	e.delayedTick(now)
	e.host.Tick(now)
	e.sniTick(now)
	if e.names.set != nil && (e.w == nil || e.w.k == 0) {
		e.names.set.Sweep(sweepNames, now)
	}
	e.reassemblyTick(now)
	e.portsTick(now)
}
