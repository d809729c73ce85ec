package importer

import (
	"net/netip"
	"slices"
)

// addresses finds what the interfaces section needs. A rule set does not say
// it; the LAN's network is guessed from what rules place there and from the sources
// that are translated.
func (c *converter) addresses(post, pre []flat) {
	lan, wan, gateway := c.o.LANAddress, c.o.WANAddress, c.o.Gateway
	if !lan.IsValid() {
		why := ""
		if lan, why = c.guessLAN(post, pre); why == "" {
			lan, why = netip.MustParsePrefix("10.0.0.1/24"), "is a placeholder"
		}
		c.assume("interfaces.lan0.address: %v %s (--lan-address says what it is)", lan, why)
	}
	c.lanNet = lan
	if !wan.IsValid() {
		wan = netip.MustParsePrefix("192.0.2.2/24")
		if lan.Overlaps(wan) {
			wan = netip.MustParsePrefix("198.51.100.2/24")
		}
		why := "is a placeholder"
		if p, ok := c.o.Links.address(c.wan); ok && !lan.Overlaps(p) {
			wan, why = p, "is the address of "+c.wan
		} else {
			for _, a := range named(post, pre) {
				p, err := a.Prefix(24)
				if err == nil && !lan.Overlaps(p) && a.IsGlobalUnicast() && a != p.Addr() && a.As4()[3] != 255 {
					wan, why = netip.PrefixFrom(a, 24), "is guessed from an address that is translated"
					break
				}
			}
		}
		c.assume("interfaces.wan0.address: %v %s (--wan-address says what it is)", wan, why)
	}
	c.wanNet = wan
	if !gateway.IsValid() {
		why := "is a placeholder"
		if l := c.o.Links; l != nil && l.Gateway.IsValid() && wan.Contains(l.Gateway) {
			gateway, why = l.Gateway, "is the default route's"
		} else if gateway = wan.Masked().Addr().Next(); gateway == wan.Addr() {
			gateway = gateway.Next()
		}
		c.assume("interfaces.wan0.gateway: %v %s (--gateway says what it is)", gateway, why)
	}
	c.gateway = gateway
}

// guessLAN returns the LAN's address and why it is taken, "" if nothing says it.
func (c *converter) guessLAN(post, pre []flat) (netip.Prefix, string) {
	usable := func(p netip.Prefix) bool { return p.Bits() >= 8 && p.Bits() <= 30 && p.Addr().IsPrivate() }
	first := func(p netip.Prefix) netip.Prefix { return netip.PrefixFrom(p.Masked().Addr().Next(), p.Bits()) }
	if p, ok := c.o.Links.address(c.lan); ok {
		return p, "is the address of " + c.lan
	}
	var placed netip.Prefix
	if c.lan != "" {
		for _, e := range c.sight(post, pre).all {
			for _, p := range e.nets {
				if e.name == c.lan && usable(p) && (!placed.IsValid() || p.Bits() < placed.Bits()) {
					placed = p
				}
			}
		}
	}
	if placed.IsValid() {
		return first(placed), "is guessed from what rules say is behind " + c.lan
	}
	for _, f := range post {
		if f.do.kind != "masquerade" && f.do.kind != "snat" || f.cond.masks[fWay]&wayEgress == 0 && f.cond.masks[fWay] != 0 {
			continue
		}
		for _, p := range f.cond.sets[fSrc].prefixes() {
			if usable(p) && (!placed.IsValid() || p.Bits() < placed.Bits()) {
				placed = p
			}
		}
	}
	if placed.IsValid() {
		return first(placed), "is guessed from the sources that are translated"
	}
	for _, f := range pre {
		if p, err := f.do.addr.Prefix(24); f.do.kind == "dnat" && err == nil && p.Addr().IsPrivate() {
			return first(p), "is guessed from the first server that destination NAT leads to"
		}
	}
	return placed, ""
}

// named returns addresses that translation gives to the firewall.
func named(post, pre []flat) (as []netip.Addr) {
	for _, f := range pre {
		if f.do.kind == "dnat" && f.cond.masks[fWay]&wayIngress != 0 {
			for _, s := range f.cond.sets[fDst] {
				if s.lo == s.hi {
					as = append(as, s.addr())
				}
			}
		}
	}
	for _, f := range post {
		if f.do.kind == "snat" && f.do.addr.IsValid() && (f.cond.masks[fWay] == 0 || f.cond.masks[fWay]&wayEgress != 0) {
			as = append(as, f.do.addr)
			if l := f.do.last; l.IsValid() && l != f.do.addr && addrSpan(l).lo-addrSpan(f.do.addr).lo < 64 {
				for a := f.do.addr.Next(); a != l; a = a.Next() {
					as = append(as, a)
				}
				as = append(as, l)
			}
		}
	}
	return as
}

// external returns the firewall's addresses on the WAN: the interface's first.
func (c *converter) external(pre []flat) []netip.Addr {
	as := []netip.Addr{c.wanNet.Addr()}
	if p, ok := c.o.Links.address(c.wan); ok {
		for _, i := range c.o.Links.Interfaces {
			if i.Name == c.wan && p.IsValid() {
				for _, a := range i.Addresses {
					as = append(as, a.Addr())
				}
			}
		}
	}
	for _, s := range c.snat {
		as = append(as, s.external...)
	}
	as = append(as, named(nil, pre)...)
	var out []netip.Addr
	for _, a := range as {
		if !slices.Contains(out, a) && c.mayBeExternal(a) && len(out) < 200 {
			out = append(out, a)
		}
	}
	return out
}

// mayBeExternal reports whether an address can be the firewall's on the WAN.
func (c *converter) mayBeExternal(a netip.Addr) bool {
	n := c.wanNet
	edge := n.Bits() < 31 && (a == n.Masked().Addr() || prefixSpan(n).hi == addrSpan(a).lo)
	return !c.lanNet.Contains(a) && a != c.gateway && !edge && a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() && a.As4()[0] != 0 && a.As4()[0] < 224
}

func (s spans) addrs(most int) (as []netip.Addr, ok bool) {
	n := uint64(0)
	for _, v := range s {
		if n += uint64(v.hi-v.lo) + 1; n > uint64(most) {
			return nil, false
		}
		for a := v.lo; ; a++ {
			as = append(as, span{a, a}.addr())
			if a == v.hi {
				break
			}
		}
	}
	return as, true
}
