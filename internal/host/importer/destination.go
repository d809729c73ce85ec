package importer

import (
	"net/netip"
	"slices"
	"strings"
)

type outDNAT struct {
	wan     netip.Addr
	ports   span
	to      netip.Addr
	toPort  uint32
	proto   uint32
	from    spans // nil: all
	hairpin bool
	rule    *rule
}

// destination converts what the prerouting chains do with destinations. The first
// entry that matches decides there; in nat.dnat entries have nothing in common.
func (c *converter) destination(list []flat) {
	c.externals = c.external(list)
	c.fromWAN(list)
	c.fromLAN(list)
}

// settled returns an entry's condition for a way: a new connection's first packet,
// and its destination as addresses.
func (c *converter) settled(f *flat, way mask) cond {
	x := f.cond.and(withMask(fWay, way)).and(withMask(fState, stNew))
	own := c.own()
	if way == wayIngress {
		own = own.minus(spans{prefixSpan(c.lanNet)}, maxAddr) // from there it is a martian
	}
	switch x.masks[fLocal] {
	case isYes:
		x.sets[fDst] = x.sets[fDst].and(own)
	case isNo:
		x.sets[fDst] = x.sets[fDst].minus(own, maxAddr)
	}
	x.masks[fLocal], x.masks[fWay], x.masks[fState], x.masks[fTCP], x.masks[fDNAT] = 0, 0, 0, 0, 0
	x.never = x.never || x.sets[fDst] != nil && len(x.sets[fDst]) == 0 || f.cond.masks[fTCP] != 0 && f.cond.masks[fTCP]&tcpSYN == 0 ||
		f.cond.masks[fDNAT] == dnatYes
	return x
}

// taking goes through entries, with the parts of each that surely none before it
// takes, and those that it may get: entries before it that have conditions without
// counterpart may take what they match, or not.
func (c *converter) taking(list []flat, way mask, f func(x *flat, about cond, parts, may []cond)) {
	var taken, surely []cond
	for i := range list {
		e := &list[i]
		x := c.settled(e, way)
		if x.never || e.cond.ipv6 {
			continue
		}
		hard := x.hard
		x.hard = nil
		parts, ok := c.left(x, taken)
		may, few := c.left(x, surely)
		if !ok {
			c.note(e.rule, x, "entries before it leave too many parts of it; it is left out", Stricter)
		}
		if !few {
			may = []cond{x} // more than it gets, which is denied
		}
		x.hard = hard
		f(e, x, parts, may)
		x.hard = nil
		taken = append(taken, x)
		if len(hard) == 0 {
			surely = append(surely, x)
		}
	}
}

// left returns what of a condition others leave, unless that has too many parts.
func (c *converter) left(x cond, others []cond) (parts []cond, ok bool) {
	parts = []cond{x}
	for i := range others {
		t := &others[i]
		if !c.look(len(parts), &x, t) {
			return nil, false
		}
		if !slices.ContainsFunc(parts, func(p cond) bool { return p.meets(t) }) {
			continue
		}
		if parts = subtract(parts, others[i:i+1]); len(parts) > 256 {
			return nil, false
		}
	}
	return parts, true
}

// fromWAN converts entries for what comes from the WAN.
func (c *converter) fromWAN(list []flat) {
	var took []swallow
	defer func() { c.swallows(took) }()
	c.taking(list, wayIngress, func(e *flat, x cond, parts, may []cond) {
		about := x
		about.masks[fWay] = wayIngress
		if e.do.kind != "accept" {
			took = append(took, swallow{e, may})
			c.takesPing(e, may, wayIngress)
		}
		switch {
		case e.do.kind == "accept" && len(x.hard) == 0:
			c.seen[e.rule] = true
		case e.do.kind == "accept":
			c.note(e.rule, about, "conditions without counterpart: "+strings.Join(x.hard, ", ")+"; what it may except is not translated", Stricter)
		case e.do.kind == "drop" || e.do.kind == "reject":
			c.seen[e.rule] = true
		case e.do.kind == "redirect" || e.do.kind == "local":
			c.note(e.rule, about, "the firewall itself offers no such service", Stricter)
		case e.do.kind != "dnat":
			c.note(e.rule, about, e.do.kind+" has no counterpart in destination NAT; what it matches is not translated", Stricter)
		case len(x.hard) > 0:
			c.note(e.rule, about, "conditions without counterpart: "+strings.Join(x.hard, ", ")+"; it is not translated", Stricter)
		default:
			n := len(c.dnat)
			for _, p := range parts {
				c.dnat = append(c.dnat, c.entries(e, p, x.sets[fDst], false)...)
			}
			if len(c.dnat) == n && !c.seen[e.rule] {
				c.note(e.rule, cond{never: true}, "entries before it take all of it, or none of it can be translated", Nothing)
			}
			c.seen[e.rule] = true
		}
	})
}

// fromLAN converts entries for what comes from the LAN: hairpins, and what the
// router takes for itself or leads elsewhere, which must not go out of the WAN.
func (c *converter) fromLAN(list []flat) {
	lan := spans{prefixSpan(c.lanNet)}
	ext := c.own().minus(lan, maxAddr)
	c.taking(list, wayEgress, func(e *flat, x cond, parts, may []cond) {
		if x.sets[fSrc] = x.sets[fSrc].and(lan); len(x.sets[fSrc]) == 0 {
			return
		}
		c.takesPing(e, may, wayEgress)
		about := x
		about.masks[fWay] = wayEgress
		dst := x.sets[fDst]
		through := dst == nil || len(dst.minus(ext, maxAddr).minus(lan, maxAddr)) > 0
		switch e.do.kind {
		case "accept":
			if len(x.hard) > 0 {
				c.note(e.rule, about, "conditions without counterpart: "+strings.Join(x.hard, ", ")+"; what it may except is neither translated nor forwarded", Stricter)
			}
			c.seen[e.rule] = true
			return
		case "drop", "reject":
			c.denies(e, may, wayEgress)
			c.seen[e.rule] = true
			return
		}
		if e.do.kind == "dnat" && len(x.hard) == 0 {
			for _, p := range parts {
				p.sets[fSrc] = p.sets[fSrc].and(lan)
				p.sets[fDst] = p.sets[fDst].and(ext)
				if len(p.sets[fSrc]) > 0 && len(p.sets[fDst]) > 0 {
					c.hair = append(c.hair, c.entries(e, p, x.sets[fDst], true)...)
				}
			}
			c.seen[e.rule] = true
		}
		if c.answersDNS(e, x) {
			return
		}
		for _, p := range may {
			p.hard, p.sets[fSport] = nil, nil
			c.asks = append(c.asks, p.and(withMask(fWay, wayEgress)))
		}
		if here := about.and(withSet(fDst, spans{addrSpan(c.lanNet.Addr())})); e.do.kind != "dnat" {
			c.counts(byOwn, e.rule)
		} else if !here.never {
			c.note(e.rule, here, "the firewall's address on the LAN leads to no server; for hosts of the LAN only external addresses do", Stricter)
		}
		if !through {
			if e.do.kind == "dnat" && len(x.hard) > 0 {
				c.note(e.rule, about, "conditions without counterpart: "+strings.Join(x.hard, ", ")+"; it is not translated", Stricter)
			}
			return
		}
		c.denies(e, may, wayEgress)
		c.note(e.rule, about, "the router leads it elsewhere or takes it for itself, as for a proxy; thurward cannot, so it is denied", Stricter)
	})
}

// answersDNS reports whether an entry leads the DNS of the LAN to the router, as
// dns.intercept does.
func (c *converter) answersDNS(e *flat, x cond) bool {
	ports := x.sets[fPort]
	to := e.do.kind == "redirect" || e.do.kind == "dnat" && e.do.addr == c.lanNet.Addr()
	if !to || len(ports) != 1 || ports[0] != (span{53, 53}) {
		return false
	}
	if x.sets[fDst] != nil && len(x.sets[fDst].minus(c.own(), maxAddr)) == 0 {
		return true // it is for the router anyway
	}
	c.dns = true
	if len(x.hard) == 0 {
		c.led = append(c.led, x)
	}
	if p := e.do.ports; len(x.hard) > 0 || !x.sets[fSrc].holds(spans{prefixSpan(c.lanNet)}, maxAddr) || x.sets[fDst] != nil || len(p) == 1 && p[0] != (span{53, 53}) {
		c.note(e.rule, x, "dns.intercept is for all that the LAN asks other servers, and is answered at port 53", Differs)
	}
	c.seen[e.rule] = true
	return true
}

// denies adds a rule before all others that denies what an entry takes out of the
// way of forwarded packets.
func (c *converter) denies(e *flat, parts []cond, way mask) {
	own := c.own()
	for _, p := range parts {
		if d := p.sets[fDst]; d != nil {
			if p.sets[fDst] = d.minus(own, maxAddr); len(p.sets[fDst]) == 0 {
				continue
			}
			if d.holds(own.not(maxAddr), maxAddr) {
				p.sets[fDst] = nil
			}
		}
		p.masks[fWay], p.masks[fState] = way, stNew
		p.hard = nil
		if p.sets[fSport] != nil {
			p.sets[fSport] = nil
			c.note(e.rule, p, "source ports cannot be looked at: it is denied whatever they are", Stricter)
		}
		if it, ok := c.reduce(&flat{cond: p, do: verdict{kind: "drop"}, rule: e.rule}); ok {
			c.top = append(c.top, it)
		}
	}
}

// takesPing notes which echo requests to the firewall an entry leads elsewhere, so
// that it must not answer them.
func (c *converter) takesPing(e *flat, parts []cond, way mask) {
	if e.do.kind == "accept" || e.do.kind == "redirect" {
		return
	}
	for _, p := range parts {
		p.hard = nil
		if p = p.and(withSet(fProto, only(protoICMP))).and(withMask(fWay, way)); !p.never && (p.sets[fICMP] == nil || p.sets[fICMP].has(8)) {
			p.sets[fICMP] = nil
			c.pings = append(c.pings, p)
		}
	}
}

// A swallow is what an entry takes from the hosts that it is sent to by their own
// addresses.
type swallow struct {
	e     *flat
	parts []cond
}

// swallows denies what the WAN sends straight to hosts of the LAN whose sources are
// not translated, where an entry would have led it elsewhere. Where a server is
// reached in both ways, they cannot be told apart.
func (c *converter) swallows(all []swallow) {
	open := withSet(fDst, spans{prefixSpan(c.lanNet)}.minus(c.covered, maxAddr))
	if open.never {
		return
	}
	for _, w := range all {
		for _, p := range w.parts {
			rest := []cond{p.and(open)}
			if rest[0].never {
				continue
			}
			about := rest[0]
			about.masks[fWay] = wayIngress
			c.note(w.e.rule, about, "what the WAN sends straight to hosts of the LAN, whose sources are not translated, was led elsewhere, and is denied", Stricter)
			for i := range c.dnat {
				d := &c.dnat[i]
				box := d.box()
				box.masks[fState] = 0
				var next []cond
				for _, r := range rest {
					if x := r.and(box); !x.never && (w.e.do.kind != "dnat" || w.e.do.addr != d.to || len(w.e.do.ports) > 0) {
						x.masks[fWay] = wayIngress
						c.note(w.e.rule, x, "a server that it does not lead to is reached by its own address, too, since its source is not translated", Permissive)
					}
					next = append(next, r.minus(box)...)
				}
				rest = next
			}
			c.denies(w.e, rest, wayIngress)
		}
	}
}

// withoutLAN takes the LAN's hosts out of those who may use an entry.
func (c *converter) withoutLAN(from spans) spans {
	return from.minus(spans{prefixSpan(c.lanNet)}, maxAddr)
}

// A hairpin is what hosts of the LAN reach by an external address.
type hairpin struct {
	box      cond // their first packets as the filter sees them
	asks     cond // and before they are translated
	external netip.Addr
	rule     *rule // that translates
}

// hairpins adds entries that hosts of the LAN may use, where the filter lets them.
// It returns what they reach so.
func (c *converter) hairpins(list []item) (servers []hairpin) {
	lan := spans{prefixSpan(c.lanNet)}
	for _, h := range c.hair {
		box := h.box().and(withMask(fWay, wayHairpin))
		box.sets[fSrc] = h.from.and(lan)
		acc := c.accepted(list, box)
		if len(subtract(c.accepted(slices.DeleteFunc(slices.Clone(list), func(it item) bool {
			return it.why != "" && it.action != "accept"
		}), box), acc)) > 0 {
			const why = "a rule without counterpart may deny hosts of the LAN a server by its external address: here they have none"
			asks := h.asks(box.sets[fSrc])
			asks.masks[fWay] = wayEgress | wayHairpin
			for _, about := range []cond{box, asks} {
				c.note(h.rule, about, why, Stricter)
			}
		}
		if len(acc) == 0 {
			continue
		}
		if rest := box.sets[fSrc].minus(c.covered, maxAddr); len(rest) > 0 {
			about := box
			about.sets[fSrc] = rest
			c.note(h.rule, about, "a host of the LAN reaches a server by its external address only if its source is translated", Stricter)
			box.sets[fSrc] = box.sets[fSrc].and(c.covered)
			if h.from = box.sets[fSrc]; len(h.from) == 0 {
				continue
			}
		}
		if !slices.ContainsFunc(servers, func(s hairpin) bool { return s.external == h.wan && s.box.holds(&box) }) {
			servers = append(servers, hairpin{box, h.asks(box.sets[fSrc]), h.wan, h.rule})
		}
		found := false
		for i := range c.dnat {
			d := &c.dnat[i]
			if d.wan != h.wan || d.proto != h.proto || d.ports.lo > h.ports.hi || h.ports.lo > d.ports.hi {
				continue
			}
			if d.ports == h.ports && d.to == h.to && d.toPort == h.toPort && !found {
				found, d.hairpin = true, true
				if d.from == nil && h.from.holds(lan, maxAddr) {
					continue
				}
				d.from = append(c.withoutLAN(d.from), h.from...).normal()
				continue
			}
			d.from = c.withoutLAN(d.from)
		}
		if !found {
			h.hairpin = true
			c.dnat = append(c.dnat, h)
		}
	}
	c.dnat = slices.DeleteFunc(c.dnat, func(d outDNAT) bool { return d.from != nil && len(d.from) == 0 })
	return servers
}

// asks returns the packets of some sources before an entry translates them.
func (d *outDNAT) asks(from spans) cond {
	x := withSet(fProto, only(d.proto)).and(withSet(fDst, spans{addrSpan(d.wan)})).and(withSet(fPort, spans{d.ports}))
	x.sets[fSrc] = from
	return x
}

// box returns the first packets that an entry has translated, as the filter sees
// them.
func (d *outDNAT) box() cond {
	return withMask(fState, stNew).and(withSet(fProto, only(d.proto))).and(withSet(fDst, spans{addrSpan(d.to)})).
		and(withSet(fPort, spans{{d.toPort, d.toPort + d.ports.hi - d.ports.lo}})).and(cond{sets: [numSpans]spans{fSrc: d.from}})
}
