package importer

import (
	"slices"
	"strings"
)

// An item is a rule for packets that thurward can forward, in the form of its own
// rules if why is empty.
type item struct {
	cond    cond
	action  string // accept, deny, reject
	rule    *rule
	why     string // it has no counterpart
	left    bool   // it was left out: what it matches meets the rules below
	opens   bool   // it is about connections' first packets alone
	replies bool   // of established connections, only about what answers
	tail    bool
}

var actions = map[string]string{"accept": "accept", "drop": "deny", "reject": "reject"}

// reduce leaves of an entry what is about packets that thurward can forward, and
// reports whether there are any.
func (c *converter) reduce(f *flat) (it item, ok bool) {
	x := f.cond
	it = item{action: actions[f.do.kind], rule: f.rule, tail: f.tail}
	switch {
	case it.action == "reject" && c.silent(x.masks[fWay]):
		it.action = "deny"
	case it.action != "":
	case f.do.kind == "local":
		// Forwarded it is not, whatever becomes of it.
		it.action = "deny"
		c.note(f.rule, x, "the router takes it for itself, as for a proxy; thurward cannot, so it is denied", Stricter)
	default:
		it.action, it.why = "deny", f.do.kind+" has no counterpart"
	}
	passes := only(protoICMP, protoTCP, protoUDP)
	if p := x.sets[fProto]; p != nil && len(p.and(passes)) == 0 {
		c.counts(byOther, f.rule)
		return it, false
	}
	x.sets[fProto] = x.sets[fProto].and(passes)
	states := x.masks[fState]
	if states == 0 {
		states = allOf[fState]
	} else if states&(stRelated|stInvalid|stUntracked) != 0 {
		c.counts(byInvalid, f.rule)
	}
	states &= stNew | stEstablished
	if t := x.sets[fICMP]; t != nil {
		request, reply := t.has(8), t.has(0)
		if len(t.minus(spans{{0, 0}, {8, 8}}, 255)) > 0 {
			d := byICMP
			if it.action != "accept" {
				d = byErrors
			}
			c.counts(d, f.rule)
		}
		// An echo request begins a flow, the reply answers.
		states &= pick(request, stNew) | pick(reply, stEstablished)
		it.replies = !request
	}
	if t := x.masks[fTCP]; t != 0 {
		s := states & (pick(t&tcpSYN != 0, stNew) | pick(t&tcpOther != 0, stEstablished))
		if s != states && states&stNew != 0 && t&tcpSYN == 0 {
			c.counts(byInvalid, f.rule)
		}
		states = s
	}
	it.opens = x.masks[fState] != 0 && x.masks[fState]&stEstablished == 0 || x.masks[fTCP] != 0 && x.masks[fTCP]&tcpOther == 0
	x.masks[fTCP], x.sets[fICMP] = 0, nil
	if x.masks[fState] = states; states == 0 {
		c.seen[f.rule] = true
		return it, false
	}
	if states == stNew|stEstablished {
		x.masks[fState] = 0
	}
	if p := x.sets[fPort].and(spans{{1, 65535}}); x.sets[fPort] != nil {
		if x.sets[fPort] = p; len(p) == 0 {
			return it, false // no service is at port 0
		}
		if p[0] == (span{1, 65535}) {
			x.sets[fPort] = nil
		}
	}
	if s := x.sets[fSport]; s != nil && s.holds(spans{{1, 65535}}, 65535) {
		x.sets[fSport] = nil
	}
	if len(x.sets[fProto]) == len(passes) {
		x.sets[fProto] = nil
	}
	if x.sets[fPort] != nil || x.sets[fSport] != nil {
		if x.sets[fProto] = x.sets[fProto].and(only(protoTCP, protoUDP)); len(x.sets[fProto]) == 0 {
			return it, false
		}
	}
	for _, field := range []int{fSrc, fDst} {
		if s := x.sets[field]; len(s) == 1 && s[0] == (span{0, maxAddr}) {
			x.sets[field] = nil
		}
	}
	why := slices.Clone(x.hard)
	if s := x.sets[fSport]; s != nil {
		why = append(why, "source port "+numberList(s))
	}
	if len(why) > 0 && it.why == "" {
		it.why = "conditions without counterpart: " + strings.Join(why, ", ")
	}
	it.cond = x
	return it, true
}

func pick(is bool, m mask) mask {
	if is {
		return m
	}
	return 0
}

// translated writes out what an item says about destination NAT: rules see packets
// after it, and not whether it was.
func (c *converter) translated(it item) (out []item) {
	m := it.cond.masks[fDNAT]
	it.cond.masks[fDNAT] = 0
	if m == 0 || m == dnatNo|dnatYes {
		return []item{it}
	}
	part := func(way, state mask, more ...cond) (item, bool) {
		q := it
		q.cond = it.cond.and(withMask(fWay, way)).and(withMask(fState, state))
		for _, x := range more {
			q.cond = q.cond.and(x)
		}
		return q, !q.cond.never
	}
	unsure := func(q item) item {
		if q.why == "" {
			q.why = "whether destination NAT has translated cannot be seen where a host is reached by its own address, too (its source is not translated)"
		}
		return q
	}
	covered := c.direct(spans{prefixSpan(c.lanNet)})
	add := func(q item, ok bool) {
		if ok {
			out = append(out, q)
		}
	}
	if m == dnatNo {
		add(part(wayEgress, stNew))
		add(part(wayIngress, stEstablished))
		if !covered {
			if q, ok := part(wayEgress, stEstablished); ok {
				out = append(out, unsure(q))
			}
		}
		if q, ok := part(wayIngress, stNew); ok {
			rest := []cond{q.cond}
			for i := range c.dnat {
				box := c.dnat[i].box().and(withMask(fWay, wayIngress))
				var next []cond
				for _, r := range rest {
					if x := r.and(box); !x.never && !c.hidden(c.dnat[i].to) && it.action != "accept" {
						n := q
						n.cond = x
						out = append(out, unsure(n))
					}
					next = append(next, r.minus(box)...)
				}
				rest = next
			}
			for _, r := range rest {
				q.cond = r
				out = append(out, q)
			}
		}
		return out
	}
	for i := range c.dnat {
		if q, ok := part(wayIngress, stNew, c.dnat[i].box()); ok {
			if !c.hidden(c.dnat[i].to) && it.action == "accept" {
				q = unsure(q)
			}
			out = append(out, q)
		}
	}
	add(part(wayHairpin, stNew))
	add(part(wayHairpin, stEstablished))
	if q, ok := part(wayEgress, stEstablished); ok {
		if !covered {
			q = unsure(q)
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		c.note(it.rule, cond{never: true}, "there is no destination NAT for it", Nothing)
	}
	return out
}
