package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// source converts a rule of a postrouting chain.
func (c *converter) source(r rule) {
	x := r.cond
	_, wan := c.sides(x.out)
	switch {
	case r.do.kind == "accept":
		c.note(r, "exceptions from source NAT have no counterpart; entries below it apply", Differs)
		return
	case r.do.kind != "masquerade" && r.do.kind != "snat":
		c.note(r, r.do.kind+" has no counterpart in source NAT", c.effect(r))
		return
	case x.ipv6:
		c.note(r, "thurward does not forward IPv6", Nothing)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case !wan:
		c.note(r, "sources are translated towards the WAN only", Differs)
		return
	case len(x.hard) > 0 || x.ports != nil || x.dst != nil || x.protos != nil || x.icmp != nil:
		c.note(r, "source NAT looks at the source only, not at protocol, port or destination", Differs)
		return
	case r.do.kind == "snat" && !r.do.addr.IsValid():
		c.note(r, "no address to translate to", Differs)
		return
	}
	s := outSNAT{ports: r.do.ports}
	if r.do.kind == "snat" {
		for a := r.do.addr; ; a = a.Next() {
			s.external = append(s.external, a)
			if len(s.external) > 64 {
				c.note(r, "more than 64 external addresses", Differs)
				return
			}
			if !r.do.last.IsValid() || a == r.do.last {
				break
			}
		}
	}
	if x.src == nil {
		c.snat = append(c.snat, s)
		return
	}
	for _, p := range x.src.prefixes() {
		s.source = p
		c.snat = append(c.snat, s)
	}
}

// destination converts a rule of a prerouting chain.
func (c *converter) destination(r rule) {
	x := r.cond
	lan, wan := c.sides(x.in)
	switch {
	case r.do.kind == "accept":
		c.note(r, "exceptions from destination NAT have no counterpart; entries below it apply", Differs)
		return
	case r.do.kind == "redirect" && len(x.hard) == 0 && lan && len(x.ports) == 1 && x.ports[0] == (span{53, 53}):
		c.dns = true
		return
	case r.do.kind == "redirect":
		c.note(r, "the firewall itself offers nothing but DNS", Stricter)
		return
	case r.do.kind != "dnat":
		c.note(r, r.do.kind+" has no counterpart in destination NAT", c.effect(r))
		return
	case x.ipv6:
		c.note(r, "thurward does not forward IPv6", Nothing)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case !wan:
		c.note(r, "destinations are translated for what comes from the WAN", Differs)
		return
	case len(x.hard) > 0 || x.icmp != nil || x.states != nil && !slices.Contains(x.states, "new"):
		c.note(r, "conditions without counterpart in destination NAT: "+strings.Join(x.hard, ", "), Differs)
		return
	case !r.do.addr.IsValid() || r.do.last.IsValid() && r.do.last != r.do.addr:
		c.note(r, "a server has one address", Differs)
		return
	}
	protos := x.protos.and(words{"tcp", "udp"})
	if len(protos) == 0 {
		c.note(r, "destinations of TCP and UDP alone are translated", Differs)
		return
	}
	ports := x.ports
	if ports == nil {
		ports = spans{{1, 65535}}
	}
	ports = ports.and(spans{{1, 65535}})
	wans := []netip.Addr{{}}
	if x.dst != nil {
		wans = nil
		for _, v := range x.dst {
			if v.hi-v.lo > 63 || len(wans) > 63 {
				c.note(r, "a server has at most 64 external addresses here", Differs)
				return
			}
			for a := v.lo; a <= v.hi && a >= v.lo; a++ {
				wans = append(wans, span{a, a}.addr())
			}
		}
	}
	for _, a := range wans {
		for _, p := range ports {
			to := p.lo
			if len(r.do.ports) == 1 {
				if to = r.do.ports[0].lo; p.hi-p.lo != r.do.ports[0].hi-r.do.ports[0].lo {
					c.note(r, fmt.Sprintf("ports %d-%d do not correspond to the server's one by one", p.lo, p.hi), Differs)
					continue
				}
			}
			for _, proto := range protos {
				c.entry(r, outDNAT{wan: a, ports: p, to: r.do.addr, toPort: to, proto: proto, from: x.src, hairpin: lan})
			}
		}
	}
}

// entry adds a DNAT entry, without the ports that an entry before it has for
// everybody.
func (c *converter) entry(r rule, d outDNAT) {
	left := spans{d.ports}
	for _, q := range c.dnat {
		if q.wan == d.wan && q.proto == d.proto && q.from == nil {
			left = left.and(spans{q.ports}.not(65535))
		}
	}
	if len(left) == 0 {
		c.note(r, "an entry before it takes all of its ports", Nothing)
	}
	for _, p := range left {
		q := d
		q.ports, q.toPort = p, d.toPort+p.lo-d.ports.lo
		c.dnat = append(c.dnat, q)
	}
}
