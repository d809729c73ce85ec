package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/meant"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Test is an expectation of the policy about one packet.
type Test struct {
	Name         string
	Flow         Flow
	Accept       bool
	Expect       ruleset.Action
	ExpectRule   string // id, "default", or "" for any
	ExpectSNAT   string // address, "none", or "" for any
	Line, Column int
	Path         string
}

// tests reads tests.
func (l *loader) tests(n *node, path string) {
	if n.kind != list {
		l.err(n, path, "type", "is "+n.kind.String(), "want a list of expectations: one each, beginning with -")
		return
	}
	ids := map[string]bool{"default": true}
	for i := range l.p.Rules {
		ids[l.p.Rules[i].ID] = true
	}
	for i, v := range n.items {
		l.test(v, fmt.Sprintf("%s[%d]", path, i), ids)
	}
}

func (l *loader) test(n *node, path string, ids map[string]bool) {
	t := Test{Line: n.line, Column: n.col, Path: path}
	f := &t.Flow
	end := func(into *netip.AddrPort) func(n *node, path string) {
		return func(n *node, path string) {
			var why string
			if n.kind != scalar {
				why = "is " + n.kind.String()
			} else if *into, why = ParseEndpoint(n.text); why != "" {
				why = fmt.Sprintf("%q %s", n.text, why)
			}
			if why != "" {
				l.err(n, path, "endpoint", why, `want an address, or one with a port, as "192.0.2.1:443"`)
			}
		}
	}
	before := len(l.ds)
	var namePort int
	named, known := true, false
	ok := l.fields(n, path, []field{
		{"name", func(n *node, path string) {
			if n.kind != scalar || n.text == "" || len(n.text) > 200 {
				l.err(n, path, "name", "not a name", "want text of at most 200 bytes")
				return
			}
			t.Name = n.text
		}},
		{"from", func(n *node, path string) {
			w, _ := l.word(n, path, "lan", "wan")
			f.FromLAN = w == "lan"
		}},
		{"proto", func(n *node, path string) {
			if f.Protocol, known = ParseProtocol(n.text); n.kind != scalar || !known {
				l.err(n, path, "value", fmt.Sprintf("unknown value %q", n.text), WantProtocol)
			}
		}},
		{"src", end(&f.Src)},
		{"dst", end(&f.Dst)},
		{"fqdn", func(n *node, path string) {
			name, port, hasPort := strings.Cut(n.text, ":")
			r, good := PortRange{}, true
			if hasPort {
				r, good = ParsePorts(port)
			}
			if why := BadName(name); n.kind != scalar || why != "" || strings.HasPrefix(name, "*") || !good || r.Lo != r.Hi {
				named = false
				l.err(n, path, "fqdn", fmt.Sprintf("%q is no name", n.text), `want a name without wildcard, as example.com, or "example.com:443" instead of dst`)
				return
			}
			f.FQDN, namePort = strings.ToLower(strings.TrimSuffix(name, ".")), r.Lo
		}},
		{"state", func(n *node, path string) {
			w, _ := l.word(n, path, "new", "established")
			f.Established = w == "established"
		}},
		{"expect", func(n *node, path string) {
			t.Expect, _ = oneOf(l, n, path, actions...)
			t.Accept = t.Expect == ruleset.Accept
		}},
		{"expect_rule", func(n *node, path string) {
			if n.kind != scalar || !ids[n.text] {
				hint := "want the id of a rule, or default"
				if best := meant.Word(n.text, slices.Sorted(maps.Keys(ids))); best != "" {
					hint = "did you mean " + best + "?"
				}
				l.err(n, path, "unknown-rule", fmt.Sprintf("no rule %q", n.text), hint)
			}
			t.ExpectRule = n.text
		}},
		{"expect_snat", func(n *node, path string) {
			if n.text == "none" {
				t.ExpectSNAT = "none"
			} else if a, ok := l.address(n, path); ok {
				t.ExpectSNAT = a.String()
			}
		}},
	})
	if !ok {
		return
	}
	for _, k := range [][2]string{{"from", "want lan or wan: where the packet enters"}, {"proto", WantProtocol}, {"src", "want the address that sends it"},
		{"expect", "want accept, deny or reject"}} {
		if n.get(k[0]) == nil {
			l.err(n, path+"."+k[0], "missing", "missing", k[1])
		}
	}
	dst, fqdn := n.get("dst"), n.get("fqdn")
	at, where := dst, path+".dst"
	switch {
	case dst == nil && fqdn == nil:
		l.err(n, path+".dst", "missing", "missing", "want the address that it is sent to, or fqdn for whichever address that name has")
	case dst == nil:
		at, where = fqdn, path+".fqdn"
		f.Dst = netip.AddrPortFrom(l.p.Elsewhere(), uint16(namePort))
	case namePort != 0:
		l.err(fqdn, path+".fqdn", "endpoint", "has a port beside dst", "write the port in dst")
	}
	if fqdn != nil && n.get("from") != nil && !f.FromLAN {
		l.err(fqdn, path+".fqdn", "name-direction", "names are of servers that LAN hosts ask for", "want from: lan, or remove fqdn")
	}
	if t.ExpectSNAT != "" && f.Established {
		l.err(n.get("expect_snat"), path+".expect_snat", "snat", "an answer is translated as the flow's first packet was", "test the first packet, without state")
	}
	if f.Established && f.Dst.IsValid() && len(l.p.Interfaces) == 2 && l.p.Interfaces[0].Prefix.IsValid() && l.p.Interfaces[1].Prefix.IsValid() {
		for _, v := range []struct {
			key string
			a   netip.Addr
		}{{"src", f.Src.Addr()}, {"dst", f.Dst.Addr()}} {
			if v.a.IsValid() && l.p.IsExternal(v.a) && n.get(v.key) != nil {
				l.err(n.get(v.key), path+"."+v.key, "endpoint", v.a.String()+" is the firewall's address", "rules see an answer's ends as the hosts' own addresses; want that of the host on the lan")
			}
		}
	}
	switch {
	case at == nil || !named || len(l.ds) > before && !f.Dst.IsValid():
	case !known:
	case !f.Protocol.HasPorts() && (f.Dst.Port() != 0 || f.Src.Port() != 0):
		l.err(at, where, "port-without-protocol", strings.ToUpper(f.Protocol.String())+" has no ports", "leave them out")
	case f.Established && !f.Protocol.Forwarded():
		l.err(n, path+".state", "state", "there are no flows of "+f.Protocol.String(), "leave it out")
	case f.Protocol.HasPorts() && f.Dst.Port() == 0:
		l.err(at, where, "endpoint", "has no port", fmt.Sprintf("want %s:443, or whichever port", at.text))
	}
	if t.Name == "" {
		t.Name = fmt.Sprintf("line %d", n.line)
	}
	l.p.Tests = append(l.p.Tests, t)
}

// ParseEndpoint reads an IPv4 address with or without a port. why says what is
// wrong, "" for nothing.
func ParseEndpoint(s string) (a netip.AddrPort, why string) {
	host, port, has := strings.Cut(s, ":")
	addr, err := netip.ParseAddr(host)
	if err != nil || !addr.Is4() {
		return a, "does not begin with an IPv4 address"
	}
	if !has {
		return netip.AddrPortFrom(addr, 0), ""
	}
	r, ok := ParsePorts(port)
	if !ok || r.Lo != r.Hi || strings.Contains(port, "-") {
		return a, "does not end with a port from 1 to 65535"
	}
	return netip.AddrPortFrom(addr, uint16(r.Lo)), ""
}
