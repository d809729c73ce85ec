package packet

import (
	"encoding/binary"
	"math/bits"
)

// Sum returns the Internet checksum's folded one's complement sum (RFC 1071)
// over b in network order, starting from a partial sum, not complemented: it
// is 0xffff when b carries its own correct checksum.
//
// Little-endian words are added, and the bytes of the sum are swapped at the end: one's
// complement addition is independent of byte order (RFC 1071 section 2(B)).
func Sum(b []byte, start uint64) uint16 {
	return fold(uint64(bits.ReverseBytes16(fold(sumNative(b)))) + uint64(fold(start)))
}

// FinishChecksum writes the Internet checksum of f from offset start on into the 16 bits at
// offset start+field, which hold the sum of what precedes it, the pseudo-header
// (CHECKSUM_PARTIAL in Linux; virtio 1.2, 5.1.6.2). The field must lie in f. It writes
// 0xffff for 0, which for UDP means that there is none (RFC 768).
func FinishChecksum(f []byte, start, field int) {
	c := ^Sum(f[start:], 0)
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(f[start+field:], c)
}

// sumNative returns the sum of b's little-endian words, to be folded.
func sumNative(b []byte) uint64 {
	var s, carry uint64
	n := len(b)
	if n < 8 {
		for i, v := range b {
			s += uint64(v) << (8 * (i & 1))
		}
		return s
	}
	// The bytes after the last whole word.
	last := binary.LittleEndian.Uint64(b[n-8:]) >> (64 - 8*(n&7))
	for len(b) >= 64 {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[32:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[40:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[48:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[56:]), carry)
		s += carry // cannot carry again: a sum that carried is small enough
		b = b[64:]
	}
	if len(b) >= 32 {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), carry)
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), carry)
		s += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		s, carry = bits.Add64(s, binary.LittleEndian.Uint64(b), 0)
		s += carry
		b = b[8:]
	}
	s, carry = bits.Add64(s, last, 0)
	return s + carry
}

// headerValid reports whether the checksum of the IPv4 header without options in b is
// correct. The caller has checked its version.
func headerValid(b *[MinIPv4]byte) bool {
	s := uint64(binary.LittleEndian.Uint32(b[0:])) + uint64(binary.LittleEndian.Uint32(b[4:])) + uint64(binary.LittleEndian.Uint32(b[8:])) +
		uint64(binary.LittleEndian.Uint32(b[12:])) + uint64(binary.LittleEndian.Uint32(b[16:]))
	return valid(s)
}

// fold adds the 16-bit words of s with the carries: the upper half of the sum of a word and
// the word rotated by half is the sum of its halves with its carry.
func fold(s uint64) uint16 {
	s += bits.RotateLeft64(s, 32)
	x := uint32(s >> 32)
	x += bits.RotateLeft32(x, 16)
	return uint16(x >> 16)
}

// valid reports whether s, a sum that is not 0, folds to 0xffff. It does if it is a
// multiple of 0xffff. Multiplication by the inverse modulo 2^64 maps the multiples, and
// only these, to 0 to (2^64-1)/0xffff.
func valid(s uint64) bool {
	const quotients = 0x0001000100010001
	return s*(1<<64-quotients) <= quotients
}
