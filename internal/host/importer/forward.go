package importer

import (
	"fmt"
	"slices"
)

// through returns the base chains that forwarded packets meet, those first that
// accept least: what one accepts meets the next, so that the last is written out
// for each accept of the ones before.
func (c *converter) through() []*chain {
	var cs []*chain
	for _, hook := range []string{"ingress", "prerouting", "forward", "postrouting"} {
		cs = append(cs, c.set.at(hook, false)...)
	}
	accepts := func(ch *chain) (n int) {
		seen := map[*chain]bool{}
		var visit func(ch *chain)
		visit = func(ch *chain) {
			if ch == nil || seen[ch] {
				return
			}
			seen[ch] = true
			for i := range ch.rules {
				switch d := ch.rules[i].do; d.kind {
				case "accept", "return", "goto":
					n++
				}
				if t := ch.rules[i].do.target; t != "" {
					visit(c.set.chains[ch.table+" "+t])
				}
			}
		}
		visit(ch)
		if ch.policy == "drop" {
			n += 1000
		}
		return n
	}
	slices.SortStableFunc(cs, func(a, b *chain) int { return accepts(a) - accepts(b) })
	return cs
}

// list returns what the chains of a rule set say about packets, and the same before
// what it says about destination NAT is written out.
func (c *converter) list(chains []*chain, resolve func(*chain) func(*rule) cond, outer cond) (items, before []item) {
	before = c.reduced(chains, resolve, outer)
	for _, it := range before {
		items = append(items, c.translated(it)...)
	}
	return items, before
}

// reduced returns what the chains say about packets that thurward can forward or take for itself.
func (c *converter) reduced(chains []*chain, resolve func(*chain) func(*rule) cond, outer cond) (items []item) {
	for _, f := range c.written(chains, resolve, outer) {
		if it, ok := c.reduce(&f); ok {
			items = append(items, it)
		}
	}
	return items
}

// forward converts the filter for what passes the router.
func (c *converter) forward(post []flat) {
	chains := c.through()
	if !slices.ContainsFunc(chains, func(ch *chain) bool { return ch.hook == "forward" }) {
		c.assume("there is no filter chain for forwarded packets: what no other chain drops is accepted")
	}
	if len(c.hair) > 0 {
		list, before := c.list(chains, c.resolver, withMask(fWay, wayHairpin))
		servers := c.hairpins(list)
		if len(servers) > 0 {
			c.leaveOut(list, "accept")
			c.later(list, before)
		}
		c.hairpinSources(post, servers)
		var done []cond
		for _, h := range servers {
			s := h.box
			if slices.ContainsFunc(done, func(d cond) bool { return d.holds(&s) }) {
				continue // by another external address
			}
			done = append(done, s)
			answers := s
			s.sets[fSrc], answers.sets[fSrc] = nil, s.sets[fDst]
			answers.sets[fDst], answers.sets[fPort] = spans{prefixSpan(c.lanNet)}, nil
			answers.masks[fState] = stEstablished
			c.hairpinRules(list, s)
			c.hairpinRules(list, answers)
		}
	}
	var before []item
	c.items, before = c.list(chains, c.resolver, withMask(fWay, wayEgress|wayIngress))
	c.leaveOut(c.items, "accept")
	c.later(c.items, before)
	c.intercepts()
	own := c.own()
	c.action = "accept"
	var kept []item
	for i := range c.items {
		it := &c.items[i]
		if it.left {
			continue
		}
		if len(it.cond.sets[fDst]) > 0 && len(it.cond.sets[fDst].minus(own, maxAddr)) == 0 {
			c.note(it.rule, cond{never: true}, "nothing is forwarded to the firewall's own address; rules see the address after destination NAT", Nothing)
			continue
		}
		if c.elsewhere(it) {
			c.note(it.rule, cond{never: true}, "it is about other hosts than those of the LAN's network, which is all that is on that side", Nothing)
			continue
		}
		if it.whole() {
			c.action = it.action
			c.seen[it.rule] = true
			break
		}
		c.seen[it.rule] = c.seen[it.rule] || !it.tail
		if len(kept) < 2000 && slices.ContainsFunc(kept, func(k item) bool { return c.look(1, &k.cond, &it.cond) && k.cond.holds(&it.cond) }) {
			continue
		}
		kept = append(kept, *it)
	}
	for i := range kept {
		if kept[i].action == c.action && c.sameBelow(kept[i+1:], &kept[i]) {
			continue
		}
		c.become(&c.rules, &kept[i])
	}
}

// elsewhere reports whether an item is about hosts that are not where they would
// have to be.
func (c *converter) elsewhere(it *item) bool {
	home := it.cond.sets[fSrc]
	switch it.cond.masks[fWay] & (wayEgress | wayIngress | wayHairpin) {
	case wayIngress:
		home = it.cond.sets[fDst]
	case wayEgress, wayHairpin:
	default:
		return false
	}
	return home != nil && len(home.and(spans{prefixSpan(c.lanNet)})) == 0 && (it.cond.masks[fWay] != wayIngress || len(home.and(c.own())) == 0)
}

// whole reports whether an item decides about everything.
func (it *item) whole() bool {
	x := it.cond
	if w := x.masks[fWay]; w&(wayEgress|wayIngress) == wayEgress|wayIngress {
		x.masks[fWay] = 0
	}
	return it.why == "" && x.any()
}

// sameBelow reports whether all below an item decides as it does, so that nothing
// is lost without it.
func (c *converter) sameBelow(below []item, it *item) bool {
	if it.action != "accept" {
		return false // shows what is meant
	}
	for i := range below {
		if !c.look(1, &below[i].cond, &it.cond) || below[i].action != it.action && below[i].cond.meets(&it.cond) {
			return false
		}
	}
	return true
}

// leaveOut finds the items that have no counterpart, and says what it means to
// leave each out. after is what happens where no item matches.
func (c *converter) leaveOut(items []item, after string) {
	for i := range items {
		it := &items[i]
		if it.why == "" {
			continue
		}
		it.left = true
		about := it.cond
		about.hard = nil
		e := Nothing
		if c.otherwise(items[i+1:], about, it.action == "accept", after) && !c.decided(items[:i], &about) {
			if e = Permissive; it.action == "accept" {
				e = Stricter
			}
		}
		c.note(it.rule, about, it.why, e)
	}
}

// decided reports whether items before one leave nothing of it.
func (c *converter) decided(before []item, about *cond) bool {
	for i := range before {
		if !c.look(1, &before[i].cond, about) {
			return false
		}
		if before[i].why == "" && before[i].cond.holds(about) {
			return true
		}
	}
	return false
}

// otherwise reports whether something that a condition describes may be decided in
// another way than accepted, or not, by items.
func (c *converter) otherwise(items []item, about cond, accepted bool, after string) bool {
	left := []cond{about}
	for i := range items {
		it := &items[i]
		var rest []cond
		for _, l := range left {
			if !c.look(1, &it.cond, &l) {
				return true
			}
			if !it.cond.meets(&l) {
				rest = append(rest, l)
				continue
			}
			if (it.action == "accept") != accepted {
				return true
			}
			if it.why != "" {
				rest = append(rest, l)
				continue
			}
			rest = append(rest, l.minus(it.cond)...)
		}
		if left = rest; len(left) == 0 {
			return false
		}
		if len(left) > 200 {
			return true
		}
	}
	return (after == "accept") != accepted
}

// accepted returns what of a condition items surely accept.
func (c *converter) accepted(items []item, about cond) (acc []cond) {
	left := []cond{about}
	for i := range items {
		it := &items[i]
		if it.why != "" && (it.action == "accept" || it.fromPort0()) {
			continue
		}
		x := it.cond
		x.hard = nil
		x.sets[fSport] = nil
		var rest []cond
		for _, l := range left {
			if in := l.and(x); !in.never && it.action == "accept" {
				acc = append(acc, in)
			}
			rest = append(rest, l.minus(x)...)
		}
		if left = rest; len(left) == 0 || len(left) > 200 || !c.look(len(left), &left[0], &x) {
			return acc
		}
	}
	return append(acc, left...)
}

// later finds rules that accept the first packet of connections of which the chains
// deny the following ones: here these pass, since the first packet decides.
func (c *converter) later(items, before []item) {
	for i := range before {
		it := &before[i]
		if it.action == "accept" || it.cond.masks[fState] != stEstablished || it.replies || c.decided(before[:i], &it.cond) {
			continue
		}
		// What it denies of connections that rules accept is their second packet.
		first := it.cond
		first.masks[fState], first.masks[fDNAT], first.hard = stNew, 0, nil
		if c.otherwise(items, first, false, "accept") {
			c.note(it.rule, first, "it denies what follows the first packet of connections that are accepted; here the first packet decides, and the rest passes", Permissive)
		}
	}
	ingress := withMask(fWay, wayIngress)
	if c.direct(spans{prefixSpan(c.lanNet)}) {
		ingress = ingress.and(withMask(fDNAT, dnatYes))
	}
	sides := []cond{withMask(fWay, wayEgress).and(withMask(fDNAT, dnatNo)), ingress, withMask(fWay, wayHairpin)}
	for i := range before {
		it := &before[i]
		if it.action != "accept" || it.why != "" || !it.opens {
			continue
		}
		var parts []cond
		for _, s := range sides {
			parts = append(parts, it.cond.and(s))
		}
		for j := range before[:i] {
			if before[j].why == "" && len(parts) > 0 && len(parts) < 300 && c.look(len(parts), &parts[0], &before[j].cond) {
				parts = subtract(parts, []cond{before[j].cond})
			}
		}
		for _, p := range parts {
			p.masks[fState] = stEstablished
			if !p.never && c.otherwise(before, p, true, "accept") {
				c.note(it.rule, it.cond, "what follows the first packet of such a connection in its direction was denied, and passes here", Permissive)
				break
			}
		}
	}
}

// become adds the rule that an item becomes, if there is something for it.
func (c *converter) become(to *[]outRule, it *item) {
	p := it.cond.sets[fPort]
	if p != nil {
		if p = p.and(spans{{1, 65535}}); len(p) == 0 {
			return
		}
		if p[0] == (span{1, 65535}) {
			p = nil
		}
	}
	it.cond.sets[fPort] = p
	if c.elsewhere(it) {
		return
	}
	if s := it.cond.sets[fProto]; s != nil && len(s.and(only(protoICMP, protoTCP, protoUDP))) == 0 {
		return
	}
	*to = append(*to, c.ruleOf(it))
}

// ruleOf returns the rule that an item becomes.
func (c *converter) ruleOf(it *item) outRule {
	x := &it.cond
	o := outRule{action: it.action, src: x.sets[fSrc], dst: x.sets[fDst], ports: x.sets[fPort]}
	home := &o.src
	switch x.masks[fWay] & (wayEgress | wayIngress | wayHairpin) {
	case wayEgress, wayHairpin, wayEgress | wayHairpin:
		o.direction = "egress"
	case wayIngress:
		o.direction = "ingress"
		home = &o.dst
	}
	// Behind the LAN interface there is nothing but its network, and nothing comes
	// from the WAN with an address of it: the rest of an opposite need not be
	// written. What is said of destinations also holds for the firewall's own.
	lan := spans{prefixSpan(c.lanNet)}
	if o.direction != "" && *home != nil && len(home.and(lan)) > 0 {
		at := lan
		if home == &o.dst {
			at = append(slices.Clone(lan), c.own()...).normal()
		}
		if *home = home.and(at); home == &o.src && home.holds(lan, maxAddr) {
			*home = nil
		}
	}
	if o.direction == "ingress" && o.src != nil && o.src.holds(lan.not(maxAddr).minus(offLink, maxAddr), maxAddr) {
		o.src = nil
	}
	if o.direction == "egress" && o.dst != nil && o.dst.holds(offLink.not(maxAddr), maxAddr) {
		o.dst = nil
	}
	switch x.masks[fState] {
	case stNew:
		o.states = []string{"new"}
	case stEstablished:
		o.states = []string{"established"}
	}
	for _, p := range []uint32{protoTCP, protoUDP, protoICMP} {
		if s := x.sets[fProto]; s != nil && s.has(p) {
			o.protos = append(o.protos, protoName(p))
		}
	}
	c.identify(&o, it.rule)
	return o
}

// identify gives a rule an id of its own, and a name.
func (c *converter) identify(o *outRule, r *rule) {
	base := slug(r.comment)
	for {
		c.ids[base]++
		o.id = fmt.Sprintf("%s-%d", base, c.ids[base])
		if base != "rule" && c.ids[base] == 1 {
			o.id = base
		}
		if !c.taken[o.id] {
			c.taken[o.id] = true
			break
		}
	}
	if o.name = r.comment; o.name == "" {
		o.name = "from " + r.place
	}
}

// hairpinRules adds rules about what the LAN sends to a server by its external
// address.
func (c *converter) hairpinRules(items []item, server cond) {
	left := []cond{server}
	add := func(x cond, it *item) {
		x.hard, x.sets[fSport] = nil, nil
		q := *it
		q.cond = x
		c.become(&c.front, &q)
	}
	for i := range items {
		it := &items[i]
		if it.left || len(left) == 0 {
			continue
		}
		x := it.cond
		x.hard, x.sets[fSport] = nil, nil
		var rest []cond
		for _, l := range left {
			if in := l.and(x); !in.never {
				add(in, it)
			}
			rest = append(rest, l.minus(x)...)
		}
		left = rest
	}
	for _, l := range left {
		add(l, &item{action: "accept", rule: &rule{place: "a chain's policy"}})
	}
}
