package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/dnsproxy"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// DNS over TCP: connections that end at the firewall. Their segments come and
// go like all other packets; what they say is internal/guest/tcp's.

// tuple is the connection of a packet that arrived.
func tuple(p *received) tcp.Tuple {
	return tcp.Tuple{Local: p.Dst, Remote: p.Src, LocalPort: p.DstPort, RemotePort: p.SrcPort}
}

// dnsSegment takes a segment when it belongs to a connection that ends here.
func (e *Engine) dnsSegment(p *received, now int64) bool {
	if p.Class != packet.Stream || p.in.n == lan && p.DstPort != dnsPort || p.in.n == wan && p.Dst != e.nat.Own().Addr() {
		return false
	}
	t := tuple(p)
	rule, ok := e.names.tcp.Owns(&t)
	if !ok {
		return false
	}
	if p.in.n == lan {
		e.c.Accepts[rule]++
	}
	if !e.linear(p) {
		e.dropPacket(p, verdict.FragmentedIPv4, now)
		return true
	}
	e.names.tcp.Input(&t, &p.Packet, e.tcpOptions(p), e.payload(p), now)
	e.c.Local++
	e.pool.Put(p.frame.Buf)
	return true
}

// dnsConnect begins the connection that a SYN asks for, which rule has accepted.
func (e *Engine) dnsConnect(p *received, rule uint32, now int64) {
	t := tuple(p)
	e.names.tcp.Accept(&t, &p.Packet, e.tcpOptions(p), rule, now)
	e.c.Local++
	e.c.Joined += e.release(p) - 1
}

// ends is what the connections tell the engine.
type ends struct{ e *Engine }

// Emit implements tcp.User.
func (u ends) Emit(s *tcp.Segment) {
	e := u.e
	out := &e.port[wan]
	if s.Passive {
		out = &e.port[lan]
	}
	e.putSegment(out, s)
}

// putSegment sends a TCP segment of the firewall's own.
func (e *Engine) putSegment(out *port, s *tcp.Segment) {
	buf, ok := e.pool.Get()
	if !ok {
		e.c.NoBuffer++
		return
	}
	const ip = packet.EthLen
	f := e.pool.Buffer(buf)[headroom:]
	h := f[ip+packet.MinIPv4:]
	n := packet.TCPLen
	if s.MSS != 0 {
		binary.BigEndian.PutUint32(h[n:], 2<<24|4<<16|uint32(s.MSS))
		n += 4
	}
	binary.BigEndian.PutUint16(h, s.LocalPort)
	binary.BigEndian.PutUint16(h[2:], s.RemotePort)
	binary.BigEndian.PutUint32(h[4:], s.Seq)
	binary.BigEndian.PutUint32(h[8:], s.Ack)
	h[12], h[13] = byte(n/4)<<4, s.Flags
	binary.BigEndian.PutUint16(h[14:], s.Window)
	binary.BigEndian.PutUint32(h[16:], 0)
	n += copy(h[n:], s.Data)
	binary.BigEndian.PutUint16(h[16:], ^packet.Sum(h[:n], uint64(s.Local)+uint64(s.Remote)+packet.TCP+uint64(n)))
	packet.PutIPv4(f[ip:], s.Local, s.Remote, packet.TCP, 64, n)
	packet.SetDF(f[ip:])
	e.emitOwn(out, buf, ip+packet.MinIPv4+n, s.Remote, e.now)
}

// Message implements tcp.User.
func (u ends) Message(id uint32, msg []byte) {
	e := u.e
	t, tag, served := e.names.tcp.Conn(id)
	if !served {
		e.names.proxy.TCPResponse(tag, msg, e.now)
		e.names.tcp.Close(id, e.now)
		return
	}
	c := &e.names.client
	*c = dnsproxy.Client{Addr: t.Remote, Port: t.RemotePort, Server: t.Local, Conn: id}
	unspeakable := e.names.proxy.Counters().NotQueries
	e.names.proxy.Query(c, msg, e.now) // one that is too many is no frame that is dropped
	if e.names.proxy.Counters().NotQueries != unspeakable {
		e.names.tcp.Close(id, e.now) // this is not DNS
	}
}

// StreamReady implements tcp.User.
func (u ends) StreamReady(uint32, uint32) {
	for _, l := range u.e.names.links {
		l.Wake()
	}
}

// Closed implements tcp.User.
func (u ends) Closed(id, tag uint32, t *tcp.Tuple, served bool) {
	if !served {
		u.e.GivePort(packet.TCP, t.LocalPort)
		u.e.names.proxy.TCPFailed(tag, u.e.now) // unless it has its answer, or is a stream
		for _, l := range u.e.names.links {
			l.Closed(id, u.e.now)
		}
	}
}

// Random implements tcp.User.
func (u ends) Random() uint64 { return u.e.names.rng.Uint64() }

// takeTCPPort reserves an unpredictable port of the WAN address. GivePort gives
// it back.
func (e *Engine) takeTCPPort() (local packet.Addr, port uint16, ok bool) {
	port, ok = e.nat.Own().Take(packet.TCP, e.names.rng.Uint64())
	return e.nat.Own().Addr(), port, ok
}

// askTCP sends a query to an upstream over a connection of its own.
func (e *Engine) askTCP(to packet.Addr, port uint16, tag uint32, msg []byte) bool {
	addr, local, ok := e.takeTCPPort()
	if !ok {
		return false
	}
	t := tcp.Tuple{Local: addr, Remote: to, LocalPort: local, RemotePort: port}
	if !e.names.tcp.Connect(&t, tag, msg, e.now) {
		e.GivePort(packet.TCP, local)
		return false
	}
	return true
}
