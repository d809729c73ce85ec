package router

import "math"

// Poll receives up to one batch from each port and handles it; now is the
// time in monotonic nanoseconds. It returns the number of frames received.
func (e *Engine) Poll(now int64) int {
	e.now = now
	n := e.receive(&e.port[lan], now) + e.receive(&e.port[wan], now)
	if now >= e.tick {
		e.timers(now)
	}
	if e.names.links != nil {
		e.linksPoll(now)
	}
	e.flush(&e.port[lan])
	e.flush(&e.port[wan])
	return n
}

// NextDeadline returns the time at which Poll must run even if nothing is
// received, or math.MaxInt64 when there is no such time.
func (e *Engine) NextDeadline() int64 {
	d := int64(math.MaxInt64)
	if e.flows.Len() > 0 {
		// Expired flows are not found anyway; the sweep only gives their
		// ports and records back, and has time when all is quiet.
		d = e.tick + second
	}
	d = min(d, e.held.due(), e.frags.due())
	if p := e.names.proxy; p != nil {
		if at, ok := p.Due(); ok {
			d = min(d, max(at, e.tick))
		}
		if e.names.hellos.any() {
			d = min(d, e.tick+second)
		}
		if at, ok := e.names.tcp.Due(); ok {
			d = min(d, max(at, e.tick))
		}
		d = e.linksDue(d)
	}
	if e.again.due {
		d = min(d, max(e.again.at, e.tick))
	}
	for i := range e.port {
		if t := &e.port[i].arp; t.waiting > 0 {
			d = min(d, t.next)
		}
	}
	return d
}

// timers looks after what time alone changes.
func (e *Engine) timers(now int64) {
	// As many steps as ticks have passed, so that the sweep is as fast when
	// polls are rare, but no longer than a millisecond or two. With much to
	// remove it goes on at the next poll.
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
	e.resolveTick(&e.port[lan], now)
	e.resolveTick(&e.port[wan], now)
	e.announceTick(now)
	e.heldTick(now)
	e.namesTick(now)
	e.gatherTick(now)
}

// receive takes a batch through all stages.
func (e *Engine) receive(in *port, now int64) int {
	if e.backedUp(&e.port[1-in.n], now) {
		return 0
	}
	b := &e.b
	n := in.Receive(b.frame[:])
	if n == 0 {
		return 0
	}
	e.c.RxPackets[in.n] += uint64(n)
	e.parse(in, n, now)
	e.lookupAll(in, now)
	return n
}
