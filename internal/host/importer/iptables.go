package importer

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// IPTables reads what iptables-save prints.
func IPTables(src []byte, o Options) (*Result, error) {
	if len(src) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes; at most %d are read", o.File, len(src), MaxBytes)
	}
	p := &iptablesParser{set: &ruleset{chains: map[string]*chain{}}}
	sc := bufio.NewScanner(bytes.NewReader(src))
	sc.Buffer(nil, 1<<20)
	n := 0
	for sc.Scan() {
		n++
		p.line(n, strings.TrimSpace(sc.Text()))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", o.File, n+1, err)
	}
	if p.rules > maxRules {
		return nil, fmt.Errorf("%s: %d rules; at most %d are read", o.File, p.rules, maxRules)
	}
	if p.tables == 0 {
		return nil, fmt.Errorf("%s: not the output of iptables-save: no table (as *filter) in it", o.File)
	}
	return convert(p.set, o)
}

type iptablesParser struct {
	set    *ruleset
	table  string
	tables int
	rules  int
}

// hooks are the built-in chains.
var hooks = map[string]string{"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"}

func (p *iptablesParser) line(n int, s string) {
	place := fmt.Sprintf("line %d", n)
	switch {
	case s == "" || strings.HasPrefix(s, "#"):
	case strings.HasPrefix(s, "*"):
		p.table = s[1:]
		p.tables++
	case s == "COMMIT":
		p.table = ""
	case strings.HasPrefix(s, ":"):
		f := strings.Fields(s[1:])
		if len(f) < 2 {
			p.note(place, s, "a chain that is not understood", Permissive)
			return
		}
		c := &chain{place: place, name: f[0], table: p.table, kind: p.table, policy: "accept"}
		if f[1] != "-" {
			c.hook = hooks[f[0]]
			c.policy = strings.ToLower(f[1])
		}
		p.set.add(c)
	default:
		args, err := split(s)
		if err != nil {
			p.note(place, s, err.Error(), Permissive)
			return
		}
		if len(args) > 0 && strings.HasPrefix(args[0], "[") { // counters of iptables-save -c
			args = args[1:]
		}
		if len(args) < 2 || args[0] != "-A" {
			p.note(place, s, "not understood", Permissive)
			return
		}
		c := p.set.chains[p.table+" "+args[1]]
		if c == nil {
			p.note(place, s, "its chain is not there", Permissive)
			return
		}
		if p.rules++; p.rules <= maxRules {
			c.rules = append(c.rules, p.rule(place, s, args[2:]))
		}
	}
}

func (p *iptablesParser) note(place, text, why string, e Effect) {
	p.set.notes = append(p.set.notes, Note{place, shorten(text), why, e})
}

// split divides a line into words; double quotes hold words together.
func split(s string) (words []string, err error) {
	var b strings.Builder
	quoted, some := false, false
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '\\' && quoted && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case ch == '"':
			quoted, some = !quoted, true
		case ch == ' ' && !quoted:
			if some || b.Len() > 0 {
				words = append(words, b.String())
			}
			b.Reset()
			some = false
		default:
			b.WriteByte(ch)
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote is not closed")
	}
	if some || b.Len() > 0 {
		words = append(words, b.String())
	}
	return words, nil
}

// rule reads what follows -A CHAIN.
func (p *iptablesParser) rule(place, text string, args []string) rule {
	r := rule{place: place, text: text, do: verdict{kind: "none"}}
	c := &r.cond
	not, module := false, ""
	i, targets := 0, 0
	next := func() string {
		if i+1 < len(args) {
			i++
			return args[i]
		}
		r.cannot(args[i] + " without a value")
		return ""
	}
	address := func(v string) spans {
		s := spans{}
		for _, a := range strings.Split(v, ",") {
			t, ok := maskedAddress(a)
			if !ok {
				r.cannot("address " + v)
				return nil
			}
			s = append(s, t)
		}
		if s = s.normal(); not {
			s = s.not(^uint32(0))
		}
		return s
	}
	ports := func(v string, sep string) spans {
		s, ok := portList(v, sep)
		if !ok {
			r.cannot("ports " + v)
			return nil
		}
		if not {
			s = s.not(65535)
		}
		return s
	}
	for ; i < len(args); i++ {
		flag := args[i]
		if not && !slices.Contains(negatable, flag) {
			r.cannot("! " + flag)
		}
		if slices.Contains([]string{"-j", "--jump", "-g", "--goto"}, flag) {
			targets++
		}
		switch flag {
		case "!":
			not = true
			continue
		case "-s", "--source", "--src-range":
			if flag == "--src-range" {
				c.src = c.src.and(p.addressRange(&r, next(), not))
			} else {
				c.src = c.src.and(address(next()))
			}
		case "-d", "--destination":
			c.dst = c.dst.and(address(next()))
		case "--dst-range":
			c.dst = c.dst.and(p.addressRange(&r, next(), not))
		case "-i", "--in-interface", "-o", "--out-interface":
			f := iface{names: []string{next()}, not: not}
			if n := f.names[0]; strings.HasSuffix(n, "+") {
				f.names[0] = strings.TrimSuffix(n, "+") + "*"
			}
			if flag == "-i" || flag == "--in-interface" {
				c.in = append(c.in, f)
			} else {
				c.out = append(c.out, f)
			}
		case "-p", "--protocol":
			if v := next(); v != "all" && v != "0" {
				c.protos = c.protos.and(protocols([]any{v}, not).protos)
			}
		case "-m", "--match":
			module = next()
			if !slices.Contains([]string{"tcp", "udp", "icmp", "multiport", "conntrack", "state", "comment", "iprange", "addrtype"}, module) {
				r.cannot("-m " + module)
			}
		case "--dport", "--destination-port":
			c.ports = c.ports.and(ports(next(), ":"))
		case "--dports", "--destination-ports":
			c.ports = c.ports.and(ports(next(), ":"))
		case "--ctstate", "--state":
			ws := words{}
			for _, w := range strings.Split(next(), ",") {
				w = strings.ToLower(w)
				if !slices.Contains(words{"new", "established", "related", "invalid", "untracked", "dnat"}, w) || w == "dnat" && not {
					r.cannot(flag + " " + w)
				}
				ws = append(ws, w)
			}
			if not {
				ws = slices.DeleteFunc(words{"new", "established", "related", "invalid", "untracked"}, func(s string) bool { return slices.Contains(ws, s) })
			}
			c.states = c.states.and(ws)
		case "--icmp-type":
			v := next()
			switch {
			case v == "any":
			case not:
				r.cannot("! --icmp-type " + v)
			default:
				c.icmp = c.icmp.and(words{v})
			}
		case "--dst-type":
			// The firewall's own addresses: in NAT those on the WAN.
			if v := next(); v != "LOCAL" || not || p.table != "nat" {
				r.cannot(flag + " " + v)
			}
		case "--comment":
			r.comment = next()
		case "-j", "--jump":
			switch v := next(); v {
			case "ACCEPT":
				r.do.kind = "accept"
			case "DROP":
				r.do.kind = "drop"
			case "REJECT":
				r.do.kind = "reject"
			case "RETURN":
				r.do.kind = "return"
			case "MASQUERADE", "SNAT", "DNAT", "REDIRECT":
				r.do.kind = strings.ToLower(v)
			case "LOG", "NFLOG", "ULOG":
				r.do.kind = "none"
			case "TCPMSS", "FLOWOFFLOAD":
				r.do.kind = "mangle"
			default:
				if p.set.chains[p.table+" "+v] != nil {
					r.do.kind, r.do.target = "jump", v
				} else {
					r.do.kind = v
				}
			}
		case "-g", "--goto":
			r.do.kind, r.do.target = "goto", next()
		case "--to-source", "--to-destination":
			p.to(&r, next())
		case "--to-ports":
			r.do.ports, _ = portList(next(), "-")
		case "--reject-with", "--log-prefix", "--log-level", "--nflog-prefix", "--nflog-group", "--nflog-threshold", "--set-mss":
			next()
		case "--random", "--random-fully", "--persistent", "--clamp-mss-to-pmtu", "--log-uid", "--log-ip-options", "--log-tcp-options", "--log-tcp-sequence":
		default:
			// A condition without counterpart, with its values.
			what := flag
			for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") && args[i+1] != "!" {
				i++
				what += " " + args[i]
			}
			if !slices.Contains(c.hard, "-m "+module) || !strings.HasPrefix(flag, "--") {
				r.cannot(shorten(what))
			}
		}
		not = false
	}
	if not {
		r.cannot("! at the end")
	}
	if targets > 1 {
		r.do = verdict{kind: "more than one target"}
	}
	return r
}

// negatable are the conditions whose opposite is understood.
var negatable = []string{"-s", "--source", "--src-range", "-d", "--destination", "--dst-range", "-i", "--in-interface", "-o", "--out-interface", "-p", "--protocol",
	"--dport", "--destination-port", "--dports", "--destination-ports", "--ctstate", "--state", "--icmp-type", "--dst-type"}

// addressRange reads A-B.
func (p *iptablesParser) addressRange(r *rule, v string, not bool) spans {
	lo, hi, ok := strings.Cut(v, "-")
	a, err1 := netip.ParseAddr(lo)
	b, err2 := netip.ParseAddr(hi)
	if !ok || err1 != nil || err2 != nil || !a.Is4() || !b.Is4() || b.Less(a) {
		r.cannot("address range " + v)
		return nil
	}
	s := spans{{addrSpan(a).lo, addrSpan(b).lo}}
	if not {
		s = s.not(^uint32(0))
	}
	return s
}

// maskedAddress reads A, A/length or A/mask.
func maskedAddress(v string) (span, bool) {
	host, mask, has := strings.Cut(v, "/")
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is4() {
		return span{}, false
	}
	if !has {
		return addrSpan(a), true
	}
	if p, err := netip.ParsePrefix(v); err == nil {
		return prefixSpan(p), true
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || !m.Is4() {
		return span{}, false
	}
	bits := addrSpan(m).lo
	if inv := ^bits; inv&(inv+1) != 0 {
		return span{}, false // no prefix
	}
	n := 0
	for ; bits != 0; bits <<= 1 {
		n++
	}
	return prefixSpan(netip.PrefixFrom(a, n)), true
}

// portList reads 80,443,8000:8100.
func portList(v, sep string) (spans, bool) {
	var vs []any
	for _, w := range strings.Split(v, ",") {
		lo, hi, isRange := strings.Cut(w, sep)
		if !isRange {
			vs = append(vs, w)
			continue
		}
		if lo == "" {
			lo = "0"
		}
		if hi == "" {
			hi = "65535"
		}
		vs = append(vs, map[string]any{"range": []any{lo, hi}})
	}
	return numbers(vs)
}

// to reads what an address is translated to: A, A-B, A:port, A:port-port.
func (p *iptablesParser) to(r *rule, v string) {
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
	if hasPort {
		s, ok := portList(port, "-")
		if !ok || len(s) != 1 {
			r.cannot("to " + v)
			return
		}
		r.do.ports = s
	}
}
