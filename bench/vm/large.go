package main

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Large TCP segments, as a host with TCP segmentation offload sends them: 45 segments of 1,448
// bytes with timestamps in one frame, with a partial checksum (virtio 1.2, 5.1.6.2). Each frame of
// a connection is the same one, as if it had been lost and sent again: what is measured is what
// the firewall does with a frame, and it is the same for a new one. The payload is whatever is in
// the guest's buffers: neither end writes it or reads it, as the firewall does not.
const (
	tcpHeader    = 32 // with timestamps
	largeHeaders = packet.EthLen + packet.MinIPv4 + tcpHeader
	mss          = 1448
	largeLen     = largeHeaders + 45*mss
)

const (
	tcpFIN, tcpSYN, tcpACK = 1, 2, 16
	clientNext, serverNext = 1001, 5001 // sequence numbers of the first bytes of both directions
)

// segment writes the headers of a segment without payload.
func (s *stream) segment(f []byte, i uint64, flags byte, seq, ack uint32) {
	src, sport, dst := endpoint(i)
	copy(f, s.template[:packet.EthLen+packet.MinIPv4])
	ip, tcp := f[packet.EthLen:], f[packet.EthLen+packet.MinIPv4:]
	ip[9] = packet.TCP
	binary.BigEndian.PutUint32(ip[12:], src)
	binary.BigEndian.PutUint32(ip[16:], dst)
	binary.BigEndian.PutUint16(tcp, uint16(sport))
	binary.BigEndian.PutUint16(tcp[2:], 9)
	numbers(tcp, flags, seq, ack)
}

// numbers writes what follows the ports of a TCP header.
func numbers(tcp []byte, flags byte, seq, ack uint32) {
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint32(tcp[8:], ack)
	tcp[12], tcp[13] = tcpHeader/4<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	clear(tcp[16:20])
	copy(tcp[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1}) // timestamps
}

// sums writes the length and the checksums of a frame with n bytes; partial leaves TCP's as that
// of the pseudo-header.
func sums(f []byte, n int, partial bool) {
	ip, tcp := f[packet.EthLen:][:packet.MinIPv4], f[packet.EthLen+packet.MinIPv4:]
	binary.BigEndian.PutUint16(ip[2:], uint16(n-packet.EthLen))
	clear(ip[10:12])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip))
	pseudo := sum(packet.TCP+uint32(n-packet.EthLen-packet.MinIPv4), ip[12:20])
	binary.BigEndian.PutUint16(tcp[16:], pseudo)
	if !partial {
		binary.BigEndian.PutUint16(tcp[16:], ^sum(0, tcp[:n-packet.EthLen-packet.MinIPv4]))
	}
}

// sum adds the 16-bit words of b.
func sum(s uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	return fold(s)
}

// syn writes the SYN of connection i, and returns its length.
func (s *stream) syn(f []byte, i uint64) int {
	s.segment(f, i, tcpSYN, clientNext-1, 0)
	sums(f, largeHeaders, false)
	return largeHeaders
}

// large writes the headers of a large segment of connection i, and returns its length.
func (s *stream) large(h *[netHeader]byte, f []byte, i uint64) int {
	s.segment(f, i, tcpACK, clientNext, serverNext)
	sums(f, largeLen, true)
	h[0], h[1] = 1, 1 // NEEDS_CSUM, TCPV4
	binary.LittleEndian.PutUint16(h[2:], largeHeaders)
	binary.LittleEndian.PutUint16(h[4:], mss)
	binary.LittleEndian.PutUint16(h[6:], packet.EthLen+packet.MinIPv4)
	binary.LittleEndian.PutUint16(h[8:], 16)
	return largeLen
}

// handshake answers a segment of a handshake: a SYN by the server's SYN-ACK, and that by the
// client's acknowledgement. Others are answered by nothing.
func handshake(f []byte) []byte {
	if len(f) < largeHeaders {
		return nil
	}
	flags, seq, ack := byte(0), uint32(0), uint32(0)
	switch f[packet.EthLen+packet.MinIPv4+13] & (tcpSYN | tcpACK) {
	case tcpSYN:
		flags, seq, ack = tcpSYN|tcpACK, serverNext-1, clientNext
	case tcpSYN | tcpACK:
		flags, seq, ack = tcpACK, clientNext, serverNext
	default:
		return nil
	}
	r := answer(f[:largeHeaders])
	numbers(r[packet.EthLen+packet.MinIPv4:], flags, seq, ack)
	sums(r, largeHeaders, false)
	return r
}

// isTCP reports whether a frame carries IPv4 and TCP without options of IP.
func isTCP(f []byte) bool {
	return len(f) >= 54 && f[12] == 8 && f[13] == 0 && f[14] == 0x45 && f[23] == packet.TCP
}
