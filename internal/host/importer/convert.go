package importer

import (
	"fmt"
	"net/netip"
	"slices"
)

// outRule is a rule of the result.
type outRule struct {
	id, name, action, direction string
	src, dst                    spans
	ports                       spans
	protos, states              []string
}

type outSNAT struct {
	source   netip.Prefix // zero: any
	external []netip.Addr // nil: masquerade
	ports    spans
}

// A converter makes a policy of a rule set.
type converter struct {
	o        Options
	set      *ruleset
	res      Result
	repairs  int    // of the result
	lan, wan string // interfaces; "": no rule names it
	action   string // where no rule matches
	rules    []outRule
	snat     []outSNAT
	dnat     []outDNAT
	dns      bool // the LAN's DNS is intercepted
	upstream bool // DNS is offered to the LAN
	room     int  // entries that may still be written
	wide     int  // ranges that these may still have
	looks    int  // comparisons that may still be made
	ids      map[string]int
	taken    map[string]bool

	lanNet, wanNet netip.Prefix
	gateway        netip.Addr

	externals    []netip.Addr // the firewall's addresses on the WAN
	hair         []outDNAT    // that hosts of the LAN may use
	pings        []cond       // echo requests to the firewall that it does not get
	asks         []cond       // questions of the LAN to the firewall that it does not get
	first, front []outRule    // about the firewall itself, and about hairpins
	top          []item       // denies what was not forwarded for other reasons than the filter
	items        []item       // of the filter, for what passes the router
	seen         map[*rule]bool
	met          map[*rule]cond // rules that some packet may meet
	notes        map[noteKey]int
	covered      spans  // sources that are translated
	led          []cond // questions of the LAN that are redirected to the router
	mute         mask   // ways whose senders are not told of refusals
	designed     [numDesigns]map[*rule]bool
}

type noteKey struct {
	rule *rule
	why  string
}

func convert(s *ruleset, o Options) (*Result, error) {
	c := &converter{o: o, set: s, room: maxRules, wide: maxWide, looks: maxLooks, ids: map[string]int{}, taken: map[string]bool{}, seen: map[*rule]bool{}, met: map[*rule]cond{}, notes: map[noteKey]int{}}
	c.res.Notes = s.notes
	post, pre := c.translations(asWritten)
	if err := c.interfaces(post, pre); err != nil {
		return nil, err
	}
	post, pre = c.translations(c.resolver)
	c.addresses(post, pre)
	c.legs()
	c.source(post)
	c.destination(pre)
	c.mutes()
	c.forward(post)
	c.services()
	c.unused()
	c.besides()
	if c.room <= 0 {
		return nil, fmt.Errorf("%s: more than %d rules when chains and maps are written out", o.File, maxRules)
	}
	if c.wide <= 0 {
		return nil, fmt.Errorf("%s: more than %d addresses and ports when rules are written out with the sets that they name", o.File, maxWide)
	}
	return c.write()
}

// translations writes out the chains of source and destination NAT.
func (c *converter) translations(resolve func(*chain) func(*rule) cond) (post, pre []flat) {
	return c.written(c.set.at("postrouting", true), resolve, cond{}), c.written(c.set.at("prerouting", true), resolve, cond{})
}

// asWritten leaves conditions as they are.
func asWritten(*chain) func(*rule) cond { return func(r *rule) cond { return r.cond } }

// written writes out base chains that a packet meets one after the other: what one
// accepts meets the next. What the last accepts, or none decides, is accepted: by
// an entry where others would follow.
func (c *converter) written(chains []*chain, resolve func(*chain) func(*rule) cond, outer cond) (fs []flat) {
	var stage func(i int, outer cond, by *rule, explicit bool)
	emit := func(x flat) bool {
		fs = append(fs, x)
		c.room--
		c.wide -= x.cond.ranges()
		return c.room > 0 && c.wide > 0
	}
	stage = func(i int, outer cond, by *rule, explicit bool) {
		if i == len(chains) {
			if explicit {
				emit(flat{cond: outer, do: verdict{kind: "accept"}, rule: by})
			}
			return
		}
		ch := chains[i]
		end := func(m cond, explicit bool) {
			policy := &rule{place: ch.place, text: "policy " + ch.policy}
			if ch.policy == "drop" {
				emit(flat{cond: m, do: verdict{kind: "drop"}, rule: policy, tail: true})
				return
			}
			if explicit && i+1 == len(chains) {
				emit(flat{cond: m, do: verdict{kind: "accept"}, rule: policy, tail: true})
				return
			}
			stage(i+1, m, policy, explicit)
		}
		f := &flattener{chains: c.set.chains, resolve: resolve(ch), left: &c.room, wide: &c.wide, rules: c.met, emit: emit}
		f.note = func(r *rule, why string, e Effect) { c.note(r, cond{}, why, e) }
		f.accept = func(m cond, r *rule) { stage(i+1, m, r, true) }
		f.chain(ch, 0, outer, 0, func(m cond) { end(m, true) }, explicit)
		if !explicit {
			end(outer, false)
		}
	}
	stage(0, outer, nil, false)
	return fs
}

func (c *converter) assume(format string, args ...any) {
	c.res.Assumptions = append(c.res.Assumptions, fmt.Sprintf(format, args...))
}

// note says that a rule was not converted as it stands, for some packets. Of
// several notes with the same reason there is one, with the worst effect.
func (c *converter) note(r *rule, about cond, why string, e Effect) {
	c.seen[r] = true
	k := noteKey{r, why}
	if i, ok := c.notes[k]; ok {
		n := &c.res.Notes[i]
		n.Effect = worse(n.Effect, e)
		if len(n.Packets.of) < 64 {
			n.Packets.of = append(n.Packets.of, about)
		} else {
			n.Packets.of = []cond{{}}
		}
		return
	}
	c.notes[k] = len(c.res.Notes)
	about.hard = nil
	c.res.Notes = append(c.res.Notes, Note{Place: r.place, Text: shorten(r.text), Comment: shorten(r.comment), Why: why, Effect: e, Traffic: about.words(), Packets: Packets{[]cond{about}}})
}

// counts notes that a rule is about something that thurward does by design.
func (c *converter) counts(d design, r *rule) {
	c.seen[r] = true
	if c.designed[d] == nil {
		c.designed[d] = map[*rule]bool{}
	}
	c.designed[d][r] = true
}

// look counts comparisons of n conditions like one with another, by the ranges that these have, and reports
// whether there may be more.
func (c *converter) look(n int, a, b *cond) bool {
	c.looks -= n * (1 + (a.ranges()+b.ranges())/16)
	return c.looks > 0
}

// besides reports what rules do besides deciding, what they are about that
// thurward treats by design, and those of which nothing has become of anything.
func (c *converter) besides() {
	through, own := c.reachable("prerouting", "forward", "postrouting", "ingress"), c.reachable("input", "output")
	for _, k := range c.set.order {
		ch := c.set.chains[k]
		for i := range ch.rules {
			r := &ch.rules[i]
			for _, a := range r.aside {
				if a.design != 0 {
					c.counts(a.design, r)
				} else if through[ch] && !ch.ipv6 && !r.cond.ipv6 {
					c.note(r, c.met[r], a.why, a.effect)
					if a == untracks {
						c.untracked(r)
					}
				}
			}
			switch {
			case c.seen[r] || !r.do.decides():
			case r.cond.ipv6 || ch.ipv6:
				c.counts(byIPv6, r)
			case !through[ch] && own[ch]:
				c.counts(byOwn, r)
			case through[ch]:
				c.note(r, cond{never: true}, "nothing that is forwarded here matches it, or rules above it decide", Nothing)
			}
		}
	}
	for d := byOther; d < numDesigns; d++ {
		x := designs[d]
		x.Rules = len(c.designed[d]) + c.set.design[d]
		c.res.Designs = append(c.res.Designs, x)
	}
}

// reachable returns the chains that packets come to which meet a base chain of
// some hooks.
func (c *converter) reachable(hooks ...string) map[*chain]bool {
	all := map[*chain]bool{}
	var visit func(ch *chain)
	visit = func(ch *chain) {
		if ch == nil || all[ch] {
			return
		}
		all[ch] = true
		for i := range ch.rules {
			if d := ch.rules[i].do; d.target != "" {
				visit(c.set.chains[ch.table+" "+d.target])
			}
		}
	}
	for _, k := range c.set.order {
		if ch := c.set.chains[k]; slices.Contains(hooks, ch.hook) {
			visit(ch)
		}
	}
	return all
}
