package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The policy was first published without interfaces, and with more room than this
// version has: it did not say which side an address belongs to. A document without
// interfaces is taken to be of that format and accepted as it is. What it leaves open
// is assumed, and what can have no effect on the assumed interfaces has none; a warning
// names each. See docs/policy.md, "Policies as first published".

// What the first format implies.
const (
	firstLAN      = "lan0"
	firstWAN      = "wan0"
	firstUpstream = "1.1.1.1"
	firstAccepted = 0.01 // share of accepted flows that get a span
	firstDropped  = 1.0  // share of dropped flows that get one
)

var (
	firstLANPrefix = netip.MustParsePrefix("10.0.0.1/24")
	firstWANPrefix = netip.MustParsePrefix("203.0.113.10/24")
)

// lenient reports a value that has no effect on the assumed interfaces: a warning in a
// document of the first format, which could not know them, and an error in others.
func (l *loader) lenient(n *node, path, code, msg, hint string) {
	if l.first {
		l.Warn(n.line, n.col, path, code, msg, "it has no effect; "+hint)
		return
	}
	l.err(n, path, code, msg, hint)
}

// assume gives a document of the first format what it implies.
func (l *loader) assume(root *node) {
	wan := firstWAN
	var taken []netip.Addr
	walk(root.get("nat"), func(key string, n *node) {
		if key == "out_interface" && wan == firstWAN && strings.HasPrefix(n.text, "wan") && identifier.MatchString(n.text) {
			wan = n.text
		}
		if a, err := netip.ParseAddr(n.text); err == nil {
			taken = append(taken, a)
		}
	})
	if d := root.get("defaults"); d != nil {
		walk(d.get("upstream_dns"), func(_ string, n *node) {
			if a, err := netip.ParseAddr(n.text); err == nil {
				taken = append(taken, a)
			}
		})
	}
	gateway := firstWANPrefix.Masked().Addr().Next()
	for gateway == firstWANPrefix.Addr() || slices.Contains(taken, gateway) && firstWANPrefix.Contains(gateway.Next().Next()) {
		gateway = gateway.Next()
	}
	l.p.Interfaces = []Interface{
		{Name: firstLAN, LAN: true, Prefix: firstLANPrefix},
		{Name: wan, Prefix: firstWANPrefix, Gateway: gateway},
	}
	l.Warn(root.line, root.col, "interfaces", "assumed", "missing, as in policies as first published; taken to be those of its example",
		fmt.Sprintf("copy this and put your addresses in: interfaces: { %s: { address: %v }, %s: { address: %v, gateway: %v } }", firstLAN, firstLANPrefix, wan, firstWANPrefix, gateway))
	l.assumeSpans(root)
}

// assumeSpans gives a document of the first format the spans that it implies. With
// interfaces there are none unless the policy says so: ADR 62.
func (l *loader) assumeSpans(root *node) {
	var left []string
	for _, s := range []struct {
		key  string
		into *float64
		is   float64
	}{{"flow_trace_sample_accept", &l.p.Defaults.SampleAccept, firstAccepted}, {"flow_trace_sample_drop", &l.p.Defaults.SampleDrop, firstDropped}} {
		if *s.into = s.is; at(root, "defaults", s.key) == nil {
			left = append(left, fmt.Sprintf("%s: %v", s.key, s.is))
		}
	}
	if len(left) > 0 {
		l.Warn(root.line, root.col, "defaults", "assumed", "spans as in policies as first published: "+strings.Join(left, ", "),
			"a policy with interfaces has none unless it says so; copy this too to keep them, into defaults")
	}
}

// walk calls f for each single value below a node with the key that it stands
// under, "" for those of a list.
func walk(n *node, f func(key string, n *node)) {
	if n == nil {
		return
	}
	for i, v := range n.items {
		key := ""
		if n.kind == mapping {
			key = n.keys[i].text
		}
		if v.kind == scalar {
			f(key, v)
		} else {
			walk(v, f)
		}
	}
}

// assumeUpstream gives a document of the first format the name server that it implies.
func (l *loader) assumeUpstream(root *node) {
	if !l.first || len(l.p.DNS.Upstreams) > 0 || at(root, "defaults", "upstream_dns") != nil || at(root, "dns", "upstreams") != nil {
		return
	}
	l.p.DNS.Upstreams = []Upstream{{Address: netip.MustParseAddr(firstUpstream), Port: DNSPort}}
	if slices.ContainsFunc(l.p.Rules, func(r Rule) bool { return len(r.Names) > 0 }) {
		l.Warn(root.line, root.col, "defaults.upstream_dns", "assumed", "missing, as in policies as first published; names are asked of "+firstUpstream, "say upstream_dns: "+firstUpstream+", or another, in defaults")
	}
}

// at returns the value of a key of a section, or nil.
func at(root *node, section, key string) *node {
	if n := root.get(section); n != nil {
		return n.get(key)
	}
	return nil
}

// atMost takes a number of the first format, which had no highest one, as the highest
// that there is. It reports false for others.
func (l *loader) atMost(n *node, path string, hi int) bool {
	if !l.first || n.kind != scalar || n.quoted {
		return false
	}
	digits := strings.TrimLeft(n.text, "0")
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) < len(fmt.Sprint(hi)) || len(digits) == len(fmt.Sprint(hi)) && digits <= fmt.Sprint(hi) {
		return false
	}
	l.Warn(n.line, n.col, path, "range", fmt.Sprintf("%s is out of range; taken as %d, the highest", n.text, hi), fmt.Sprintf("want at most %d", hi))
	return true
}

// maxBefore is how many earlier entries may share with one of the first format.
const maxBefore = 256

// apart adds an entry of the first format, less what earlier ones have, which decide
// first.
func (l *loader) apart(n *node, path string, d *DNAT) {
	for _, v := range d.Protocols {
		one := *d
		one.Protocols = []Protocol{v}
		before, line := []netip.Prefix{}, 0
		count := 0
		first, ok := l.entries.first(&one)
		for i := first; ok && i < len(l.p.DNAT); i++ {
			e := &l.p.DNAT[i]
			if !one.overlaps(e) {
				continue
			}
			if count++; line == 0 {
				line = e.Line
			}
			before = append(before, anywhere(e.From)...)
		}
		if count > maxBefore {
			l.err(n, path, "too-large", fmt.Sprintf("shares addresses and ports with %d entries before it", count), fmt.Sprintf("at most %d are looked at; give each its own ports", maxBefore))
			return
		}
		if count > 0 {
			var left []netip.Prefix
			for _, f := range anywhere(one.From) {
				left = append(left, without(f, before)...)
			}
			l.Warn(n.line, n.col, path, "overlapping-dnat", fmt.Sprintf("shares addresses and ports with the entry in line %d, which comes first and decides", line), "give each its own ports, or sources with from")
			if len(left) == 0 {
				continue
			}
			one.From = left
		}
		l.addDNAT(&one)
	}
}

// anywhere returns the networks of a list, or the one of all addresses.
func anywhere(ps []netip.Prefix) []netip.Prefix {
	if len(ps) == 0 {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0)}
	}
	return ps
}
