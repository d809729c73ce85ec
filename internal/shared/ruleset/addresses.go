package ruleset

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/packet"
)

// IPv4 returns an address as a number, in host order; ok is false where it is no
// IPv4 address.
func (a *Addr) IPv4() (v uint32, ok bool) {
	for _, b := range a[:10] {
		if b != 0 {
			return 0, false
		}
	}
	return uint32(a[12])<<24 | uint32(a[13])<<16 | uint32(a[14])<<8 | uint32(a[15]), a[10] == 0xff && a[11] == 0xff
}

// mask returns the last four bytes of a mask; ok is false where the others are
// not all set, or the mask has holes.
func (a *Addr) mask() (v uint32, ok bool) {
	for _, b := range a[:12] {
		if b != 0xff {
			return 0, false
		}
	}
	v = uint32(a[12])<<24 | uint32(a[13])<<16 | uint32(a[14])<<8 | uint32(a[15])
	return v, ^v&(^v+1) == 0
}

// sources reports whether addr and mask are a set of IPv4 sources; a mask of
// zero is all.
func sources(addr, mask *Addr) bool {
	if *mask == (Addr{}) {
		return true
	}
	a, ok1 := addr.IPv4()
	m, ok2 := mask.mask()
	return ok1 && ok2 && a&^m == 0
}

// checkAddresses returns what is wrong with the addresses, or "". The firewall and
// programs on the host rely on it after Open: one interface on each side, IPv4
// throughout, networks with room for hosts that do not overlap.
func (p *Policy) checkAddresses() string {
	var net, mask [3]uint32
	for i := range p.Interfaces {
		f := &p.Interfaces[i]
		bad := "interface " + strconv.Itoa(i) + " "
		a, ok := f.Address.IPv4()
		if !ok || !packet.Addr(a).IsHost() || f.PrefixLen < 1 || f.PrefixLen > 31 {
			return bad + "has no IPv4 address of a network with hosts"
		}
		m := ^uint32(0) << (32 - f.PrefixLen)
		if rest := a &^ m; f.PrefixLen < 31 && (rest == 0 || rest == ^m) {
			return bad + "has the address of its network, or its broadcast address"
		}
		if mask[f.Role] != 0 {
			return bad + "is a second one on its side"
		}
		net[f.Role], mask[f.Role] = a&m, m
		if g, ok := f.Gateway.IPv4(); f.Role == WAN && (!ok || g == a || g&m != a&m) || f.Role == LAN && f.Gateway != (Addr{}) {
			return bad + "has no gateway in its network, or has one on the LAN"
		}
		if f.HasMAC == 1 && f.MAC[0]&1 != 0 || f.MTU != 0 && (f.MTU < 576 || f.MTU > MaxMTU) {
			return bad + "has a hardware address or an MTU that cannot be"
		}
	}
	if mask[LAN] == 0 || mask[WAN] == 0 {
		return "there is not one interface on each side"
	}
	if both := mask[LAN] & mask[WAN]; net[LAN]&both == net[WAN]&both {
		return "the networks of both sides overlap"
	}
	for i := range p.SNAT {
		n := &p.SNAT[i]
		_, ok := n.External.IPv4()
		if p.Interfaces[n.Interface].Role != WAN || n.External != (Addr{}) && !ok || !sources(&n.Source, &n.SourceMask) {
			return "snat entry " + strconv.Itoa(i) + " is not for IPv4 on the WAN"
		}
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		_, ok1 := d.External.IPv4()
		_, ok2 := d.To.IPv4()
		if !ok1 || !ok2 || !sources(&d.From, &d.FromMask) {
			return "dnat entry " + strconv.Itoa(i) + " is not for IPv4"
		}
	}
	for i := range p.Upstreams {
		if _, ok := p.Upstreams[i].Address.IPv4(); !ok {
			return "upstream " + strconv.Itoa(i) + " has no IPv4 address"
		}
	}
	for i := range p.Resolvers {
		if _, ok := p.Resolvers[i].Address.IPv4(); !ok {
			return "resolver " + strconv.Itoa(i) + " has no IPv4 address"
		}
	}
	return ""
}
