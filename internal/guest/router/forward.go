package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// forward handles a packet of direction r of a known flow. Whatever it does to every packet
// the fast path must do as well.
func (e *Engine) forward(p *received, r conntrack.Ref, now int64) {
	d := e.flows.Dir(r)
	was := d.Verdict
	out := &e.port[d.Path.Egress()]
	named := false // the server name is not settled
	dec := e.belongs(p, r, d)
	if dec.outcome == pass {
		dec = e.replyVerdict(p, r, d, now)
	}
	if dec.outcome == pass {
		dec = e.leaves(p, out)
	}
	if dec.outcome == pass {
		if named = e.unsettled(r, d); named {
			dec = e.sniFits(p, r)
		}
	}
	quiet := false
	if dec.outcome == pass {
		dec, quiet = e.track(p, r)
	}
	if dec.outcome == pass && named && e.sniSegment(p, r, now) {
		return
	}
	switch dec.outcome {
	case drop:
		if was == conntrack.Undecided && d.Verdict != conntrack.Denied {
			d.Verdict = conntrack.Undecided // no packet of this direction has passed
		}
		e.drop(p, &dec, now)
		return
	case restart:
		k := d.Key
		e.admit(p, &k, r, now)
		return
	}
	if !quiet {
		d.LastSeen = now
	}
	n := p.frames()
	d.Packets += n
	d.Bytes += uint64(p.Total)
	e.c.Accepts[d.Rule] += n
	if was == conntrack.Undecided {
		e.emitFlow(r, verdict.Accept, e.acceptReason(d.Rule), &naming{}, now)
	}
	if !named {
		e.flows.MarkFast(r)
	}
	e.send(out, p, &d.Out, now)
}

// belongs decides whether a packet with the five-tuple of direction r can belong to it.
func (e *Engine) belongs(p *received, r conntrack.Ref, d *conntrack.Dir) decision {
	if d.Path.Ingress() != p.in.n {
		return e.dropped(verdict.Martian) // arrived at the wrong port: spoofed
	}
	if p.Class == packet.ClassICMPQuery && ((p.ICMPType == packet.EchoReply) != r.Reply() || p.ICMPCode != 0) {
		// Echo has no codes (RFC 792). A request in the reply direction would be a new
		// query, which the policy has not decided.
		return e.dropped(verdict.ConntrackInvalid)
	}
	return decision{}
}

// replyVerdict has the filter decide about a reply direction's first packet, and returns
// the decision about the direction. The filter sees internal addresses: the source as it
// arrives, the destination with its translation undone.
func (e *Engine) replyVerdict(p *received, r conntrack.Ref, d *conntrack.Dir, now int64) decision {
	first := d.Verdict == conntrack.Undecided
	if first {
		fp := filter.Packet{
			Src: d.Key.Src, Dst: d.Out.Dst, Proto: p.Proto,
			Direction: p.in.direction(), State: ruleset.StateEstablished,
		}
		if p.Class != packet.ClassICMPQuery {
			fp.DstPort = d.Out.DstPort
		}
		action, rule := e.judge(p, &fp, naming{}, now)
		d.Rule, d.Verdict = rule, conntrack.Denied
		if action == ruleset.Accept {
			d.Verdict = conntrack.Accepted
		}
	}
	if d.Verdict == conntrack.Denied {
		return e.denied(d.Rule, r, first, naming{})
	}
	return decision{}
}

// track advances the flow's state for a packet. quiet reports that the packet does not
// refresh the flow's timeout.
func (e *Engine) track(p *received, r conntrack.Ref) (d decision, quiet bool) {
	switch p.Class {
	case packet.ClassTCP:
		switch e.flows.TCP(r, &p.Packet, e.tcpOptions(p)) {
		case conntrack.Invalid:
			return e.dropped(verdict.ConntrackInvalid), false
		case conntrack.Restart:
			// Only a SYN that passes replaces a connection that is over: the ends may not
			// have received the RST (RFC 7857 section 2.2).
			return decision{outcome: restart}, false
		case conntrack.Quiet:
			return decision{}, true
		}
	case packet.ClassUDP:
		e.flows.UDP(r)
	}
	return decision{}, false
}
