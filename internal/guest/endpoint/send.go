package endpoint

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Reply turns an echo request into its reply and sends it (RFC 1122 section 3.2.2.6). The
// request is contiguous in frame fr, which Reply takes ownership of.
func (h *Host) Reply(p *packet.Packet, fr framebuf.Frame, from Side) {
	f := h.c.Pool.Bytes(fr)
	m := f[p.L4:]
	m[0], m[1] = packet.EchoReply, 0
	packet.FinishICMP(m)
	// Options are not copied to the reply: the header is written anew, and the message
	// moved to follow it.
	n := len(m)
	copy(f[packet.EthLen+packet.MinIPv4:], m)
	ip := f[packet.EthLen:]
	tos := packet.TOS(ip)
	packet.PutIPv4(ip, p.Dst, p.Src, packet.ICMP, 64, n)
	packet.SetTOS(ip, tos)                                       // RFC 1812 section 4.3.2.5
	packet.SetID(ip, h.c.Wire.NextID(p.Dst, p.Src, packet.ICMP)) // it may be fragmented on the way
	h.c.Wire.Send(from, fr.Buf, packet.EthLen+packet.MinIPv4+n, p.Src)
}

// SendSegment sends a TCP segment of the firewall's own, or one in place of an end of a
// connection that the firewall resets. It reports false when there is no buffer.
func (h *Host) SendSegment(to Side, s *tcp.Segment) bool {
	buf, ok := h.c.Wire.Buffer()
	if !ok {
		return false
	}
	const ip = packet.EthLen
	f := h.c.Pool.Buffer(buf)[headroom:]
	t := f[ip+packet.MinIPv4:]
	n := packet.TCPLen
	if s.MSS != 0 {
		binary.BigEndian.PutUint32(t[n:], 2<<24|4<<16|uint32(s.MSS))
		n += 4
	}
	binary.BigEndian.PutUint16(t, s.LocalPort)
	binary.BigEndian.PutUint16(t[2:], s.RemotePort)
	binary.BigEndian.PutUint32(t[4:], s.Seq)
	binary.BigEndian.PutUint32(t[8:], s.Ack)
	t[12], t[13] = byte(n/4)<<4, s.Flags
	binary.BigEndian.PutUint16(t[14:], s.Window)
	binary.BigEndian.PutUint32(t[16:], 0)
	n += copy(t[n:], s.Data)
	binary.BigEndian.PutUint16(t[16:], ^packet.Sum(t[:n], uint64(s.Local)+uint64(s.Remote)+packet.TCP+uint64(n)))
	packet.PutIPv4(f[ip:], s.Local, s.Remote, packet.TCP, 64, n)
	packet.SetDF(f[ip:])
	h.c.Wire.Send(to, buf, ip+packet.MinIPv4+n, s.Remote)
	return true
}

// sendUDP sends a message of the firewall's own.
func (h *Host) sendUDP(to Side, src packet.Addr, sport uint16, dst packet.Addr, dport uint16, msg []byte) {
	const head = packet.EthLen + packet.MinIPv4 + packet.UDPLen
	if head+len(msg) > len(h.c.Pool.Buffer(0))-headroom {
		return // not reached: see MaxUDP
	}
	buf, ok := h.c.Wire.Buffer()
	if !ok {
		return
	}
	f := h.c.Pool.Buffer(buf)[headroom:]
	n := packet.UDPLen + copy(f[head:], msg)
	u := f[head-packet.UDPLen : head-packet.UDPLen+n]
	binary.BigEndian.PutUint16(u, sport)
	binary.BigEndian.PutUint16(u[2:], dport)
	binary.BigEndian.PutUint16(u[4:], uint16(n))
	binary.BigEndian.PutUint16(u[6:], udpSum(src, sport, dst, dport, msg))
	packet.PutIPv4(f[packet.EthLen:], src, dst, packet.UDP, 64, n)
	packet.SetID(f[packet.EthLen:], h.c.Wire.NextID(src, dst, packet.UDP))
	packet.SetDF(f[packet.EthLen:])
	h.c.Wire.Send(to, buf, packet.EthLen+packet.MinIPv4+n, dst)
}
