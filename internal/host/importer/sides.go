package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// matches reports whether a condition holds for an interface. One without a name
// is one that no rule names.
func (i iface) matches(name string) bool {
	return i.not != (name != "" && slices.ContainsFunc(i.names, func(n string) bool {
		if p, ok := strings.CutSuffix(n, "*"); ok {
			return strings.HasPrefix(name, p)
		}
		return n == name
	}))
}

func allMatch(is []iface, name string) bool {
	return !slices.ContainsFunc(is, func(i iface) bool { return !i.matches(name) })
}

// ways returns the ways that conditions on interfaces leave. hook says which of
// them are known there.
func (c *converter) ways(x cond, hook string) mask {
	inLAN, inWAN := allMatch(x.in, c.lan), allMatch(x.in, c.wan)
	outLAN, outWAN := allMatch(x.out, c.lan), allMatch(x.out, c.wan)
	if hook == "prerouting" || hook == "ingress" || hook == "input" {
		// It is not known yet, and no name of an interface is that of none.
		outLAN = !slices.ContainsFunc(x.out, func(i iface) bool { return !i.not })
		outWAN = outLAN
	}
	var m mask
	if inLAN && outWAN {
		m |= wayEgress
	}
	if inWAN && outLAN {
		m |= wayIngress
	}
	if inLAN && outLAN {
		m |= wayHairpin
	}
	return m
}

// evidence is what speaks for an interface being on one side.
type evidence struct {
	name     string
	wan, lan []string
	nets     []netip.Prefix // that rules place behind it
}

// sight gathers evidence from rules.
type sight struct {
	all []*evidence
}

func (s *sight) of(name string) *evidence {
	for _, e := range s.all {
		if e.name == name {
			return e
		}
	}
	e := &evidence{name: name}
	s.all = append(s.all, e)
	return e
}

func ifaceNames(is []iface, not bool) (ns []string) {
	for _, i := range is {
		if i.not != not {
			continue
		}
		for _, n := range i.names {
			if n != "lo" && n != "" {
				ns = append(ns, n)
			}
		}
	}
	return ns
}

func once(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// look gathers what the rules say about interfaces.
func (c *converter) sight(post, pre []flat) *sight {
	s := &sight{}
	for ch := range c.ordered("prerouting", "forward", "postrouting") {
		for i := range ch.rules {
			r := &ch.rules[i]
			for _, is := range [][]iface{r.cond.in, r.cond.out} {
				for _, n := range slices.Concat(ifaceNames(is, false), ifaceNames(is, true)) {
					s.of(n)
				}
			}
			if r.do.kind == "drop" || r.do.kind == "reject" {
				continue
			}
			for _, x := range []struct {
				is []iface
				of spans
			}{{r.cond.in, r.cond.sets[fSrc]}, {r.cond.out, r.cond.sets[fDst]}} {
				if ns := ifaceNames(x.is, false); len(ns) == 1 && len(x.of) == 1 {
					if ps := x.of.prefixes(); len(ps) == 1 && ps[0].Bits() >= 8 && ps[0].Bits() <= 30 {
						e := s.of(ns[0])
						e.nets = append(e.nets, ps[0])
					}
				}
			}
		}
	}
	for _, f := range post {
		if f.do.kind != "masquerade" && f.do.kind != "snat" || f.cond.never || f.cond.ipv6 {
			continue
		}
		for _, n := range ifaceNames(f.cond.out, false) {
			if !c.reflects(&f) {
				e := s.of(n)
				e.wan = once(e.wan, "sources are translated there")
			}
		}
		for _, n := range ifaceNames(f.cond.out, true) {
			e := s.of(n)
			e.lan = once(e.lan, "sources are translated everywhere but there")
		}
	}
	for _, f := range pre {
		switch {
		case f.cond.never || f.cond.ipv6:
		case f.do.kind == "dnat" && len(ifaceNames(f.cond.in, false)) == 1 && !f.cond.sets[fSrc].private():
			e := s.of(ifaceNames(f.cond.in, false)[0])
			e.wan = once(e.wan, "destinations are translated for what comes from there")
		case f.do.kind == "redirect":
			for _, n := range ifaceNames(f.cond.in, false) {
				e := s.of(n)
				e.lan = once(e.lan, "what comes from there is redirected")
			}
		}
	}
	if l := c.o.Links; l != nil {
		for _, i := range l.Interfaces {
			if i.Name != "lo" && len(i.Addresses) > 0 {
				e := s.of(i.Name)
				e.nets = append(e.nets, i.Addresses...)
			}
		}
	}
	return s
}

// reflects reports whether an entry translates sources of hosts for which another
// of the same network is meant: what hairpinning needs, not a way to the Internet.
func (c *converter) reflects(f *flat) bool {
	s, d := f.cond.sets[fSrc], f.cond.sets[fDst]
	return s.private() && d.private()
}

// private reports whether a set has only private addresses, and some.
func (s spans) private() bool {
	return len(s) > 0 && !slices.ContainsFunc(s.prefixes(), func(p netip.Prefix) bool { return !p.Addr().IsPrivate() })
}

// interfaces finds out which interface is the LAN and which the WAN.
func (c *converter) interfaces(post, pre []flat) error {
	s := c.sight(post, pre)
	c.lan, c.wan = c.o.LAN, c.o.WAN
	others := func() (es []*evidence) {
		for _, e := range s.all {
			if e.name != c.lan && e.name != c.wan && !strings.Contains(e.name, "*") {
				es = append(es, e)
			}
		}
		return es
	}
	pick := func(es []*evidence, why func(*evidence) string) (*evidence, string) {
		var best *evidence
		reason, n := "", 0
		for _, e := range es {
			if w := why(e); w != "" {
				best, reason = e, w
				n++
			}
		}
		if n == 1 {
			return best, reason
		}
		return nil, ""
	}
	if c.wan == "" {
		first := func(e *evidence) string { return strings.Join(e.wan, ", ") }
		translated := func(e *evidence) string {
			if slices.Contains(e.wan, "sources are translated there") {
				return e.wan[0]
			}
			return ""
		}
		for _, why := range []func(*evidence) string{c.defaultRoute, translated, first} {
			if e, reason := pick(others(), why); e != nil {
				c.wan = e.name
				c.assume("%s is taken for the WAN: %s (--wan names another)", c.wan, reason)
				break
			}
		}
	}
	if c.lan == "" {
		c.findLAN(others(), pick, post)
	}
	left := others()
	if c.wan == "" && c.lan != "" && len(left) == 1 {
		c.wan = left[0].name
		c.assume("%s is taken for the WAN: it is the only other interface (--wan names another)", c.wan)
		return nil
	}
	if c.wan == "" && c.lan == "" && len(left) == 0 {
		if len(s.all) == 0 {
			c.assume("no rule names an interface: they are taken for both directions")
		}
		return nil
	}
	if c.wan != "" && c.lan != "" || c.wan != "" && len(left) == 0 || c.lan != "" && len(left) == 0 {
		return nil
	}
	return c.unsure(left)
}

// findLAN chooses the LAN's interface among those that are left.
func (c *converter) findLAN(left []*evidence, pick func([]*evidence, func(*evidence) string) (*evidence, string), post []flat) {
	behind := func(e *evidence) string {
		for _, f := range post {
			src := f.cond.sets[fSrc]
			if f.do.kind != "masquerade" && f.do.kind != "snat" || !src.private() || c.reflects(&f) {
				continue
			}
			for _, p := range e.nets {
				if len(src.and(spans{prefixSpan(p)})) > 0 {
					return fmt.Sprintf("%v, whose sources are translated, is behind it", p.Masked())
				}
			}
		}
		return ""
	}
	private := func(e *evidence) string {
		for _, p := range e.nets {
			if p.Addr().IsPrivate() {
				return fmt.Sprintf("%v is behind it", p.Masked())
			}
		}
		return ""
	}
	alone := func(e *evidence) string {
		if len(left) == 1 && c.wan != "" {
			return "it is the only other interface"
		}
		return ""
	}
	said := func(e *evidence) string { return strings.Join(e.lan, ", ") }
	for _, why := range []func(*evidence) string{alone, behind, said, private} {
		if e, reason := pick(left, why); e != nil {
			c.lan = e.name
			c.assume("%s is taken for the LAN: %s (--lan names another)", c.lan, reason)
			return
		}
	}
}

// unsure says what is not known about interfaces, and takes some where a guess is
// wanted.
func (c *converter) unsure(left []*evidence) error {
	var ns []string
	for _, e := range left {
		ns = append(ns, e.name)
	}
	if !c.o.Partial {
		side, flag := "the LAN and which the WAN", "--lan NAME --wan NAME"
		switch {
		case c.wan != "":
			side, flag = "the LAN ("+c.wan+" is the WAN)", "--lan NAME"
		case c.lan != "":
			side, flag = "the WAN ("+c.lan+" is the LAN)", "--wan NAME"
		}
		return fmt.Errorf("%s: it is not certain which interface is %s: rules name %s; say it with %s, or give what the router says of itself, --links FILE (ip -j address; ip -j route)",
			c.o.File, side, strings.Join(ns, ", "), flag)
	}
	for _, e := range left {
		if c.wan == "" && (len(left) == 1 || e != left[0] || c.lan != "") {
			c.wan = e.name
			c.assume("%s is taken for the WAN: A GUESS, nothing in the rules says it (--wan names another)", c.wan)
		} else if c.lan == "" && e.name != c.wan {
			c.lan = e.name
			c.assume("%s is taken for the LAN: A GUESS, nothing in the rules says it (--lan names another)", c.lan)
		}
	}
	return nil
}

// defaultRoute says that the default route leads through an interface.
func (c *converter) defaultRoute(e *evidence) string {
	if l := c.o.Links; l != nil && l.Default == e.name {
		return "the default route leads there"
	}
	return ""
}

// ordered goes through the chains that packets come to which meet a base chain of
// some hooks, in the order of the rule set.
func (c *converter) ordered(hooks ...string) func(yield func(*chain) bool) {
	return func(yield func(*chain) bool) {
		all := c.reachable(hooks...)
		for _, k := range c.set.order {
			if ch := c.set.chains[k]; all[ch] && !ch.ipv6 && !yield(ch) {
				return
			}
		}
	}
}

// legs reports interfaces that are neither the LAN nor the WAN. What the router
// sends there would go to the WAN: it is denied as far as it is known.
func (c *converter) legs() {
	first := map[string]*rule{}
	var ns []string
	see := func(n string, r *rule) {
		if n == "lo" || first[n] != nil || (iface{names: []string{n}}).matches(c.lan) || (iface{names: []string{n}}).matches(c.wan) {
			return
		}
		first[n] = r
		ns = append(ns, n)
	}
	for ch := range c.ordered("prerouting", "forward", "postrouting") {
		for i := range ch.rules {
			r := &ch.rules[i]
			for _, is := range [][]iface{r.cond.in, r.cond.out} {
				for _, n := range slices.Concat(ifaceNames(is, false), ifaceNames(is, true)) {
					see(n, r)
				}
			}
		}
	}
	if l := c.o.Links; l != nil {
		for _, i := range l.Interfaces {
			if len(i.Addresses) > 0 {
				see(i.Name, &rule{place: "interface " + i.Name, text: fmt.Sprint(i.Addresses)})
			}
		}
	}
	for _, n := range ns {
		c.leg(n, first[n])
	}
}

func (c *converter) leg(name string, r *rule) {
	nets, known := c.o.Others[name]
	nets = slices.Clone(nets)
	if l := c.o.Links; l != nil {
		for _, i := range l.Interfaces {
			if (iface{names: []string{name}}).matches(i.Name) {
				nets, known = append(nets, i.Addresses...), true
			}
		}
		for _, x := range l.Routes {
			if (iface{names: []string{name}}).matches(x.Name) {
				nets, known = append(nets, x.Network), true
			}
		}
	}
	set := spans{}
	for _, p := range nets {
		set = append(set, prefixSpan(p))
	}
	set = set.normal().minus(spans{prefixSpan(c.lanNet)}, maxAddr)
	if len(set) > 0 {
		c.top = append(c.top, item{action: "deny", rule: &rule{comment: "behind " + name}, cond: withSet(fDst, set).and(withMask(fWay, wayEgress))})
	}
	to := withSet(fDst, set).and(withMask(fWay, wayEgress))
	if !known {
		c.note(r, withMask(fWay, wayEgress), fmt.Sprintf("%s is a third interface, and thurward has two: what is sent to the networks behind it would go out of the WAN. "+
			"Name them with --other %s=NETWORK, which denies them, and give them a firewall of their own; --other %s=none if there are none", name, name, name), Permissive)
		return
	}
	for _, f := range c.written(c.through(), c.legResolver(name), cond{}) {
		if f.do.kind == "accept" && f.rule != nil {
			x := f.cond
			x.masks = [numMasks]mask{}
			c.note(f.rule, x, name+" is a third interface: what is sent to the networks behind it is denied, and nothing comes from there", Stricter)
		}
	}
	if len(set) > 0 {
		c.note(r, to, name+" is a third interface: what is sent to the networks behind it is denied, and nothing comes from there", Stricter)
	} else {
		c.note(r, cond{never: true}, name+" is a third interface, without networks of its own", Nothing)
	}
}

// legResolver returns what turns conditions into those on packets that come from a
// third interface or go there.
func (c *converter) legResolver(name string) func(*chain) func(*rule) cond {
	return func(ch *chain) func(*rule) cond {
		return func(r *rule) cond {
			x := r.cond
			if len(ch.devs) > 0 {
				x = x.and(cond{in: []iface{{names: ch.devs}}})
			}
			var m mask
			for bit, w := range [][2]string{{c.lan, name}, {name, c.lan}, {name, c.wan}, {c.wan, name}} {
				if allMatch(x.in, w[0]) && (ch.hook == "prerouting" || ch.hook == "ingress" || allMatch(x.out, w[1])) {
					m |= 1 << bit
				}
			}
			x.in, x.out = nil, nil
			if x.ipv6 || x.masks[fPath] == isNo || x.masks[fCast] == isYes || x.masks[fTCP] == tcpBogus || m == 0 {
				x.never = true
				return x
			}
			x.masks[fPath], x.masks[fCast], x.masks[fLocal] = 0, 0, 0
			return x.and(withMask(fWay, m))
		}
	}
}
