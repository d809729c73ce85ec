package importer

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
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

// priorities of the tables' chains (linux/netfilter_ipv4.h).
var priorities = map[string]int{"raw": -300, "mangle": -150, "nat": prioDNAT, "filter": 0, "security": 50}

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
		c := &chain{place: place, name: f[0], table: p.table, kind: "filter", prio: priorities[p.table], policy: "accept"}
		if p.table == "nat" {
			c.kind = "nat"
		}
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
	p.set.notes = append(p.set.notes, Note{Place: place, Text: shorten(text), Why: why, Effect: e, Packets: everything})
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
