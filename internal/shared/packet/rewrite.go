package packet

import "encoding/binary"

// update returns a checksum after a change: HC' = ~(~HC + ~m + m') (RFC 1624 equation 3),
// where delta is ~m + m'.
func update(sum uint16, delta uint32) uint16 {
	s := uint32(^sum) + delta
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return ^uint16(s)
}

// delta16 and delta32 are the ~m + m' of a changed field.
func delta16(old, new uint16) uint32 { return uint32(^old) + uint32(new) }

func delta32(old, new uint32) uint32 {
	return uint32(^uint16(old>>16)) + uint32(^uint16(old)) + new>>16 + new&0xffff
}

// A Rewrite is a packet's new addresses and ports in host order. For ICMP queries SrcPort
// is the new identifier; DstPort is not used.
type Rewrite struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
}

// Apply writes the addresses and ports of r to the IPv4 packet in frame f, which p
// describes, and decrements its TTL. All checksums stay correct; a UDP checksum of zero
// stays zero (RFC 768).
func Apply(f []byte, p *Packet, r *Rewrite) {
	addrs := applyIP(f, p, r)
	l4 := f[p.L4:]
	switch p.Class {
	case ClassTCP:
		d := addrs + delta16(p.SrcPort, r.SrcPort) + delta16(p.DstPort, r.DstPort)
		binary.BigEndian.PutUint16(l4, r.SrcPort)
		binary.BigEndian.PutUint16(l4[2:], r.DstPort)
		binary.BigEndian.PutUint16(l4[16:], update(binary.BigEndian.Uint16(l4[16:]), d))
	case ClassUDP:
		binary.BigEndian.PutUint16(l4, r.SrcPort)
		binary.BigEndian.PutUint16(l4[2:], r.DstPort)
		if old := binary.BigEndian.Uint16(l4[6:]); old != 0 {
			d := addrs + delta16(p.SrcPort, r.SrcPort) + delta16(p.DstPort, r.DstPort)
			c := update(old, d)
			if c == 0 {
				c = 0xffff // zero means no checksum
			}
			binary.BigEndian.PutUint16(l4[6:], c)
		}
	case ClassICMPQuery:
		if p.SrcPort != r.SrcPort {
			binary.BigEndian.PutUint16(l4[4:], r.SrcPort)
			c := update(binary.BigEndian.Uint16(l4[2:]), delta16(p.SrcPort, r.SrcPort))
			binary.BigEndian.PutUint16(l4[2:], c)
			if c == 0 && Sum(l4, 0) == 0 {
				// A message of zeros only, an empty echo reply with identifier 0: its sum
				// is the other zero (RFC 1624 section 3).
				binary.BigEndian.PutUint16(l4[2:], 0xffff)
			}
		}
	}
}

// applyIP is the part of Apply that concerns the IPv4 header. It returns the change of a
// checksum over the addresses, as delta32 does.
func applyIP(f []byte, p *Packet, r *Rewrite) (addrs uint32) {
	ip := f[EthLen : EthLen+MinIPv4 : len(f)]
	if r.Src != p.Src {
		addrs += delta32(uint32(p.Src), uint32(r.Src))
		binary.BigEndian.PutUint32(ip[offSrc:], uint32(r.Src))
	}
	if r.Dst != p.Dst {
		addrs += delta32(uint32(p.Dst), uint32(r.Dst))
		binary.BigEndian.PutUint32(ip[offDst:], uint32(r.Dst))
	}
	// The TTL is the high byte of its 16-bit word.
	ip[offTTL] = p.TTL - 1
	d := addrs + delta16(uint16(p.TTL)<<8|uint16(p.Proto), uint16(p.TTL-1)<<8|uint16(p.Proto))
	binary.BigEndian.PutUint16(ip[offSum:], update(binary.BigEndian.Uint16(ip[offSum:]), d))
	return addrs
}

// SetMACs writes the Ethernet destination and source addresses.
func SetMACs(f []byte, dst, src *[6]byte) {
	_ = f[11]
	copy(f[0:6], dst[:])
	copy(f[6:12], src[:])
}

// SetType writes the EtherType.
func SetType(f []byte, typ uint16) { binary.BigEndian.PutUint16(f[offEthType:], typ) }

// PutEth writes an Ethernet header.
func PutEth(f []byte, dst, src *[6]byte, typ uint16) {
	SetMACs(f, dst, src)
	binary.BigEndian.PutUint16(f[offEthType:], typ)
}

// PutIPv4 writes a header without options in front of a payload of n bytes at
// ip[20:], with its checksum.
func PutIPv4(ip []byte, src, dst Addr, proto, ttl uint8, n int) {
	_ = ip[MinIPv4-1]
	ip[0], ip[1] = 0x45, 0
	binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(MinIPv4+n))
	binary.BigEndian.PutUint16(ip[4:], 0)
	binary.BigEndian.PutUint16(ip[offFrag:], 0)
	ip[offTTL], ip[offProto] = ttl, proto
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint32(ip[offSrc:], uint32(src))
	binary.BigEndian.PutUint32(ip[offDst:], uint32(dst))
	binary.BigEndian.PutUint16(ip[offSum:], ^Sum(ip[:MinIPv4], 0))
}

// FinishICMP writes the checksum of the ICMP message m.
func FinishICMP(m []byte) {
	binary.BigEndian.PutUint16(m[2:], 0)
	binary.BigEndian.PutUint16(m[2:], ^Sum(m, 0))
}
