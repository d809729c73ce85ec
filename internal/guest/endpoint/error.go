package endpoint

import (
	"bytes"
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// ICMP errors about the firewall's own queries to upstreams. Anyone can send
// such an error in the name of any router, so that only what it quotes says
// whether it is true (RFC 5927 section 4): the quote must be of a query that is
// outstanding, with all of it that is there.

// errorsPerSecond is how many of them are looked at; the others do nothing, and
// the query's time-out does its work.
const errorsPerSecond = 1000

// errorRate counts the errors of a second.
type errorRate struct {
	since int64
	n     int
}

func (u *errorRate) within(now int64) bool {
	if now-u.since >= second {
		*u = errorRate{since: now}
	}
	u.n++
	return u.n <= errorsPerSecond
}

// saysUnreachable reports whether an ICMP error says that packets do not reach
// their destination: everything of its type but "fragmentation needed", and a
// route that goes in circles.
func saysUnreachable(p *packet.Packet) bool {
	return p.ICMPType == packet.Unreachable && p.ICMPCode != packet.FragNeeded || p.ICMPType == packet.TimeExceeded && p.ICMPCode == 0
}

// Error takes an ICMP error from the WAN, p, which quotes the packet inner, read as q,
// and reports whether it is about a query of the firewall's own.
func (h *Host) Error(p, q *packet.Packet, inner []byte, now int64) bool {
	own := h.c.Ports.Addr()
	if h.proxy == nil || p.Dst != own || q.Src != own || !saysUnreachable(p) {
		return false
	}
	h.now = now
	l4 := inner[q.L4:]
	switch q.Class {
	case packet.ClassUDP:
		if !h.proxy.OwnsPort(q.SrcPort) || !h.errors.within(now) || !h.quotesQuery(q, l4) {
			return false
		}
		h.proxy.Unreachable(q.SrcPort, now)
		return true
	case packet.ClassTCP:
		t := tcp.Tuple{Local: q.Src, Remote: q.Dst, LocalPort: q.SrcPort, RemotePort: q.DstPort}
		_, ok := h.tcp.Owns(&t)
		return ok && h.errors.within(now) && h.tcp.Unreachable(&t, binary.BigEndian.Uint32(l4[4:]), now)
	}
	return false
}

// quotesQuery reports whether a quoted UDP datagram, from its header on, is one
// that a query went out in. What is quoted of the message must be the message.
// Where nothing is (RFC 792 asks for 8 bytes only), the checksum stands for it:
// it covers the identifier and the case of the name.
func (h *Host) quotesQuery(q *packet.Packet, l4 []byte) bool {
	to, port, msg, ok := h.proxy.Sent(q.SrcPort)
	if !ok || q.Dst != to || q.DstPort != port || int(binary.BigEndian.Uint16(l4[4:])) != packet.UDPLen+len(msg) {
		return false
	}
	data := l4[packet.UDPLen:]
	data = data[:min(len(data), len(msg))]
	if len(data) >= 2 {
		return bytes.Equal(data, msg[:len(data)])
	}
	return binary.BigEndian.Uint16(l4[6:]) == udpSum(q.Src, q.SrcPort, to, port, msg)
}

// udpSum returns the checksum of a datagram.
func udpSum(src packet.Addr, sport uint16, dst packet.Addr, dport uint16, msg []byte) uint16 {
	n := uint64(packet.UDPLen + len(msg))
	sum := ^packet.Sum(msg, uint64(src)+uint64(dst)+packet.UDP+n+uint64(sport)+uint64(dport)+n)
	if sum == 0 {
		sum = 0xffff
	}
	return sum
}
