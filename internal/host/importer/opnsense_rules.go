package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// bogus are sources that nobody on the Internet has (RFC 6890), and private those of
// networks inside.
var (
	private = []string{"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"}
	bogus   = []string{"0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"}
)

// chains makes chains of what pf would do: rules for what enters, which are for the
// router itself, too, and those for what leaves.
func (p *pfParser) chains() {
	rules := &chain{name: "rules", table: "pf", place: "filter"}
	out := &chain{name: "out", table: "pf", place: "filter, out", kind: "filter", hook: "forward", prio: 1, policy: "accept"}
	pre := &chain{name: "rdr", table: "pf", place: "nat", kind: "nat", hook: "prerouting", prio: prioDNAT, policy: "accept"}
	post := &chain{name: "nat", table: "pf", place: "nat.outbound", kind: "nat", hook: "postrouting", prio: 100, policy: "accept"}
	rules.rules = append(rules.rules, rule{place: "pf", text: "states", cond: withMask(fState, stEstablished|stRelated), do: verdict{kind: "accept"}})
	p.guards(rules)
	p.forwards(pre, rules)
	p.outbound(post)
	p.oneToOne(pre, post)
	var all []pfRule
	for _, e := range append(p.newRules(), p.root.child("filter").all("rule")...) {
		if p.count++; p.disabled(e) || p.count > maxRules || p.off(e) {
			continue
		}
		all = append(all, p.filterRule(e))
	}
	slices.SortStableFunc(all, func(a, b pfRule) int { return a.order - b.order })
	var last []rule
	for _, f := range all {
		r := f.rule
		switch {
		case f.direction == "out":
		case f.quick:
			rules.rules = append(rules.rules, r)
		default:
			last = append(last, r)
		}
		if f.direction == "out" || f.direction == "any" {
			r.cond.in, r.cond.out = nil, r.cond.in
			if !f.quick {
				r.cannot("not quick")
			}
			out.rules = append(out.rules, r)
		}
	}
	rules.rules = append(rules.rules, p.registered...)
	slices.Reverse(last) // of those the last that matches decides
	rules.rules = append(rules.rules, last...)
	for hook, name := range map[string]string{"forward": "forward", "input": "input"} {
		base := &chain{name: name, table: "pf", place: "filter", kind: "filter", hook: hook, policy: "drop"}
		base.rules = []rule{{place: "pf", text: "rules", do: verdict{kind: "jump", target: "rules"}}}
		p.set.add(base)
	}
	for _, c := range []*chain{rules, out, pre, post} {
		p.set.add(c)
	}
}

// The order in which classes of rules are asked.
const (
	pfFloating  = 200_000 // of several interfaces
	pfGroup     = 300_000 // of groups, by their sequence
	pfInterface = 400_000
)

// A pfRule is a rule of the filter: where it stands, whether the first that matches decides, and for which
// direction it is.
type pfRule struct {
	rule      rule
	order     int
	quick     bool
	direction string
}

// guards adds what interfaces block by themselves.
func (p *pfParser) guards(to *chain) {
	for _, i := range p.root.child("interfaces").children {
		for _, g := range []struct {
			name string
			nets []string
		}{{"blockpriv", private}, {"blockbogons", bogus}} {
			e := i.child(g.name)
			if !i.on("enable") || !i.on(g.name) {
				continue
			}
			s, _ := addresses(anys(g.nets))
			r := rule{place: fmt.Sprintf("line %d", e.line), text: g.name + " on " + i.name, do: verdict{kind: "drop"}, cond: cond{in: []iface{{names: []string{i.name}}}}}
			if g.name == "blockbogons" {
				q := r
				q.cannot("the table of bogons, which is downloaded, beyond the networks of RFC 6890")
				to.rules = append(to.rules, q)
			}
			r.also(withSet(fSrc, s))
			to.rules = append(to.rules, r)
		}
	}
}

func anys(ws []string) (out []any) {
	for _, w := range ws {
		out = append(out, w)
	}
	return out
}

// on adds the condition that a packet enters by one of some interfaces. It returns the order of a group.
func (p *pfParser) on(r *rule, names string, not bool) (order int) {
	var all []string
	order = pfInterface
	for _, n := range strings.FieldsFunc(names, func(c rune) bool { return c == ',' || c == ' ' }) {
		m, isGroup := p.groups[n]
		if isGroup || p.ifs[n] != nil && p.ifs[n].child("type").text == "group" {
			order = pfGroup + min(max(p.orders[n], 0), pfInterface-pfGroup-1)
		}
		if !isGroup {
			m = []string{n}
		}
		all = append(all, m...)
	}
	switch {
	case not && len(all) != 1:
		r.cannot("another interface than " + names)
	case len(all) > 0 && names != "any":
		r.also(cond{in: []iface{{names: all, not: not}}})
	}
	return order
}

// disabled reports whether a rule is switched off. An element without a value is that in some versions
// and not in others: such a rule keeps a condition that is not known.
func (p *pfParser) disabled(e *xmlNode) bool {
	c := e.child("disabled")
	if c.text == "" && e.has("sequence") { // since 26.1 a switch is on or off
		return false
	}
	c.read = c.name != "" && c.text != ""
	return c.text != "" && c.text != "0"
}

// unsure reports whether a rule may be switched off.
func (p *pfParser) unsure(e *xmlNode) bool {
	return e.has("disabled") && e.child("disabled").text == "" && !e.has("sequence")
}

// off reports whether a rule is for an interface that is switched off.
func (p *pfParser) off(e *xmlNode) bool {
	i := p.ifs[e.child("interface").text]
	return i != nil && !i.on("enable")
}

// protocol adds the condition on the IP version and the protocol.
func (p *pfParser) protocol(r *rule, e *xmlNode) string {
	if v := e.child("ipprotocol").text; v == "inet6" {
		r.also(cond{ipv6: true})
	} else if v != "" && v != "inet" && v != "inet46" {
		r.cannot("ipprotocol " + v)
	}
	v := strings.ToLower(e.child("protocol").text)
	switch v {
	case "", "any":
		return ""
	case "tcp/udp":
		r.also(withSet(fProto, only(protoTCP, protoUDP)))
	default:
		r.also(protocols([]any{v}, false))
	}
	return " proto " + v
}

var pfICMP = map[string]uint32{"echoreq": 8, "echorep": 0, "unreach": 3, "squench": 4, "redir": 5, "althost": 6, "routeradv": 9, "routersol": 10, "timex": 11, "paramprob": 12, "timereq": 13, "timerep": 14,
	"inforeq": 15, "inforep": 16, "maskreq": 17, "maskrep": 18}

// filterRule reads a rule of the filter.
func (p *pfParser) filterRule(e *xmlNode) pfRule {
	r := rule{place: fmt.Sprintf("line %d", e.line), comment: e.child("descr").text, do: verdict{kind: "none"}}
	action := e.child("type").text
	kind, ok := map[string]string{"pass": "accept", "block": "drop", "reject": "reject", "": "accept"}[action]
	if !ok {
		kind = "type " + action
	}
	r.do.kind = kind
	f := pfRule{direction: e.child("direction").text}
	if f.direction == "" {
		f.direction = "in"
	}
	ifs := e.child("interface").text
	floating, not := e.has("floating"), e.on("interfacenot")
	if f.order = p.on(&r, ifs, not); floating {
		f.order = pfFloating
	}
	if not {
		ifs = "!" + ifs
	}
	if f.quick = !floating; e.has("quick") {
		f.quick = e.child("quick").text != "" && e.on("quick")
	}
	if p.unsure(e) {
		r.cannot("disabled, without a value")
	}
	proto := p.protocol(&r, e)
	from := p.end(&r, e.child("source"), true)
	to := p.end(&r, e.child("destination"), false)
	r.text = strings.TrimSpace(fmt.Sprintf("%s %s on %s%s from %s to %s", action, f.direction, ifs, proto, from, to))
	if v := e.child("icmptype").text; v != "" && proto == " proto icmp" {
		s := spans{}
		for _, w := range strings.Split(v, ",") {
			n, ok := pfICMP[w]
			if !ok {
				r.cannot("icmptype " + v)
				s = spans{{0, 255}}
				break
			}
			s = append(s, span{n, n})
		}
		r.also(withSet(fICMP, s.normal()))
	}
	// Rules are asked about a connection's first packet: what follows has a state.
	r.also(withMask(fState, stNew))
	if v := e.child("statetype").text; v == "none" {
		r.cannot("statetype none")
	}
	if v := e.child("gateway").text; v != "" && v != "default" && kind == "accept" {
		r.does(aside{why: "what it passes leaves by the WAN's gateway, not by " + v, effect: Differs})
	}
	for _, n := range e.rest() {
		if !slices.Contains(harmless, n) {
			r.cannot(n)
		}
	}
	f.rule = r
	return f
}

// harmless are parts of rules that do not change what they match.
var harmless = []string{"log", "created", "updated", "category", "associated-rule-id", "id", "tracker", "tag", "quick", "floating", "disablereplyto", "nosync", "nopfsync", "allowopts", "statetimeout", "udp-first", "udp-multiple", "udp-single", "adaptivestart",
	"adaptiveend", "tcpflags_any", "icmp6-type", "icmp6type", "categories", "audit", "sequence", "endpoint-independent", "reply-to", "set-prio", "set-prio-low", "shaper1", "shaper2", "noxmlrpcsync", "target", "local-port", "poolopts", "poolopts_sourcehashkey"}

// forwards reads port forwards. rules gets those that need no rule of the filter.
func (p *pfParser) forwards(to, rules *chain) {
	for _, e := range bySequence(p.root.child("nat").all("rule")) {
		if p.count++; p.disabled(e) || p.count > maxRules || p.off(e) {
			continue
		}
		r := rule{place: fmt.Sprintf("line %d", e.line), comment: e.child("descr").text, do: verdict{kind: "dnat"}}
		ifs := e.child("interface").text
		p.on(&r, ifs, false)
		if p.unsure(e) {
			r.cannot("disabled, without a value")
		}
		proto := p.protocol(&r, e)
		switches(e)
		from := p.end(&r, e.child("source"), true)
		dst := p.end(&r, e.child("destination"), false)
		target, port := e.child("target").text, e.child("local-port").text
		r.text = fmt.Sprintf("rdr on %s%s from %s to %s -> %s port %s", ifs, proto, from, dst, target, port)
		if e.on("nordr") {
			r.do.kind, r.text = "accept", "no "+r.text
		} else {
			if w := e.child("destination", "port").text; w == port && p.aliases[w] != nil {
				port = "" // each keeps its own
			}
			p.server(&r, target, port)
		}
		own := r.cond.in
		p.reflects(&r, e, !p.switchedOn("disablenatreflection"))
		pass := e.child("pass").text
		if pass == "" && e.child("associated-rule-id").text == "pass" {
			pass = "pass"
		}
		if pass != "" && pass != "pass" && pass != "rule" {
			r.cannot("pass " + pass)
		}
		for _, n := range e.rest() {
			if !slices.Contains(harmless, n) {
				r.cannot(n)
			}
		}
		to.rules = append(to.rules, r)
		if pass != "" && r.do.kind == "dnat" {
			q := rule{place: r.place, text: r.text, comment: r.comment, do: verdict{kind: "accept"}, cond: withMask(fState, stNew).and(cond{in: r.cond.in, hard: r.cond.hard})}
			q.cond.sets[fProto], q.cond.sets[fSrc] = r.cond.sets[fProto], r.cond.sets[fSrc]
			if r.do.addr.IsValid() {
				q.also(withSet(fDst, spans{{addrSpan(r.do.addr).lo, addrSpan(r.do.last).lo}}))
			}
			if r.do.ports != nil {
				q.also(withSet(fPort, r.do.ports))
			} else if s := r.cond.sets[fPort]; s != nil {
				q.also(withSet(fPort, s))
			}
			if pass == "rule" { // a rule of the filter, after all others, for those interfaces that the forward names
				q.cond.in = own
				p.registered = append(p.registered, q)
				continue
			}
			q.also(withMask(fDNAT, dnatYes))
			rules.rules = append(rules.rules, q)
		}
	}
}

// switches takes out of a forward of OPNsense 26.1 or newer, which has a sequence, what says 0: before, that
// an element was there could count.
func switches(e *xmlNode) {
	if !e.has("sequence") {
		return
	}
	for _, end := range []*xmlNode{e.child("source"), e.child("destination")} {
		end.children = slices.DeleteFunc(end.children, func(c *xmlNode) bool { return c.name == "not" && (c.text == "0" || c.text == "") })
	}
}

// switchedOn reports whether a setting of the system has a value that is not 0.
func (p *pfParser) switchedOn(name string) bool {
	v := p.root.child("system", name).text
	return v != "" && v != "0"
}

// bySequence returns rules in the order of their numbers, if all have one.
func bySequence(es []*xmlNode) []*xmlNode {
	at := map[*xmlNode]int{}
	for _, e := range es {
		n, err := strconv.Atoi(e.child("sequence").text)
		if err != nil {
			return es
		}
		at[e] = n
	}
	es = slices.Clone(es)
	slices.SortStableFunc(es, func(a, b *xmlNode) int { return at[a] - at[b] })
	return es
}

// server reads where a forward leads to. A range of ports begins with the port
// that is given.
func (p *pfParser) server(r *rule, target, port string) {
	s, ok := p.addresses(target)
	if !ok || len(s) != 1 {
		r.cannot("target " + target)
		return
	}
	r.do.addr, r.do.last = s[0].addr(), span{s[0].hi, s[0].hi}.addr()
	if port == "" {
		return
	}
	to, ok := p.ports(port)
	if !ok || len(to) != 1 || to[0].lo == 0 {
		r.cannot("local-port " + port)
		return
	}
	from := r.cond.sets[fPort]
	if len(from) != 1 {
		if from != nil {
			r.cannot("several ports to " + port)
			return
		}
		from = to
	}
	width := from[0].hi - from[0].lo
	if to[0].lo+width > 65535 || from[0].lo == 0 {
		r.cannot("local-port " + port)
		return
	}
	r.do.ports, r.do.base = spans{{to[0].lo, to[0].lo + width}}, from[0].lo
}

// outbound reads source translation: by rules, and for the networks of all
// interfaces but the WAN unless that is switched off.
func (p *pfParser) outbound(to *chain) {
	nat := p.root.child("nat", "outbound")
	mode := nat.child("mode").text
	if mode == "disabled" {
		return
	}
	if mode == "hybrid" || mode == "advanced" {
		for _, e := range append(p.newNAT("snatrules"), nat.all("rule")...) {
			if p.count++; p.disabled(e) || p.count > maxRules {
				continue
			}
			r := rule{place: fmt.Sprintf("line %d", e.line), comment: e.child("descr").text, do: verdict{kind: "masquerade"}}
			if p.unsure(e) {
				r.cannot("disabled, without a value")
			}
			p.on(&r, e.child("interface").text, false)
			r.cond.in, r.cond.out = nil, r.cond.in
			proto := p.protocol(&r, e)
			from := p.end(&r, e.child("source"), true)
			dst := p.end(&r, e.child("destination"), false)
			target := e.child("target").text
			r.text = fmt.Sprintf("nat on %s%s from %s to %s -> %s", e.child("interface").text, proto, from, dst, target)
			for name, field := range map[string]int{"sourceport": fSport, "dstport": fPort} {
				if v := e.child(name).text; v != "" {
					if s, ok := p.ports(v); ok {
						r.also(withSet(field, s))
					} else {
						r.cannot(name + " " + v)
					}
				}
			}
			p.translated(&r, e, target)
			for _, n := range e.rest() {
				if !slices.Contains(harmless, n) && n != "staticnatport" && n != "targetip" && n != "targetip_subnet" {
					r.cannot(n)
				}
			}
			to.rules = append(to.rules, r)
		}
	}
	if mode == "advanced" {
		return
	}
	for _, i := range p.root.child("interfaces").children {
		n, ok := p.nets[i.name]
		if gw := i.child("gateway").text; !ok || i.name == p.wan || gw != "" && gw != "none" {
			continue // it is a way out itself
		}
		r := rule{place: fmt.Sprintf("line %d", i.line), text: "automatic outbound NAT of " + i.name, do: verdict{kind: "masquerade"}, cond: withSet(fSrc, spans{prefixSpan(n)})}
		r.also(cond{out: []iface{{names: []string{p.wan}}}})
		to.rules = append(to.rules, r)
	}
}

// translated reads what sources become.
func (p *pfParser) translated(r *rule, e *xmlNode, target string) {
	switch a, ok := p.addresses(target); {
	case e.on("nonat"):
		r.do.kind = "accept"
	case target == "" || target == p.wan+"ip":
	case ok && len(a) == 1:
		r.do = verdict{kind: "snat", addr: a[0].addr(), last: span{a[0].hi, a[0].hi}.addr()}
	default:
		r.cannot("target " + target)
	}
	if v := e.child("natport").text; v != "" {
		if s, ok := p.ports(v); ok && len(s) == 1 {
			r.do.ports = s
		} else {
			r.cannot("natport " + v)
		}
	}
}

// oneToOne reads addresses that stand for one host.
func (p *pfParser) oneToOne(pre, post *chain) {
	var outs []rule
	for _, list := range append(p.root.child("nat").all("onetoone"), &xmlNode{children: p.newNAT("onetoone")}) {
		for _, e := range append(list.all("rule"), list) {
			ext, err := netip.ParseAddr(strings.TrimSuffix(e.child("external").text, "/32"))
			if e.child("external").name == "" || p.disabled(e) {
				continue
			}
			p.count++
			in := rule{place: fmt.Sprintf("line %d", e.line), comment: e.child("descr").text, do: verdict{kind: "dnat"}}
			p.on(&in, e.child("interface").text, false)
			out := in
			out.do.kind = "snat"
			out.cond.in, out.cond.out = nil, in.cond.in
			inside := e.child("source").child("address").text
			if net := e.child("source").child("network").text; net != "" {
				inside = net
			}
			in.text = fmt.Sprintf("binat on %s %s <-> %s", e.child("interface").text, inside, e.child("external").text)
			out.text = in.text
			host, ok := p.addresses(inside)
			p.end(&in, e.child("destination"), true) // who may come from there
			p.end(&out, e.child("destination"), false)
			p.reflects(&in, e, p.switchedOn("enablebinatreflection"))
			not, kind := e.child("source").on("not"), e.child("type").text
			for _, n := range e.rest() {
				if !slices.Contains(harmless, n) {
					in.cannot(n)
					out.cannot(n)
				}
			}
			if err != nil || !ext.Is4() || not || !ok || len(host) != 1 || host[0].lo != host[0].hi || kind == "nat" {
				in.cannot("a network for a network")
				out.cannot("a network for a network")
			} else {
				in.also(withSet(fDst, spans{addrSpan(ext)}))
				in.do.addr, in.do.last = host[0].addr(), host[0].addr()
				out.also(withSet(fSrc, host))
				out.do.addr, out.do.last = ext, ext
			}
			pre.rules = append(pre.rules, in)
			outs = append(outs, out)
		}
	}
	post.rules = slices.Concat(outs, post.rules) // they come before all others
}
