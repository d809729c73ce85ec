package router

import (
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const headroom = framebuf.Headroom

// toFirewall handles packet i of the batch, which is addressed to the firewall
// itself and belongs to no flow.
func (e *Engine) toFirewall(in *port, i int, now int64) {
	p := &e.b.pk[i]
	if in.n == lan && p.Dst != in.addr {
		// A LAN host at the WAN address would need hairpinning.
		e.noRoom(in, i, verdict.HairpinUnsupported, now)
		return
	}
	if in.n == wan && p.Dst == e.port[lan].addr {
		e.dropPacket(in, i, verdict.Martian, now)
		return
	}
	e.local(in, i, p.Dst, now)
}

// local handles packet i for the firewall itself. The filter decides it like
// any other, as sent to the address to; what it accepts is answered if it is an
// echo request, or from the LAN to the DNS proxy, and dropped otherwise: the
// firewall offers no other services.
func (e *Engine) local(in *port, i int, to packet.Addr, now int64) {
	p := &e.b.pk[i]
	fp := filter.Packet{Src: p.Src, Dst: to, Proto: p.Proto, Direction: direction(in.n == wan), State: ruleset.StateNew}
	if p.Class == packet.Stream || p.Class == packet.Gram {
		fp.DstPort = p.DstPort
	}
	action, rule := e.judge(in, p, &fp, now)
	if action != ruleset.Accept {
		e.denied(in, i, rule, true, noFlow, now)
		return
	}
	if dns := e.names.proxy != nil && in.n == lan && p.DstPort == dnsPort; dns && p.Class == packet.Stream {
		e.dnsConnect(in, i, rule, now)
		return
	} else if dns && p.Class == packet.Gram {
		e.c.Accepts[rule]++
		e.emitPacket(in, p, verdict.Accept, e.acceptReason(rule), rule, now)
		e.dnsQuery(i, now)
		return
	}
	if p.Class != packet.Query || p.ICMPType != packet.EchoRequest || p.ICMPCode != 0 {
		e.noRoom(in, i, verdict.NoLocalService, now)
		return
	}
	if !e.linear(i) {
		e.dropPacket(in, i, verdict.FragmentedIPv4, now)
		return
	}
	e.c.Accepts[rule]++
	e.emitPacket(in, p, verdict.Accept, e.acceptReason(rule), rule, now)
	e.echoReply(in, i, now)
}

// echoReply turns echo request i into its reply and sends it back (RFC 1122
// section 3.2.2.6).
func (e *Engine) echoReply(in *port, i int, now int64) {
	fr := e.b.frame[i]
	f := e.pool.Bytes(fr)
	p := &e.b.pk[i]
	m := f[p.L4:]
	m[0], m[1] = packet.EchoReply, 0
	packet.FinishICMP(m)
	// Options are not carried back: the header is written anew, and the
	// message moved behind it.
	n := len(m)
	copy(f[packet.EthLen+packet.MinIPv4:], m)
	tos := packet.TOS(f[packet.EthLen:])
	packet.PutIPv4(f[packet.EthLen:], p.Dst, p.Src, packet.ICMP, 64, n)
	packet.SetTOS(f[packet.EthLen:], tos)                                // RFC 1812 section 4.3.2.5
	packet.SetID(f[packet.EthLen:], e.nextID(p.Dst, p.Src, packet.ICMP)) // it may be cut on its way
	e.c.LocalReplies++
	e.c.Local++
	e.emitOwn(in, fr.Buf, packet.EthLen+packet.MinIPv4+n, p.Src, now)
}

// emitOwn sends a packet of the firewall's own, of n bytes with its Ethernet
// header, through port out to dst.
func (e *Engine) emitOwn(out *port, buf uint32, n int, dst packet.Addr, now int64) {
	e.source = 0
	e.c.Own++
	e.output(out, framebuf.Frame{Buf: buf, Len: uint32(n)}, dst, now)
}
