package importer

// untracks is what a rule does that takes packets out of connection tracking.
var untracks = aside{why: "every packet is tracked", effect: Differs}

// untracked notes whether packets that a rule takes out of connection tracking were denied for having
// no state, as the answers of a server whose packets are not tracked: here they have one.
func (c *converter) untracked(r *rule) {
	about := c.met[r]
	about.hard, about.masks[fState] = nil, stUntracked
	left := []cond{about}
	for _, f := range c.written(c.through(), c.resolver, cond{}) {
		if f.do.kind == "none" || len(left) == 0 || len(left) > 200 || !c.look(len(left), &left[0], &f.cond) {
			continue
		}
		x := f.cond
		x.masks[fDNAT], x.hard = 0, nil
		var rest []cond
		for _, l := range left {
			in := l.and(x)
			answer := in
			answer.masks[fState] = stEstablished
			if !in.never && f.do.kind != "accept" && c.otherwise(c.items, answer, false, "accept") {
				in.masks[fState] = 0
				c.note(r, in, "packets that are not tracked belong to no connection, and were denied; "+
					"here they pass as a connection's", Permissive)
			}
			if len(f.cond.hard) > 0 {
				rest = append(rest, l)
			} else {
				rest = append(rest, l.minus(x)...)
			}
		}
		left = rest
	}
}

// intercepts notes where the filter accepts questions of the LAN to other servers that no rule redirects:
// dns.intercept takes them all.
func (c *converter) intercepts() {
	if !c.dns {
		return
	}
	others := withMask(fWay, wayEgress).and(withMask(fState, stNew)).and(withSet(fPort, spans{{53, 53}})).
		and(withSet(fProto, only(protoTCP, protoUDP))).and(withSet(fSrc, spans{prefixSpan(c.lanNet)})).
		and(withSet(fDst, c.own().not(maxAddr)))
	left := subtract([]cond{others}, c.led)
	const why = "dns.intercept is for all that the LAN asks: the firewall answers what the router let pass"
	for i := range c.items {
		it := &c.items[i]
		var rest []cond
		for _, l := range left {
			in := l.and(it.cond)
			if !in.never && it.action == "accept" && it.why == "" {
				c.note(it.rule, in, why, Differs)
			}
			if it.why != "" {
				rest = append(rest, l)
			} else {
				rest = append(rest, l.minus(it.cond)...)
			}
		}
		if left = rest; len(left) == 0 || len(left) > 200 || !c.look(len(left), &left[0], &it.cond) {
			break
		}
	}
	if len(left) == 0 {
		return
	}
	for _, ch := range c.set.at("forward", false) {
		c.note(&rule{place: ch.place, text: "policy " + ch.policy}, left[0], why, Differs)
	}
}

// mutes finds out on which ways nobody is told of a refusal, since the router's own output chains deny
// what a reject sends, which the kernel has related to the packet that is refused.
func (c *converter) mutes() {
	chains := c.set.at("output", false)
	list := c.written(chains, func(ch *chain) func(*rule) cond {
		return func(r *rule) cond {
			x := c.resolve(ch, r)
			x.masks[fLocal] = 0
			return x
		}
	}, cond{})
	if len(list) == 0 {
		return
	}
	for to, sender := range map[mask]mask{wayIngress: wayEgress | wayHairpin, wayEgress: wayIngress} {
		if !c.tells(list, withMask(fWay,
			to).and(withMask(fState, stRelated)).and(withSet(fProto, only(protoICMP, protoTCP)))) {
			c.mute |= sender
		}
	}
}

// tells reports whether something of what refuses packets may leave the router.
func (c *converter) tells(list []flat, told cond) bool {
	left := []cond{told}
	for i := range list {
		f := &list[i]
		denies := f.do.kind == "drop" || f.do.kind == "reject"
		if denies && len(f.cond.hard) > 0 {
			continue // it may match nothing
		}
		x := f.cond
		x.hard = nil
		var rest []cond
		for _, l := range left {
			if !l.and(x).never && !denies {
				return true
			}
			rest = append(rest, l.minus(x)...)
		}
		if left = rest; len(left) == 0 || len(left) > 200 || !c.look(len(left), &left[0], &x) {
			break
		}
	}
	return len(left) > 0
}

// silent reports whether the senders of all ways that a mask has are not told of refusals.
func (c *converter) silent(way mask) bool {
	if way == 0 {
		way = wayEgress | wayIngress
	}
	return way&(wayEgress|wayIngress|wayHairpin)&^c.mute == 0
}
