package netlab

import "encoding/binary"

// EtherTypes that the hosts speak.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
)

// sound reports whether a frame may be given to a host's stack: an ARP packet for
// IPv4, or an IPv4 packet whose header, options and transport header are whole.
// The stacks trust some of the lengths in it, and panic on one that is wrong.
func sound(f []byte) bool {
	if len(f) < minFrame {
		return false
	}
	p := f[minFrame:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case typeARP: // RFC 826: hardware and protocol, their lengths, two pairs of addresses
		return len(p) >= 28 && binary.BigEndian.Uint16(p[2:]) == typeIPv4 && p[4] == 6 && p[5] == 4
	case typeIPv4:
		return soundIPv4(p, true)
	}
	return false
}

// soundIPv4 checks a packet (RFC 791 section 3.1). One that is not whole, quoted
// by an ICMP error, has at least 8 bytes of payload.
func soundIPv4(p []byte, whole bool) bool {
	if len(p) < 20 || p[0]>>4 != 4 {
		return false
	}
	head, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
	if head < 20 || head > len(p) || total < head || whole && total > len(p) || !soundOptions(p[20:head]) {
		return false
	}
	fragment := binary.BigEndian.Uint16(p[6:])
	off := int(fragment&0x1fff) * 8
	if off > 0 {
		// The second fragment could overwrite the TCP header's length (RFC 3128).
		return (p[9] != 6 || off >= 16) && off+total-head <= 65535
	}
	body := p[head:min(total, len(p))]
	if !whole {
		return len(body) >= 8
	}
	return soundTransport(p[9], body, fragment&0x2000 != 0)
}

func soundTransport(protocol byte, b []byte, more bool) bool {
	switch protocol {
	case 1: // RFC 792
		if len(b) < 8 {
			return false
		}
		switch b[0] {
		case 3, 4, 5, 11, 12: // errors quote a packet
			return more || soundIPv4(b[8:], false)
		case 13, 14, 15, 16, 17, 18:
			return len(b) >= 12 || b[0] == 15 || b[0] == 16
		}
		return true
	case 6: // RFC 9293 section 3.1
		if len(b) < 20 {
			return false
		}
		head := int(b[12]>>4) * 4
		return head >= 20 && head <= len(b) && soundOptions(b[20:head])
	case 17: // RFC 768
		if len(b) < 8 {
			return false
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		return n >= 8 && (more || n <= len(b))
	}
	return false
}

// soundOptions checks the options of IP and TCP: 0 ends the list, 1 is padding,
// others have a length.
func soundOptions(o []byte) bool {
	for len(o) > 0 {
		switch {
		case o[0] == 0:
			return true
		case o[0] == 1:
			o = o[1:]
		case len(o) < 2 || o[1] < 2 || int(o[1]) > len(o):
			return false
		default:
			o = o[o[1]:]
		}
	}
	return true
}
