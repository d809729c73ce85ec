package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Answers: ICMP errors and TCP resets to the senders of dropped packets.

// errorData is how much of the offending packet an ICMP error quotes, in bytes: the error
// is at most 576 bytes long (RFC 1812 section 4.3.2.3).
const errorData = 576 - packet.MinIPv4 - packet.ICMPLen

// controlTOS is the precedence of ICMP errors (RFC 1812 section 4.3.2.5, RFC
// 5508 REQ-10d): class selector 6.
const controlTOS = 0xc0

// mayAnswer reports whether an answer of a kind may be sent to the sender of p: not to an
// address that is not a single host's (RFC 1812 section 4.3.2.7), nor above the rate.
// Link-layer broadcasts, fragments and malformed packets have been dropped before.
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

// sendError answers a packet with an ICMP error from the address of the port where it
// arrived. None is sent about an ICMP error, nor about an unknown ICMP message, which may
// be one (RFC 1122 section 3.2.2).
func (e *Engine) sendError(p *received, kind icmperr.Kind, typ, code uint8, rest uint32, now int64) {
	if p.Class == packet.ClassICMPError || p.Proto == packet.ICMP && p.Class == packet.ClassOther ||
		!e.mayAnswer(p, kind, now) {
		return
	}
	e.putError(p.in, e.bytes(p)[packet.EthLen:], p.Src, typ, code, rest, now)
}

// putError sends an ICMP error to dst through port out. It quotes the packet quoted.
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

// putOwn sends a message of n bytes from the address of port out to dst. The message is in
// buffer buf, after the room for headers.
func (e *Engine) putOwn(out *port, buf uint32, dst packet.Addr, proto, tos uint8, n int, now int64) {
	ip := e.pool.Buffer(buf)[headroom+packet.EthLen:]
	packet.PutIPv4(ip, out.addr, dst, proto, 64, n)
	packet.SetTOS(ip, tos)
	packet.SetDF(ip)
	e.emitOwn(out, buf, packet.EthLen+packet.MinIPv4+n, dst, now)
}

// unreachable sends host unreachable to the sender of frame f, whose next hop does not
// answer (RFC 1812 section 5.2.7.1). The frame has been translated; its flow has the
// addresses that the sender used. Nothing is sent for packets of no flow, such as the
// firewall's own.
func (e *Engine) unreachable(f []byte, now int64) {
	var q packet.Packet
	if packet.Type(f) != packet.TypeIPv4 || !packet.ParseEmbedded(f[packet.EthLen:], &q) {
		return
	}
	k := replyKeyOf(&q)
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
	packet.RewriteEmbedded(quoted[:n], &q, &packet.Rewrite{
		Src: d.Out.Dst, Dst: d.Out.Src, SrcPort: d.Out.DstPort, DstPort: d.Out.SrcPort,
	})
	e.putError(in, quoted[:n], d.Out.Dst, packet.Unreachable, packet.HostUnreachable, 0, now)
}

// delay queues a SYN to be answered later: see icmperr.Delayed.
func (e *Engine) delay(p *received, now int64) {
	k := keyOf(&p.Packet)
	if e.delayed.Add(&k, e.bytes(p)[packet.EthLen:], int(p.L4)-packet.EthLen+8, e.rndKey, now) {
		e.c.AnswersSuppressed++ // of this SYN, or of another
	}
}

// delayedTick answers the SYNs whose delay is over.
func (e *Engine) delayedTick(now int64) {
	for s := e.delayed.Next(now); s != nil; s = e.delayed.Next(now) {
		if e.flows.Taken(&s.Key) {
			continue // a simultaneous open: the host on the LAN has connected
		}
		in := e.outside
		if !in.answers.Take(icmperr.Rule, s.Key.Src, now) {
			e.c.AnswersSuppressed++
			continue
		}
		e.putError(in, s.Quote(), s.Key.Src, packet.Unreachable, packet.PortUnreachable, 0, now)
	}
}
