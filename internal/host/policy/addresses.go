package policy

import (
	"net/netip"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Number returns an IPv4 address as the data plane has it.
func Number(a netip.Addr) packet.Addr {
	n, _ := packet.AddrFrom16(a.As16())
	return n
}

// IsHost reports whether an address can be that of a host (RFC 6890).
func IsHost(a netip.Addr) bool { return Number(a).IsHost() }

// Broadcast returns the last address of a network.
func Broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// Contains reports whether an address is in one of the networks of a list, which
// when it is empty has all addresses.
func Contains(ps []netip.Prefix, a netip.Addr) bool {
	return len(ps) == 0 || slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// OrAny returns the networks of a list; the zero Prefix alone, when it is empty or
// has all addresses.
func OrAny(ps []netip.Prefix) []netip.Prefix {
	if len(ps) == 0 || slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Bits() == 0 }) {
		return []netip.Prefix{{}}
	}
	return ps
}

// Untranslated returns the part of the LAN that no snat entry covers: its hosts have
// the same addresses on both sides.
func (p *Policy) Untranslated() []netip.Prefix {
	var sources []netip.Prefix
	for i := range p.SNAT {
		if !p.SNAT[i].Source.IsValid() {
			return nil
		}
		sources = append(sources, p.SNAT[i].Source)
	}
	return without(p.LAN().Prefix.Masked(), sources)
}

// without returns the networks that a network consists of beside others.
func without(n netip.Prefix, others []netip.Prefix) []netip.Prefix {
	overlaps := false
	for _, o := range others {
		if o.Bits() <= n.Bits() && o.Contains(n.Addr()) {
			return nil
		}
		overlaps = overlaps || n.Contains(o.Addr())
	}
	if !overlaps {
		return []netip.Prefix{n}
	}
	// One of the others lies within, so that n has two halves.
	lo := netip.PrefixFrom(n.Addr(), n.Bits()+1)
	hi := netip.PrefixFrom(Broadcast(n), n.Bits()+1).Masked()
	return append(without(lo, others), without(hi, others)...)
}
