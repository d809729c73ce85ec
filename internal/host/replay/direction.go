package replay

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A course is where a frame went, as seen from the firewall.
type course uint8

const (
	arrives   course = iota // it was received by the firewall
	departs                 // it was sent by the firewall
	elsewhere               // neither
)

// ends returns who sent the packet or ARP message in a frame, and to whom. ok is false
// for other frames, and for those cut before the addresses.
func ends(f []byte) (from, to packet.Addr, ok bool) {
	switch packet.Type(f) {
	case packet.TypeARP:
		var m packet.ARPMessage
		if packet.ParseARP(f, &m) {
			return m.SenderAddr, m.TargetAddr, m.SenderAddr != 0
		}
	case packet.TypeIPv4:
		if len(f) >= packet.EthLen+packet.MinIPv4 && f[packet.EthLen]>>4 == 4 {
			ip := f[packet.EthLen:]
			return packet.Addr(binary.BigEndian.Uint32(ip[12:])), packet.Addr(binary.BigEndian.Uint32(ip[16:])), true
		}
	}
	return 0, 0, false
}

// byAddresses returns a frame's course by its addresses. clear is false where they leave
// room for doubt.
func (v *survey) byAddresses(f []byte) (c course, clear bool) {
	from, to, ok := ends(f)
	if !ok {
		return arrives, false
	}
	group := to>>28 == 14 || to == 0xffffffff || to == v.net|^v.mask
	switch {
	case v.own(from):
		return departs, true
	case v.own(to):
		return arrives, true
	}
	onLink, there := from&v.mask == v.net, to&v.mask == v.net && !group
	if v.side == LAN {
		switch {
		case onLink && there:
			return elsewhere, true
		case onLink:
			return arrives, !group
		case there:
			return departs, true
		}
		return arrives, false // a sender that is not of this network
	}
	switch inside := func(a packet.Addr) bool { return a&v.inMask == v.inNet }; {
	case inside(to):
		return arrives, false
	case inside(from) && !v.translates:
		return departs, false
	case group:
		return arrives, false
	}
	return elsewhere, false
}

// vote learns from a cooked frame whether the host that captured is the firewall.
func (v *survey) vote(f *frameIn) {
	c, clear := v.byAddresses(f.data)
	if !clear || c == elsewhere || f.env.way != received && f.env.way != sent {
		return
	}
	if (c == departs) == (f.env.way == sent) {
		v.agree++
	} else {
		v.disagree++
	}
}

// atFirewall reports whether the host that captured is the firewall.
func (v *survey) atFirewall() bool { return v.atHome || v.agree > v.disagree }

// course returns a frame's course where the link has no addresses of both ends.
func (v *survey) course(f *frameIn) course {
	if v.atFirewall() {
		switch f.env.way {
		case received:
			return arrives
		case sent:
			return departs
		case overheard:
			return elsewhere
		}
	}
	c, _ := v.byAddresses(f.data)
	return c
}

// complete fills in the link-layer addresses that a capture's link does not have.
func (v *survey) complete(f []byte, own [6]byte) {
	if [6]byte(f) == ([6]byte{}) {
		copy(f, own[:])
	}
	if [6]byte(f[6:]) != ([6]byte{}) {
		return
	}
	from, _, _ := ends(f)
	if v.side == WAN && from&v.mask != v.net && v.gateway != 0 {
		from = v.gateway
	}
	src := v.neighbour(from, own)
	copy(f[6:], src[:])
}
