package endpoint

import (
	"bytes"
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// ICMP errors about the firewall's own queries to upstreams. The source of an error can be
// forged, so only the packet that it quotes shows whether it is genuine (RFC 5927 section
// 4): all that is quoted must match an outstanding query.

// errorsPerSecond is how many of them are examined; others are ignored, and the query times
// out.
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

// saysUnreachable reports whether an ICMP error means that packets do not reach their
// destination: destination unreachable except for "fragmentation needed", or time exceeded.
func saysUnreachable(p *packet.Packet) bool {
	return p.ICMPType == packet.Unreachable && p.ICMPCode != packet.FragNeeded || p.ICMPType == packet.TimeExceeded && p.ICMPCode == 0
}

// Error handles an ICMP error p from the WAN, which quotes the packet inner, parsed as q.
// It reports whether the error is about a query of the firewall's own.
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

// quotesQuery reports whether the quoted UDP datagram l4, from its header on, is an
// outstanding query. The quoted part of the message must match the query. Where none is
// quoted (RFC 792 requires 8 bytes only), the checksum must match: it covers the identifier
// and the case of the name.
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
