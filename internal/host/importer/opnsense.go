package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// OPNsense reads config.xml, as OPNsense keeps and exports it. pf takes the first
// rule that matches: those of several interfaces (floating), then of groups, then of
// the interface. What passes in has a state, by which its answers pass.
func OPNsense(src []byte, o Options) (*Result, error) {
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", o.File, len(src), MaxBytes)
	}
	src, err := plain(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.File, err)
	}
	root, err := parseXML(src)
	if err != nil {
		return nil, fmt.Errorf("%s: not a config.xml: %w", o.File, err)
	}
	if root.name == "pfsense" {
		return nil, fmt.Errorf("%s: it is of pfSense, which is not read: its config.xml looks like OPNsense's, and does not mean the same "+
			"(an empty <disabled/>, the default of floating rules, aliases, reflection); write its rules as a policy, which thurward init begins", o.File)
	}
	if root.name != "opnsense" {
		return nil, fmt.Errorf("%s: its root is %q, not opnsense", o.File, shorten(root.name))
	}
	p := &pfParser{root: root, set: &ruleset{chains: map[string]*chain{}}, aliases: map[string]*xmlNode{}, groups: map[string][]string{},
		ifs: map[string]*xmlNode{}, known: map[string]aliased{}}
	if n := len(root.child("interfaces").children); n > maxInterfaces {
		return nil, fmt.Errorf("%s: %d interfaces; at most %d are read", o.File, n, maxInterfaces)
	}
	p.interfaces(&o)
	p.readAliases()
	p.chains()
	if p.count > maxRules {
		return nil, fmt.Errorf("%s: more than %d rules", o.File, maxRules)
	}
	return convert(p.set, o)
}

type pfParser struct {
	root       *xmlNode
	set        *ruleset
	aliases    map[string]*xmlNode
	groups     map[string][]string // of interfaces
	orders     map[string]int      // of groups
	ifs        map[string]*xmlNode
	known      map[string]aliased      // aliases that have been read
	nets       map[string]netip.Prefix // of interfaces, with the router's address
	lan        string
	wan        string
	count      int
	registered []rule // of forwards
}

func (p *pfParser) note(e *xmlNode, text, why string, effect Effect) {
	p.set.notes = append(p.set.notes, Note{Place: fmt.Sprintf("line %d", e.line), Text: shorten(text), Why: why, Effect: effect, Packets: everything})
}

// interfaces reads the interfaces, by the names that rules give them: lan, wan,
// opt1. The options may name them so, by their device or by their description.
func (p *pfParser) interfaces(o *Options) {
	p.nets, p.orders = map[string]netip.Prefix{}, map[string]int{}
	l := &Links{}
	names := map[string]string{}
	for _, i := range p.root.child("interfaces").children {
		if p.ifs[i.name] == nil {
			p.ifs[i.name] = i
		}
		if !i.on("enable") || i.on("virtual") {
			continue
		}
		names[i.child("if").text], names[i.child("descr").text], names[i.name] = i.name, i.name, i.name
		link := Link{Name: i.name}
		if pre, err := netip.ParsePrefix(i.child("ipaddr").text + "/" + i.child("subnet").text); err == nil && pre.Addr().Is4() {
			p.nets[i.name] = pre
			link.Addresses = append([]netip.Prefix{pre}, p.virtual(i.name)...)
		}
		l.Interfaces = append(l.Interfaces, link)
	}
	pick := func(given *string, usual string) string {
		if n, ok := names[*given]; ok && *given != "" {
			*given = n
		}
		if *given == "" {
			if _, ok := names[usual]; ok {
				*given = usual
			}
		}
		return *given
	}
	p.lan, p.wan = pick(&o.LAN, "lan"), pick(&o.WAN, "wan")
	l.Default = p.wan
	for _, list := range []*xmlNode{p.root.child("gateways"), p.root.child("OPNsense", "Gateways")} {
		for _, g := range list.all("gateway_item") {
			if a, err := netip.ParseAddr(g.child("gateway").text); err == nil && a.Is4() && g.child("interface").text == p.wan && !g.on("disabled") {
				l.Gateway = a
			}
		}
	}
	for _, r := range p.root.child("staticroutes").all("route") {
		if r.on("disabled") && r.child("disabled").text != "" || r.child("network").text == "" || strings.Contains(r.child("network").text, ":") {
			continue
		}
		p.note(r, "route "+r.child("network").text, "thurward has no routes: hosts of that network are not reached, and what comes from them is dropped as martian", Stricter)
	}
	if e := p.root.child("system", "disablefilter"); e.name != "" {
		p.note(e, "disablefilter", "the packet filter is switched off: everything passes, and nothing is translated; "+
			"what is imported are its rules", Stricter)
	}
	for _, g := range p.root.child("ifgroups").all("ifgroupentry") {
		p.orders[g.child("ifname").text], _ = strconv.Atoi(g.child("sequence").text)
		p.groups[g.child("ifname").text] = strings.Fields(strings.ReplaceAll(g.child("members").text, ",", " "))
	}
	if o.Links == nil {
		o.Links = l
	}
}

func (p *pfParser) readAliases() {
	for _, list := range []*xmlNode{p.root.child("aliases"), p.root.child("OPNsense", "Firewall", "Alias", "aliases")} {
		for _, a := range list.all("alias") {
			p.aliases[a.child("name").text] = a
		}
	}
}

// words returns what an alias holds.
func (p *pfParser) words(a *xmlNode) []string {
	text := a.child("content").text
	if text == "" {
		text = a.child("address").text
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\n' || r == ',' || r == '\t' || r == '\r' })
}

// maxInterfaces is how many interfaces a configuration may have.
const maxInterfaces = 1000

// virtual returns the virtual addresses of an interface.
func (p *pfParser) virtual(name string) (ps []netip.Prefix) {
	for _, v := range p.root.child("virtualip").all("vip") {
		pre, err := netip.ParsePrefix(v.child("subnet").text + "/" + v.child("subnet_bits").text)
		if err == nil && pre.Addr().Is4() && v.child("interface").text == name {
			ps = append(ps, pre)
		}
	}
	return ps
}

// An aliased is what an alias stands for.
type aliased struct {
	of spans
	ok bool // false while it is read: an alias of itself is not understood
}

// alias returns what an alias of some kinds stands for. It is read once.
func (p *pfParser) alias(a *xmlNode, kinds []string, read func(string) (spans, bool)) (spans, bool) {
	key := kinds[0] + " " + a.child("name").text
	if x, done := p.known[key]; done {
		return x.of, x.ok
	}
	p.known[key] = aliased{}
	if a.has("enabled") && !a.on("enabled") || !slices.Contains(kinds, a.child("type").text) {
		return nil, false
	}
	out := spans{}
	for _, v := range p.words(a) {
		s, ok := read(v)
		if !ok || len(out) > maxRanges {
			return nil, false
		}
		if out = append(out, s...); len(out) > 2*maxRanges {
			out = out.normal()
		}
	}
	x := aliased{out.normal(), true}
	p.known[key] = x
	return x.of, x.ok
}

// addresses returns what a word says about addresses.
func (p *pfParser) addresses(w string) (spans, bool) {
	if a, ok := p.aliases[w]; ok {
		return p.alias(a, []string{"host", "network", "networkgroup"}, p.addresses)
	}
	if name, ok := strings.CutPrefix(w, "__"); ok { // made by itself of an interface
		if net, known := p.nets[strings.TrimSuffix(name, "_network")]; known {
			return spans{prefixSpan(net)}, true
		}
	}
	if pre, err := netip.ParsePrefix(w); err == nil && pre.Addr().Is4() {
		return spans{prefixSpan(pre)}, true
	}
	if a, err := netip.ParseAddr(w); err == nil && a.Is4() {
		return spans{addrSpan(a)}, true
	}
	if strings.Contains(w, ":") { // IPv6: none of what is forwarded
		_, err1 := netip.ParsePrefix(w)
		_, err2 := netip.ParseAddr(w)
		return spans{}, err1 == nil || err2 == nil
	}
	if lo, hi, ok := strings.Cut(w, "-"); ok {
		a, err1 := netip.ParseAddr(lo)
		b, err2 := netip.ParseAddr(hi)
		if err1 == nil && err2 == nil && a.Is4() && b.Is4() && !b.Less(a) {
			return spans{{addrSpan(a).lo, addrSpan(b).lo}}, true
		}
	}
	return nil, false
}

// ports returns what a word says about ports.
func (p *pfParser) ports(w string) (spans, bool) {
	if a, ok := p.aliases[w]; ok {
		return p.alias(a, []string{"port"}, p.ports)
	}
	lo, hi, isRange := strings.Cut(strings.Replace(w, ":", "-", 1), "-")
	if isRange && lo == "any" {
		lo = "1"
	}
	if isRange && hi == "any" {
		hi = "65535"
	}
	if isRange {
		lo += "-" + hi
	}
	return portList(lo, "-")
}

// end adds what a rule says of a source or a destination, and returns it in words.
func (p *pfParser) end(r *rule, e *xmlNode, src bool) string {
	field, port := fDst, fPort
	if src {
		field, port = fSrc, fSport
	}
	words := "any"
	what := e.child("network").text
	if other := e.child("address").text; what == "" {
		what = other
	}
	// That the element is there counts, and any comes before the rest.
	not, any := e.has("not"), e.has("any")
	if not && !e.on("not") {
		r.cannot("not " + e.child("not").text)
	}
	if what != "" && what != "any" && !any {
		words = what
		if not {
			words = "!" + what
		}
		p.whom(r, what, field, not)
	}
	v := e.child("port").text
	if ps := r.cond.sets[fProto]; len(ps) == 0 || len(ps.minus(only(protoTCP, protoUDP), 255)) > 0 {
		v = "" // looked at with these protocols only
	}
	if v != "" && v != "any" {
		words += " port " + v
		if s, ok := p.ports(v); ok {
			r.also(withSet(port, s))
		} else {
			r.cannot("port " + v)
		}
	}
	for _, n := range e.rest() {
		r.cannot(n)
	}
	return words
}

// whom adds the condition that an address is one of a network, an interface's or an
// alias'.
func (p *pfParser) whom(r *rule, what string, field int, not bool) {
	host, isHost := strings.CutSuffix(what, "ip")
	net, known := p.nets[what]
	at, knownHost := p.nets[host]
	var s spans
	switch {
	case what == "(self)" && field == fDst, isHost && !knownHost && host == p.wan && field == fDst:
		yes := isYes
		if not {
			yes = isNo
		}
		r.also(withMask(fLocal, yes))
		return
	case what == "(self)" && !not:
		r.also(withMask(fPath, isNo)) // nothing that arrives has it
		return
	case known:
		s = spans{prefixSpan(net)}
	case isHost && knownHost:
		s = spans{addrSpan(at.Addr())}
	default:
		list := strings.Split(what, ",")
		if not && len(list) > 1 {
			r.cannot("not one of several: " + what)
			return
		}
		s = spans{}
		for _, w := range list {
			one, ok := p.addresses(w)
			if net, known := p.nets[w]; known {
				one, ok = spans{prefixSpan(net)}, true
			}
			if !ok {
				r.cannot("address " + w)
				return
			}
			s = append(s, one...)
		}
		s = s.normal()
	}
	if not {
		s = s.not(maxAddr)
	}
	r.also(withSet(field, s))
}
