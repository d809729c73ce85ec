package dnsproxy

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// DNS rebinding: a name in the Internet that resolves to a private address makes a
// client of the LAN, such as a browser, connect to hosts that are reachable from the
// LAN only. Private addresses are therefore relayed only for names that the policy
// lists.

// privateNets is the set of private addresses: packet.NotGlobal, and own networks.
type privateNets struct{ own []packet.Net }

// newPrivateNets adds the networks of the policy to the blocks: those of the
// firewall's interfaces, its external addresses, and published servers.
func newPrivateNets(p *ruleset.Policy) *privateNets {
	in := &privateNets{}
	add := func(a ruleset.Addr, bits uint8) {
		if v4, ok := packet.AddrFrom16(a); ok && v4 != 0 && bits > 0 && bits <= 32 {
			mask := ^packet.Addr(0) << (32 - bits)
			in.own = append(in.own, packet.Net{Addr: v4 & mask, Mask: mask})
		}
	}
	for i := range p.Interfaces {
		add(p.Interfaces[i].Address, p.Interfaces[i].PrefixLen)
	}
	for i := range p.SNAT {
		add(p.SNAT[i].External, 32)
	}
	for i := range p.DNAT {
		add(p.DNAT[i].External, 32)
		add(p.DNAT[i].To, 32)
	}
	return in
}

// has reports whether an IPv4 address is private.
func (in *privateNets) has(a packet.Addr) bool {
	for _, n := range packet.NotGlobal {
		if n.Has(a) {
			return true
		}
	}
	for _, n := range in.own {
		if n.Has(a) {
			return true
		}
	}
	return false
}

// has6 reports whether an IPv6 address of 16 bytes is private: by RFC 6890 and RFC
// 4193, or because it embeds a private IPv4 address.
func (in *privateNets) has6(a []byte) bool {
	hi, lo := uint64(be32(a))<<32|uint64(be32(a[4:])), uint64(be32(a[8:]))<<32|uint64(be32(a[12:]))
	switch {
	case a[0]&0xfe == 0xfc, // fc00::/7, unique local
		a[0] == 0xfe && a[1]&0x80 != 0, // fe80::/10 and fec0::/10, link-local and site-local
		a[0] == 0xff:                   // multicast
		return true
	case hi == 0 && (lo>>32 == 0 || lo>>32 == 0xffff || lo>>32 == 0xffff0000):
		// Unspecified and loopback, which are within 0.0.0.0/8; IPv4-compatible
		// and IPv4-mapped (RFC 4291 section 2.5.5); translated (RFC 2765).
		return in.has(packet.Addr(lo))
	case hi == 0x0064ff9b<<32 && lo>>32 == 0: // 64:ff9b::/96 (RFC 6052)
		return in.has(packet.Addr(lo))
	case hi>>16 == 0x0064ff9b0001: // 64:ff9b:1::/48, local translation (RFC 8215)
		return true
	case a[0] == 0x20 && a[1] == 0x02: // 2002::/16, 6to4 (RFC 3056)
		return in.has(packet.Addr(be32(a[2:])))
	}
	return false
}

// scanPrivate notes the private addresses of record r; additional tells whether it is
// in the additional section.
func (a *response) scanPrivate(m []byte, r *rr, additional bool) {
	switch r.typ {
	case typeA:
		a.notePrivate(m[r.data:r.end], additional)
	case typeAAAA:
		a.notePrivate(m[r.data:r.end], additional)
	case typeSVCB, typeHTTPS:
		e, _ := skipName(m, r.data+2)
		for p := m[e:r.end]; len(p) > 0; { // scanSVCB has validated it
			key, v := be16(p), p[4:4+int(be16(p[2:]))]
			p = p[4+len(v):]
			size := 4
			switch key {
			case keyIPv4Hint:
			case keyIPv6Hint:
				size = 16
			default:
				continue
			}
			for ; len(v) > 0; v = v[size:] {
				a.notePrivate(v[:size], additional)
			}
		}
	}
}

// notePrivate notes an address of 4 or 16 bytes, if it is private.
func (a *response) notePrivate(addr []byte, additional bool) {
	var as [16]byte
	if len(addr) == 4 {
		v4 := packet.Addr(be32(addr))
		if !a.private.has(v4) {
			return
		}
		as = v4.To16()
	} else if !a.private.has6(addr) {
		return
	} else {
		copy(as[:], addr)
	}
	if additional {
		a.privateExtra = true
	} else if !a.privateFound {
		a.privateFound, a.privateAddr = true, as
	}
}

// IsPrivate reports whether an address is relayed only for names that the policy
// lists as private.
func IsPrivate(p *ruleset.Policy, a packet.Addr) bool { return newPrivateNets(p).has(a) }
