package router

import (
	"net/netip"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A block is a network of addresses.
type block struct{ addr, mask packet.Addr }

func blockOf(s string) block {
	p := netip.MustParsePrefix(s)
	b := p.Addr().As4()
	return block{packet.Addr(b[0])<<24 | packet.Addr(b[1])<<16 | packet.Addr(b[2])<<8 | packet.Addr(b[3]), maskOf(p.Bits())}
}

func maskOf(bits int) packet.Addr { return packet.Addr(uint32(uint64(0xffffffff) << (32 - bits))) }

func (b block) has(a packet.Addr) bool { return a&b.mask == b.addr }

// special are the blocks of the IANA registry of special-purpose addresses that
// are not to be forwarded (RFC 6890, RFC 8190), besides those that martian knows
// by itself: link-local addresses (RFC 3927 section 7), and IETF protocol
// assignments without those of them that may be forwarded. The blocks for
// documentation are left out, since laboratories use them.
var special = [...]block{
	blockOf("169.254.0.0/16"),
	blockOf("192.0.0.8/32"), blockOf("192.0.0.11/32"), blockOf("192.0.0.12/30"), blockOf("192.0.0.16/28"),
	blockOf("192.0.0.32/27"), blockOf("192.0.0.64/26"), blockOf("192.0.0.128/25"),
}

// martians returns the blocks from and to which nothing is forwarded: the
// special ones, but for such as an interface has its network in.
func martians(ports *[2]port) (bs []block) {
	for _, b := range special {
		if !b.has(ports[lan].addr) && !b.has(ports[wan].addr) {
			bs = append(bs, b)
		}
	}
	return bs
}

// martian reports whether a packet's source or destination cannot be right
// where it arrived (RFC 1812 section 5.3.7, RFC 6890), and whether the reverse
// path leads elsewhere (RFC 3704).
func (e *Engine) martian(p *received) bool {
	s, d := p.Src, p.Dst
	switch {
	case s>>24 == 0, s>>24 == 127, s>>28 >= 14: // this network, loopback, multicast and reserved
		return true
	case d>>24 == 0, d>>24 == 127, d>>28 >= 14: // a router forwards no multicast without being told to
		return true
	case e.ownAddr(s):
		return true
	}
	if e.octets[s>>24] || e.octets[d>>24] {
		for _, b := range e.martians {
			if b.has(s) || b.has(d) {
				return true
			}
		}
	}
	for i := range e.port {
		q := &e.port[i]
		if q.mask < 0xfffffffe { // directed broadcast and network address (RFC 2644)
			bcast := q.net | ^q.mask
			if s == bcast || d == bcast || s == q.net || d == q.net {
				return true
			}
		}
	}
	return e.route(s) != p.in
}
