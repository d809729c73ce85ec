package replay

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
)

// transport returns the IPv4 header and the transport part of a whole packet that is not
// a fragment, and the sum of its pseudo header. ip is nil for other frames, l4 for
// fragments.
func transport(f []byte) (ip, l4 []byte, pseudo uint64) {
	if packet.Type(f) != packet.TypeIPv4 || len(f) < packet.EthLen+packet.MinIPv4 {
		return nil, nil, 0
	}
	b := f[packet.EthLen:]
	hl, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || hl < packet.MinIPv4 || total < hl || total > len(b) {
		return nil, nil, 0
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return b[:hl], nil, 0 // a fragment has no checksum of its own
	}
	l4 = b[hl:total]
	return b[:hl], l4, uint64(binary.BigEndian.Uint32(b[12:])) + uint64(binary.BigEndian.Uint32(b[16:])) +
		uint64(b[9]) + uint64(len(l4))
}

// place returns where in l4 the checksum of a TCP segment or UDP datagram is, or -1.
func place(proto byte, l4 []byte) int {
	switch {
	case proto == packet.TCP && len(l4) >= packet.TCPLen:
		return 16
	case proto == packet.UDP && len(l4) >= packet.UDPLen && binary.BigEndian.Uint16(l4[6:]) != 0:
		return 6
	}
	return -1
}

// unsummed reports whether the checksum of a frame is what a host leaves to its network
// device: the sum of the pseudo header, without the segment.
func unsummed(f []byte) bool {
	ip, l4, pseudo := transport(f)
	if l4 == nil {
		return false
	}
	at := place(ip[9], l4)
	return at >= 0 && binary.BigEndian.Uint16(l4[at:]) == packet.Sum(nil, pseudo) && packet.Sum(l4, pseudo) != 0xffff
}

// fixChecksums corrects the checksums of a complete IPv4 packet. Captures of a host
// that leaves them to its network device have wrong ones in frames that it sent.
func fixChecksums(f []byte) {
	ip, l4, pseudo := transport(f)
	if ip == nil {
		return
	}
	put := func(b []byte, off int, start uint64) {
		b[off], b[off+1] = 0, 0
		binary.BigEndian.PutUint16(b[off:], ^packet.Sum(b, start))
	}
	put(ip, 10, 0)
	if l4 == nil {
		return
	}
	switch at := place(ip[9], l4); {
	case at >= 0:
		put(l4, at, pseudo)
		if ip[9] == packet.UDP && l4[6]|l4[7] == 0 {
			l4[6], l4[7] = 0xff, 0xff
		}
	case ip[9] == packet.ICMP && len(l4) >= packet.ICMPLen:
		put(l4, 2, 0)
	}
}
