package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/meant"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// word reads one of the given words.
func (l *loader) word(n *node, path string, words ...string) (string, bool) {
	if n.kind == scalar {
		for _, w := range words {
			if n.text == w {
				return w, true
			}
		}
		hint := "want " + either(words)
		if best := meantWord(n.text, words); best != "" {
			hint = "did you mean " + best + "? " + hint
		}
		l.err(n, path, "value", fmt.Sprintf("unknown value %q", n.text), hint)
		return "", false
	}
	l.err(n, path, "type", "is "+n.kind.String(), "want "+either(words))
	return "", false
}

// oneOf reads the word of one of the given values.
func oneOf[T fmt.Stringer](l *loader, n *node, path string, values ...T) (v T, ok bool) {
	var words []string
	for _, v := range values {
		words = append(words, v.String())
	}
	w, ok := l.word(n, path, words...)
	if !ok {
		return v, false
	}
	return values[slices.Index(words, w)], true
}

// someOf returns a function that reads the word of one of the given values, or a
// list of them, each of which it adds once.
func someOf[T interface {
	fmt.Stringer
	comparable
}](l *loader, into *[]T, values ...T) func(*node, string) {
	return func(n *node, path string) {
		l.each(n, path, func(n *node, path string) {
			if v, ok := oneOf(l, n, path, values...); ok && !slices.Contains(*into, v) {
				*into = append(*into, v)
			}
		})
	}
}

// actions are those of rules and of the default.
var actions = []ruleset.Action{ruleset.Accept, ruleset.Deny, ruleset.Reject}

// synonyms are words of other firewalls.
var synonyms = map[string]string{"allow": "accept", "permit": "accept", "pass": "accept", "drop": "deny", "block": "deny", "in": "ingress", "inbound": "ingress",
	"out": "egress", "outbound": "egress", "established,related": "established", "related": "established"}

// meantWord returns the word that was probably meant, or "".
func meantWord(s string, words []string) string {
	if w := synonyms[strings.ToLower(s)]; slices.Contains(words, w) {
		return w
	}
	return meant.Word(strings.ToLower(s), words)
}

// either joins words as in "tcp, udp or icmp".
func either(words []string) string {
	n := len(words) - 1
	if n < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n], ", ") + " or " + words[n]
}

// number reads an integer from lo to hi.
func (l *loader) number(n *node, path string, lo, hi int) (int, bool) {
	want := fmt.Sprintf("want a number from %d to %d", lo, hi)
	if n.kind != scalar {
		l.err(n, path, "type", "is "+n.kind.String(), want)
		return 0, false
	}
	v, err := strconv.Atoi(n.text)
	if n.quoted && err == nil {
		l.err(n, path, "type", fmt.Sprintf("%q is text", n.text), want+", without quotes")
		return 0, false
	}
	if err == nil && strconv.Itoa(v) != n.text {
		l.err(n, path, "type", fmt.Sprintf("%q is not how a number is written here, and another to some readers of YAML", n.text),
			want+", without a sign or zeros in front")
		return 0, false
	}
	if err != nil {
		l.err(n, path, "type", fmt.Sprintf("%q is not a whole number", n.text), want)
		return 0, false
	}
	if v < lo || v > hi {
		l.err(n, path, "range", fmt.Sprintf("%d is out of range", v), want)
		return 0, false
	}
	return v, true
}

// maxSeconds is the longest time that a policy may have: 30 days.
const maxSeconds = 30 * 24 * 60 * 60

// seconds reads a time: a number of seconds, or one with a unit, as 1h.
func (l *loader) seconds(n *node, path string) (int, bool) {
	if n.kind == scalar && !n.integer {
		d, err := time.ParseDuration(n.text)
		if err != nil || d%time.Second != 0 || d < time.Second || d > maxSeconds*time.Second {
			l.err(n, path, "value", fmt.Sprintf("%q is not a time", n.text), "want whole seconds, 1 to 2592000, or a duration as 90s, 5m, 2h")
			return 0, false
		}
		return int(d / time.Second), true
	}
	if l.atMost(n, path, maxSeconds) {
		return maxSeconds, true
	}
	return l.number(n, path, 1, maxSeconds)
}

// flag reads true or false.
func (l *loader) flag(n *node, path string) (v, ok bool) {
	if n.kind == scalar && n.boolean {
		switch strings.ToLower(n.text) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
	}
	l.err(n, path, "type", "is not true or false", "want true or false, without quotes")
	return false, false
}

// address reads an IPv4 address.
func (l *loader) address(n *node, path string) (netip.Addr, bool) {
	if n.kind != scalar {
		l.err(n, path, "type", "is "+n.kind.String(), "want an address, as 192.0.2.1")
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(n.text)
	switch {
	case err != nil:
		l.err(n, path, "address", fmt.Sprintf("%q is not an address", n.text), "want four numbers from 0 to 255, as 192.0.2.1")
	case !a.Is4():
		l.err(n, path, "ipv6", "IPv6 is not supported by this version", "want an IPv4 address")
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// prefix reads an IPv4 address or network. Unless hostBits, a network must be
// written with its first address.
func (l *loader) prefix(n *node, path string, hostBits bool) (netip.Prefix, bool) {
	if n.kind != scalar {
		l.err(n, path, "type", "is "+n.kind.String(), "want a network, as 10.0.0.0/24")
		return netip.Prefix{}, false
	}
	if !strings.Contains(n.text, "/") && !hostBits {
		a, ok := l.address(n, path)
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, 32), true
	}
	p, err := netip.ParsePrefix(n.text)
	switch {
	case err != nil:
		l.err(n, path, "cidr", fmt.Sprintf("%q is not a network", n.text), "want an address and a prefix length from 0 to 32, as 10.0.0.0/24")
	case !p.Addr().Is4():
		l.err(n, path, "ipv6", "IPv6 is not supported by this version", "want an IPv4 network")
	case !hostBits && p.Masked() != p && l.first:
		l.Warn(n.line, n.col, path, "host-bits", fmt.Sprintf("%s has bits set behind its prefix length; taken as %v", n.text, p.Masked()), "want "+p.Masked().String()+", or "+p.Addr().String()+" for the one host")
		return p.Masked(), true
	case !hostBits && p.Masked() != p:
		l.err(n, path, "host-bits", fmt.Sprintf("%s has bits set behind its prefix length", n.text), "want "+p.Masked().String()+", or "+p.Addr().String()+" for the one host")
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// each calls f for every value of a list, or once for a single value.
func (l *loader) each(n *node, path string, f func(n *node, path string)) {
	if n.kind != list {
		f(n, path)
		return
	}
	if len(n.items) == 0 {
		l.err(n, path, "empty-list", "the list is empty and would match nothing", "leave the field out to match anything")
	}
	for i, v := range n.items {
		f(v, fmt.Sprintf("%s[%d]", path, i))
	}
}

// portRange reads a port or a range lo-hi.
func (l *loader) portRange(n *node, path string) (PortRange, bool) {
	const want = "want a port from 1 to 65535 or a range, as 8000-8080"
	if n.kind != scalar {
		l.err(n, path, "type", "is "+n.kind.String(), want)
		return PortRange{}, false
	}
	r, ok := ParsePorts(n.text)
	switch {
	case !ok:
		l.err(n, path, "port", fmt.Sprintf("%q is not a port", n.text), want)
	case r.Lo > r.Hi:
		l.err(n, path, "port-range", fmt.Sprintf("the range %s is reversed", n.text), fmt.Sprintf("want %d-%d", r.Hi, r.Lo))
	default:
		return r, true
	}
	return PortRange{}, false
}

// portPool reads the ports of source translation: a port, a range lo-hi, or
// min and max.
func (l *loader) portPool(n *node, path string) (PortRange, bool) {
	if n.kind != mapping {
		return l.portRange(n, path)
	}
	r := PortRange{}
	l.fields(n, path, []field{
		{"min", func(n *node, path string) { r.Lo, _ = l.number(n, path, 1, 65535) }},
		{"max", func(n *node, path string) { r.Hi, _ = l.number(n, path, 1, 65535) }},
	})
	for _, k := range []string{"min", "max"} {
		if n.get(k) == nil {
			l.err(n, path+"."+k, "missing", "missing", "want the lowest and the highest port, as { min: 16384, max: 60999 }")
		}
	}
	if r.Lo > 0 && r.Hi > 0 && r.Lo > r.Hi {
		l.err(n, path, "port-range", fmt.Sprintf("the range %d-%d is reversed", r.Lo, r.Hi), fmt.Sprintf("want { min: %d, max: %d }", r.Hi, r.Lo))
	}
	return r, r.Lo > 0 && r.Lo <= r.Hi
}

// ParsePorts reads a port or a range, which may be reversed. A port has no zeros in front:
// YAML 1.1 takes 0120 for 80.
func ParsePorts(s string) (PortRange, bool) {
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, ok := parsePort(lo)
	b, ok2 := parsePort(hi)
	return PortRange{a, b}, ok && ok2
}

func parsePort(s string) (int, bool) {
	s = strings.TrimSpace(s)
	n, err := strconv.ParseUint(s, 10, 16)
	return int(n), err == nil && s[0] != '0'
}
