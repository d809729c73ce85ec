package endpoint

import (
	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// DNS over TCP: connections that end at the firewall. The router passes their segments like
// all other packets; package tcp implements the protocol.

// tuple returns the connection of a received packet.
func tuple(p *packet.Packet) tcp.Tuple {
	return tcp.Tuple{Local: p.Dst, Remote: p.Src, LocalPort: p.DstPort, RemotePort: p.SrcPort}
}

// ends handles the TCP stack's events.
type ends struct{ h *Host }

// Emit implements tcp.User.
func (u ends) Emit(s *tcp.Segment) {
	to := WAN
	if s.Passive {
		to = LAN
	}
	u.h.SendSegment(to, s)
}

// Message implements tcp.User.
func (u ends) Message(id uint32, msg []byte) {
	h := u.h
	t, tag, served := h.tcp.Conn(id)
	if !served {
		h.proxy.TCPResponse(tag, msg, h.now)
		h.tcp.Close(id, h.now)
		return
	}
	c := &h.client
	*c = dnsproxy.Client{Addr: t.Remote, Port: t.RemotePort, Server: t.Local, Conn: id}
	notQueries := h.proxy.Counters().NotQueries
	h.proxy.Query(c, msg, h.now) // the outcome is not a frame's: nothing is dropped
	if h.proxy.Counters().NotQueries != notQueries {
		h.tcp.Close(id, h.now) // not DNS
	}
}

// StreamReady implements tcp.User.
func (u ends) StreamReady(uint32, uint32) {
	for _, l := range u.h.links {
		l.Wake()
	}
}

// Closed implements tcp.User.
func (u ends) Closed(id, tag uint32, t *tcp.Tuple, served bool) {
	if !served {
		u.h.c.Ports.Give(packet.TCP, t.LocalPort)
		u.h.proxy.TCPFailed(tag, u.h.now) // unless it was answered, or is a stream
		for _, l := range u.h.links {
			l.Closed(id, u.h.now)
		}
	}
}

// Random implements tcp.User.
func (u ends) Random() uint64 { return u.h.c.Random.Uint64() }

// takeTCPPort reserves an unpredictable port of the WAN address.
func (h *Host) takeTCPPort() (local packet.Addr, port uint16, ok bool) {
	port, ok = h.c.Ports.Take(packet.TCP, h.c.Random.Uint64())
	return h.c.Ports.Addr(), port, ok
}

// askTCP sends a query to an upstream over a new connection.
func (h *Host) askTCP(to packet.Addr, port uint16, tag uint32, msg []byte) bool {
	addr, local, ok := h.takeTCPPort()
	if !ok {
		return false
	}
	t := tcp.Tuple{Local: addr, Remote: to, LocalPort: local, RemotePort: port}
	if !h.tcp.Connect(&t, tag, msg, h.now) {
		h.c.Ports.Give(packet.TCP, local)
		return false
	}
	return true
}
