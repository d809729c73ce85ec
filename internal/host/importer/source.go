package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// offLink are destinations to which nothing is forwarded.
var offLink = spans{{0, 0x00ffffff}, {0x7f000000, 0x7fffffff}, {0xe0000000, maxAddr}}

// source converts what the postrouting chains do with the sources of what the LAN
// sends. An entry of nat.snat looks at the source alone: each part of the LAN's
// network gets the entry that decides for most of its traffic.
func (c *converter) source(list []flat) {
	lan := spans{prefixSpan(c.lanNet)}
	outside := lan.not(maxAddr).minus(offLink, maxAddr)
	var fs []flat
	edges := []uint32{lan[0].lo}
	for _, f := range list {
		c.inward(&f, lan)
		f.cond = f.cond.and(withMask(fWay, wayEgress))
		if f.cond.never || f.cond.ipv6 {
			continue
		}
		x := &f.cond
		x.sets[fDst] = x.sets[fDst].and(outside)
		x.sets[fProto] = x.sets[fProto].and(only(protoICMP, protoTCP, protoUDP))
		if len(x.sets[fDst]) == 0 || len(x.sets[fProto]) == 0 {
			continue // only about what is never forwarded
		}
		x.sets[fSrc] = lan.and(x.sets[fSrc])
		if len(x.sets[fSrc]) == 0 {
			c.note(f.rule, cond{never: true}, "such sources are not in the LAN's network, and are dropped as martian", Nothing)
			continue
		}
		for _, s := range x.sets[fSrc] {
			edges = append(edges, s.lo)
			if s.hi != maxAddr {
				edges = append(edges, s.hi+1)
			}
		}
		if f.do.kind == "snat" && !c.mayTranslateTo(f.do) {
			c.note(f.rule, f.cond, "it does not say an address that can be the firewall's on the WAN; the interface's is taken", Differs)
			f.do = verdict{kind: "masquerade", ports: f.do.ports}
		}
		fs = append(fs, f)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	if len(edges) > maxRanges {
		edges = edges[:maxRanges]
	}
	type part struct {
		of span
		by *flat
	}
	var parts []part
	for i, lo := range edges {
		hi := lan[0].hi
		if i+1 < len(edges) {
			hi = edges[i+1] - 1
		}
		if lo > lan[0].hi || hi < lan[0].lo {
			continue
		}
		by := c.sourceOf(fs, span{lo, min(hi, lan[0].hi)}, outside)
		if by == nil {
			continue
		}
		if n := len(parts); n > 0 && sameSource(&parts[n-1].by.do, &by.do) && parts[n-1].of.hi+1 == lo {
			parts[n-1].of.hi = min(hi, lan[0].hi)
		} else {
			parts = append(parts, part{span{lo, min(hi, lan[0].hi)}, by})
		}
	}
	c.covered = spans{}
	for _, p := range parts {
		s := outSNAT{ports: p.by.do.ports}
		if len(s.ports) == 1 && s.ports[0].lo == 0 {
			s.ports = spans{{1, s.ports[0].hi}}
		}
		if p.by.do.kind == "snat" {
			last := p.by.do.last
			if !last.IsValid() {
				last = p.by.do.addr
			}
			s.external, _ = spans{{addrSpan(p.by.do.addr).lo, addrSpan(last).lo}}.addrs(64)
		}
		c.covered = append(c.covered, p.of)
		for _, q := range (spans{p.of}).prefixes() {
			s.source = q
			c.snat = append(c.snat, s)
		}
		c.seen[p.by.rule] = true
	}
	c.covered = c.covered.normal()
}

// inward notes an entry that translates the sources of what comes from the WAN, so that servers
// see the router as the client.
func (c *converter) inward(f *flat, lan spans) {
	x := f.cond.and(withMask(fWay, wayIngress)).and(withSet(fDst, lan))
	if f.do.kind != "masquerade" && f.do.kind != "snat" || x.never || x.ipv6 {
		return
	}
	if x.sets[fSrc] = x.sets[fSrc].minus(lan, maxAddr); len(x.sets[fSrc]) > 0 {
		c.note(f.rule, x, "what comes from the WAN keeps its source", Differs)
	}
}

// hairpinSources notes what becomes of the sources of hairpins: in a policy that is the external
// address by which the server was asked, whatever the postrouting chains say. servers are the
// hairpins that are accepted, as the filter sees them.
func (c *converter) hairpinSources(list []flat, servers []hairpin) {
	lan := spans{prefixSpan(c.lanNet)}
	for _, s := range servers {
		left := []cond{s.box.and(withSet(fSrc, lan))}
		left[0].masks[fState] = 0
		for i := range list {
			f := &list[i]
			if f.cond.never || f.cond.ipv6 || len(left) == 0 {
				continue
			}
			x := f.cond
			x.masks[fState], x.masks[fDNAT], x.masks[fTCP] = 0, 0, 0
			translates := f.do.kind == "masquerade" || f.do.kind == "snat"
			var rest []cond
			for _, l := range left {
				about := l.and(x)
				about.hard = nil
				if translates && !about.never && (f.do.kind != "snat" || f.do.addr != s.external) {
					c.note(f.rule, about, "the source of a hairpin becomes the external address by which it asks", Differs)
				}
				if len(f.cond.hard) > 0 {
					rest = append(rest, l)
				} else {
					rest = append(rest, l.minus(x)...)
				}
			}
			left = rest
		}
		if len(left) > 0 {
			before := s.asks
			before.masks[fWay], before.masks[fState] = wayEgress|wayHairpin, 0
			for _, about := range append(left, before) {
				c.note(s.rule, about, "the source of a hairpin becomes the external address by which it asks, and was kept", Differs)
			}
		}
	}
}

func sameSource(a, b *verdict) bool {
	return a.kind == b.kind && a.addr == b.addr && a.last == b.last && slices.Equal(a.ports, b.ports)
}

// mayTranslateTo reports whether the addresses of an snat can be the firewall's.
func (c *converter) mayTranslateTo(do verdict) bool {
	if !do.addr.IsValid() {
		return false
	}
	last := do.last
	if !last.IsValid() {
		last = do.addr
	}
	as, ok := spans{{addrSpan(do.addr).lo, addrSpan(last).lo}}.addrs(64)
	return ok && !slices.ContainsFunc(as, func(a netip.Addr) bool { return !c.mayBeExternal(a) })
}

// sourceOf returns the entry that translates hosts, nil if none does. Where the
// entries make a difference by something else than the source, they say so.
func (c *converter) sourceOf(fs []flat, hosts span, outside spans) (by *flat) {
	left := []cond{withSet(fSrc, spans{hosts}).and(withSet(fDst, outside)).and(withSet(fProto, only(protoICMP, protoTCP, protoUDP))).and(withMask(fWay, wayEgress))}
	var differ []*flat
	for i := range fs {
		f := &fs[i]
		about := left[0]
		if !slices.ContainsFunc(left, func(l cond) bool { return l.meets(&f.cond) }) {
			continue
		}
		if len(f.cond.hard) > 0 {
			c.note(f.rule, f.cond.and(about), "source NAT looks at the source only, not at "+strings.Join(f.cond.hard, ", "), Differs)
			continue
		}
		translates := f.do.kind == "masquerade" || f.do.kind == "snat"
		switch {
		case !translates && f.do.kind != "accept":
			c.note(f.rule, f.cond, f.do.kind+" has no counterpart in source NAT", c.effect(f.do.kind))
			continue
		case by == nil && translates:
			by = f
		case by != nil && translates && sameTarget(&by.do, &f.do):
		default:
			differ = append(differ, f)
		}
		var rest []cond
		for _, l := range left {
			rest = append(rest, l.minus(f.cond)...)
		}
		if left = rest; len(left) == 0 || len(left) > 100 {
			break
		}
	}
	for _, f := range differ {
		if by == nil || f.rule.text == "" {
			continue
		}
		c.note(f.rule, f.cond, fmt.Sprintf("source NAT looks at the source only, not at destination, protocol or port: what %s says applies to all that these hosts send", by.rule.place), Differs)
	}
	if by != nil && len(left) > 0 {
		c.note(by.rule, by.cond, "source NAT looks at the source only, not at destination, protocol or port: it applies to all that these hosts send", Differs)
	}
	return by
}

// sameTarget reports whether two entries give a source the same addresses.
func sameTarget(a, b *verdict) bool {
	return a.kind == b.kind && a.addr == b.addr && a.last == b.last
}

// effect is what it does to leave a rule out that does something.
func (c *converter) effect(kind string) Effect {
	switch kind {
	case "accept":
		return Stricter
	case "masquerade", "snat":
		return Differs
	}
	return Permissive
}
