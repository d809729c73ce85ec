package endpoint

import (
	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// DNS over TCP: connections that end at the firewall. Their segments come and
// go like all other packets; what they say is internal/guest/tcp's.

// tuple is the connection of a packet that arrived.
func tuple(p *packet.Packet) tcp.Tuple {
	return tcp.Tuple{Local: p.Dst, Remote: p.Src, LocalPort: p.DstPort, RemotePort: p.SrcPort}
}

// ends is what the connections tell the host.
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
	h.proxy.Query(c, msg, h.now) // one that is too many is no frame that is dropped
	if h.proxy.Counters().NotQueries != notQueries {
		h.tcp.Close(id, h.now) // this is not DNS
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
		u.h.proxy.TCPFailed(tag, u.h.now) // unless it has its answer, or is a stream
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

// askTCP sends a query to an upstream over a connection of its own.
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
