package importer

import (
	"net/netip"
	"slices"
)

// A verdict is what a rule does with what it matches.
type verdict struct {
	kind   string // accept, drop, reject, jump, goto, return, masquerade, snat, dnat, redirect, local, none; else what it is called
	target string // of jump and goto
	addr   netip.Addr
	last   netip.Addr // of a range of addresses
	ports  spans      // one range, nil: none given
	base   uint32     // of a range of ports that is shifted: what its first port was; 0: it is not
}

// decides reports whether a rule with the verdict is the last that a packet meets
// in its chain, or may be: of what is not known nobody knows.
func (v *verdict) decides() bool {
	return v.kind != "none" && v.kind != "jump" && v.kind != "goto" && v.kind != "return"
}

// A rule is one of a chain.
type rule struct {
	place, text, comment string
	cond                 cond
	do                   verdict
	tproxy               bool     // what it accepts goes to a program of the router
	others               []string // statements that are neither conditions nor verdicts
	aside                []aside  // what it does besides
}

// An aside is something that a rule does beside its verdict, as to change a packet.
type aside struct {
	design design // what thurward does about it by design, or
	why    string // a note
	effect Effect
}

// cannot adds a condition that has no counterpart.
func (r *rule) cannot(what string) { r.cond = r.cond.and(withHard(what)) }

// also adds a condition.
func (r *rule) also(c cond) { r.cond = r.cond.and(c) }

// does adds something that the rule does besides.
func (r *rule) does(a aside) { r.aside = slices.Concat(r.aside, []aside{a}) }

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
	if r.tproxy && (r.do.kind == "none" || r.do.kind == "accept") {
		r.do = verdict{kind: "local"}
	}
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
	kind   string // filter, nat, route
	hook   string
	prio   int
	devs   []string // of a chain at the hook ingress
	policy string   // accept or drop
	ipv6   bool
	rules  []rule
}

// A ruleset is what the parsers make.
type ruleset struct {
	chains map[string]*chain // by table and name
	order  []string
	notes  []Note
	design [numDesigns]int
}

func (s *ruleset) add(c *chain) {
	k := c.table + " " + c.name
	if _, ok := s.chains[k]; !ok {
		s.order = append(s.order, k)
	}
	s.chains[k] = c
}

// at returns the base chains of a hook, of the types that match, in the order in
// which packets meet them.
func (s *ruleset) at(hook string, nat bool) (cs []*chain) {
	for _, k := range s.order {
		if c := s.chains[k]; c.hook == hook && (c.kind == "nat") == nat && !c.ipv6 {
			cs = append(cs, c)
		}
	}
	slices.SortStableFunc(cs, func(a, b *chain) int { return a.prio - b.prio })
	return cs
}
