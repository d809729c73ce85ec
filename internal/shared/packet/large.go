package packet

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// MaxHeaders is the length of the longest headers of a TCP segment over IPv4, with the
// Ethernet header.
const MaxHeaders = EthLen + 15*4 + 15*4

// CWR is a TCP flag (RFC 3168), which segmentation treats like FIN and PSH. Other code does
// not read it.
const CWR = 1 << 7

// ParseLarge is ParseIPv4 for a TCP segment that is still to be cut into ones that a link
// carries (segmentation offload). f is the beginning of its frame, with all headers; the
// frame has total bytes. Its checksum is that of the pseudo-header, as for FinishChecksum,
// from offset start on: the payload is not read. n is the length of all headers.
//
// A segment that no sender would make in this form is malformed: a fragment, one without
// payload, or with SYN or RST.
func ParseLarge(f []byte, total, start int, p *Packet) (n int, reason verdict.Reason) {
	*p = Packet{EtherType: TypeIPv4}
	if len(f) < EthLen+MinIPv4 {
		return 0, verdict.MalformedPacket
	}
	ip := f[EthLen:]
	hl := int(ip[0]&15) * 4
	p.L4 = uint16(EthLen + hl)
	if ip[0]>>4 != 4 || hl < MinIPv4 || int(p.L4)+TCPLen > len(f) || int(p.L4) != start ||
		int(binary.BigEndian.Uint16(ip[offTotalLen:])) != total-EthLen ||
		Sum(ip[:hl], 0) != 0xffff || !optionsValid(ip[MinIPv4:hl]) {
		return 0, verdict.MalformedPacket
	}
	p.Src = Addr(binary.BigEndian.Uint32(ip[offSrc:]))
	p.Dst = Addr(binary.BigEndian.Uint32(ip[offDst:]))
	p.Proto, p.TTL, p.Total = ip[offProto], ip[offTTL], uint16(total-EthLen)
	frag := binary.BigEndian.Uint16(ip[offFrag:])
	p.DF = frag&flagDF != 0
	l4 := f[p.L4:]
	off := int(l4[12]>>4) * 4
	n = int(p.L4) + off
	if frag&(flagMF|fragOffset) != 0 || p.Proto != TCP || off < TCPLen || n > len(f) || n >= total {
		return 0, verdict.MalformedPacket
	}
	p.Class = ClassTCP
	p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
	p.Flags, p.Window = l4[13]&0x3f, binary.BigEndian.Uint16(l4[14:])
	p.Payload = uint16(total - n)
	partial := binary.BigEndian.Uint16(l4[offTCPSum:])
	if p.SrcPort == 0 || p.DstPort == 0 || p.Flags&(SYN|RST) != 0 ||
		fold(uint64(partial)+uint64(^fold(pseudo(p, total-int(p.L4))))) != 0xffff {
		return 0, verdict.MalformedPacket
	}
	return n, 0
}

// ApplyLarge is Apply for a packet that ParseLarge has read: its checksum stays that of the
// pseudo-header, which has no ports.
func ApplyLarge(f []byte, p *Packet, r *Rewrite) {
	addrs := applyIP(f, p, r)
	l4 := f[p.L4:]
	binary.BigEndian.PutUint16(l4, r.SrcPort)
	binary.BigEndian.PutUint16(l4[2:], r.DstPort)
	sum := binary.BigEndian.Uint16(l4[offTCPSum:])
	binary.BigEndian.PutUint16(l4[offTCPSum:], fold(uint64(sum)+uint64(addrs)))
}

// PutSegment makes f, of which the payload is set, the segment with number i, from 0, of a
// segment that ParseLarge has read as p and whose headers are given. Each but the last one
// has size bytes of payload. All checksums are complete. It does what Linux does: the
// identification and the sequence number count, only the first one has CWR, only the last
// one FIN and PSH.
func PutSegment(f, headers []byte, p *Packet, i, size int) {
	copy(f, headers)
	ip, l4 := f[EthLen:p.L4], f[p.L4:]
	binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(len(f)-EthLen))
	binary.BigEndian.PutUint16(ip[offID:], binary.BigEndian.Uint16(ip[offID:])+uint16(i))
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint16(ip[offSum:], ^Sum(ip, 0))
	binary.BigEndian.PutUint32(l4[4:], p.Seq+uint32(i*size))
	if i > 0 {
		l4[13] &^= CWR
	}
	if (i+1)*size < int(p.Payload) {
		l4[13] &^= FIN | PSH
	}
	binary.BigEndian.PutUint16(l4[offTCPSum:], 0)
	binary.BigEndian.PutUint16(l4[offTCPSum:], ^Sum(l4, pseudo(p, len(l4))))
}
