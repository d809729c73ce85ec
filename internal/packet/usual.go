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

// MAC returns a link-layer address as Usual takes it.
func MAC(a [6]byte) uint64 {
	return uint64(binary.LittleEndian.Uint32(a[:])) | uint64(binary.LittleEndian.Uint16(a[4:]))<<32
}

const (
	usualMin  = EthLen + MinIPv4 + UDPLen
	typeAnd45 = 0x45<<16 | 0x0008 // EtherType and the IPv4 header's first byte, little-endian
	moreFrags = 0xff3f            // all of the fragment field that makes a fragment, little-endian
)

// Usual reads the tuple of a frame of the usual kind: addressed to self, IPv4
// without options, unfragmented, TCP or UDP, and in everything as ParseIPv4
// wants it, checksums included. It returns the frame's length without padding,
// or 0 for any other frame, about which ParseIPv4 says what it is.
func Usual(f []byte, self uint64, t *Tuple) int {
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
	switch proto {
	case UDP:
		l := binary.LittleEndian.Uint32(h[38:]) // length and checksum
		if int(bits.ReverseBytes16(uint16(l))) != n || ports>>16 == 0 {
			return 0
		}
		if l>>16 == 0 { // no checksum (RFC 768)
			t.set(b, c, ports, proto)
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
	// The pseudo-header's addresses lie in front of the transport header.
	s = sumNative(f[26:end])
	s, carry = bits.Add64(s, uint64(proto)<<8+uint64(bits.ReverseBytes16(uint16(n))), 0)
	if !valid(s + carry) {
		return 0
	}
	t.set(b, c, ports, proto)
	return end
}

// set takes the tuple from the header's words. It is written by words, too: it
// will be read so right away.
func (t *Tuple) set(b uint64, c, ports uint32, proto uint8) {
	w := (*[2]uint64)(unsafe.Pointer(t))
	w[0] = uint64(bits.ReverseBytes32(uint32(b>>32))) | uint64(bits.ReverseBytes32(c))<<32
	p := bits.ReverseBytes32(ports)
	w[1] = uint64(p>>16|p<<16) | uint64(proto)<<32
}

// ParseUsual reads into p what ParseIPv4 would, of a frame that Usual has
// read as t, without padding.
func ParseUsual(f []byte, t *Tuple, p *Packet) {
	h := (*[usualMin]byte)(f)
	*p = Packet{EtherType: TypeIPv4, Src: t.Src, Dst: t.Dst, SrcPort: t.SrcPort, DstPort: t.DstPort, Proto: uint8(t.Proto), Class: Gram,
		TTL: h[EthLen+offTTL], L4: EthLen + MinIPv4, Total: uint16(len(f) - EthLen), DF: h[EthLen+offFrag]&0x40 != 0}
	if t.Proto == TCP && len(f) >= EthLen+MinIPv4+TCPLen {
		l4 := (*[TCPLen]byte)(f[EthLen+MinIPv4:])
		p.Class = Stream
		p.Seq, p.Ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
		p.Flags, p.Window = l4[13]&0x3f, binary.BigEndian.Uint16(l4[14:])
		p.Payload = uint16(len(f) - EthLen - MinIPv4 - int(l4[12]>>4)*4)
	}
}

// ApplyUsual gives the packet in f, which Usual has read as t, the addresses and
// ports of r and decrements its TTL. Checksums stay right.
func ApplyUsual(f []byte, t *Tuple, r *Rewrite) {
	h := (*[usualMin]byte)(f)
	// One's complement sums do not mind the order of bytes: these are of
	// little-endian words.
	old, new := binary.LittleEndian.Uint64(h[26:]), uint64(bits.ReverseBytes32(uint32(r.Dst)))<<32|uint64(bits.ReverseBytes32(uint32(r.Src)))
	binary.LittleEndian.PutUint64(h[26:], new)
	d, carry := bits.Add64(^old, new, 0)
	d += carry
	d = d>>32 + d&0xffffffff                  // so that more can be added
	ttl := binary.LittleEndian.Uint32(h[22:]) // with protocol and checksum
	// HC' = ~(~HC + ~m + m') (RFC 1624 equation 3), where m is the TTL's word.
	s := uint64(^uint16(ttl>>16)) + d + 0xfffe
	binary.LittleEndian.PutUint32(h[22:], (ttl-1)&0xffff|uint32(^fold(s))<<16)

	oldPorts, ports := binary.LittleEndian.Uint32(h[34:]), uint32(bits.ReverseBytes16(r.DstPort))<<16|uint32(bits.ReverseBytes16(r.SrcPort))
	binary.LittleEndian.PutUint32(h[34:], ports)
	d += uint64(^oldPorts) + uint64(ports)
	if t.Proto == TCP {
		c := f[EthLen+MinIPv4+16:][:2]
		binary.LittleEndian.PutUint16(c, ^fold(uint64(^binary.LittleEndian.Uint16(c))+d))
		return
	}
	if c := binary.LittleEndian.Uint16(h[40:]); c != 0 {
		c = ^fold(uint64(^c) + d)
		if c == 0 {
			c = 0xffff // zero would mean: no checksum
		}
		binary.LittleEndian.PutUint16(h[40:], c)
	}
}
