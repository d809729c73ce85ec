package packet

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// A Tuple is a packet's addresses and ports in host order. For ICMP queries
// both ports are the identifier. It is 16 bytes without a gap, so that two words
// compare it.
type Tuple struct {
	Src, Dst         Addr
	SrcPort, DstPort uint16
	Proto            uint32 // IP protocol number
}

// MAC returns a link-layer address as FastKey takes it.
func MAC(a [6]byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(a[:])) | uint64(binary.LittleEndian.Uint16(a[4:]))<<32
}

const (
	usualMin  = EthLen + MinIPv4 + UDPLen
	typeAnd45 = 0x45<<16 | 0x0008 // EtherType and the IPv4 header's first byte, little-endian
	moreFrags = 0xff3f            // all of the fragment field that makes a fragment, little-endian
	shortEnd  = 98
)

// FastKey reads the tuple of a frame of the usual kind: addressed to self, IPv4
// without options, unfragmented, TCP or UDP, and in everything as ParseIPv4
// wants it, checksums included. It returns the frame's length without padding,
// or 0 for any other frame, about which ParseIPv4 says what it is.
func FastKey(f []byte, self uint64, t *Tuple) int {
	if len(f) < usualMin {
		return 0
	}
	h := (*[usualMin]byte)(f)
	if (binary.LittleEndian.Uint64(h[0:])^self)<<16 != 0 || binary.LittleEndian.Uint32(h[offEthType:])&0xffffff != typeAnd45 {
		return 0
	}
	a, b, c := binary.LittleEndian.Uint64(h[14:]), binary.LittleEndian.Uint64(h[22:]), binary.LittleEndian.Uint32(h[30:])
	s, carry := bits.Add64(a, b, 0)
	s, carry = bits.Add64(s, uint64(c), carry)
	if !valid(s+carry) || uint16(a>>48)&moreFrags != 0 {
		return 0
	}
	total := int(bits.ReverseBytes16(uint16(a >> 16)))
	n, end := total-MinIPv4, EthLen+total
	if n < UDPLen || end > len(f) {
		return 0
	}
	proto := uint8(b >> 8)
	ports := binary.LittleEndian.Uint32(h[34:])
	l := binary.LittleEndian.Uint32(h[38:]) // of UDP length and checksum
	switch proto {
	case UDP:
		if int(bits.ReverseBytes16(uint16(l))) != n || ports>>16 == 0 {
			return 0
		}
		if l>>16 == 0 { // no checksum (RFC 768)
			t.set(h, proto)
			return end
		}
	case TCP:
		if n < TCPLen || ports>>16 == 0 || ports&0xffff == 0 {
			return 0
		}
		if off := int(f[46]>>4) * 4; off < TCPLen || off > n {
			return 0
		}
	default:
		return 0
	}
	// The pseudo-header, and what has been read of the transport header.
	s = b>>32 + uint64(c) + uint64(proto)<<8 + uint64(bits.ReverseBytes16(uint16(n))) + uint64(ports) + uint64(l)
	if end > shortEnd {
		s, carry = bits.Add64(s, sumNative(f[usualMin:end]), 0)
		s += carry
	} else {
		// Of a short frame sumNative's call would be half of the work.
		f = f[:end]
		for o := usualMin; o <= len(f)-8; o += 8 {
			s, carry = bits.Add64(s, word(f, o), 0)
			s += carry
		}
		rest := (len(f) - usualMin) & 7
		s, carry = bits.Add64(s, word(f, len(f)-8)>>8>>(56-8*rest), 0)
		s += carry
	}
	if !valid(s) {
		return 0
	}
	t.set(h, proto)
	return end
}

// word returns 8 bytes of f at o. The compiler makes one load of it, without the
// arithmetic of a slice.
func word(f []byte, o int) uint64 {
	_ = f[o+7]
	return uint64(f[o]) | uint64(f[o+1])<<8 | uint64(f[o+2])<<16 | uint64(f[o+3])<<24 |
		uint64(f[o+4])<<32 | uint64(f[o+5])<<40 | uint64(f[o+6])<<48 | uint64(f[o+7])<<56
}

// set takes the tuple from the headers. It is written by words: it will be read
// so right away.
func (t *Tuple) set(h *[usualMin]byte, proto uint8) {
	w := (*[2]uint64)(unsafe.Pointer(t))
	w[0] = turn(binary.LittleEndian.Uint64(h[26:]))
	w[1] = uint64(turn32(binary.LittleEndian.Uint32(h[34:]))) | uint64(proto)<<32
}

// turn turns two 32-bit values in network order, the first of them in the low
// half, into two such in host order, and turn32 two of 16 bits. They undo
// themselves.
func turn(w uint64) uint64 { return bits.RotateLeft64(bits.ReverseBytes64(w), 32) }

func turn32(w uint32) uint32 { return bits.RotateLeft32(bits.ReverseBytes32(w), 16) }

// ParseFast reads into p what ParseIPv4 would, of a frame that FastKey has
// read as t, without padding.
func ParseFast(f []byte, t *Tuple, p *Packet) {
	h := (*[usualMin]byte)(f)
	*p = Packet{EtherType: TypeIPv4, Src: t.Src, Dst: t.Dst, SrcPort: t.SrcPort, DstPort: t.DstPort, Proto: uint8(t.Proto), Class: ClassUDP,
		TTL: h[EthLen+offTTL], L4: EthLen + MinIPv4, Total: uint16(len(f) - EthLen), DF: h[EthLen+offFrag]&0x40 != 0}
	if t.Proto == TCP && len(f) >= EthLen+MinIPv4+TCPLen {
		l4 := (*[TCPLen]byte)(f[EthLen+MinIPv4:])
		p.Class = ClassTCP
		p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
		p.Flags, p.Window = l4[13]&0x3f, binary.BigEndian.Uint16(l4[14:])
		p.Payload = uint16(len(f) - EthLen - MinIPv4 - int(l4[12]>>4)*4)
	}
}

// Head is how many bytes of a frame are looked at to translate it.
const Head = 64

// The following translate a packet whose frame begins with h and which FastKey has
// read. Each writes some fields, and returns or is told what that changes: a sum of
// ~m + m' (RFC 1624) of the words written, in their little-endian order, which
// one's complement sums do not mind. They are small, so that they are inlined.

// PutAddrs writes r's addresses.
func PutAddrs(h *[Head]byte, r *Rewrite) uint64 {
	old, new := binary.LittleEndian.Uint64(h[26:]), turn(uint64(r.Dst)<<32|uint64(r.Src))
	binary.LittleEndian.PutUint64(h[26:], new)
	d, carry := bits.Add64(^old, new, 0)
	d += carry
	return d>>32 + uint64(uint32(d)) // so that more can be added
}

// PassTTL decrements the TTL and gives the header its checksum; addrs is
// PutAddrs' sum.
func PassTTL(h *[Head]byte, addrs uint64) {
	ttl := binary.LittleEndian.Uint32(h[22:]) // with protocol and checksum
	// HC' = ~(~HC + ~m + m') (RFC 1624 equation 3), where m is the TTL's word.
	s := uint64(^uint16(ttl>>16)) + addrs + 0xfffe
	binary.LittleEndian.PutUint32(h[22:], (ttl-1)&0xffff|uint32(^fold(s))<<16)
}

// PutPorts writes r's ports.
func PutPorts(h *[Head]byte, r *Rewrite) uint64 {
	old, new := binary.LittleEndian.Uint32(h[34:]), turn32(uint32(r.DstPort)<<16|uint32(r.SrcPort))
	binary.LittleEndian.PutUint32(h[34:], new)
	return uint64(^old) + uint64(new)
}

// UpdateTCP gives a TCP header its checksum after changes of sum.
func UpdateTCP(h *[Head]byte, sum uint64) {
	binary.LittleEndian.PutUint16(h[50:], ^fold(uint64(^binary.LittleEndian.Uint16(h[50:]))+sum))
}

// UpdateUDP gives a UDP header its checksum after changes of sum. None stays
// none (RFC 768).
func UpdateUDP(h *[Head]byte, sum uint64) {
	c := binary.LittleEndian.Uint16(h[40:])
	if c == 0 {
		return
	}
	if c = ^fold(uint64(^c) + sum); c == 0 {
		c = 0xffff // zero would mean: no checksum
	}
	binary.LittleEndian.PutUint16(h[40:], c)
}
