package packet

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// A Tuple is a packet's addresses and ports in host order. For ICMP queries both ports are
// the identifier. It is 16 bytes without padding, so that it is compared as two words.
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
	fastMin   = EthLen + MinIPv4 + UDPLen
	typeAnd45 = 0x45<<16 | 0x0008 // EtherType and the IPv4 header's first byte, little-endian
	moreFrags = 0xff3f            // the bits of the fragment field that are set in fragments, little-endian
	shortEnd  = 98
)

// FastKey reads the tuple of a frame of the fast path: addressed to self, IPv4 without
// options, unfragmented, TCP or UDP, and valid for ParseIPv4, checksums included. It
// returns the frame's length without padding, or 0 for any other frame, which is then for
// ParseIPv4.
func FastKey(f []byte, self uint64, t *Tuple) int {
	if len(f) < fastMin {
		return 0
	}
	h := (*[fastMin]byte)(f)
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
	// The pseudo-header, and the bytes of the transport header that have been read.
	s = b>>32 + uint64(c) + uint64(proto)<<8 + uint64(bits.ReverseBytes16(uint16(n))) + uint64(ports) + uint64(l)
	if end > shortEnd {
		s, carry = bits.Add64(s, sumNative(f[fastMin:end]), 0)
		s += carry
	} else {
		// For short frames the call of sumNative would be half of the work.
		f = f[:end]
		for o := fastMin; o <= len(f)-8; o += 8 {
			s, carry = bits.Add64(s, word(f, o), 0)
			s += carry
		}
		rest := (len(f) - fastMin) & 7
		s, carry = bits.Add64(s, word(f, len(f)-8)>>8>>(56-8*rest), 0)
		s += carry
	}
	if !valid(s) {
		return 0
	}
	t.set(h, proto)
	return end
}

// word returns 8 bytes of f at o. It compiles to one load, without the arithmetic of a
// slice.
func word(f []byte, o int) uint64 {
	_ = f[o+7]
	return uint64(f[o]) | uint64(f[o+1])<<8 | uint64(f[o+2])<<16 | uint64(f[o+3])<<24 |
		uint64(f[o+4])<<32 | uint64(f[o+5])<<40 | uint64(f[o+6])<<48 | uint64(f[o+7])<<56
}

// set sets the tuple from the headers. It stores whole words, which are loaded again soon.
func (t *Tuple) set(h *[fastMin]byte, proto uint8) {
	w := (*[2]uint64)(unsafe.Pointer(t))
	w[0] = turn(binary.LittleEndian.Uint64(h[26:]))
	w[1] = uint64(turn32(binary.LittleEndian.Uint32(h[34:]))) | uint64(proto)<<32
}

// turn converts two 32-bit values from network order, the first in the low half, to host
// order; turn32 does the same for two of 16 bits. Both are their own inverse.
func turn(w uint64) uint64 { return bits.RotateLeft64(bits.ReverseBytes64(w), 32) }

func turn32(w uint32) uint32 { return bits.RotateLeft32(bits.ReverseBytes32(w), 16) }

// ParseFast fills p as ParseIPv4 would from a frame without padding whose tuple FastKey has
// read as t.
func ParseFast(f []byte, t *Tuple, p *Packet) {
	h := (*[fastMin]byte)(f)
	*p = Packet{} // and then written where it lies: see words.go
	p.EtherType, p.Class, p.L4, p.Total = TypeIPv4, ClassUDP, EthLen+MinIPv4, uint16(len(f)-EthLen)
	p.Src, p.Dst, p.SrcPort, p.DstPort, p.Proto = t.Src, t.Dst, t.SrcPort, t.DstPort, uint8(t.Proto)
	p.TTL, p.DF = h[EthLen+offTTL], h[EthLen+offFrag]&0x40 != 0
	if t.Proto == TCP && len(f) >= EthLen+MinIPv4+TCPLen {
		l4 := (*[TCPLen]byte)(f[EthLen+MinIPv4:])
		p.Class = ClassTCP
		p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
		p.Flags, p.Window = l4[13]&0x3f, binary.BigEndian.Uint16(l4[14:])
		p.Payload = uint16(len(f) - EthLen - MinIPv4 - int(l4[12]>>4)*4)
	}
}

// Head is how many bytes of a frame translation reads.
const Head = 64

// The following functions translate a packet that FastKey has read and whose frame begins
// with h. Each writes some fields and returns, or takes, the change of the checksum: the
// sum of ~m + m' (RFC 1624) over the words written, as little-endian words, of which one's
// complement sums are independent. They are small enough to be inlined.

// PutAddrs writes r's addresses and returns the change.
func PutAddrs(h *[Head]byte, r *Rewrite) uint64 {
	old, new := binary.LittleEndian.Uint64(h[26:]), turn(uint64(r.Dst)<<32|uint64(r.Src))
	binary.LittleEndian.PutUint64(h[26:], new)
	d, carry := bits.Add64(^old, new, 0)
	d += carry
	return d>>32 + uint64(uint32(d)) // leaves room to add more
}

// PassTTL decrements the TTL and updates the header checksum; addrs is the result of
// PutAddrs.
func PassTTL(h *[Head]byte, addrs uint64) {
	ttl := binary.LittleEndian.Uint32(h[22:]) // with protocol and checksum
	// HC' = ~(~HC + ~m + m') (RFC 1624 equation 3), where m is the TTL's word.
	s := uint64(^uint16(ttl>>16)) + addrs + 0xfffe
	binary.LittleEndian.PutUint32(h[22:], (ttl-1)&0xffff|uint32(^fold(s))<<16)
}

// PutPorts writes r's ports and returns the change.
func PutPorts(h *[Head]byte, r *Rewrite) uint64 {
	old, new := binary.LittleEndian.Uint32(h[34:]), turn32(uint32(r.DstPort)<<16|uint32(r.SrcPort))
	binary.LittleEndian.PutUint32(h[34:], new)
	return uint64(^old) + uint64(new)
}

// UpdateTCP updates the checksum of a TCP header for changes whose sum is sum.
func UpdateTCP(h *[Head]byte, sum uint64) {
	binary.LittleEndian.PutUint16(h[50:], ^fold(uint64(^binary.LittleEndian.Uint16(h[50:]))+sum))
}

// UpdateUDP updates the checksum of a UDP header for changes whose sum is sum. A checksum
// of zero, which is none, stays zero (RFC 768).
func UpdateUDP(h *[Head]byte, sum uint64) {
	c := binary.LittleEndian.Uint16(h[40:])
	if c == 0 {
		return
	}
	if c = ^fold(uint64(^c) + sum); c == 0 {
		c = 0xffff // zero means no checksum
	}
	binary.LittleEndian.PutUint16(h[40:], c)
}
