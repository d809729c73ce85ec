package dataplane

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/telemetry"
)

// icmpError handles ICMP error i of the batch (RFC 5508 section 4). It carries
// the beginning of a packet that left through the port at which it arrives. If
// that belongs to a flow, both headers are translated as the flow's packets
// are, and the error goes to the flow's other end; it neither refreshes nor
// ends the flow (REQ-6). Other errors are dropped.
func (e *Engine) icmpError(in *port, i int, now int64) {
	f := e.pool.Bytes(e.b.frame[i])
	p := &e.b.pk[i]
	inner := f[int(p.L4)+packet.ICMPLen:]
	var q packet.Packet
	if e.martian(in, p) {
		e.dropPacket(in, i, telemetry.Martian, now)
		return
	}
	if !packet.ParseEmbedded(inner, &q) {
		e.dropPacket(in, i, telemetry.MalformedPacket, now)
		return
	}
	// The key of the packets that answer the embedded one.
	k := conntrack.Key{Src: q.Dst, Dst: q.Src, SrcPort: q.DstPort, DstPort: q.SrcPort, Proto: uint32(q.Proto)}
	r := e.flows.Lookup(&k, now)
	if r == conntrack.None || e.flows.Dir(r).FromWAN != (in.n == wan) || e.flows.Dir(r^1).Verdict != conntrack.Accepted {
		e.dropPacket(in, i, telemetry.ConntrackInvalid, now)
		return
	}
	if p.TTL <= 1 {
		e.dropTTL(in, i, now)
		return
	}
	if int(p.Total) > e.port[1-in.n].mtu {
		e.dropPacket(in, i, telemetry.PacketTooBig, now) // no errors about errors
		return
	}
	d := e.flows.Dir(r)
	out := packet.Rewrite{Src: p.Src, Dst: d.Out.Dst}
	if d.Out.Src != d.Key.Src {
		// From inside a translated network: whoever inside reports the
		// error, the outside sees the flow's external address (REQ-5c).
		out.Src = d.Out.Src
	}
	packet.RewriteEmbedded(inner, &q, &packet.Rewrite{Src: d.Out.Dst, Dst: d.Out.Src, SrcPort: d.Out.DstPort, DstPort: d.Out.SrcPort})
	packet.FinishICMP(f[p.L4:])
	e.c.ICMPErrorsTranslated++
	e.send(&e.port[1-in.n], i, &out, now)
}

// errorData is how much of an offending packet an own ICMP error quotes: as
// much as fits 576 bytes (RFC 1812 section 4.3.2.3).
const errorData = 576 - packet.MinIPv4 - packet.ICMPLen

// sendError answers packet i of the batch, which arrived at port in, with an
// ICMP error from that port's address. The packet's own buffer carries it; the
// caller no longer owns that. It reports false, and sends nothing, when the
// packet must not be answered (RFC 1812 section 4.3.2.7) or the rate is
// exceeded; then the buffer stays the caller's.
func (e *Engine) sendError(in *port, i int, typ, code uint8, rest uint32, now int64) bool {
	p := &e.b.pk[i]
	if p.Class == packet.Error || p.Fragment || e.martian(in, p) || !e.icmp.take(now) {
		return false
	}
	old := e.pool.Bytes(e.b.frame[i])[packet.EthLen:]
	n := min(len(old), errorData)
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return false
	}
	f := e.pool.Buffer(buf)[headroom:]
	m := f[packet.EthLen+packet.MinIPv4:]
	m[0], m[1] = typ, code
	binary.BigEndian.PutUint32(m[4:], rest)
	copy(m[packet.ICMPLen:], old[:n])
	packet.FinishICMP(m[:packet.ICMPLen+n])
	packet.PutIPv4(f[packet.EthLen:], in.addr, p.Src, packet.ICMP, 64, packet.ICMPLen+n)
	e.c.ICMPErrorsSent++
	e.emitOwn(in, buf, packet.EthLen+packet.MinIPv4+packet.ICMPLen+n, p.Src, now)
	return true
}

// dropTTL drops packet i, whose life ends here, and tells its sender.
func (e *Engine) dropTTL(in *port, i int, now int64) {
	e.sendError(in, i, packet.TimeExceeded, 0, 0, now)
	e.dropPacket(in, i, telemetry.TTLExpired, now)
}

// dropTooBig drops packet i, which is too long for its way out, and tells its
// sender the length that fits (RFC 1191).
func (e *Engine) dropTooBig(in, out *port, i int, now int64) {
	if e.b.pk[i].DF {
		e.sendError(in, i, packet.Unreachable, 4, uint32(out.mtu), now)
	}
	e.dropPacket(in, i, telemetry.PacketTooBig, now)
}
