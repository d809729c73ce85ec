// Package packet parses frames into a small struct, once, and rewrites their headers in
// place, with incremental checksums.
package packet

// An Addr is a network-layer address of the family that the data plane handles, as a
// number: for IPv4, 10.0.0.1 is 0x0a000001. The size of addresses in the data plane is
// defined here alone.
type Addr uint32

// AddrFrom16 returns the address in 16 bytes (for IPv4 see RFC 4291 section 2.5.5.2), and
// whether it is of the supported family.
func AddrFrom16(b [16]byte) (Addr, bool) {
	if b[10] != 0xff || b[11] != 0xff || [10]byte(b[:10]) != [10]byte{} {
		return 0, false
	}
	return Addr(b[12])<<24 | Addr(b[13])<<16 | Addr(b[14])<<8 | Addr(b[15]), true
}

// To16 returns a in 16 bytes, IPv4 as ::ffff:a.b.c.d.
func (a Addr) To16() [16]byte {
	return [16]byte{10: 0xff, 11: 0xff, 12: byte(a >> 24), 13: byte(a >> 16), 14: byte(a >> 8), 15: byte(a)}
}

// Mask returns the part of a 16-byte mask that applies to an Addr: the last 32
// bits for IPv4.
func Mask(b [16]byte) Addr {
	return Addr(b[12])<<24 | Addr(b[13])<<16 | Addr(b[14])<<8 | Addr(b[15])
}
