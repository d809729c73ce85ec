package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// The interface between the router and the firewall as a host (package endpoint).

const headroom = framebuf.Headroom

// side returns a port's side as package endpoint numbers it.
func (p *port) side() endpoint.Side {
	if p.role == ruleset.WAN {
		return endpoint.WAN
	}
	return endpoint.LAN
}

// intercepts reports whether a packet is a query of a LAN host to another DNS server, which
// the proxy answers in its place.
func (e *Engine) intercepts(p *received) bool {
	return e.host.Intercepts(&p.Packet, p.in.side()) && e.route(p.Dst) != p.in
}

// ownConversation handles a packet of a flow of the firewall's own, and reports whether it
// was one.
func (e *Engine) ownConversation(p *received, now int64) bool {
	rule, ok := e.host.Owns(&p.Packet, p.in.side())
	if !ok {
		return false
	}
	if rule != endpoint.NoRule {
		e.c.Accepts[rule]++
	}
	if !e.linear(p) {
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return true
	}
	e.host.Input(&p.Packet, e.bytes(p), now)
	e.c.Local++
	e.pool.Put(p.frame.Buf)
	return true
}

// deliver handles a packet to the firewall itself that belongs to no flow of its own. The
// filter decides about it, with the destination address as. If accepted it is passed to the
// service that it requests, or dropped when there is none.
func (e *Engine) deliver(p *received, as packet.Addr, now int64) {
	fp := filter.Packet{Src: p.Src, Dst: as, Proto: p.Proto, Direction: p.in.direction(), State: ruleset.StateNew}
	if p.Class == packet.ClassTCP || p.Class == packet.ClassUDP {
		fp.DstPort = p.DstPort
	}
	action, rule := e.judge(p, &fp, naming{}, now)
	service := e.host.ServiceOf(&p.Packet, p.in.side())
	dec := decision{}
	switch {
	case action != ruleset.Accept:
		dec = e.denied(rule, conntrack.None, true, naming{})
	case service == endpoint.NoService:
		dec = e.refused(p, verdict.NoLocalService, naming{})
	case service == endpoint.DNSOverTCP && !opening(p):
		dec = e.dropped(verdict.ConntrackInvalid) // a segment of no connection
		dec.notice = noticeReset
	case service != endpoint.DNSOverTCP && !e.linear(p):
		dec = e.dropped(verdict.FragmentedIPv4)
	}
	if dec.outcome != pass {
		e.drop(p, &dec, now)
		return
	}
	e.c.Accepts[rule]++
	e.emitPacket(p, verdict.Accept, e.acceptReason(rule), rule, naming{}, now)
	switch service {
	case endpoint.Echo:
		e.c.LocalReplies++
		e.c.Local++
		e.host.Reply(&p.Packet, p.frame, p.in.side())
	case endpoint.DNSOverUDP:
		if e.host.Query(&p.Packet, e.bytes(p), now) == verdict.DNSRateLimited {
			e.c.DropReasons[verdict.RateLimitDNS]++
		} else {
			e.c.Local++
		}
		e.pool.Put(p.frame.Buf)
	case endpoint.DNSOverTCP:
		e.host.Accept(&p.Packet, e.bytes(p), rule, now)
		e.c.Local++
		e.c.Joined += e.release(p) - 1
	}
}

// uplink implements endpoint.Wire.
type uplink struct{ e *Engine }

// Buffer implements endpoint.Wire.
func (w uplink) Buffer() (buf uint32, ok bool) {
	if buf, ok = w.e.pool.Get(); !ok {
		w.e.c.NoBuffer++
	}
	return buf, ok
}

// Send implements endpoint.Wire.
func (w uplink) Send(to endpoint.Side, buf uint32, n int, dst packet.Addr) {
	out := w.e.inside
	if to == endpoint.WAN {
		out = w.e.outside
	}
	w.e.emitOwn(out, buf, n, dst, w.e.now)
}

// NextID implements endpoint.Wire.
func (w uplink) NextID(src, dst packet.Addr, proto uint8) uint16 { return w.e.nextID(src, dst, proto) }

// emitOwn sends a packet of the firewall's own through port out to dst. Its frame, in
// buffer buf, has n bytes.
func (e *Engine) emitOwn(out *port, buf uint32, n int, dst packet.Addr, now int64) {
	e.source = 0
	e.c.Own++
	e.output(out, framebuf.Frame{Buf: buf, Len: uint32(n)}, dst, now)
}
