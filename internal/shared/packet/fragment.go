package packet

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Piece is the payload of an IPv4 fragment: Len bytes of the datagram's payload from byte
// Off on, and whether more follow. An unfragmented packet is one piece.
type Piece struct {
	Off, Len int
	More     bool
}

// PieceOf returns the piece of a datagram in the IPv4 packet in frame f, which p describes.
// It reports false for an invalid one: without data, with data beyond the largest datagram,
// or not the last one and not a multiple of 8 bytes (RFC 791 section 3.2).
func PieceOf(f []byte, p *Packet) (Piece, bool) {
	w := binary.BigEndian.Uint16(f[EthLen+offFrag:])
	hl := int(p.L4) - EthLen
	c := Piece{Off: int(w&fragOffset) * 8, Len: int(p.Total) - hl, More: w&flagMF != 0}
	return c, c.Len > 0 && (!c.More || c.Len%8 == 0) && hl+c.Off+c.Len <= 0xffff
}

// FragmentID returns the identification of the packet in frame f.
func FragmentID(f []byte) uint16 { return binary.BigEndian.Uint16(f[EthLen+offID:]) }

// Unfragment makes the first fragment in frame f, to which the payload of the others has
// been appended, a whole packet.
func Unfragment(f []byte) {
	ip := f[EthLen:]
	hl := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[offFrag:], binary.BigEndian.Uint16(ip[offFrag:])&flagDF)
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint16(ip[offSum:], ^Sum(ip[:hl], 0))
}

// ParseFirst completes p with the transport header of a reassembled datagram. p describes
// the first fragment, whose frame is f; the datagram's payload has n bytes, and those that
// are not in f have the sum rest (see Sum). The whole transport header must be in the first
// fragment (RFC 1858).
func ParseFirst(f []byte, p *Packet, n int, rest uint64) verdict.Reason {
	l4 := f[p.L4 : EthLen+int(p.Total)]
	p.Total = uint16(int(p.L4) - EthLen + n)
	return parseTransport(l4, p, n, rest)
}

// A Cutter splits an IPv4 packet into fragments.
type Cutter struct {
	packet []byte // from its header on
	mtu    int
	hl     int
	at     int // offset of the next byte of the payload
}

// NewCutter returns a cutter for the packet in ip, header and payload, and a link of the
// given MTU, which must have room for 8 bytes after the header: RFC 791 requires 68. The
// packet may be a fragment itself. Its DF must not be set.
func NewCutter(ip []byte, mtu int) Cutter {
	hl := int(ip[0]&15) * 4
	return Cutter{packet: ip, mtu: max(mtu, hl+8), hl: hl}
}

// Pieces returns an upper bound of the number of fragments, at least one too many.
func (c *Cutter) Pieces() int {
	return (len(c.packet)-c.hl)/((c.mtu-c.hl)&^7) + 2
}

// Next writes the next fragment to b and returns its length, or 0 when there are no more. b
// must have room for the MTU. The first fragment carries all options, the others those with
// the copied flag (RFC 791 section 3.1). Fragments are in order (RFC 4787 REQ-13a).
func (c *Cutter) Next(b []byte) int {
	payload := c.packet[c.hl:]
	if c.at >= len(payload) {
		return 0
	}
	copy(b, c.packet[:c.hl])
	hl := c.hl
	if c.at > 0 && hl > MinIPv4 {
		hl = MinIPv4 + copiedOptions(b[MinIPv4:hl])
		b[0] = 0x40 | byte(hl/4)
	}
	n := (c.mtu - hl) &^ 7
	w := binary.BigEndian.Uint16(c.packet[offFrag:])
	off := int(w&fragOffset) + c.at/8
	w = w&^fragOffset | uint16(off)&fragOffset
	if rest := len(payload) - c.at; rest <= c.mtu-hl {
		n = rest // the last fragment need not be a multiple of 8
	} else {
		w |= flagMF
	}
	copy(b[hl:], payload[c.at:c.at+n])
	c.at += n
	binary.BigEndian.PutUint16(b[offTotalLen:], uint16(hl+n))
	binary.BigEndian.PutUint16(b[offFrag:], w)
	binary.BigEndian.PutUint16(b[offSum:], 0)
	binary.BigEndian.PutUint16(b[offSum:], ^Sum(b[:hl], 0))
	return hl + n
}

// copiedOptions moves the options that all fragments carry to the front of o,
// pads them, and returns their length.
func copiedOptions(o []byte) int {
	n := 0
	for i := 0; i < len(o) && o[i] != 0; {
		k := 1
		if o[i] != 1 {
			if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
				break
			}
			k = int(o[i+1])
		}
		if o[i]&0x80 != 0 {
			n += copy(o[n:], o[i:i+k])
		}
		i += k
	}
	for ; n%4 != 0; n++ {
		o[n] = 0
	}
	return n
}
