package importer

import "net/netip"

// early is how much sooner than destination NAT a chain is asked.
const prioDNAT = -100

// resolver returns what turns the condition of a rule into one on packets that are
// forwarded: interfaces become ways, and what is known of such packets is left out.
func (c *converter) resolver(ch *chain) func(*rule) cond {
	return func(r *rule) cond {
		x := c.resolve(ch, r)
		if ch.kind == "nat" && ch.hook == "prerouting" {
			return x
		}
		early := (ch.hook == "prerouting" || ch.hook == "ingress") && ch.prio <= prioDNAT
		ingress := x.masks[fWay] == 0 || x.masks[fWay]&wayIngress != 0
		translates := x.masks[fLocal] != 0 || x.sets[fDst] != nil || x.sets[fPort] != nil
		if early && ingress && translates && !x.never {
			// The packet has not met destination NAT, and answers still have the
			// external address.
			switch dst := x.sets[fDst]; {
			case x.masks[fLocal] == 0 && dst != nil && c.direct(dst) && (x.masks[fWay] == wayIngress || len(dst.minus(spans{prefixSpan(c.lanNet)}, maxAddr)) == 0):
				c.counts(byDirect, r)
				x.never = true
			case c.nothingTranslated():
			default:
				x = x.and(withHard("a destination before it is translated"))
			}
		}
		if x.masks[fLocal] == isYes {
			x.never = true // what is for the router is not forwarded
		}
		x.masks[fLocal] = 0
		return x
	}
}

// owner is as resolver, for packets that are sent to the router itself.
func (c *converter) owner(ch *chain) func(*rule) cond {
	return func(r *rule) cond {
		x := c.resolve(ch, r)
		if x.masks[fLocal] == isNo {
			x.never = true
		}
		x.masks[fLocal] = 0
		return x
	}
}

func (c *converter) resolve(ch *chain, r *rule) cond {
	x := r.cond
	if len(ch.devs) > 0 {
		x = x.and(cond{in: []iface{{names: ch.devs}}})
	}
	if len(x.in)+len(x.out) > 0 {
		hook := ch.hook
		m := c.ways(x, hook)
		x.in, x.out = nil, nil
		if m == 0 {
			x.never = true
		} else {
			x = x.and(withMask(fWay, m))
		}
	}
	switch {
	case x.ipv6:
		x.never = true
	case x.masks[fPath] == isNo:
		c.counts(bySpoof, r)
		x.never = true
	case x.masks[fCast] == isYes:
		c.counts(byCast, r)
		x.never = true
	case x.masks[fTCP] == tcpBogus:
		c.counts(byInvalid, r)
		x.never = true
	}
	x.masks[fPath], x.masks[fCast] = 0, 0
	return x
}

// direct reports whether destinations are hosts of the LAN that nothing from the
// WAN reaches by their own addresses.
func (c *converter) direct(dst spans) bool {
	return len(dst.and(spans{prefixSpan(c.lanNet)}).minus(c.covered, maxAddr)) == 0 && len(dst.and(c.own().minus(spans{prefixSpan(c.lanNet)}, maxAddr))) == 0
}

// hidden reports whether nothing from the WAN reaches a server by its own address.
func (c *converter) hidden(server netip.Addr) bool { return c.direct(spans{addrSpan(server)}) }

// nothingTranslated reports whether packets have the same destinations before and
// after translation.
func (c *converter) nothingTranslated() bool {
	return len(c.snat)+len(c.dnat)+len(c.hair) == 0
}

// own returns the firewall's own addresses.
func (c *converter) own() spans {
	s := spans{addrSpan(c.lanNet.Addr())}
	for _, a := range c.externals {
		s = append(s, addrSpan(a))
	}
	return s.normal()
}

// ownOnAll returns them with the router's on other interfaces, as far as they are known.
func (c *converter) ownOnAll() spans {
	s := c.own()
	if l := c.o.Links; l != nil {
		for _, i := range l.Interfaces {
			for _, a := range i.Addresses {
				s = append(s, addrSpan(a.Addr()))
			}
		}
	}
	return s.normal()
}
