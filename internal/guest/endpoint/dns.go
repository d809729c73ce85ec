package endpoint

import (
	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// carrier is the transport of the proxy's messages.
type carrier struct{ h *Host }

// SendUDP implements dnsproxy.Transport.
func (c carrier) SendUDP(to packet.Addr, toPort, fromPort uint16, msg []byte) {
	c.h.sendUDP(WAN, c.h.c.Ports.Addr(), fromPort, to, toPort, msg)
}

// SendTCP implements dnsproxy.Transport.
func (c carrier) SendTCP(_ int, to packet.Addr, toPort uint16, tag uint32, msg []byte) bool {
	return c.h.askTCP(to, toPort, tag, msg)
}

// CancelTCP implements dnsproxy.Transport.
func (c carrier) CancelTCP(tag uint32) { c.h.tcp.Cancel(tag, c.h.now) }

// Reply implements dnsproxy.Transport.
func (c carrier) Reply(to *dnsproxy.Client, msg []byte) {
	if to.Conn != 0 {
		c.h.tcp.Send(to.Conn, msg, c.h.now)
		return
	}
	c.h.sendUDP(LAN, to.Server, dnsPort, to.Addr, to.Port, msg)
}

// AllocPort implements dnsproxy.Transport.
func (c carrier) AllocPort() (uint16, bool) { return c.h.c.Ports.Take(packet.UDP, c.Random()) }

// FreePort implements dnsproxy.Transport.
func (c carrier) FreePort(p uint16) { c.h.c.Ports.Give(packet.UDP, p) }

// Random implements dnsproxy.Transport.
func (c carrier) Random() uint64 { return c.h.c.Random.Uint64() }

// QueryDone implements dnsproxy.Transport.
func (c carrier) QueryDone(d *dnsproxy.Result) {
	h := c.h
	if h.c.Events == nil {
		return
	}
	r := event.Record{Time: h.now, Kind: event.DNSQuery, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.UDP,
		Src: d.Client.Addr.To16(), Dst: d.Client.Server.To16(), SrcPort: d.Client.Port, DstPort: dnsPort,
		QType: d.Type, DNS: d.Outcome, Lookup: d.Lookup, Duration: d.Duration}
	if d.Client.Conn != 0 {
		r.Proto = packet.TCP
	}
	if r.XlatAddr = d.Private; d.Bound > 0 {
		r.XlatAddr = d.First.To16()
	}
	h.c.Events.PutText(&r, fqdn.AppendShort(h.text[:0], d.Name, event.MaxName))
}
