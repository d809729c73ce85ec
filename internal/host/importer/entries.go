package importer

import (
	"fmt"
	"net/netip"
)

// Limits of what an entry is written out to.
const (
	maxAddresses = 64
	maxSingly    = 256
	maxEntries   = 4096
)

// entries returns the entries of nat.dnat for a part of what a rule translates,
// whose destinations are dst.
func (c *converter) entries(e *flat, p cond, dst spans, lan bool) (out []outDNAT) {
	way := wayIngress
	if lan {
		way = wayEgress
	}
	about := p
	about.masks[fWay] = way
	stricter := func(why string, about cond) { c.note(e.rule, about, why, Stricter) }
	do := &e.do
	switch {
	case !do.addr.IsValid():
		stricter("only the port is translated: the router itself is the server, and the firewall offers no such service", about)
		return nil
	case do.last.IsValid() && do.last != do.addr:
		stricter("a server has one address; it is not translated", about)
		return nil
	case do.addr == c.lanNet.Addr():
		stricter("the router itself is the server, and the firewall offers no such service", about)
		return nil
	case !c.server(do.addr):
		stricter(fmt.Sprintf("%v is not in the LAN's network, %v: servers elsewhere, as in a DMZ, are not reached; it is not translated", do.addr, c.lanNet.Masked()), about)
		return nil
	case p.sets[fSport] != nil && !p.sets[fSport].holds(spans{{1, 65535}}, 65535):
		stricter("source ports cannot be looked at; it is not translated", about)
		return nil
	}
	protos := p.sets[fProto].and(only(protoTCP, protoUDP))
	if ping := p.and(withSet(fProto, only(protoICMP))); !ping.never {
		ping.masks[fWay] = way
		stricter("destinations of TCP and UDP are translated; ping is for the firewall itself, and other protocols are dropped", ping)
	}
	wans := c.wanAddresses(e, p, dst, about, lan)
	segments, left := segmentsOf(p.sets[fPort], do)
	if len(left) > 0 && len(protos) > 0 {
		about.sets[fPort] = left
		stricter("these ports do not correspond to the server's one by one; they are not translated", about)
	}
	for _, a := range wans {
		for _, s := range segments {
			for _, proto := range []uint32{protoTCP, protoUDP} {
				if !protos.has(proto) {
					continue
				}
				if len(c.dnat)+len(c.hair)+len(out) >= maxEntries {
					stricter(fmt.Sprintf("more than %d entries", maxEntries), about)
					return out
				}
				out = append(out, outDNAT{wan: a, ports: s.of, to: do.addr, toPort: s.to, proto: proto, from: p.sets[fSrc], rule: e.rule})
			}
		}
	}
	return out
}

// server reports whether an address can be one of a server on the LAN.
func (c *converter) server(a netip.Addr) bool {
	n := c.lanNet
	return n.Contains(a) && a != n.Addr() && (n.Bits() >= 31 || a != n.Masked().Addr() && prefixSpan(n).hi != addrSpan(a).lo)
}

// wanAddresses returns the external addresses that an entry is for.
func (c *converter) wanAddresses(e *flat, p cond, dst spans, about cond, lan bool) (as []netip.Addr) {
	all, few := p.sets[fDst].addrs(maxAddresses)
	if _, named := dst.addrs(maxAddresses); dst == nil || !few || !named {
		all = nil
		for _, a := range c.externals {
			if p.sets[fDst].has(addrSpan(a).lo) {
				all = append(all, a)
			}
		}
		if !lan {
			about.sets[fDst] = p.sets[fDst].minus(c.own().minus(spans{prefixSpan(c.lanNet)}, maxAddr), maxAddr)
			c.note(e.rule, about, "it is for the firewall's own addresses on the WAN, as they are known here; what is sent to others is not translated", Stricter)
		}
	}
	for _, a := range all {
		if c.mayBeExternal(a) {
			as = append(as, a)
			continue
		}
		about.sets[fDst] = spans{addrSpan(a)}
		c.note(e.rule, about, fmt.Sprintf("%v cannot be an address of the firewall on the WAN; it is not translated", a), Stricter)
	}
	return as
}

// A segment is a range of ports of which each becomes the one as far from to.
type segment struct {
	of span
	to uint32
}

// segmentsOf returns what becomes of ports, and those for which it cannot be said.
// As the kernel has it (nf_nat_core.c), a port that lies in the range of the
// server's stays, and any other becomes the first of the range, unless the rule
// says which port the range begins with (a base).
func segmentsOf(ports spans, do *verdict) (segments []segment, left spans) {
	if ports = ports.and(spans{{1, 65535}}); ports == nil {
		ports = spans{{1, 65535}}
	}
	if len(do.ports) != 1 {
		for _, p := range ports {
			segments = append(segments, segment{p, p.lo})
		}
		return segments, nil
	}
	r := do.ports[0]
	if r.lo == 0 {
		return nil, ports
	}
	if do.base != 0 {
		within := spans{{do.base, min(do.base+r.hi-r.lo, 65535)}}
		for _, p := range ports.and(within) {
			segments = append(segments, segment{p, r.lo + p.lo - do.base})
		}
		return segments, ports.minus(within, 65535)
	}
	for _, p := range ports.and(spans{r}) {
		segments = append(segments, segment{p, p.lo})
	}
	outside := ports.minus(spans{r}, 65535)
	n := uint32(0)
	for _, p := range outside {
		n += p.hi - p.lo + 1
	}
	if n > maxSingly {
		return segments, outside
	}
	for _, p := range outside {
		for v := p.lo; v <= p.hi; v++ {
			segments = append(segments, segment{span{v, v}, r.lo})
		}
	}
	return segments, nil
}
