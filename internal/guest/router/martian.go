package router

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// martians returns the blocks from and to which nothing is forwarded: packet.NotForwarded
// without those that contain the network of an interface.
func martians(ports []port) (bs []packet.Net) {
	for _, b := range packet.NotForwarded {
		if !slices.ContainsFunc(ports, func(p port) bool { return b.Has(p.addr) }) {
			bs = append(bs, b)
		}
	}
	return bs
}

// What there is among the addresses with a first octet.
const (
	noHosts    = 1 << iota // none is a host's: multicast among them, which is not forwarded
	somebodies             // some are martians
)

// oddOctets notes, by first octet, which addresses martian has to look at more closely. No
// prefix of a martian is shorter.
func oddOctets(martians []packet.Net) (odd [256]uint8) {
	for i := range odd {
		if !packet.Addr(i << 24).IsHost() {
			odd[i] |= noHosts
		}
	}
	for _, b := range martians {
		odd[b.Addr>>24] |= somebodies
	}
	return odd
}

// martian reports whether a packet's source or destination cannot be right at its port (RFC
// 1812 section 5.3.7, RFC 6890), or the route to its source is through another port (RFC
// 3704).
func (e *Engine) martian(p *received) bool {
	s, d := p.Src, p.Dst
	if odd := e.octets[s>>24] | e.octets[d>>24]; odd != 0 {
		if odd&noHosts != 0 {
			return true
		}
		for _, b := range e.martians {
			if b.Has(s) || b.Has(d) {
				return true
			}
		}
	}
	if (e.special.mayHave(s) || e.special.mayHave(d)) && (e.isOwn(s) || e.endOfLink(s, d)) {
		return true
	}
	return e.route(s) != p.in
}

// endOfLink reports whether one of two addresses is a link's directed broadcast or network
// address (RFC 2644).
func (e *Engine) endOfLink(s, d packet.Addr) bool {
	for i := range e.port {
		q := &e.port[i]
		if q.mask < 0xfffffffe {
			bcast := q.net | ^q.mask
			if s == bcast || d == bcast || s == q.net || d == q.net {
				return true
			}
		}
	}
	return false
}
