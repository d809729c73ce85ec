package migrate

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
}

// cannot adds a condition that has no counterpart.
func (r *rule) cannot(what string) { r.cond.hard = slices.Concat(r.cond.hard, []string{what}) }

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

// A carrier makes a policy of a rule set.
type carrier struct {
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

func carry(s *ruleset, o Options) (*Result, error) {
	c := &carrier{o: o, set: s, left: maxRules, ids: map[string]int{}}
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
		// others. The first is carried.
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

func (c *carrier) assume(format string, args ...any) {
	c.res.Assumptions = append(c.res.Assumptions, fmt.Sprintf(format, args...))
}

func (c *carrier) note(r rule, why string, e Effect) {
	c.res.Notes = append(c.res.Notes, Note{r.place, shorten(r.text), why, e})
}

func (c *carrier) skipChain(ch *chain, why string, e Effect) {
	for _, r := range ch.rules {
		c.note(r, why, e)
	}
	if ch.policy == "drop" && e != Nothing || len(ch.rules) == 0 && e != Nothing {
		c.res.Notes = append(c.res.Notes, Note{ch.place, "policy " + ch.policy, why, e})
	}
}

// interfaces finds out which interface is the LAN and which the WAN.
func (c *carrier) interfaces() {
	c.lan, c.wan = c.o.LAN, c.o.WAN
	count := map[string]int{}
	var names []string
	see := func(is []iface, weight int) {
		for _, i := range is {
			for _, n := range i.names {
				if i.not || n == "lo" || strings.Contains(n, "*") {
					continue
				}
				if _, ok := count[n]; !ok {
					names = append(names, n)
				}
				count[n] += weight
			}
		}
	}
	for _, k := range c.set.order {
		ch := c.set.chains[k]
		for _, r := range ch.rules {
			switch r.do.kind {
			case "masquerade", "snat":
				see(r.cond.out, 1000)
			case "dnat":
				see(r.cond.in, 100)
			}
		}
	}
	pick := func(except string) string {
		best := ""
		for _, n := range names {
			if n != except && (best == "" || count[n] > count[best]) {
				best = n
			}
		}
		return best
	}
	if c.wan == "" {
		if c.wan = pick(c.lan); c.wan != "" {
			c.assume("%s is taken for the WAN, since addresses are translated there (--wan names another)", c.wan)
		}
	}
	if c.lan == "" {
		count, names = map[string]int{}, nil
		for _, k := range c.set.order {
			ch := c.set.chains[k]
			if ch.hook == "input" || ch.hook == "output" {
				continue
			}
			for _, r := range ch.rules {
				see(r.cond.in, 1)
				see(r.cond.out, 1)
			}
		}
		if c.lan = pick(c.wan); c.lan != "" {
			c.assume("%s is taken for the LAN, since rules name it most (--lan names another)", c.lan)
		}
		if c.wan == "" && c.lan != "" {
			if c.wan = pick(c.lan); c.wan != "" {
				c.assume("%s is taken for the WAN (--wan names another)", c.wan)
			}
		}
	}
}

// sides returns the sides that an interface condition leaves of lan and wan.
func (c *carrier) sides(is []iface) (lan, wan bool) {
	match := func(i iface, name string) bool {
		return name != "" && slices.ContainsFunc(i.names, func(n string) bool {
			if p, ok := strings.CutSuffix(n, "*"); ok {
				return strings.HasPrefix(name, p)
			}
			return n == name
		})
	}
	lan, wan = true, true
	for _, i := range is {
		lan = lan && match(i, c.lan) != i.not
		wan = wan && match(i, c.wan) != i.not
	}
	return lan, wan
}

// walk calls f for the rules of a chain, and of the chains that it jumps to, with
// all conditions together. It reports whether everything that reaches the
// chain has been decided when it ends.
func (c *carrier) walk(ch *chain, outer cond, depth int, f func(r rule)) {
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
				c.note(r, "there is no chain "+r.do.target, Nothing)
				continue
			case depth >= maxDepth:
				c.note(r, fmt.Sprintf("jumps are nested more than %d deep", maxDepth), Permissive)
				continue
			case len(own.hard) > 0:
				c.note(r, "conditions without counterpart: "+strings.Join(own.hard, ", "), effectOf(to))
				continue
			case r.do.kind == "goto" && !(own.any() || i == len(ch.rules)-1):
				// What the chain leaves undecided must not meet the rules
				// below, which cannot be said.
				c.note(r, "goto is carried only at the end of a chain", Permissive)
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
				c.note(r, "a return whose opposite cannot be said; the rules below it in this chain are left out", Nothing)
				for _, q := range rest {
					q.cond = outer.and(q.cond)
					c.note(q, "stands below a return that could not be carried", c.effect(q))
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
func (c *carrier) effect(r rule) Effect {
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

// filter carries a rule of the forward chain.
func (c *carrier) filter(r rule) {
	action := map[string]string{"accept": "accept", "drop": "deny", "reject": "reject"}[r.do.kind]
	e := c.effect(r)
	x := r.cond
	switch {
	case action == "":
		if r.do.kind == "flow" || r.do.kind == "mangle" {
			c.note(r, "forwarding is as fast as it gets, and the MSS is clamped by itself", Nothing)
			return
		}
		c.note(r, r.do.kind+" has no counterpart", e)
		return
	case x.ipv6:
		if e == Permissive {
			e = Nothing
		}
		c.note(r, "thurward does not forward IPv6", e)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case len(x.hard) > 0:
		c.note(r, "conditions without counterpart: "+strings.Join(x.hard, ", "), e)
		return
	case c.own(x.dst):
		c.note(r, "nothing is forwarded to the firewall's own address; rules see the address after destination NAT", Nothing)
		return
	}
	o := outRule{action: action, name: r.comment, src: x.src, dst: x.dst, ports: x.ports}
	inLAN, inWAN := c.sides(x.in)
	outLAN, outWAN := c.sides(x.out)
	egress, ingress := inLAN && outWAN, inWAN && outLAN
	switch {
	case !egress && !ingress:
		if c.lan == "" || c.wan == "" {
			c.note(r, "it is not known which interface is the LAN and which the WAN (--lan, --wan)", e)
		} else {
			c.note(r, fmt.Sprintf("it is about other traffic than between %s and %s, and there are no other interfaces", c.lan, c.wan), Nothing)
		}
		return
	case !ingress:
		o.direction = "egress"
	case !egress:
		o.direction = "ingress"
	}
	if !c.state(r, &o, e) || !c.protocol(r, &o, e) {
		return
	}
	if slices.Contains(x.states, "dnat") {
		c.translated(r, o)
		return
	}
	// The opposite of a set takes many networks to write. Behind the LAN
	// interface there is nothing but its network.
	home := &o.src
	if o.direction == "ingress" {
		home = &o.dst
	}
	if o.direction != "" && c.lanKnown && *home != nil && len(home.prefixes()) > 4 {
		if *home = home.and(spans{prefixSpan(c.lanNet)}); len(*home) == 0 {
			c.note(r, "it is about other hosts than those of the LAN's network", Nothing)
			return
		}
	}
	c.emit(r, o)
}

// state carries connection states; false when there is nothing left.
func (c *carrier) state(r rule, o *outRule, e Effect) bool {
	for _, s := range r.cond.states {
		switch s {
		case "new", "established":
			o.states = append(o.states, s)
		case "dnat":
			o.states = append(o.states, "new")
		}
	}
	if r.cond.states == nil || len(o.states) > 0 {
		if slices.Contains(r.cond.states, "untracked") || slices.Contains(r.cond.states, "invalid") && o.action == "accept" {
			c.note(r, "every packet is tracked, and invalid ones are always dropped; the rule is carried without", Nothing)
		}
		if len(o.states) == 2 {
			o.states = nil
		}
		return true
	}
	switch {
	case slices.Contains(r.cond.states, "related") && o.action == "accept":
		c.note(r, "ICMP errors about known flows pass by themselves; connections announced in others (as of FTP) have no counterpart", Stricter)
	case slices.Contains(r.cond.states, "related"):
		c.note(r, "ICMP errors about known flows always pass", Permissive)
	case o.action == "accept":
		c.note(r, "invalid packets are always dropped, and every packet is tracked", Stricter)
	default:
		c.note(r, "invalid packets are dropped by themselves", Nothing)
	}
	return false
}

// protocol carries protocols and ICMP types; false when there is nothing left.
func (c *carrier) protocol(r rule, o *outRule, e Effect) bool {
	protos := r.cond.protos
	if r.cond.icmp != nil {
		var echo, reply, rest bool
		for _, t := range r.cond.icmp {
			switch t {
			case "echo-request", "8":
				echo = true
			case "echo-reply", "0":
				reply = true
			default:
				rest = true
			}
		}
		if rest {
			if o.action == "accept" {
				c.note(r, "ICMP errors about known flows pass by themselves, and other ICMP but echo has no counterpart; the rule is carried for echo alone, if at all", Nothing)
			} else {
				c.note(r, "ICMP errors about known flows always pass; the rule is carried for echo alone, if at all", Permissive)
			}
		}
		if !echo && !reply {
			return false
		}
		want := "new" // an echo request begins a flow, the reply answers
		if !echo {
			want = "established"
		}
		if echo != reply {
			if o.states != nil && !slices.Contains(o.states, want) {
				c.note(r, "nothing matches it", Nothing)
				return false
			}
			o.states = words{want}
		}
		protos = protos.and(words{"icmp"})
	}
	if o.ports != nil {
		protos = protos.and(words{"tcp", "udp"})
		if len(o.ports) > 0 && o.ports[0].lo == 0 {
			o.ports[0].lo = 1 // no service is at port 0
		}
		if o.ports = o.ports.and(spans{{1, 65535}}); len(o.ports) == 0 {
			c.note(r, "nothing matches it", Nothing)
			return false
		}
		if len(o.ports) == 1 && o.ports[0] == (span{1, 65535}) {
			o.ports = nil
		}
	}
	if protos == nil {
		return true
	}
	var other []string
	for _, p := range protos {
		if p == "tcp" || p == "udp" || p == "icmp" {
			if !slices.Contains(o.protos, p) {
				o.protos = append(o.protos, p)
			}
		} else {
			other = append(other, p)
		}
	}
	if len(other) > 0 {
		e := Nothing
		if o.action == "accept" {
			e = Stricter
		}
		c.note(r, "only TCP, UDP and ICMP echo are forwarded, "+strings.Join(other, ", ")+" is not", e)
	}
	return len(o.protos) > 0
}

// translated carries a rule about what destination NAT has translated.
func (c *carrier) translated(r rule, o outRule) {
	if len(c.dnat) == 0 {
		c.note(r, "there is no destination NAT for it", Nothing)
		return
	}
	o.direction, o.states = "ingress", words{"new"}
	for _, d := range c.dnat {
		q := o
		hi := d.toPort + d.ports.hi - d.ports.lo
		q.dst, q.src, q.protos = o.dst.and(spans{addrSpan(d.to)}), o.src.and(d.from), o.protos.and(words{d.proto})
		q.ports = o.ports.and(spans{{d.toPort, hi}})
		if len(q.dst) > 0 && len(q.protos) > 0 && len(q.ports) > 0 && (q.src == nil || len(q.src) > 0) {
			c.emit(r, q)
		}
	}
}

// emit adds a rule to the result, with an id of its own.
func (c *carrier) emit(r rule, o outRule) {
	base := strings.Map(func(v rune) rune {
		if v >= 'a' && v <= 'z' || v >= 'A' && v <= 'Z' || v >= '0' && v <= '9' || v == '-' || v == '_' {
			return v
		}
		return -1
	}, strings.ReplaceAll(strings.ToLower(r.comment), " ", "-"))
	for strings.Contains(base, "--") {
		base = strings.ReplaceAll(base, "--", "-")
	}
	base = strings.Trim(base, "-_")
	if base == "" || len(base) > 40 || strings.HasPrefix(base, "default-") {
		base = "rule"
	}
	for {
		c.ids[base]++
		o.id = fmt.Sprintf("%s-%d", base, c.ids[base])
		if base != "rule" && c.ids[base] == 1 {
			o.id = base
		}
		if !slices.ContainsFunc(c.rules, func(q outRule) bool { return base != "rule" && q.id == o.id }) {
			break
		}
	}
	if r.comment == "" {
		o.name = "from " + r.place
	}
	c.rules = append(c.rules, o)
}

// source carries a rule of a postrouting chain.
func (c *carrier) source(r rule) {
	x := r.cond
	_, wan := c.sides(x.out)
	switch {
	case r.do.kind == "accept":
		c.note(r, "exceptions from source NAT have no counterpart; entries below it apply", Differs)
		return
	case r.do.kind != "masquerade" && r.do.kind != "snat":
		c.note(r, r.do.kind+" has no counterpart in source NAT", c.effect(r))
		return
	case x.ipv6:
		c.note(r, "thurward does not forward IPv6", Nothing)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case !wan:
		c.note(r, "sources are translated towards the WAN only", Differs)
		return
	case len(x.hard) > 0 || x.ports != nil || x.dst != nil || x.protos != nil || x.icmp != nil:
		c.note(r, "source NAT looks at the source only, not at protocol, port or destination", Differs)
		return
	case r.do.kind == "snat" && !r.do.addr.IsValid():
		c.note(r, "no address to translate to", Differs)
		return
	}
	s := outSNAT{ports: r.do.ports}
	if r.do.kind == "snat" {
		for a := r.do.addr; ; a = a.Next() {
			s.external = append(s.external, a)
			if len(s.external) > 64 {
				c.note(r, "more than 64 external addresses", Differs)
				return
			}
			if !r.do.last.IsValid() || a == r.do.last {
				break
			}
		}
	}
	if x.src == nil {
		c.snat = append(c.snat, s)
		return
	}
	for _, p := range x.src.prefixes() {
		s.source = p
		c.snat = append(c.snat, s)
	}
}

// destination carries a rule of a prerouting chain.
func (c *carrier) destination(r rule) {
	x := r.cond
	lan, wan := c.sides(x.in)
	switch {
	case r.do.kind == "accept":
		c.note(r, "exceptions from destination NAT have no counterpart; entries below it apply", Differs)
		return
	case r.do.kind == "redirect" && len(x.hard) == 0 && lan && len(x.ports) == 1 && x.ports[0] == (span{53, 53}):
		c.dns = true
		return
	case r.do.kind == "redirect":
		c.note(r, "the firewall itself offers nothing but DNS", Stricter)
		return
	case r.do.kind != "dnat":
		c.note(r, r.do.kind+" has no counterpart in destination NAT", c.effect(r))
		return
	case x.ipv6:
		c.note(r, "thurward does not forward IPv6", Nothing)
		return
	case x.empty():
		c.note(r, "nothing matches it", Nothing)
		return
	case !wan:
		c.note(r, "destinations are translated for what comes from the WAN", Differs)
		return
	case len(x.hard) > 0 || x.icmp != nil || x.states != nil && !slices.Contains(x.states, "new"):
		c.note(r, "conditions without counterpart in destination NAT: "+strings.Join(x.hard, ", "), Differs)
		return
	case !r.do.addr.IsValid() || r.do.last.IsValid() && r.do.last != r.do.addr:
		c.note(r, "a server has one address", Differs)
		return
	}
	protos := x.protos.and(words{"tcp", "udp"})
	if len(protos) == 0 {
		c.note(r, "destinations of TCP and UDP alone are translated", Differs)
		return
	}
	ports := x.ports
	if ports == nil {
		ports = spans{{1, 65535}}
	}
	ports = ports.and(spans{{1, 65535}})
	wans := []netip.Addr{{}}
	if x.dst != nil {
		wans = nil
		for _, v := range x.dst {
			if v.hi-v.lo > 63 || len(wans) > 63 {
				c.note(r, "a server has at most 64 external addresses here", Differs)
				return
			}
			for a := v.lo; a <= v.hi && a >= v.lo; a++ {
				wans = append(wans, span{a, a}.addr())
			}
		}
	}
	for _, a := range wans {
		for _, p := range ports {
			to := p.lo
			if len(r.do.ports) == 1 {
				if to = r.do.ports[0].lo; p.hi-p.lo != r.do.ports[0].hi-r.do.ports[0].lo {
					c.note(r, fmt.Sprintf("ports %d-%d do not correspond to the server's one by one", p.lo, p.hi), Differs)
					continue
				}
			}
			for _, proto := range protos {
				c.entry(r, outDNAT{wan: a, ports: p, to: r.do.addr, toPort: to, proto: proto, from: x.src, hairpin: lan})
			}
		}
	}
}

// entry adds a DNAT entry, without the ports that an entry before it has for
// everybody.
func (c *carrier) entry(r rule, d outDNAT) {
	left := spans{d.ports}
	for _, q := range c.dnat {
		if q.wan == d.wan && q.proto == d.proto && q.from == nil {
			left = left.and(spans{q.ports}.not(65535))
		}
	}
	if len(left) == 0 {
		c.note(r, "an entry before it takes all of its ports", Nothing)
	}
	for _, p := range left {
		q := d
		q.ports, q.toPort = p, d.toPort+p.lo-d.ports.lo
		c.dnat = append(c.dnat, q)
	}
}

// own reports whether a set holds nothing but addresses of the firewall on the
// WAN, which forwarded packets do not have as their destination: after
// destination NAT they have the server's.
func (c *carrier) own(s spans) bool {
	if len(s) == 0 {
		return false
	}
	own := c.external()
	for _, v := range s {
		if v.lo != v.hi || !slices.Contains(own, v.addr()) {
			return false
		}
	}
	return true
}
