package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// A Statement says of all new flows of a set that none of them is accepted, or that
// each of them is. Its fields mean what they mean in rules: addresses are the hosts'
// own. An empty list is all.
type Statement struct {
	Always       bool // all are accepted; else none is
	Name         string
	FromLAN      bool
	Source       []netip.Prefix
	Destination  []netip.Prefix
	Ports        []PortRange
	Protocols    []Protocol // TCP, UDP, ICMP
	Line, Column int
	Path         string
}

// Word returns the key under which the statement stands.
func (s *Statement) Word() string {
	if s.Always {
		return "always"
	}
	return "never"
}

// statements returns a function that reads never, or always.
func (l *loader) statements(always bool) func(n *node, path string) {
	return func(n *node, path string) {
		if n.kind != list {
			l.err(n, path, "type", "is "+n.kind.String(), "want a list of statements: one each, beginning with -")
			return
		}
		for i, v := range n.items {
			l.statement(v, fmt.Sprintf("%s[%d]", path, i), always)
		}
	}
}

func (l *loader) statement(n *node, path string, always bool) {
	s := Statement{Always: always, Line: n.line, Column: n.col, Path: path}
	var portsAt *node
	ok := l.fields(n, path, []field{
		{"name", func(n *node, path string) {
			if n.kind != scalar || n.text == "" || len(n.text) > maxRuleName {
				l.err(n, path, "name", "not a name", "want text of at most 200 bytes")
				return
			}
			s.Name = n.text
		}},
		{"from", func(n *node, path string) {
			w, _ := l.word(n, path, "lan", "wan")
			s.FromLAN = w == "lan"
		}},
		{"source", func(n *node, path string) { s.Source = l.prefixes(n, path) }},
		{"destination", func(n *node, path string) { s.Destination = l.prefixes(n, path) }},
		{"destination_port", func(n *node, path string) { portsAt, s.Ports = n, l.ports(n, path) }},
		{"protocol", someOf(l, &s.Protocols, protocols...)},
	})
	if !ok {
		return
	}
	if n.get("from") == nil {
		l.err(n, path+".from", "missing", "missing", "want lan or wan: where the flows begin")
	}
	if portsAt != nil && len(s.Protocols) == 0 {
		s.Protocols = []Protocol{TCP, UDP}
	}
	if portsAt != nil && slices.Contains(s.Protocols, ICMP) {
		l.err(portsAt, path+".destination_port", "port-without-protocol", "ports belong to tcp and udp", "remove icmp, and give it a statement of its own")
	}
	if s.Name == "" {
		s.Name = fmt.Sprintf("line %d", n.line)
	}
	l.p.Statements = append(l.p.Statements, s)
}
