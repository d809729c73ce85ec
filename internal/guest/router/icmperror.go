package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// icmpError handles an ICMP error (RFC 5508 section 4). It quotes the beginning of a packet
// that was sent through the port where the error arrives. If that belongs to a flow, both
// headers are translated like the flow's packets, and the error is sent to the flow's other
// end; it neither refreshes nor ends the flow (REQ-6). Errors about the firewall's own
// queries are passed to the endpoint. Others are dropped.
func (e *Engine) icmpError(p *received, now int64) {
	f := e.bytes(p)
	inner := f[int(p.L4)+packet.ICMPLen:]
	var q packet.Packet
	if e.martian(p) {
		e.dropPacket(p, verdict.Martian, now)
		return
	}
	if !packet.ParseEmbedded(inner, &q) {
		e.dropPacket(p, verdict.MalformedPacket, now)
		return
	}
	// The key of packets in the direction opposite to the quoted one.
	k := replyKeyOf(&q)
	r := e.flows.Lookup(&k, now)
	if p.Dst != q.Src { // an error is sent to the source of the quoted packet
		r = conntrack.None
	}
	if r == conntrack.None && p.in.role == ruleset.WAN && e.host.Error(&p.Packet, &q, inner, now) {
		e.c.Local += e.release(p)
		return
	}
	if r == conntrack.None || e.flows.Dir(r).Path.Ingress() != p.in.n || !passed(e.flows.Dir(r^1)) {
		e.dropPacket(p, verdict.ConntrackInvalid, now)
		return
	}
	if q.Class == packet.ClassTCP && !e.flows.UnderWay(r^1, q.Seq) {
		// An off-path attacker who knows a connection's ports must guess the sequence
		// number as well.
		e.dropPacket(p, verdict.ConntrackInvalid, now)
		return
	}
	d := e.flows.Dir(r)
	to := &e.port[d.Path.Egress()]
	if dec := e.leaves(p, to); dec.outcome != pass {
		e.drop(p, &dec, now)
		return
	}
	out := packet.Rewrite{Src: p.Src, Dst: d.Out.Dst}
	if d.Out.Src != d.Key.Src {
		// From a translated network: whichever host reports the error, its source is the
		// flow's external address (REQ-5c).
		out.Src = d.Out.Src
	}
	packet.RewriteEmbedded(inner, &q, &packet.Rewrite{
		Src: d.Out.Dst, Dst: d.Out.Src, SrcPort: d.Out.DstPort, DstPort: d.Out.SrcPort,
	})
	packet.FinishICMP(f[p.L4:])
	e.c.ICMPErrorsTranslated++
	e.send(to, p, &out, now)
}

// passed reports whether packets of a direction have been forwarded: all, or the TCP
// handshake of a connection whose server name is not known yet.
func passed(d *conntrack.Dir) bool {
	return d.Verdict == conntrack.Accepted || d.Verdict == conntrack.Pending
}
