package packet

import "encoding/binary"

// ParseEmbedded reads the packet that an ICMP error quotes: an IPv4 header and at least 8
// bytes of the transport header (RFC 792). Its header checksum must be correct (RFC 5508
// REQ-3a); its options are skipped (REQ-3b); the transport checksum is not verified, since
// the packet may be truncated (REQ-3c).
func ParseEmbedded(b []byte, p *Packet) bool {
	*p = Packet{}
	if len(b) < MinIPv4 {
		return false
	}
	hl := int(b[0]&15) * 4
	if b[0]>>4 != 4 || hl < MinIPv4 || len(b) < hl+8 || Sum(b[:hl], 0) != 0xffff {
		return false
	}
	if binary.BigEndian.Uint16(b[offFrag:])&fragOffset != 0 {
		return false // not the first fragment: no transport header
	}
	p.Src, p.Dst = Addr(binary.BigEndian.Uint32(b[offSrc:])), Addr(binary.BigEndian.Uint32(b[offDst:]))
	p.Proto, p.L4 = b[offProto], uint16(hl)
	l4 := b[hl:]
	switch p.Proto {
	case TCP, UDP:
		p.Class = ClassTCP
		if p.Proto == UDP {
			p.Class = ClassUDP
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
		p.Seq = binary.BigEndian.Uint32(l4[4:]) // of TCP
	case ICMP:
		if l4[0] != EchoRequest && l4[0] != EchoReply {
			return false
		}
		p.Class = ClassICMPQuery
		p.SrcPort = binary.BigEndian.Uint16(l4[4:])
		p.DstPort = p.SrcPort
	default:
		return false
	}
	return true
}

// RewriteEmbedded writes the addresses and ports of r to the quoted packet in b. The IPv4
// header checksum stays correct, and so does the transport checksum, which for TCP is not
// always quoted.
func RewriteEmbedded(b []byte, p *Packet, r *Rewrite) {
	addrs := delta32(uint32(p.Src), uint32(r.Src)) + delta32(uint32(p.Dst), uint32(r.Dst))
	binary.BigEndian.PutUint32(b[offSrc:], uint32(r.Src))
	binary.BigEndian.PutUint32(b[offDst:], uint32(r.Dst))
	binary.BigEndian.PutUint16(b[offSum:], update(binary.BigEndian.Uint16(b[offSum:]), addrs))
	l4 := b[p.L4:]
	switch p.Class {
	case ClassTCP, ClassUDP:
		binary.BigEndian.PutUint16(l4, r.SrcPort)
		binary.BigEndian.PutUint16(l4[2:], r.DstPort)
		ports := delta16(p.SrcPort, r.SrcPort) + delta16(p.DstPort, r.DstPort)
		if p.Class == ClassTCP && len(l4) >= offTCPSum+2 {
			binary.BigEndian.PutUint16(l4[offTCPSum:], update(binary.BigEndian.Uint16(l4[offTCPSum:]), addrs+ports))
		}
		if p.Class == ClassUDP {
			if old := binary.BigEndian.Uint16(l4[6:]); old != 0 {
				c := update(old, addrs+ports)
				if c == 0 {
					c = 0xffff
				}
				binary.BigEndian.PutUint16(l4[6:], c)
			}
		}
	case ClassICMPQuery:
		binary.BigEndian.PutUint16(l4[4:], r.SrcPort)
		binary.BigEndian.PutUint16(l4[2:], update(binary.BigEndian.Uint16(l4[2:]), delta16(p.SrcPort, r.SrcPort)))
	}
}
