package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// forward handles packet i of the batch, which belongs to direction r of a
// known flow. What it does to each packet, steady must do, too.
func (e *Engine) forward(in *port, i int, r conntrack.Ref, now int64) {
	p := &e.b.pk[i]
	d := e.flows.Dir(r)
	if d.FromWAN != (in.n == wan) {
		e.dropPacket(in, i, verdict.Martian, now) // a spoofed copy from the other side
		return
	}
	if p.Class == packet.Query && ((p.ICMPType == packet.EchoReply) != r.Reply() || p.ICMPCode != 0) {
		// Echo has no codes (RFC 792). A request from the other side would be
		// a new exchange, which the policy has not been asked about.
		e.dropPacket(in, i, verdict.ConntrackInvalid, now)
		return
	}
	fresh := false
	if d.Verdict != conntrack.Accepted {
		if d.Verdict == conntrack.Undecided {
			e.decideReply(in, d, p, now)
			fresh = true
		}
		if d.Verdict == conntrack.Denied {
			e.denied(in, i, d.Rule, fresh, r, now)
			return
		}
	}
	out := e.out(in, d)
	named := e.names.hellos.at != nil && (d.Verdict == conntrack.Pending || r.Reply() && e.isPending(r^1))
	if e.cannotLeave(in, out, i, now) {
		if fresh {
			d.Verdict = conntrack.Undecided // nothing of this direction has passed
		}
		return
	}
	if named && !e.pendingFits(in, i, r, now) {
		if fresh {
			d.Verdict = conntrack.Undecided
		}
		return
	}
	quiet := false
	switch p.Class {
	case packet.Stream:
		switch e.flows.TCP(r, p, e.tcpOptions(i)) {
		case conntrack.Invalid:
			if fresh {
				d.Verdict = conntrack.Undecided // nothing of this direction has passed
			}
			e.dropPacket(in, i, verdict.ConntrackInvalid, now)
			return
		case conntrack.Restart:
			// What is over makes way for a SYN that passes, and for no other:
			// its ends may not have had the RST (RFC 7857 section 2.2).
			k := d.Key
			e.decide(in, i, &k, r, now)
			return
		case conntrack.Quiet:
			quiet = true
		}
	case packet.Gram:
		e.flows.Gram(r)
	}
	if named && e.pending(in, i, r, now) {
		return
	}
	if !quiet {
		d.LastSeen = now
	}
	n := 1 + uint64(p.Parts)
	d.Packets += n
	d.Bytes += uint64(p.Total)
	e.c.Accepts[d.Rule] += n
	if fresh {
		e.emitFlow(r, verdict.Accept, e.acceptReason(d.Rule), now)
	}
	if !named {
		e.flows.Steady(r, steadyWay(in))
	}
	e.send(out, i, &d.Out, now)
}

// decideReply lets the filter decide a reply direction's first packet. It
// sees internal addresses: the source as it arrives, the destination after its
// translation is taken back.
func (e *Engine) decideReply(in *port, d *conntrack.Dir, p *packet.Packet, now int64) {
	fp := filter.Packet{Src: d.Key.Src, Dst: d.Out.Dst, Proto: p.Proto, Direction: direction(d.FromWAN), State: ruleset.StateEstablished}
	if p.Class != packet.Query {
		fp.DstPort = d.Out.DstPort
	}
	action, rule := e.judge(in, p, &fp, now)
	d.Rule, d.Verdict = rule, conntrack.Denied
	if action == ruleset.Accept {
		d.Verdict = conntrack.Accepted
	}
}

func direction(fromWAN bool) verdict.Direction {
	if fromWAN {
		return verdict.Ingress
	}
	return verdict.Egress
}

// tcpOptions returns the options of TCP packet i, which parse has checked.
func (e *Engine) tcpOptions(i int) []byte {
	l4 := e.pool.Bytes(e.b.frame[i])[e.b.pk[i].L4:]
	return l4[packet.TCPLen : int(l4[12]>>4)*4]
}

// acceptReason and denyReason say why the rule with this index, or the default
// action, decided as it did.
func (e *Engine) acceptReason(rule uint32) verdict.Reason {
	if int(rule) == len(e.c.Accepts)-1 {
		return verdict.DefaultAction
	}
	return verdict.RuleAccept
}

func (e *Engine) denyReason(rule uint32) verdict.Reason {
	if int(rule) == len(e.c.Accepts)-1 {
		return verdict.NoMatchingAllowRule
	}
	return verdict.ExplicitDeny
}
