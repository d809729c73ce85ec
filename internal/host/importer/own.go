package importer

import (
	"net/netip"
	"slices"
)

// services converts what the chains say about packets for the router itself: of that
// the firewall has two services, ping and the DNS of the LAN.
func (c *converter) services() {
	var chains []*chain
	for _, hook := range []string{"ingress", "prerouting", "input"} {
		chains = append(chains, c.set.at(hook, false)...)
	}
	list := c.reduced(chains, c.owner, withMask(fWay, wayEgress|wayIngress))
	lan := c.lanNet.Addr()
	at := func(way mask, of ...netip.Addr) cond {
		s := spans{}
		for _, a := range of {
			s = append(s, addrSpan(a))
		}
		return withMask(fWay, way).and(withMask(fState, stNew)).and(withMask(fDNAT, dnatNo)).and(withSet(fDst, s.normal()))
	}
	named := slices.ContainsFunc(list, func(it item) bool {
		p := it.cond.sets[fPort]
		return it.action == "accept" && len(p) > 0 && len(p) < 20 && p.has(53)
	})
	dns := at(wayEgress, lan).and(withSet(fPort, spans{{53, 53}})).and(withSet(fProto, only(protoTCP, protoUDP)))
	asked := subtract(c.accepted(list, dns), c.asks)
	c.upstream = c.dns || len(asked) > 0 && (named || len(c.o.DNS) > 0)
	if c.upstream {
		if c.dns {
			asked = c.redirected(list, dns, asked)
		}
		c.service(list, dns, "dns", asked)
	}
	everywhere, elsewhere := dns, dns
	everywhere.sets[fDst] = c.ownOnAll()
	elsewhere.sets[fDst] = everywhere.sets[fDst].minus(spans{addrSpan(lan)}, maxAddr)
	if rest := c.undecided(list, everywhere); !c.upstream && len(rest) > 0 {
		// The policy of the last chain accepts it; without a chain there is no place to name.
		for _, ch := range c.set.at("input", false) {
			r := &rule{place: ch.place, text: "policy " + ch.policy}
			c.note(r, rest[0], unknownDNS, Stricter)
		}
	}
	for i := range list {
		it := &list[i]
		switch at := it.cond.and(everywhere); {
		case it.action != "accept":
		case !c.upstream && !at.never:
			c.note(it.rule, at, unknownDNS, Stricter)
		case c.upstream && it.cond.meets(&elsewhere):
			c.note(it.rule, it.cond.and(elsewhere), "DNS of the LAN is answered at the firewall's address there alone", Stricter)
		}
	}
	ping := withSet(fProto, only(protoICMP))
	for _, box := range []cond{at(wayEgress, lan).and(ping), at(wayIngress, c.externals...).and(ping)} {
		c.service(list, box, "ping", subtract(c.accepted(list, box), c.pings))
	}
}

// redirected returns what of the questions to the firewall the input chains accept both where they
// were sent to it and where they were redirected to it: dns.intercept and its rules do not tell
// these apart. Whichever is accepted alone is noted.
func (c *converter) redirected(list []item, dns cond, asked []cond) (both []cond) {
	led := dns
	led.masks[fDNAT] = dnatYes
	taken := c.accepted(list, led)
	for _, x := range taken {
		x.masks[fDNAT] = dnatNo
		for _, y := range asked {
			if z := x.and(y); !z.never {
				both = append(both, z)
			}
		}
	}
	const why = "questions that are redirected to the firewall and those that are sent to it are answered alike, or neither is"
	for i := range list {
		it := &list[i]
		if it.why != "" && it.cond.meets(&led) {
			e := Stricter
			if it.action != "accept" {
				e = Nothing // taken for all that it may match
			}
			c.note(it.rule, it.cond.and(led), it.why+"; dns of the firewall itself", e)
		}
		if it.action != "accept" || it.why != "" {
			continue
		}
		for _, q := range []cond{dns, led} {
			x := it.cond.and(q)
			if x.never {
				continue
			}
			x.masks[fDNAT] = dnatNo
			if len(subtract([]cond{x}, both)) > 0 {
				c.note(it.rule, x, why, Stricter)
			}
		}
	}
	return both
}

const unknownDNS = "whether the router answers the DNS of the LAN is not known: " +
	"with --dns ADDRESS the firewall does, and asks there"

// undecided returns what of a set none of the items decides.
func (c *converter) undecided(list []item, about cond) []cond {
	left := []cond{about}
	for i := range list {
		if list[i].why == "" && len(left) > 0 && len(left) < 200 && c.look(len(left), &left[0], &list[i].cond) {
			left = subtract(left, []cond{list[i].cond})
		}
	}
	return left
}

// unused denies what is sent to addresses of the router that the firewall does not
// get, since nothing is translated to or from them.
func (c *converter) unused() {
	var left spans
	for _, a := range c.externals {
		used := a == c.wanNet.Addr() || slices.ContainsFunc(c.dnat, func(d outDNAT) bool { return d.wan == a }) ||
			slices.ContainsFunc(c.snat, func(s outSNAT) bool { return slices.Contains(s.external, a) })
		if !used {
			left = append(left, addrSpan(a))
		}
	}
	if left = left.normal(); len(left) == 0 {
		return
	}
	c.top = append(c.top, item{action: "deny", rule: &rule{comment: "addresses of the router"}, cond: withSet(fDst, left).and(withMask(fWay, wayEgress))})
	for _, a := range left.prefixes() {
		r := &rule{place: "interface " + c.wan, text: "address " + prefix(a)}
		c.note(r, withSet(fDst, spans{prefixSpan(a)}), "nothing is translated to or from it, so that it is none of the firewall's: what the LAN sends there is denied", Stricter)
	}
}

// service adds rules for a service of the firewall's, where those about forwarded
// packets would decide otherwise.
func (c *converter) service(list []item, box cond, name string, accepted []cond) {
	for i := range list {
		if it := &list[i]; it.why != "" && it.cond.meets(&box) {
			e := Stricter
			about := it.cond.and(box)
			switch {
			case it.action == "accept":
			case !c.otherwise(list[i+1:], about, false, "accept"):
				e = Nothing
			case it.fromPort0():
				e = Permissive
			}
			c.note(it.rule, about, it.why+"; "+name+" of the firewall itself", e)
		}
	}
	// What the rules for forwarded packets do with it.
	anyway := c.accepted(c.live(), box)
	whole := func(acc []cond) bool { return len(subtract([]cond{box}, acc)) == 0 }
	if whole(accepted) && whole(anyway) || len(accepted) == 0 && len(anyway) == 0 {
		return
	}
	r := &rule{comment: name + " of the firewall"}
	box.masks[fDNAT] = 0
	for _, a := range accepted {
		a.masks[fDNAT] = 0
		it := item{cond: a, action: "accept", rule: r}
		c.become(&c.first, &it)
	}
	if len(subtract(anyway, accepted)) > 0 {
		for _, x := range c.refused(list, box) {
			x.masks[fDNAT] = 0
			it := item{cond: x, action: "reject", rule: r}
			c.become(&c.first, &it)
		}
		it := item{cond: box, action: "deny", rule: r}
		c.become(&c.first, &it)
	}
}

// refused returns what of a condition items surely reject, telling the sender.
func (c *converter) refused(items []item, about cond) []cond {
	other := map[string]string{"reject": "accept", "accept": "deny", "deny": "deny"}
	items = slices.Clone(items)
	for i := range items {
		items[i].action = other[items[i].action]
	}
	return c.accepted(append(items, item{action: "deny"}), about)
}

// fromPort0 reports whether an item is about packets from port 0 alone, from which no client
// sends: to take it for all would deny a service for their sake.
func (it *item) fromPort0() bool {
	s := it.cond.sets[fSport]
	return len(it.cond.hard) == 0 && len(s) == 1 && s[0] == span{0, 0}
}

// live returns the items that became rules, and the default.
func (c *converter) live() (out []item) {
	out = slices.Clone(c.top)
	for _, it := range c.items {
		if !it.left {
			out = append(out, it)
		}
	}
	return append(out, item{action: c.action})
}

// subtract returns what is in a and not in b.
func subtract(a, b []cond) []cond {
	for _, x := range b {
		var rest []cond
		for _, l := range a {
			rest = append(rest, l.minus(x)...)
		}
		a = rest
	}
	return a
}
