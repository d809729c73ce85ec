package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/meant"
)

// groups are the named lists of addresses and ports. A reference is $name; a
// group may refer to others, in any order.
type groups struct {
	addresses, ports group
}

// A group kind: what was written, and what references to it stand for.
type group struct {
	nodes map[string]*node
	paths map[string]string
	state map[string]int // 1: being resolved, 2: resolved
}

// readGroups reads groups: it notes what is there and then resolves all of it,
// so that a mistake in a group that is not used is found, too.
func (l *loader) readGroups(n *node, path string) {
	note := func(g *group) func(n *node, path string) {
		return func(n *node, path string) {
			if n.kind != mapping {
				l.err(n, path, "type", "is "+n.kind.String(), "want names with their lists, as servers: [10.0.0.5, 10.0.0.6]")
				return
			}
			*g = group{map[string]*node{}, map[string]string{}, map[string]int{}}
			for i, k := range n.keys {
				if !identifier.MatchString(k.text) {
					l.err(k, join(path, k.text), "group-name", fmt.Sprintf("%q is no name of a group", k.text), "want letters, digits, - _ and ., beginning with a letter or digit")
					continue
				}
				g.nodes[k.text], g.paths[k.text] = n.items[i], join(path, k.text)
			}
		}
	}
	l.fields(n, path, []field{{"addresses", note(&l.groups.addresses)}, {"ports", note(&l.groups.ports)}})
	l.addrGroups, l.portGroups = map[string][]netip.Prefix{}, map[string][]PortRange{}
	for _, v := range []struct {
		kind string
		read func(n *node, path string)
	}{
		{"addresses", func(n *node, path string) { l.prefixes(n, path) }},
		{"ports", func(n *node, path string) { l.ports(n, path) }},
	} {
		if g := n.get(v.kind); g != nil && g.kind == mapping {
			for _, k := range g.keys {
				if !identifier.MatchString(k.text) {
					continue
				}
				ref := &node{kind: scalar, text: "$" + k.text, line: k.line, col: k.col}
				v.read(ref, join(join(path, v.kind), k.text))
			}
		}
	}
}

// group resolves a reference to a group of g. It calls read for what the group
// stands for, once: later references find it done.
func (l *loader) group(g *group, kind string, n *node, path string, read func(n *node, path string)) bool {
	name := n.text[1:]
	at, ok := g.nodes[name]
	switch {
	case !ok:
		hint := "name it under groups." + kind
		if best := meant.Word(name, slices.Sorted(maps.Keys(g.nodes))); best != "" {
			hint = "did you mean $" + best + "?"
		}
		l.err(n, path, "unknown-group", fmt.Sprintf("no group %q", name), hint)
		return false
	case g.state[name] == 1:
		l.err(n, path, "group-cycle", fmt.Sprintf("the group %q refers to itself", name), "remove one of the references")
		return false
	case g.state[name] == 0:
		g.state[name] = 1
		read(at, g.paths[name])
		g.state[name] = 2
	}
	return true
}

func isGroup(n *node) bool {
	return n.kind == scalar && strings.HasPrefix(n.text, "$") && len(n.text) > 1
}

// prefixes reads a network, a group of them, or a list of both; the word any is
// the empty list.
func (l *loader) prefixes(n *node, path string) []netip.Prefix {
	if n.kind == scalar && n.text == "any" {
		return nil
	}
	var ps []netip.Prefix
	l.each(n, path, func(n *node, path string) {
		if isGroup(n) {
			name := n.text[1:]
			if l.group(&l.groups.addresses, "addresses", n, path, func(n *node, path string) { l.addrGroups[name] = l.prefixes(n, path) }) {
				ps = append(ps, bounded(l, n, path, l.addrGroups[name])...)
			}
			return
		}
		if p, ok := l.prefix(n, path, false); ok {
			ps = append(ps, p)
		}
	})
	return Unique(ps)
}

// ports reads a port, a range lo-hi, a group of them, or a list of all these.
func (l *loader) ports(n *node, path string) []PortRange {
	var ps []PortRange
	l.each(n, path, func(n *node, path string) {
		if isGroup(n) {
			name := n.text[1:]
			if l.group(&l.groups.ports, "ports", n, path, func(n *node, path string) { l.portGroups[name] = l.ports(n, path) }) {
				ps = append(ps, bounded(l, n, path, l.portGroups[name])...)
			}
			return
		}
		if r, ok := l.portRange(n, path); ok {
			ps = append(ps, r)
		}
	})
	return Unique(ps)
}

// bounded returns what a reference stands for, unless all references together
// stand for more than a document may have.
func bounded[T any](l *loader, n *node, path string, vs []T) []T {
	before := l.referred
	if l.referred += len(vs); l.referred <= maxNodes {
		return vs
	}
	if before <= maxNodes {
		l.err(n, path, "too-large", "references to groups stand for too many values", fmt.Sprintf("at most %d in the whole policy", maxNodes))
	}
	return nil
}

// Unique returns a list without repetitions, which would only make tables longer.
func Unique[T comparable](s []T) []T {
	seen := map[T]bool{}
	var u []T
	for _, v := range s {
		if !seen[v] {
			seen[v] = true
			u = append(u, v)
		}
	}
	return u
}
