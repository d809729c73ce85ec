package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// drop carries out the decision to drop a packet: it counts and reports it, answers its
// sender, and releases its buffers. No other function drops a packet.
func (e *Engine) drop(p *received, d *decision, now int64) {
	n := p.frames()
	e.c.DropReasons[d.reason] += n
	if d.ruled {
		e.c.Drops[d.rule] += n
	}
	switch {
	case d.quiet:
	case d.flow != conntrack.None:
		e.emitFlow(d.flow, verdict.Drop, d.reason, &d.name, now)
	default:
		e.emitPacket(p, verdict.Drop, d.reason, d.rule, d.name, now)
	}
	e.answer(p, d, now)
	e.release(p)
}

// dropPacket drops a packet for a reason other than a rule, without an answer.
func (e *Engine) dropPacket(p *received, why verdict.Reason, now int64) {
	d := e.dropped(why)
	e.drop(p, &d, now)
}

// answer sends the answer of a decision to the sender of a dropped packet.
func (e *Engine) answer(p *received, d *decision, now int64) {
	switch d.notice {
	case noticeNone:
	case noticeRejected:
		e.reject(p, now)
	case noticeRefused:
		if mayBeSimultaneous(p) {
			e.delay(p, now)
		} else {
			e.sendError(p, icmperr.Rule, packet.Unreachable, packet.Prohibited, 0, now)
		}
	case noticeReset:
		e.sendReset(p, now)
	case noticeUnknown:
		e.putReset(p, now)
	case noticeTimeExceeded:
		e.sendError(p, icmperr.TTL, packet.TimeExceeded, 0, 0, now)
	case noticeTooBig:
		e.sendError(p, icmperr.Size, packet.Unreachable, packet.FragNeeded, uint32(d.mtu), now)
	}
}

// dropFrame drops a frame from which no packet was read.
func (e *Engine) dropFrame(in *port, fr framebuf.Frame, why verdict.Reason, now int64) {
	e.c.DropReasons[why]++
	if e.events != nil {
		f := e.head(fr)
		r := event.Record{Time: now, Kind: event.Verdict, Action: verdict.Drop, Reason: why, Direction: in.direction(),
			Rule: e.policy.DefaultRule(), EtherType: packet.Type(f), Truncated: true}
		addARP(&r, f)
		e.events.Put(&r)
	}
	e.pool.Release(fr)
}

// dropOut drops a finished frame that cannot leave through port out.
func (e *Engine) dropOut(out *port, fr framebuf.Frame, why verdict.Reason) {
	n := uint64(1)
	if fr.IsLarge() {
		n = uint64(e.pool.Large(fr).Segments)
	}
	e.c.DropReasons[why] += n
	if e.events != nil {
		e.emitUnsent(out, e.head(fr), why)
	}
	e.pool.Release(fr)
}

// head returns the bytes of a frame, of a large one those in its first buffer.
func (e *Engine) head(fr framebuf.Frame) []byte {
	if fr.IsLarge() {
		return e.pool.First(fr)
	}
	return e.pool.Bytes(fr)
}
