package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Answers: what the firewall tells the senders of packets that it drops.

// errorData is how much of an offending packet an own ICMP error quotes: as
// much as fits 576 bytes (RFC 1812 section 4.3.2.3).
const errorData = 576 - packet.MinIPv4 - packet.ICMPLen

// controlTOS is the precedence of ICMP errors (RFC 1812 section 4.3.2.5, RFC
// 5508 REQ-10d): class selector 6.
const controlTOS = 0xc0

// mayAnswer reports whether an answer of a kind may go out to the sender of
// packet p, which arrived at port in: not to an address that cannot be one
// host's (RFC 1812 section 4.3.2.7), nor beyond the rate. Broadcasts of the
// link, fragments and what does not parse do not come this far.
func (e *Engine) mayAnswer(p *received, kind icmperr.Kind, now int64) bool {
	if e.martian(p) {
		return false
	}
	if !p.in.answers.Take(kind, p.Src, now) {
		e.c.AnswersSuppressed++
		return false
	}
	return true
}

// sendError answers a packet with an ICMP error from the address of the port at which
// it arrived. There is none about an ICMP error, nor about an ICMP message that may
// be one (RFC 1122 section 3.2.2).
func (e *Engine) sendError(p *received, kind icmperr.Kind, typ, code uint8, rest uint32, now int64) {
	if p.Class == packet.ClassICMPError || p.Proto == packet.ICMP && p.Class == packet.ClassOther || !e.mayAnswer(p, kind, now) {
		return
	}
	e.putError(p.in, e.bytes(p)[packet.EthLen:], p.Src, typ, code, rest, now)
}

// putError sends an ICMP error that quotes packet quoted through port out to
// dst.
func (e *Engine) putError(out *port, quoted []byte, dst packet.Addr, typ, code uint8, rest uint32, now int64) {
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	f := e.pool.Buffer(buf)[headroom:]
	m := f[packet.EthLen+packet.MinIPv4:]
	m[0], m[1] = typ, code
	binary.BigEndian.PutUint32(m[4:], rest)
	n := copy(m[packet.ICMPLen:packet.ICMPLen+errorData], quoted)
	packet.FinishICMP(m[:packet.ICMPLen+n])
	e.c.ICMPErrorsSent++
	e.putOwn(out, buf, dst, packet.ICMP, controlTOS, packet.ICMPLen+n, now)
}

// putOwn sends a message of n bytes, which lies in buffer buf behind the
// headers' place, from the address of port out.
func (e *Engine) putOwn(out *port, buf uint32, dst packet.Addr, proto, tos uint8, n int, now int64) {
	ip := e.pool.Buffer(buf)[headroom+packet.EthLen:]
	packet.PutIPv4(ip, out.addr, dst, proto, 64, n)
	packet.SetTOS(ip, tos)
	packet.SetDF(ip)
	e.emitOwn(out, buf, packet.EthLen+packet.MinIPv4+n, dst, now)
}

// unreachable tells the sender of frame f that its next hop does not answer
// (RFC 1812 section 5.2.7.1). The frame was about to leave, translated; the
// flow says what its sender knows it as. There is none about what belongs to no
// flow, such as messages of the firewall's own.
func (e *Engine) unreachable(f []byte, now int64) {
	var q packet.Packet
	if packet.Type(f) != packet.TypeIPv4 || !packet.ParseEmbedded(f[packet.EthLen:], &q) {
		return
	}
	k := conntrack.Key{Src: q.Dst, Dst: q.Src, SrcPort: q.DstPort, DstPort: q.SrcPort, Proto: uint32(q.Proto)}
	r := e.flows.Lookup(&k, now)
	if r == conntrack.None {
		return
	}
	in := &e.port[e.flows.Dir(r^1).Path.Ingress()]
	d := e.flows.Dir(r)
	if !in.answers.Take(icmperr.Rule, d.Out.Dst, now) {
		e.c.AnswersSuppressed++
		return
	}
	var quoted [errorData]byte
	n := copy(quoted[:], f[packet.EthLen:])
	packet.RewriteEmbedded(quoted[:n], &q, &packet.Rewrite{Src: d.Out.Dst, Dst: d.Out.Src, SrcPort: d.Out.DstPort, DstPort: d.Out.SrcPort})
	e.putError(in, quoted[:n], d.Out.Dst, packet.Unreachable, packet.HostUnreachable, 0, now)
}

// delay keeps a SYN for an answer later: see icmperr.Delayed.
func (e *Engine) delay(p *received, now int64) {
	k := conntrack.Key{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: uint32(p.Proto)}
	if e.delayed.Add(&k, e.bytes(p)[packet.EthLen:], int(p.L4)-packet.EthLen+8, e.rndKey, now) {
		e.c.AnswersSuppressed++ // this one, or another
	}
}

// delayedTick answers the SYNs whose time has come.
func (e *Engine) delayedTick(now int64) {
	for s := e.delayed.Next(now); s != nil; s = e.delayed.Next(now) {
		if e.flows.Taken(&s.Key) {
			continue // the host inside wanted it too
		}
		in := e.outside
		if !in.answers.Take(icmperr.Rule, s.Key.Src, now) {
			e.c.AnswersSuppressed++
			continue
		}
		e.putError(in, s.Quote(), s.Key.Src, packet.Unreachable, packet.PortUnreachable, 0, now)
	}
}
