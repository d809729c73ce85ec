package replay

import (
	"encoding/binary"
	"fmt"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Link types that can be replayed (the registry of link-layer header types, LINKTYPE_).
const (
	linkNull     = 0 // a loopback of BSD: the protocol family in the byte order of the host
	linkEthernet = 1
	linkRawOld   = 12 // raw IP as some systems number it
	linkRaw      = 101
	linkLoop     = 108 // as linkNull, in network byte order
	linkSLL      = 113 // Linux "cooked", as of tcpdump -i any before 4.99
	linkIPv4     = 228
	linkIPv6     = 229
	linkSLL2     = 276 // with the interface's index
)

// A passage is the way that a frame went, as the link's header tells it.
type passage uint8

const (
	untold    passage = iota // Ethernet, raw IP: only the addresses tell
	received                 // by the host that captured
	sent                     // by the host that captured
	overheard                // sent by another host to another host
)

// An envelope is what the header of a cooked capture tells beside the addresses.
type envelope struct {
	way      passage
	index    uint32 // of the interface, 0: not told
	loopback bool
}

const (
	sllLen  = 16
	sll2Len = 20
	// arphrdLoopback is the hardware type of Linux's lo (linux/if_arp.h).
	arphrdLoopback = 772
)

// ethernet appends to dst the frame with an Ethernet header in the place of the link's
// own. Headers without a receiver's address get the one that the protocol implies, or
// zeros; a sender that is not told gets zeros. ok is false for a frame that is no
// Ethernet frame at all, or cut inside its header.
func ethernet(dst []byte, link int, b []byte) (f []byte, e envelope, ok bool) {
	var from [6]byte
	var proto uint16
	switch link {
	case linkSLL:
		if len(b) < sllLen {
			return dst, e, false
		}
		e.way = way(binary.BigEndian.Uint16(b))
		e.loopback = binary.BigEndian.Uint16(b[2:]) == arphrdLoopback
		if binary.BigEndian.Uint16(b[4:]) == 6 {
			from = [6]byte(b[6:])
		}
		proto, b = binary.BigEndian.Uint16(b[14:]), b[sllLen:]
	case linkSLL2:
		if len(b) < sll2Len {
			return dst, e, false
		}
		e.way, e.index = way(uint16(b[10])), binary.BigEndian.Uint32(b[4:])
		e.loopback = binary.BigEndian.Uint16(b[8:]) == arphrdLoopback
		if b[11] == 6 {
			from = [6]byte(b[12:])
		}
		proto, b = binary.BigEndian.Uint16(b), b[sll2Len:]
	case linkNull, linkLoop:
		if len(b) < 4 {
			return dst, e, false
		}
		b = b[4:] // the family; the version says the same in every system's numbers
		proto = version(b)
	default:
		proto = version(b)
	}
	if proto < 0x600 {
		return dst, e, false // not an EtherType: 802.2, or what Linux numbers itself
	}
	f = append(dst, make([]byte, packet.EthLen)...)
	to := implied(proto, b)
	packet.PutEth(f[len(dst):], &to, &from, proto)
	return append(f, b...), e, true
}

// way decodes the packet type of a cooked header.
func way(typ uint16) passage {
	switch typ {
	case 0, 1, 2: // to the host, broadcast, multicast
		return received
	case 3:
		return overheard
	case 4:
		return sent
	}
	return untold
}

// version returns the EtherType of a packet by its first four bits, or 0.
func version(b []byte) uint16 {
	switch {
	case len(b) > 0 && b[0]>>4 == 4:
		return packet.TypeIPv4
	case len(b) > 0 && b[0]>>4 == 6:
		return packet.TypeIPv6
	}
	return 0
}

// implied returns the receiver's link-layer address where the protocol implies one: of
// multicast and broadcast packets, and of ARP requests.
func implied(proto uint16, b []byte) [6]byte {
	broadcast := [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	switch {
	case proto == packet.TypeARP && len(b) >= 8 && binary.BigEndian.Uint16(b[6:]) == packet.ARPRequest:
		return broadcast
	case proto == packet.TypeIPv4 && len(b) >= packet.MinIPv4:
		switch to := binary.BigEndian.Uint32(b[16:]); {
		case to == 0xffffffff:
			return broadcast
		case to>>28 == 14:
			return [6]byte{1, 0, 0x5e, byte(to>>16) & 0x7f, byte(to >> 8), byte(to)}
		}
	case proto == packet.TypeIPv6 && len(b) >= 40 && b[24] == 0xff:
		return [6]byte{0x33, 0x33, b[36], b[37], b[38], b[39]}
	}
	return [6]byte{}
}

// checkLink returns an error for a link type that cannot be replayed.
func checkLink(link int) error {
	switch link {
	case linkNull, linkEthernet, linkRawOld, linkRaw, linkLoop, linkSLL, linkIPv4, linkIPv6, linkSLL2:
		return nil
	}
	return fmt.Errorf("frames of link type %d (want Ethernet, raw IP, or Linux's cooked ones: "+
		"capture on the Ethernet interface that faces the firewall)", link)
}

// cooked reports whether frames of a link type tell their passage.
func cooked(link int) bool { return link == linkSLL || link == linkSLL2 }
