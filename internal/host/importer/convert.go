package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A verdict is what a rule does with what it matches.
type verdict struct {
	kind   string // accept, drop, reject, jump, goto, return, masquerade, snat, dnat, redirect, none; else what it is called
	target string // of jump and goto
	addr   netip.Addr
	last   netip.Addr // of a range of addresses
	ports  spans      // one range, nil: none given
}

// A rule is one of a chain.
type rule struct {
	place, text, comment string
	cond                 cond
	do                   verdict
	others               []string // statements that are neither conditions nor verdicts
}

// cannot adds a condition that has no counterpart.
func (r *rule) cannot(what string) { r.cond.hard = slices.Concat(r.cond.hard, []string{what}) }

// other adds a statement that is neither a condition nor a verdict, or may be
// either: it is not known.
func (r *rule) other(what string) { r.others = slices.Concat(r.others, []string{what}) }

// decide gives the rule its verdict. A second one is not understood.
func (r *rule) decide(v verdict) {
	if r.do.kind != "none" {
		// Which of them holds is not known, so that leaving the rule out may
		// let more through.
		v = verdict{kind: r.do.kind + " and " + v.kind}
	}
	r.do = v
}

// settle ends the reading of a rule: alone, a statement that is not known is what
// the rule does; beside a verdict it may be what the verdict depends on.
func (r *rule) settle() {
	switch {
	case len(r.others) == 0:
	case r.do.kind == "none":
		r.do.kind = r.others[0]
	default:
		for _, o := range r.others {
			r.cannot(o)
		}
	}
}

// A chain is a list of rules. A base chain has a hook.
type chain struct {
	place  string
	name   string
	table  string // key of the table, so that jumps stay in it
	kind   string // filter, nat, ...
	hook   string
	policy string // accept or drop
	ipv6   bool
	rules  []rule
}

// A ruleset is what the parsers make.
type ruleset struct {
	chains map[string]*chain // by table and name
	order  []string
	notes  []Note
}

func (s *ruleset) add(c *chain) {
	k := c.table + " " + c.name
	if _, ok := s.chains[k]; !ok {
		s.order = append(s.order, k)
	}
	s.chains[k] = c
}

// outRule is a rule of the result.
type outRule struct {
	id, name, action, direction string
	src, dst                    spans
	ports                       spans
	protos, states              words
}

type outSNAT struct {
	source   netip.Prefix // zero: any
	external []netip.Addr // nil: masquerade
	ports    spans
}

type outDNAT struct {
	wan     netip.Addr // zero: the wan interface's
	ports   span
	to      netip.Addr
	toPort  uint32
	proto   string
	from    spans
	hairpin bool
}

// A converter makes a policy of a rule set.
type converter struct {
	o        Options
	set      *ruleset
	res      Result
	lan, wan string
	policy   string // of the forward chain
	rules    []outRule
	snat     []outSNAT
	dnat     []outDNAT
	dns      bool // redirect of DNS: dns.intercept
	left     int  // rules that may still be written
	ids      map[string]int

	lanNet, wanNet netip.Prefix
	gateway        netip.Addr
	lanKnown       bool // lanNet is no placeholder
}

func convert(s *ruleset, o Options) (*Result, error) {
	c := &converter{o: o, set: s, left: maxRules, ids: map[string]int{}}
	c.res.Notes = s.notes
	c.interfaces()
	var forward []*chain
	for _, k := range s.order {
		ch := s.chains[k]
		switch {
		case ch.hook == "":
		case ch.ipv6:
			c.skipChain(ch, "thurward does not forward IPv6", Nothing)
		case ch.kind == "nat" && ch.hook == "postrouting":
			c.walk(ch, cond{}, 0, c.source)
		case ch.kind == "nat" && ch.hook == "prerouting":
			c.walk(ch, cond{}, 0, c.destination)
		case ch.kind == "filter" && ch.hook == "forward":
			forward = append(forward, ch)
		case ch.kind == "filter" && (ch.hook == "input" || ch.hook == "output"):
			c.skipChain(ch, "the firewall itself offers nothing but DNS to the LAN and answers to ping, and begins nothing but DNS", Nothing)
		default:
			for _, r := range ch.rules {
				e := Nothing
				if r.do.kind == "drop" || r.do.kind == "reject" || r.do.kind == "jump" || r.do.kind == "goto" {
					e = Permissive
				}
				c.note(r, fmt.Sprintf("a %s chain at %s has no counterpart", ch.kind, ch.hook), e)
			}
			if ch.policy == "drop" {
				c.res.Notes = append(c.res.Notes, Note{ch.place, "policy drop", fmt.Sprintf("a %s chain at %s has no counterpart", ch.kind, ch.hook), Permissive})
			}
		}
	}
	c.addresses()
	switch len(forward) {
	case 0:
		c.policy = "accept"
		c.assume("there is no filter chain for forwarded packets: everything is accepted")
	case 1:
		c.policy = forward[0].policy
		c.walk(forward[0], cond{}, 0, c.filter)
	default:
		// A packet must pass all of them; an accept in one does not end the
		// others. The first is converted.
		c.policy = forward[0].policy
		c.walk(forward[0], cond{}, 0, c.filter)
		for _, ch := range forward[1:] {
			c.skipChain(ch, "a second filter chain for forwarded packets: packets have to pass both, which one list of rules cannot say", Permissive)
		}
	}
	if c.left <= 0 {
		return nil, fmt.Errorf("%s: more than %d rules when chains and maps are written out", o.File, maxRules)
	}
	return c.write()
}

func (c *converter) assume(format string, args ...any) {
	c.res.Assumptions = append(c.res.Assumptions, fmt.Sprintf(format, args...))
}

func (c *converter) note(r rule, why string, e Effect) {
	c.res.Notes = append(c.res.Notes, Note{r.place, shorten(r.text), why, e})
}

func (c *converter) skipChain(ch *chain, why string, e Effect) {
	for _, r := range ch.rules {
		c.note(r, why, e)
	}
	if ch.policy == "drop" && e != Nothing || len(ch.rules) == 0 && e != Nothing {
		c.res.Notes = append(c.res.Notes, Note{ch.place, "policy " + ch.policy, why, e})
	}
}

// walk calls f for the rules of a chain, and of the chains that it jumps to, with
// all conditions together. It reports whether everything that reaches the
// chain has been decided when it ends.
func (c *converter) walk(ch *chain, outer cond, depth int, f func(r rule)) {
	for i := 0; i < len(ch.rules); i++ {
		r := ch.rules[i]
		own := r.cond
		r.cond = outer.and(r.cond)
		if c.left--; c.left <= 0 {
			return
		}
		switch r.do.kind {
		case "jump", "goto":
			to := c.set.chains[ch.table+" "+r.do.target]
			switch {
			case r.cond.empty():
				c.note(r, "nothing matches it", Nothing)
				continue
			case to == nil || to.hook != "":
				c.note(r, "there is no chain "+r.do.target, Permissive)
				continue
			case depth >= maxDepth:
				c.note(r, fmt.Sprintf("jumps are nested more than %d deep", maxDepth), Permissive)
				continue
			case len(own.hard) > 0:
				c.note(r, "conditions without counterpart: "+strings.Join(own.hard, ", "), effectOf(to))
				continue
			case r.do.kind == "goto" && !(own.any() || i == len(ch.rules)-1):
				// What the chain leaves undecided must not meet the rules
				// below, which a policy cannot express.
				c.note(r, "goto is converted only at the end of a chain", Permissive)
				continue
			}
			c.walk(to, r.cond, depth+1, f)
			if r.do.kind == "goto" {
				return
			}
		case "return":
			rest := ch.rules[i+1:]
			switch {
			case len(rest) == 0 || r.cond.empty():
				continue
			case own.any():
				return
			case depth == 0:
				// Back from a base chain is its policy.
				r.do.kind = ch.policy
				f(r)
				continue
			}
			// The rules below are for what the return does not match: easy
			// when it looks at one kind of address only.
			only := own
			only.src, only.dst = nil, nil
			switch {
			case only.any() && own.dst == nil:
				outer.src = outer.src.and(own.src.not(^uint32(0)))
			case only.any() && own.src == nil:
				outer.dst = outer.dst.and(own.dst.not(^uint32(0)))
			default:
				c.note(r, "a return whose opposite cannot be expressed; the rules below it in this chain are left out", Nothing)
				for _, q := range rest {
					q.cond = outer.and(q.cond)
					c.note(q, "stands below a return that could not be converted", c.effect(q))
				}
				return
			}
		case "none":
		default:
			f(r)
		}
	}
}

// effect is what it does to leave a rule out.
func (c *converter) effect(r rule) Effect {
	switch r.do.kind {
	case "accept":
		return Stricter
	case "drop", "reject":
		return Permissive
	case "masquerade", "snat", "dnat", "redirect":
		return Differs
	case "none", "return":
		return Nothing
	}
	return Permissive
}

// effectOf is what it does to leave out a jump to a chain.
func effectOf(to *chain) Effect {
	e := Nothing
	for _, r := range to.rules {
		switch r.do.kind {
		case "drop", "reject", "jump", "goto":
			return Permissive
		case "accept":
			e = Stricter
		}
	}
	return e
}
