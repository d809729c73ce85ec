package importing

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/thurward/thurward/internal/shared/packet"
)

// The flags of TCP.
const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// A datagram is an IPv4 packet, as far as the comparison looks at it.
type datagram struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16 // ICMP: the identifier is both
	flags        uint8  // TCP
	seq, ack     uint32
	mss          uint16 // of a SYN; 0: none
	typ, code    uint8  // ICMP
	quoted       []byte // of an ICMP error
	data         []byte
	more         bool // a first fragment
	offset       uint16
}

const mss = 1460

func echo(typ uint8) bool { return typ == packet.EchoRequest || typ == packet.EchoReply }

// bytes returns the packet.
func (d *datagram) bytes() []byte {
	var b []byte
	sum := -1
	switch d.proto {
	case packet.TCP:
		b = make([]byte, 20)
		if d.mss != 0 {
			b = append(b, 2, 4, byte(d.mss>>8), byte(d.mss))
		}
		binary.BigEndian.PutUint32(b[4:], d.seq)
		binary.BigEndian.PutUint32(b[8:], d.ack)
		b[12], b[13] = byte(len(b)/4)<<4, d.flags
		binary.BigEndian.PutUint16(b[14:], 8192)
		sum = 16
	case packet.UDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(d.data)))
		sum = 6
	case packet.ICMP:
		b = make([]byte, 8)
		b[0], b[1] = d.typ, d.code
		if d.quoted == nil {
			binary.BigEndian.PutUint16(b[4:], d.sport)
			binary.BigEndian.PutUint16(b[6:], 1)
		}
		b = append(b, d.quoted...)
		sum = 2
	}
	if d.proto == packet.TCP || d.proto == packet.UDP {
		binary.BigEndian.PutUint16(b, d.sport)
		binary.BigEndian.PutUint16(b[2:], d.dport)
	}
	b = append(b, d.data...)
	h := make([]byte, 20, 20+len(b))
	h[0] = 0x45
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(b)))
	f := d.offset / 8
	if d.more {
		f |= 0x2000
	}
	binary.BigEndian.PutUint16(h[4:], 7)
	binary.BigEndian.PutUint16(h[6:], f)
	h[8], h[9] = 64, d.proto
	s, t := d.src.As4(), d.dst.As4()
	copy(h[12:], s[:])
	copy(h[16:], t[:])
	binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h, 0))
	if sum >= 0 && d.offset == 0 {
		pseudo := uint64(0)
		if d.proto != packet.ICMP {
			pseudo = uint64(addr(d.src)) + uint64(addr(d.dst)) + uint64(d.proto) + uint64(len(b))
		}
		c := ^packet.Sum(b, pseudo)
		if c == 0 && d.proto == packet.UDP {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(b[sum:], c)
	}
	return append(h, b...)
}

// frame returns the frame that brings the packet to an interface of the firewall.
func (d *datagram) frame(to [6]byte) []byte {
	b := d.bytes()
	f := make([]byte, packet.EthLen, packet.EthLen+len(b))
	packet.PutEth(f, &to, &[6]byte{2, 9, 0, 0, 0, 1}, packet.TypeIPv4)
	return append(f, b...)
}

// parse reads a frame that has left.
func parse(f []byte) (d datagram, ok bool) {
	if len(f) < packet.EthLen+20 {
		return d, false
	}
	b := f[packet.EthLen:]
	hl, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if hl < 20 || total < hl || hl > len(b) {
		return d, false
	}
	total = min(total, len(b)) // reports have the headers alone
	frag := binary.BigEndian.Uint16(b[6:])
	d = datagram{src: netip.AddrFrom4([4]byte(b[12:])), dst: netip.AddrFrom4([4]byte(b[16:])), proto: b[9],
		more: frag&0x2000 != 0, offset: frag & 0x1fff * 8}
	l4 := b[hl:total]
	if d.offset != 0 || len(l4) < 8 {
		return d, true
	}
	switch d.proto {
	case packet.TCP:
		if len(l4) < 20 {
			return d, false
		}
		d.flags = l4[13]
		d.seq, d.ack = binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:])
		if len(l4) >= 24 && l4[20] == 2 && l4[21] == 4 {
			d.mss = binary.BigEndian.Uint16(l4[22:])
		}
		fallthrough
	case packet.UDP:
		d.sport, d.dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:])
	case packet.ICMP:
		d.typ, d.code = l4[0], l4[1]
		if echo(d.typ) {
			d.sport = binary.BigEndian.Uint16(l4[4:])
			d.dport = d.sport
		} else if d.typ == packet.Unreachable || d.typ == packet.TimeExceeded {
			d.quoted = l4[8:]
		}
	}
	return d, true
}

func addr(a netip.Addr) packet.Addr {
	b := a.As4()
	return packet.Addr(binary.BigEndian.Uint32(b[:]))
}

// String returns the packet for people.
func (d *datagram) String() string {
	s := ""
	switch d.proto {
	case packet.TCP:
		s = fmt.Sprintf("tcp %v:%d > %v:%d ", d.src, d.sport, d.dst, d.dport)
		for i, n := range "FSRPA" {
			if d.flags>>i&1 != 0 {
				s += string(n)
			}
		}
		if d.mss != 0 {
			s += fmt.Sprintf(" mss %d", d.mss)
		}
	case packet.UDP:
		s = fmt.Sprintf("udp %v:%d > %v:%d", d.src, d.sport, d.dst, d.dport)
	case packet.ICMP:
		s = fmt.Sprintf("icmp %d/%d %v > %v", d.typ, d.code, d.src, d.dst)
	default:
		s = fmt.Sprintf("proto %d %v > %v", d.proto, d.src, d.dst)
	}
	if d.more || d.offset != 0 {
		s += " fragment"
	}
	return s
}
