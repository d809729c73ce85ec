package importer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
)

// The types here are rule sets as a person would think of them, with what they mean
// written down once more, packet by packet, without anything of the importer. They
// are written as iptables-save and as nft's JSON.

type oMatch struct {
	in, out          string // "" any; "!" in front: not
	src, dst         string // network, or the opposite
	proto            string
	dport, sport     string // "80", "80:90", "!80"
	states           []string
	dnat, syn, local int // 1 yes, -1 no
	icmp             string
	mark             int // 1: marked; -1: not
}

type oRule struct {
	m              oMatch
	target, to     string // to: chain, or address of a translation
	port           string // of a translation: "", "8080", "8000-8010"
	handle, lineNo int
}

type oChain struct {
	name, policy string
	rules        []oRule
}

type oSet struct {
	tables map[string][]oChain // by table: mangle, nat, filter; base chains first
}

// oPacket is a packet where a rule sees it.
type oPacket struct {
	in, out      string
	src, dst     netip.Addr
	sport, dport int
	proto        string // tcp, udp, icmp, gre
	icmp         int
	state        string // new, established
	dnat, marked bool
}

var oracleOwn = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("203.0.113.10"),
	netip.MustParseAddr("203.0.113.11")}

func (m *oMatch) matches(p *oPacket) bool {
	opposite := func(s string) (string, bool) { return strings.CutPrefix(s, "!") }
	text := func(want, have string) bool {
		w, not := opposite(want)
		return want == "" || (w == have) != not
	}
	network := func(want string, a netip.Addr) bool {
		w, not := opposite(want)
		return want == "" || netip.MustParsePrefix(w).Contains(a) != not
	}
	port := func(want string, have int) bool {
		w, not := opposite(want)
		if want == "" {
			return true
		}
		lo, hi := 0, 0
		if n, _ := fmt.Sscanf(w, "%d:%d", &lo, &hi); n == 1 {
			hi = lo
		}
		return (lo <= have && have <= hi) != not
	}
	three := func(want int, have bool) bool { return want == 0 || (want == 1) == have }
	if (m.dport != "" || m.sport != "") && p.proto != "tcp" && p.proto != "udp" {
		return false
	}
	if m.syn != 0 && p.proto != "tcp" {
		return false
	}
	if m.icmp != "" && (p.proto != "icmp" || m.icmp != fmt.Sprint(p.icmp)) {
		return false
	}
	return text(m.in, p.in) && text(m.out, p.out) && network(m.src, p.src) && network(m.dst, p.dst) &&
		text(m.proto, p.proto) &&
		port(m.dport, p.dport) && port(m.sport, p.sport) && (m.states == nil || slices.Contains(m.states, p.state)) &&
		three(m.dnat, p.dnat) && three(m.syn, p.state == "new") &&
		three(m.local, slices.Contains(oracleOwn, p.dst)) && three(m.mark, p.marked)
}

func (s *oSet) chain(table, name string) *oChain {
	for i := range s.tables[table] {
		if c := &s.tables[table][i]; c.name == name {
			return c
		}
	}
	return nil
}

// run returns the rule that decides about a packet in a chain, nil for none. gone
// says that what follows the jump is not asked, as after goto.
func (s *oSet) run(table string, c *oChain, p *oPacket) *oRule {
	for i := range c.rules {
		r := &c.rules[i]
		if !r.m.matches(p) {
			continue
		}
		switch r.target {
		case "":
		case "return":
			return nil
		case "jump":
			if d := s.run(table, s.chain(table, r.to), p); d != nil {
				return d
			}
		case "goto":
			return s.run(table, s.chain(table, r.to), p)
		default:
			return r
		}
	}
	return nil
}

// base returns what a base chain says: accept, drop, reject, or a translation.
func (s *oSet) base(table, name string, p *oPacket) (string, *oRule) {
	c := s.chain(table, name)
	if c == nil {
		return "accept", nil
	}
	if r := s.run(table, c, p); r != nil {
		return r.target, r
	}
	return c.policy, nil
}

// A fate is what becomes of a packet.
type fate struct {
	accepted, local bool
	seen            oPacket // as the filter saw it
}

// first returns what becomes of a connection's first packet.
func (s *oSet) first(p oPacket) fate {
	p.state = "new"
	if v, _ := s.base("mangle", "PREROUTING", &p); v != "accept" {
		return fate{seen: p}
	}
	local := slices.Contains(oracleOwn, p.dst)
	switch v, r := s.base("nat", "PREROUTING", &p); v {
	case "dnat":
		p.dst, p.dnat = netip.MustParseAddr(r.to), true
		if r.port != "" && (p.proto == "tcp" || p.proto == "udp") {
			lo, hi := 0, 0
			if n, _ := fmt.Sscanf(r.port, "%d-%d", &lo, &hi); n == 1 {
				hi = lo
			}
			if p.dport < lo || p.dport > hi {
				p.dport = lo
			}
		}
		local = slices.Contains(oracleOwn, p.dst)
	case "redirect":
		local = true
	}
	if local {
		v, _ := s.base("filter", "INPUT", &p)
		return fate{accepted: v == "accept", local: true, seen: p}
	}
	p.out = "eth0"
	if netip.MustParsePrefix("10.0.0.0/24").Contains(p.dst) {
		p.out = "eth1"
	}
	return s.forwarded(p)
}

// forwarded returns what the chains for forwarded packets say.
func (s *oSet) forwarded(p oPacket) fate {
	for _, table := range []string{"mangle", "filter"} {
		if v, _ := s.base(table, "FORWARD", &p); v != "accept" {
			return fate{seen: p}
		}
	}
	return fate{accepted: true, seen: p}
}

// iptables writes the rule set as iptables-save does.
func (s *oSet) iptables() string {
	var b strings.Builder
	line := 0
	put := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...); line++ }
	for _, table := range []string{"mangle", "nat", "filter"} {
		put("*%s", table)
		for _, c := range s.tables[table] {
			policy := strings.ToUpper(c.policy)
			if policy == "" {
				policy = "-"
			}
			put(":%s %s [0:0]", c.name, policy)
		}
		for i := range s.tables[table] {
			c := &s.tables[table][i]
			for j := range c.rules {
				put("-A %s%s", c.name, c.rules[j].iptables())
				c.rules[j].lineNo = line
			}
		}
		put("COMMIT")
	}
	return b.String()
}

func (r *oRule) iptables() string {
	m := &r.m
	s := ""
	opt := func(flag, v string) {
		if v == "" {
			return
		}
		if w, not := strings.CutPrefix(v, "!"); not {
			s += " ! " + flag + " " + w
		} else {
			s += " " + flag + " " + w
		}
	}
	opt("-s", m.src)
	opt("-d", m.dst)
	opt("-i", m.in)
	opt("-o", m.out)
	opt("-p", m.proto)
	opt("--dport", m.dport)
	opt("--sport", m.sport)
	opt("--icmp-type", m.icmp)
	if m.syn != 0 {
		s += " -m tcp" + map[int]string{1: "", -1: " !"}[m.syn] + " --tcp-flags FIN,SYN,RST,ACK SYN"
	}
	if m.states != nil {
		s += " -m conntrack --ctstate " + strings.ToUpper(strings.Join(m.states, ","))
	}
	if m.dnat != 0 {
		s += " -m conntrack" + map[int]string{1: "", -1: " !"}[m.dnat] + " --ctstate DNAT"
	}
	if m.local != 0 {
		s += " -m addrtype" + map[int]string{1: "", -1: " !"}[m.local] + " --dst-type LOCAL"
	}
	if m.mark != 0 {
		s += " -m mark" + map[int]string{1: "", -1: " !"}[m.mark] + " --mark 0x1"
	}
	switch r.target {
	case "":
		return s + " -j LOG"
	case "jump":
		return s + " -j " + r.to
	case "goto":
		return s + " -g " + r.to
	case "dnat":
		if r.port != "" {
			return s + " -j DNAT --to-destination " + r.to + ":" + r.port
		}
		return s + " -j DNAT --to-destination " + r.to
	case "redirect":
		return s + " -j REDIRECT --to-ports 3128"
	}
	return s + " -j " + strings.ToUpper(r.target)
}

type js = map[string]any

// nft writes the rule set as nft's JSON.
func (s *oSet) nft() []byte {
	var items []any
	hooks := map[string]string{"PREROUTING": "prerouting", "FORWARD": "forward", "INPUT": "input",
		"POSTROUTING": "postrouting"}
	for table, prio := range map[string]int{"mangle": -150, "nat": -100, "filter": 0} {
		items = append(items, js{"table": js{"family": "ip", "name": table, "handle": 1}})
		for _, c := range s.tables[table] {
			ch := js{"family": "ip", "table": table, "name": c.name, "handle": 1}
			if h := hooks[c.name]; h != "" {
				ch["hook"], ch["prio"], ch["policy"], ch["type"] = h, prio, c.policy, "filter"
				if table == "nat" {
					ch["type"] = "nat"
				}
			}
			items = append(items, js{"chain": ch})
		}
		handle := 10
		for i := range s.tables[table] {
			c := &s.tables[table][i]
			for j := range c.rules {
				handle++
				c.rules[j].handle = handle
				items = append(items,
					js{"rule": js{"family": "ip", "table": table, "chain": c.name, "handle": handle,
						"expr": c.rules[j].nft()}})
			}
		}
	}
	b, _ := json.Marshal(js{"nftables": items})
	return b
}

func (r *oRule) nft() (expr []any) {
	m := &r.m
	match := func(left any, v string, value func(string) any) {
		if v == "" {
			return
		}
		w, not := strings.CutPrefix(v, "!")
		op := "=="
		if not {
			op = "!="
		}
		expr = append(expr, js{"match": js{"op": op, "left": left, "right": value(w)}})
	}
	field := func(proto, f string) any { return js{"payload": js{"protocol": proto, "field": f}} }
	word := func(s string) any { return s }
	network := func(s string) any {
		p := netip.MustParsePrefix(s)
		return js{"prefix": js{"addr": p.Addr().String(), "len": p.Bits()}}
	}
	port := func(s string) any {
		lo, hi := 0, 0
		if n, _ := fmt.Sscanf(s, "%d:%d", &lo, &hi); n == 1 {
			return lo
		}
		return js{"range": []any{lo, hi}}
	}
	three := func(n int) string { return map[int]string{1: "x", -1: "!x"}[n] }
	match(js{"meta": js{"key": "iifname"}}, m.in, word)
	match(js{"meta": js{"key": "oifname"}}, m.out, word)
	match(field("ip", "saddr"), m.src, network)
	match(field("ip", "daddr"), m.dst, network)
	match(js{"meta": js{"key": "l4proto"}}, m.proto, word)
	match(field("th", "dport"), m.dport, port)
	match(field("th", "sport"), m.sport, port)
	match(field("icmp", "type"), m.icmp, word)
	match(js{"&": []any{field("tcp", "flags"), js{"|": []any{"fin", "syn", "rst", "ack"}}}}, three(m.syn),
		func(string) any { return "syn" })
	if m.states != nil {
		expr = append(expr, js{"match": js{"op": "in", "left": js{"ct": js{"key": "state"}}, "right": m.states}})
	}
	match(js{"ct": js{"key": "status"}}, three(m.dnat), func(string) any { return "dnat" })
	match(js{"fib": js{"result": "type", "flags": []any{"daddr"}}}, three(m.local), func(string) any { return "local" })
	match(js{"meta": js{"key": "mark"}}, three(m.mark), func(string) any { return 1 })
	switch r.target {
	case "":
		return append(expr, js{"log": nil})
	case "jump", "goto":
		return append(expr, js{r.target: js{"target": r.to}})
	case "dnat":
		to := js{"addr": r.to}
		lo, hi := 0, 0
		switch n, _ := fmt.Sscanf(r.port, "%d-%d", &lo, &hi); n {
		case 1:
			to["port"] = lo
		case 2:
			to["port"] = js{"range": []any{lo, hi}}
		}
		return append(expr, js{"dnat": to})
	case "redirect":
		return append(expr, js{"redirect": js{"port": 3128}})
	}
	return append(expr, js{r.target: nil})
}

// randomSet makes a rule set.
func randomSet(r *rand.Rand) *oSet {
	of := func(s ...string) string { return s[r.IntN(len(s))] }
	sometimes := func(n int, f func()) {
		if r.IntN(n) == 0 {
			f()
		}
	}
	match := func(nat bool) (m oMatch) {
		sometimes(2, func() { m.in = of("eth0", "eth1", "!eth1", "!eth0") })
		if !nat {
			sometimes(3, func() { m.out = of("eth0", "eth1", "!eth1") })
		}
		sometimes(4, func() {
			m.src = of("10.0.0.5/32", "10.0.0.0/26", "198.51.100.0/24", "!198.51.100.7/32",
				"10.0.0.0/24")
		})
		sometimes(4, func() {
			m.dst = of("10.0.0.5/32", "10.0.0.0/24", "198.51.100.0/24", "!198.51.100.7/32", "203.0.113.10/32",
				"10.0.0.6/32")
		})
		sometimes(2, func() {
			m.proto = of("tcp", "udp", "tcp", "icmp", "gre", "!tcp")
			if m.proto == "tcp" || m.proto == "udp" {
				sometimes(2, func() { m.dport = of("80", "443", "8000:8010", "!80", "53", "22") })
				sometimes(9, func() { m.sport = of("20", "1024:65535") })
				if m.proto == "tcp" {
					sometimes(6, func() { m.syn = 1 - 2*r.IntN(2) })
				}
			}
			if m.proto == "icmp" {
				sometimes(2, func() { m.icmp = of("8", "0", "3") })
			}
		})
		if !nat {
			sometimes(3, func() {
				m.states = [][]string{{"new"}, {"established"}, {"established", "related"}, {"invalid"},
					{"new", "established"}}[r.IntN(5)]
			})
			sometimes(9, func() { m.dnat = 1 - 2*r.IntN(2) })
		}
		sometimes(11, func() { m.mark = 1 - 2*r.IntN(2) })
		return m
	}
	rules := func(n int, nat bool, targets []string, chains ...string) (rs []oRule) {
		for range r.IntN(n + 1) {
			x := oRule{m: match(nat), target: targets[r.IntN(len(targets))]}
			switch x.target {
			case "jump", "goto":
				if len(chains) == 0 {
					x.target = ""
				} else {
					x.to = of(chains...)
				}
			case "dnat":
				x.to = of("10.0.0.5", "10.0.0.6", "10.0.0.5", "10.9.9.9")
				if x.m.proto != "tcp" && x.m.proto != "udp" {
					x.m.proto = of("tcp", "udp", "")
					x.m.icmp, x.m.dport, x.m.sport, x.m.syn = "", "", "", 0
				}
				if x.m.proto != "" {
					x.port = of("", "8080", "8000-8010", "80")
				}
			}
			rs = append(rs, x)
		}
		return rs
	}
	filter := []string{"accept", "drop", "reject", "accept", "jump", "jump", "goto", "return", ""}
	s := &oSet{tables: map[string][]oChain{
		"mangle": {{"PREROUTING", "accept", nil}, {"FORWARD", "accept", nil}},
		"nat": {{"PREROUTING", "accept",
			rules(4, true, []string{"dnat", "dnat", "accept", "return", "redirect", "jump", "goto"},
				"n1")}, {"POSTROUTING", "accept", nil},
			{"n1", "", rules(3, true, []string{"dnat", "accept", "return", ""})}},
		"filter": {{"FORWARD", of("accept", "drop", "drop"), rules(6, false, filter, "c1", "c2", "c3")},
			{"INPUT", of("accept", "drop"), rules(3, false, []string{"accept", "drop"})},
			{"c1", "", rules(4, false, filter, "c2", "c3")}, {"c2", "", rules(4, false, filter, "c3")}, {"c3", "",
				rules(3, false, []string{"accept", "drop", "return", "reject"})}},
	}}
	sometimes(3, func() { s.tables["mangle"][0].rules = rules(2, true, []string{"drop", "return", "accept"}) })
	sometimes(3, func() { s.tables["mangle"][1].rules = rules(2, false, []string{"drop", "return", "accept"}) })
	sometimes(5, func() {
		for t := range s.tables {
			for i := range s.tables[t] {
				for j := range s.tables[t][i].rules {
					if t == "nat" {
						sometimes(4, func() { s.tables[t][i].rules[j].m.local = 1 - 2*r.IntN(2) })
					}
				}
			}
		}
	})
	if r.IntN(4) > 0 {
		s.tables["nat"][1].rules = []oRule{{m: oMatch{out: "eth0",
			src: of("10.0.0.0/24", "10.0.0.0/24", "10.0.0.0/26", "10.0.0.0/8")}, target: "masquerade"}}
	}
	return s
}

// randomPacket makes the first packet of a connection.
func randomPacket(r *rand.Rand) oPacket {
	inside := []string{"10.0.0.5", "10.0.0.6", "10.0.0.66", "10.0.0.200"}
	outside := []string{"198.51.100.7", "198.51.100.8", "8.8.8.8", "203.0.113.77"}
	p := oPacket{in: "eth1", sport: []int{1025, 40000, 20}[r.IntN(3)],
		dport: []int{80, 443, 8000, 8005, 8010, 8080, 53, 22, 81}[r.IntN(9)], marked: r.IntN(4) == 0}
	p.proto = []string{"tcp", "udp", "icmp", "tcp", "gre"}[r.IntN(5)]
	from, to := inside, outside
	if r.IntN(2) == 0 {
		p.in, from, to = "eth0", outside, inside
	}
	p.src, p.dst = netip.MustParseAddr(from[r.IntN(len(from))]), netip.MustParseAddr(to[r.IntN(len(to))])
	if r.IntN(3) == 0 {
		p.dst = oracleOwn[1+r.IntN(2)]
		if p.in == "eth1" && r.IntN(2) == 0 {
			p.dst = oracleOwn[0]
		}
	}
	if p.proto == "icmp" {
		p.icmp = 8
	}
	if p.proto == "icmp" || p.proto == "gre" {
		p.sport, p.dport = 0, 0
	}
	return p
}
