package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// icmpError handles an ICMP error (RFC 5508 section 4). It carries
// the beginning of a packet that left through the port at which it arrives. If
// that belongs to a flow, both headers are translated as the flow's packets
// are, and the error goes to the flow's other end; it neither refreshes nor
// ends the flow (REQ-6). Errors about queries of the firewall's own are the DNS
// proxy's. Others are dropped.
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
	// The key of the packets that answer the embedded one.
	k := conntrack.Key{Src: q.Dst, Dst: q.Src, SrcPort: q.DstPort, DstPort: q.SrcPort, Proto: uint32(q.Proto)}
	r := e.flows.Lookup(&k, now)
	if p.Dst != q.Src { // an error goes to whom the quoted packet came from
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
		// Who knows a connection's ports but sees none of its packets has to
		// guess 32 bits more.
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
		// From inside a translated network: whoever inside reports the
		// error, the outside sees the flow's external address (REQ-5c).
		out.Src = d.Out.Src
	}
	packet.RewriteEmbedded(inner, &q, &packet.Rewrite{Src: d.Out.Dst, Dst: d.Out.Src, SrcPort: d.Out.DstPort, DstPort: d.Out.SrcPort})
	packet.FinishICMP(f[p.L4:])
	e.c.ICMPErrorsTranslated++
	e.send(to, p, &out, now)
}

// passed reports whether packets of a direction have been let through: all, or
// the handshake of a connection whose server's name is not known yet.
func passed(d *conntrack.Dir) bool {
	return d.Verdict == conntrack.Accepted || d.Verdict == conntrack.Pending
}
