package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// words reads the words of a rule, one after the other.
type ruleWords struct {
	p      *iptablesParser
	r      rule
	args   []string
	i      int
	not    bool
	module string // the match whose options follow
	hidden bool   // it has no counterpart, and so have its options
	modes  map[string]bool
	proto  string // that -p names
	broken string // what makes it no rule of iptables': what it matches is not known
}

// rule reads what follows -A CHAIN.
func (p *iptablesParser) rule(place, text string, args []string) rule {
	w := &ruleWords{p: p, r: rule{place: place, text: text, do: verdict{kind: "none"}}, args: args, modes: map[string]bool{}}
	for ; w.i < len(args); w.i++ {
		flag := args[w.i]
		if flag == "!" {
			if w.not {
				w.broken = "! !"
			}
			w.not = true
			continue
		}
		if w.not && !slices.Contains(negatable, flag) {
			w.broken = "! " + flag
		}
		if !w.packet(flag) && !w.match(flag) && !w.target(flag) {
			w.unknown(flag)
		}
		w.not = false
	}
	if w.not {
		w.broken = "! at the end"
	}
	w.settle()
	return w.r
}

// negatable are the conditions whose opposite is understood.
var negatable = []string{"-s", "--source", "--src-range", "-d", "--destination", "--dst-range", "-i", "--in-interface", "-o", "--out-interface", "-p", "--protocol",
	"--dport", "--destination-port", "--dports", "--destination-ports", "--sport", "--source-port", "--sports", "--source-ports",
	"--ctstate", "--state", "--icmp-type", "--dst-type", "--src-type", "--tcp-flags", "--syn", "--pkt-type", "-f", "--fragment"}

func (w *ruleWords) next() string {
	if w.i+1 < len(w.args) {
		w.i++
		return w.args[w.i]
	}
	w.r.cannot(w.args[w.i] + " without a value")
	return ""
}

// unknown reads an option without counterpart, with its values.
func (w *ruleWords) unknown(flag string) {
	what := flag
	for w.i+1 < len(w.args) && !strings.HasPrefix(w.args[w.i+1], "-") && w.args[w.i+1] != "!" {
		w.i++
		what += " " + w.args[w.i]
	}
	if !w.hidden || !strings.HasPrefix(flag, "--") {
		w.r.cannot(what)
	}
}

// set adds the condition that a field is one of some numbers, or none of them.
func (w *ruleWords) set(field int, s spans) {
	if w.not {
		s = s.not(largestOf[field])
	}
	w.r.also(withSet(field, s))
}

// packet reads the conditions that are no extension's, addresses and interfaces.
func (w *ruleWords) packet(flag string) bool {
	switch flag {
	case "-s", "--source":
		w.address(fSrc, w.next())
	case "-d", "--destination":
		w.address(fDst, w.next())
	case "--src-range":
		w.addressRange(fSrc, w.next())
	case "--dst-range":
		w.addressRange(fDst, w.next())
	case "-i", "--in-interface", "-o", "--out-interface":
		f := iface{names: []string{w.next()}, not: w.not}
		if n := f.names[0]; strings.HasSuffix(n, "+") {
			f.names[0] = strings.TrimSuffix(n, "+") + "*"
		}
		if flag == "-i" || flag == "--in-interface" {
			w.r.also(cond{in: []iface{f}})
		} else {
			w.r.also(cond{out: []iface{f}})
		}
	case "-p", "--protocol":
		v := w.next()
		if w.proto = v; v != "all" && v != "0" {
			w.r.also(protocols([]any{v}, w.not))
		} else if w.not {
			w.r.cond.never = true
		}
	case "-f", "--fragment":
		if !w.not {
			w.r.cond.never = true
			w.r.does(aside{design: byFragments})
		}
	case "--dport", "--destination-port", "--dports", "--destination-ports":
		w.ports(fPort, w.next())
	case "--sport", "--source-port", "--sports", "--source-ports":
		w.ports(fSport, w.next())
	default:
		return false
	}
	return true
}

func (w *ruleWords) address(field int, v string) {
	s := spans{}
	for _, a := range strings.Split(v, ",") {
		t, ok := maskedAddress(a)
		if host, _, _ := strings.Cut(a, "/"); !ok && strings.Contains(host, ":") {
			if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
				w.r.also(cond{ipv6: true})
				return
			}
		}
		if !ok {
			w.r.cannot("address " + v)
			return
		}
		s = append(s, t)
	}
	w.set(field, s.normal())
}

// addressRange reads A-B.
func (w *ruleWords) addressRange(field int, v string) {
	lo, hi, ok := strings.Cut(v, "-")
	a, err1 := netip.ParseAddr(lo)
	b, err2 := netip.ParseAddr(hi)
	if !ok || err1 != nil || err2 != nil || !a.Is4() || !b.Is4() || b.Less(a) {
		w.r.cannot("address range " + v)
		return
	}
	w.set(field, spans{{addrSpan(a).lo, addrSpan(b).lo}})
}

func (w *ruleWords) ports(field int, v string) {
	s, ok := portList(v, ":")
	if !ok {
		w.r.cannot("ports " + v)
		return
	}
	w.set(field, s)
}

// modules are the matches whose options are read.
var modules = []string{"tcp", "udp", "icmp", "multiport", "conntrack", "state", "comment", "iprange", "addrtype", "pkttype", "rpfilter", "policy"}

// match reads the options of extensions that look at packets.
func (w *ruleWords) match(flag string) bool {
	switch flag {
	case "-m", "--match":
		w.module = w.next()
		if w.hidden = !slices.Contains(modules, w.module); w.hidden {
			w.r.cannot("-m " + w.module)
		}
		w.modes["-m "+w.module] = true
	case "--ctstate", "--state":
		w.state(flag, w.next())
	case "--icmp-type":
		w.icmp(w.next())
	case "--tcp-flags":
		m, v := w.next(), w.next()
		w.flags(m, v)
	case "--syn":
		w.flags("FIN,SYN,RST,ACK", "SYN")
	case "--dst-type", "--src-type":
		w.addressType(flag, w.next())
	case "--pkt-type":
		switch v := w.next(); v {
		case "unicast":
			w.yesNo(fCast, w.not)
		case "broadcast", "multicast":
			if w.not {
				break // more than what is forwarded
			}
			w.yesNo(fCast, true)
		default:
			w.r.cannot(flag + " " + v)
		}
	case "--loose", "--validmark", "--accept-local", "--invert", "--strict":
		if w.module != "rpfilter" {
			return false
		}
		w.modes[flag] = true
	case "--dir", "--pol":
		if w.module != "policy" {
			return false
		}
		if v := w.next(); flag == "--pol" {
			w.modes["--pol "+v] = true
		}
	case "--comment":
		w.r.comment = w.next()
	default:
		return false
	}
	return true
}

func (w *ruleWords) yesNo(field int, yes bool) {
	m := isNo
	if yes {
		m = isYes
	}
	w.r.also(withMask(field, m))
}

var stateNames = map[string]mask{"new": stNew, "established": stEstablished, "related": stRelated, "invalid": stInvalid, "untracked": stUntracked}

func (w *ruleWords) state(flag, v string) {
	var m mask
	list := strings.Split(strings.ToLower(v), ",")
	for _, s := range list {
		bit, ok := stateNames[s]
		if s == "dnat" && len(list) == 1 {
			d := dnatYes
			if w.not {
				d = dnatNo
			}
			w.r.also(withMask(fDNAT, d))
			return
		}
		if !ok {
			w.r.cannot(flag + " " + v)
			return
		}
		m |= bit
	}
	if w.not {
		m = allOf[fState] &^ m
	}
	w.r.also(withMask(fState, m))
}

func (w *ruleWords) icmp(v string) {
	name, code, coded := strings.Cut(v, "/")
	n, ok := icmpType(name)
	switch {
	case v == "any" || v == "255":
		w.r.also(withSet(fProto, only(protoICMP)))
		if w.not {
			w.r.cond.never = true
		}
	case ok && coded && code != "0" && (n == 0 || n == 8):
		w.r.cannot("--icmp-type " + v) // no echo has it
	case ok && coded && w.not:
		w.r.cannot("! --icmp-type " + v)
	case ok:
		w.set(fICMP, spans{{n, n}})
	case slices.Contains(unreachable, name) && !w.not:
		w.r.also(withSet(fICMP, spans{{3, 3}}))
	default:
		w.r.cannot("--icmp-type " + v)
	}
}

// unreachable are names of codes of type 3, of which nothing is decided by rules.
var unreachable = []string{"network-unreachable", "host-unreachable", "protocol-unreachable", "port-unreachable", "fragmentation-needed", "communication-prohibited", "host-prohibited", "network-prohibited"}

func (w *ruleWords) flags(m, v string) {
	read := func(s string) (bits uint8, ok bool) {
		for _, f := range strings.Split(s, ",") {
			b, known := flagNames[strings.ToUpper(f)]
			if !known {
				return 0, false
			}
			bits |= b
		}
		return bits, true
	}
	w.modes["TCP"] = true
	of, ok1 := read(m)
	are, ok2 := read(v)
	if !ok1 || !ok2 {
		w.r.cannot("--tcp-flags " + m + " " + v)
		return
	}
	w.r.also(flagCond(func(f uint8) bool { return (f&of == are) != w.not }, "TCP flags "+m+" "+v))
}

func (w *ruleWords) addressType(flag, v string) {
	types := strings.Split(v, ",")
	all := func(of ...string) bool {
		return !slices.ContainsFunc(types, func(t string) bool { return !slices.Contains(of, t) })
	}
	switch {
	case flag == "--dst-type" && v == "LOCAL":
		w.yesNo(fLocal, !w.not)
	case flag == "--dst-type" && all("MULTICAST", "BROADCAST", "ANYCAST"):
		if !w.not {
			w.yesNo(fCast, true)
		}
	case flag == "--src-type" && all("LOCAL", "MULTICAST", "BROADCAST", "ANYCAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"):
		if !w.not {
			w.yesNo(fPath, false)
		}
	default:
		w.r.cannot(flag + " " + v)
	}
}

// target reads what the rule does.
func (w *ruleWords) target(flag string) bool {
	r := &w.r
	switch flag {
	case "-j", "--jump":
		w.hidden = false
		w.jump(w.next())
	case "-g", "--goto":
		r.decide(verdict{kind: "goto", target: w.next()})
		w.hidden = false
	case "--to-source", "--to-destination":
		w.to(w.next())
	case "--to-ports":
		var ok bool
		v := w.next()
		if r.do.ports, ok = portList(v, "-"); !ok || len(r.do.ports) != 1 {
			r.cannot("to ports " + v)
		}
	case "--random", "--random-fully":
		if r.do.kind == "dnat" && len(r.do.ports) == 1 && r.do.ports[0].lo != r.do.ports[0].hi {
			r.cannot(flag)
		}
	case "--clamp-mss-to-pmtu":
		r.does(aside{design: byMSS})
	case "--set-mss":
		r.does(aside{why: fmt.Sprintf("the MSS is lowered to what both links carry; an mtu of wan0 of 40 more than %s would bound it so", w.next()), effect: Differs})
	case "--helper":
		v := w.next()
		if w.module == "helper" {
			r.cannot("--helper " + v)
			break
		}
		r.does(aside{why: "connections that others announce (" + v + ") meet the rules as any other", effect: Stricter})
	case "--notrack":
		r.does(untracks)
	case "--reject-with", "--log-prefix", "--log-level", "--nflog-prefix", "--nflog-group", "--nflog-threshold", "--nflog-range", "--nflog-size", "--zone", "--zone-orig", "--zone-reply":
		w.next()
	case "--persistent", "--log-uid", "--log-ip-options", "--log-tcp-options", "--log-tcp-sequence", "--log-macdecode", "--checksum-fill":
	default:
		return false
	}
	return true
}

// jump reads the name of a target or a chain.
func (w *ruleWords) jump(v string) {
	r := &w.r
	switch v {
	case "ACCEPT", "DROP", "REJECT", "RETURN":
		r.decide(verdict{kind: strings.ToLower(v)})
	case "MASQUERADE", "SNAT", "DNAT", "REDIRECT":
		r.decide(verdict{kind: strings.ToLower(v)})
	case "TPROXY":
		r.decide(verdict{kind: "local"})
		w.hidden = true
	case "LOG", "NFLOG", "ULOG", "AUDIT", "TRACE", "TCPMSS", "CT":
		w.modes["-j "+v] = true
	case "NOTRACK":
		r.does(untracks)
	case "CHECKSUM":
		r.does(aside{why: "checksums of what is forwarded are always right", effect: Nothing})
	case "FLOWOFFLOAD":
		r.does(aside{design: byFast})
		w.hidden = true
	case "SET":
		r.does(aside{why: "sets that packets fill have no counterpart; rules that look at them are listed", effect: Nothing})
		w.hidden = true
	case "MARK", "CONNMARK", "CLASSIFY", "TOS", "DSCP", "TTL", "SECMARK", "CONNSECMARK", "ECN", "HMARK", "IDLETIMER", "LED", "RATEEST":
		r.does(aside{why: "packets are not changed or marked; rules that look at marks are listed, and routing by them is not done", effect: Differs})
		w.hidden = true
	default:
		if w.p.set.chains[w.p.table+" "+v] != nil {
			r.decide(verdict{kind: "jump", target: v})
		} else {
			r.decide(verdict{kind: v})
		}
		return
	}
	if r.do.kind == "none" && w.modes["target"] {
		r.cannot("-j " + v)
	}
	w.modes["target"] = true
}

// to reads what an address is translated to: A, A-B, A:port, A:port-port,
// A:port-port/base.
func (w *ruleWords) to(v string) {
	r := &w.r
	if strings.HasPrefix(v, "[") || strings.Count(v, ":") > 1 {
		r.also(cond{ipv6: true})
		return
	}
	addr, port, hasPort := strings.Cut(v, ":")
	lo, hi, isRange := strings.Cut(addr, "-")
	a, err := netip.ParseAddr(lo)
	b := a
	if isRange {
		var err2 error
		if b, err2 = netip.ParseAddr(hi); err2 != nil {
			err = err2
		}
	}
	if addr != "" && (err != nil || !a.Is4() || !b.Is4() || b.Less(a)) {
		r.cannot("to " + v)
		return
	}
	if addr != "" {
		r.do.addr, r.do.last = a, b
	}
	if !hasPort {
		return
	}
	port, base, shifted := strings.Cut(port, "/")
	s, ok := portList(port, "-")
	if !ok || len(s) != 1 {
		r.cannot("to " + v)
		return
	}
	r.do.ports = s
	if shifted {
		n, ok := portList(base, "-")
		if !ok || len(n) != 1 || n[0].lo != n[0].hi || n[0].lo == 0 {
			r.cannot("to " + v)
			return
		}
		r.do.base = n[0].lo
	}
}

// settle adds the conditions of matches whose options have no order.
func (w *ruleWords) settle() {
	if w.modes["TCP"] && w.proto != "tcp" && w.proto != "6" {
		w.broken = "TCP flags without -p tcp"
	}
	if w.broken != "" {
		w.r.cond = withHard(w.broken)
		return
	}
	if w.modes["-m rpfilter"] {
		w.r.also(withMask(fPath, isYes))
		if w.modes["--invert"] {
			w.r.cond.masks[fPath] = isNo
		}
	}
	if w.modes["-m policy"] {
		switch {
		case w.modes["--pol none"]:
		case w.modes["--pol ipsec"]: // ESP does not pass
			w.r.cond.never = true
			w.r.does(aside{design: byOther})
		default:
			w.r.cannot("-m policy")
		}
	}
}
