package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const headroom = framebuf.Headroom

// deliver handles a packet for the firewall itself that belongs to no conversation of
// its own. The filter decides it like any other, as sent to the address as; what it
// accepts is answered if it is an echo request, or from the LAN to the DNS proxy, and
// dropped otherwise: the firewall offers no other services.
func (e *Engine) deliver(p *received, as packet.Addr, now int64) {
	fp := filter.Packet{Src: p.Src, Dst: as, Proto: p.Proto, Direction: p.in.direction(), State: ruleset.StateNew}
	if p.Class == packet.Stream || p.Class == packet.Gram {
		fp.DstPort = p.DstPort
	}
	action, rule := e.judge(p, &fp, naming{}, now)
	service := e.serviceOf(p)
	dec := decision{}
	switch {
	case action != ruleset.Accept:
		dec = e.denied(rule, conntrack.None, true, naming{})
	case service == serviceNone:
		dec = e.refused(p, verdict.NoLocalService, naming{})
	case service == serviceDNSTCP && !opening(p):
		dec = e.dropped(verdict.ConntrackInvalid) // a segment of no connection
		dec.notice = noticeReset
	case service == serviceEcho && !e.linear(p):
		dec = e.dropped(verdict.FragmentedIPv4)
	}
	if dec.outcome != pass {
		e.drop(p, &dec, now)
		return
	}
	e.c.Accepts[rule]++
	e.emitPacket(p, verdict.Accept, e.acceptReason(rule), rule, naming{}, now)
	switch service {
	case serviceEcho:
		e.echoReply(p, now)
	case serviceDNSUDP:
		e.dnsQuery(p, now)
	case serviceDNSTCP:
		e.dnsConnect(p, rule, now)
	}
}

// A service is what the firewall offers to who addresses it.
type service uint8

const (
	serviceNone service = iota
	serviceEcho
	serviceDNSUDP
	serviceDNSTCP
)

// serviceOf returns the service that a packet asks for.
func (e *Engine) serviceOf(p *received) service {
	switch {
	case p.Class == packet.Query && p.ICMPType == packet.EchoRequest && p.ICMPCode == 0:
		return serviceEcho
	case e.names.proxy == nil || p.in.n != lan || p.DstPort != dnsPort:
	case p.Class == packet.Gram:
		return serviceDNSUDP
	case p.Class == packet.Stream:
		return serviceDNSTCP
	}
	return serviceNone
}

// echoReply turns an echo request into its reply and sends it back (RFC 1122
// section 3.2.2.6).
func (e *Engine) echoReply(p *received, now int64) {
	fr := p.frame
	f := e.pool.Bytes(fr)
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
	e.emitOwn(p.in, fr.Buf, packet.EthLen+packet.MinIPv4+n, p.Src, now)
}

// emitOwn sends a packet of the firewall's own, of n bytes with its Ethernet
// header, through port out to dst.
func (e *Engine) emitOwn(out *port, buf uint32, n int, dst packet.Addr, now int64) {
	e.source = 0
	e.c.Own++
	e.output(out, framebuf.Frame{Buf: buf, Len: uint32(n)}, dst, now)
}
