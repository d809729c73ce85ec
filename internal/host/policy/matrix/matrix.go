// Package matrix says who may reach what: of all hosts and all services, the classes that
// a policy makes no difference within, and for each pair the destinations that are reached.
// Nothing is sampled: the rules are divided by package diff, what the data plane looks at
// beside them (networks, translation, the firewall's own services) is laid over the parts,
// and hosts and services for which the result is the same are one class.
//
//	spans.go     sets of numbers
//	ways.go      how flows get to the rules, and past what else there is
//	matrix.go    from rules to classes and cells
//	grid.go      what is the same
//	words.go     names for sets
//	table.go     what is shown of it
//	text.go      for a terminal, and Markdown
//	svg.go       a picture
//
// A cell is about new flows between hosts' own addresses, as rules see them. A name opens
// something, or nothing, and never takes anything away, since rules with names accept
// only: who knows a destination by several names reaches what each of them opens.
package matrix

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Matrix says who may reach what. Its fields are those of explain --matrix --format json.
type Matrix struct {
	File  string `json:"file"`
	Sides []Side `json:"sides"`
}

// A Side has the flows that begin on one side.
type Side struct {
	From     string    `json:"from"` // lan or wan
	Sources  []Source  `json:"sources"`
	Services []Service `json:"services"`
}

// A Source is a class of hosts that may reach the same.
type Source struct {
	Label     string   `json:"label"`
	Addresses []string `json:"addresses"` // networks and ranges
	set       set
}

// A Service is a class of protocols, ports and names.
type Service struct {
	Label string   `json:"label"`
	Ports []Ports  `json:"ports"`
	Names []string `json:"names,omitempty"` // patterns; the destination must be known by a name of one of them
	Cells []Cell   `json:"cells"`           // of the sources that reach something, in their order
}

// Cell returns what a source of its side reaches of a service, nil for nothing.
func (s *Service) Cell(source int) *Cell {
	i, ok := slices.BinarySearchFunc(s.Cells, source, func(c Cell, n int) int { return cmp.Compare(c.Source, n) })
	if !ok {
		return nil
	}
	return &s.Cells[i]
}

// Ports are the ports of one protocol.
type Ports struct {
	Protocol string   `json:"protocol"`        // tcp, udp, or icmp (echoes)
	Ports    []string `json:"ports,omitempty"` // and ranges; none: icmp has no ports
	class    int
	set      set
}

// A Cell is what a class of hosts reaches of a service.
type Cell struct {
	Source       int      `json:"source"` // index into the side's Sources
	Label        string   `json:"label"`
	Destinations []string `json:"destinations"`
	Rules        []string `json:"rules"`
	By           []string `json:"by,omitempty"`  // external addresses and ports of dnat entries that lead there; else directly
	SNI          bool     `json:"sni,omitempty"` // some rule wants the name in the TLS handshake too
	Everywhere   bool     `json:"everywhere,omitempty"`
	dst          set
	forwarded    set // what dnat entries lead to
}

// Bounds on the work. What would take longer is an error.
const (
	maxSets  = 1 << 18 // of packets, that the rules divide
	maxCells = 1 << 21 // pairs of an elementary source and an elementary service
)

// A piece is flows that one rule accepts on one way.
type piece struct {
	src, dst, ports span
	class           int
	name            int // pattern that the destination must have, -1: none
	rule, dnat      int
}

// A service is an elementary one: ports that nothing divides.
type service struct{ class, ports, name int }

// A reached is destinations and how they are reached. Cells that have the same are equal.
type reached struct {
	dst        span
	rule, dnat int
}

// Compute returns the matrix of a policy. rs is the compiled policy.
func Compute(p *policy.Policy, rs *ruleset.Policy) (*Matrix, error) {
	space, accepted, ok := diff.AcceptedFlows(p, rs, maxSets)
	if !ok {
		return nil, fmt.Errorf("the rules of %s divide packets into more than %d sets: too many for a matrix (explain about one packet, and never and always, work)", p.File, maxSets)
	}
	m := &Matrix{File: p.File}
	ways := waysOf(p)
	names := &namer{p: p, rs: rs, Space: space, at: map[string]set{}, edges: prove.Edges(p)[packetset.Dst]}
	w := newWords(p, rs, ways)
	for _, fromLAN := range []bool{true, false} {
		var pieces []piece
		for i := range ways {
			if ways[i].fromLAN == fromLAN {
				pieces = append(pieces, names.pieces(&ways[i], accepted)...)
			}
		}
		side, err := divide(p, w, space.Patterns(), pieces, fromLAN)
		if err != nil {
			return nil, err
		}
		m.Sides = append(m.Sides, *side)
	}
	return m, nil
}

// A namer knows by which names what is accepted.
type namer struct {
	*packetset.Space
	p     *policy.Policy
	rs    *ruleset.Policy
	at    map[string]set // destinations for which a pattern counts
	edges []uint32
}

// pieces returns what of the accepted flows comes on a way.
func (n *namer) pieces(w *way, accepted []diff.Accepted) (all []piece) {
	add := func(a *diff.Accepted, class, name int, dst set) {
		for _, src := range w.src.and(set{{a.Lo[packetset.Src], a.Hi[packetset.Src]}}) {
			for _, d := range dst.and(set{{a.Lo[packetset.Dst], a.Hi[packetset.Dst]}}) {
				for _, q := range w.ports.and(set{{a.Lo[packetset.Port], a.Hi[packetset.Port]}}) {
					all = append(all, piece{src, d, q, class, name, a.Rule, w.dnat})
				}
			}
		}
	}
	for i := range accepted {
		a := &accepted[i]
		for _, class := range w.classes {
			kind := class
			if !w.fromLAN {
				kind += packetset.NumClasses
			}
			if a.Kinds>>kind&1 == 0 {
				continue
			}
			yes, no := n.NamesOf(&a.Region, false)
			if len(yes) == 0 {
				add(a, class, -1, w.dst)
				continue // without a name, so with any
			}
			if w.local || !w.fromLAN {
				continue // nobody asks for names here
			}
			for j, pattern := range n.Patterns() {
				if holds(pattern, yes, no) {
					add(a, class, j, n.counts(w, pattern))
				}
			}
		}
	}
	return all
}

// holds reports whether a condition on names holds for a destination that has names of
// one pattern only, and so of the wildcard above it.
func holds(pattern string, yes, no []string) bool {
	has := func(other string) bool {
		_, parent, _ := strings.Cut(pattern, ".")
		return other == pattern || other == "*."+parent
	}
	return !slices.ContainsFunc(yes, func(y string) bool { return !has(y) }) && !slices.ContainsFunc(no, has)
}

// counts returns the destinations of a way that rules know by a name of a pattern, if the
// source has resolved one: the proxy must not have refused all of them.
func (n *namer) counts(w *way, pattern string) set {
	key := fmt.Sprint(pattern, " ", w.sentTo, w.dst)
	if s, ok := n.at[key]; ok {
		return s
	}
	candidates := []string{pattern}
	if parent, wild := strings.CutPrefix(pattern, "*."); wild {
		candidates = nil
		for i := 0; len(candidates) == 0; i++ {
			if c := fmt.Sprintf("host%d.%s", i, parent); !slices.Contains(n.Patterns(), c) && !policy.AtOrBelow(n.p.DNS.Block, c) || i > 1000 {
				candidates = append(candidates, c)
			}
		}
		for _, c := range n.p.DNS.Private {
			if policy.MatchesName([]string{pattern}, c) && !slices.Contains(n.Patterns(), c) {
				candidates = append(candidates, c)
			}
		}
	}
	sees := func(v uint32) bool {
		to := w.sentTo
		if w.dnat < 0 {
			to = address(v)
		}
		return slices.ContainsFunc(candidates, func(c string) bool {
			f := policy.Flow{FromLAN: true, Protocol: policy.TCP, FQDN: c}
			return explain.NameCounts(n.p, n.rs, f, to)
		})
	}
	var s set
	if w.dnat >= 0 {
		if sees(0) {
			s = w.dst
		}
	} else {
		s = w.dst.and(where(n.edges, sees))
	}
	n.at[key] = s
	return s
}

// divide makes classes of sources and services.
func divide(p *policy.Policy, w *words, patterns []string, pieces []piece, fromLAN bool) (*Side, error) {
	everyone := w.sources[fromLAN]
	// Elementary sources and ports lie between two places where a piece begins or ends.
	var srcCuts []uint32
	portCuts := [packetset.NumClasses][]uint32{}
	for _, s := range everyone {
		srcCuts = cut(srcCuts, s)
	}
	for i := range pieces {
		srcCuts = cut(srcCuts, pieces[i].src)
		portCuts[pieces[i].class] = cut(portCuts[pieces[i].class], pieces[i].ports)
	}
	srcCuts = sorted(srcCuts)
	for c := range portCuts {
		portCuts[c] = sorted(portCuts[c])
	}
	cells := map[int]map[service][]reached{} // by number of the elementary source
	count := 0
	for i := range pieces {
		q := &pieces[i]
		for s := at(srcCuts, q.src.lo); s < len(srcCuts) && srcCuts[s] <= q.src.hi; s++ {
			if cells[s] == nil {
				cells[s] = map[service][]reached{}
			}
			ports := portCuts[q.class]
			for t := at(ports, q.ports.lo); t < len(ports) && ports[t] <= q.ports.hi; t++ {
				k := service{q.class, t, q.name}
				cells[s][k] = append(cells[s][k], reached{q.dst, q.rule, q.dnat})
				if count++; count > maxCells {
					return nil, fmt.Errorf("%s makes more than %d differences between hosts and services: too many for a matrix (explain about one packet, and never and always, work)", p.File, maxCells)
				}
			}
		}
	}
	g := &grid{cells: cells, ids: map[string]int{}}
	g.fill()
	end := func(cuts []uint32, i int) uint32 {
		if i+1 < len(cuts) {
			return cuts[i+1] - 1
		}
		return ^uint32(0)
	}
	bySource := g.group(len(srcCuts))
	side := &Side{From: "wan", Sources: []Source{}, Services: []Service{}}
	if fromLAN {
		side.From = "lan"
	}
	for _, members := range bySource {
		var all []span
		for _, s := range members {
			all = append(all, span{srcCuts[s], end(srcCuts, s)})
		}
		if hosts := normal(all).and(everyone); len(hosts) > 0 {
			side.Sources = append(side.Sources, Source{Addresses: texts(hosts), set: hosts})
			g.columns = append(g.columns, members[0])
		}
	}
	for _, members := range g.services() {
		s := Service{}
		for class := range packetset.NumClasses {
			var ports []span
			for _, m := range members {
				if m.class == class && m.name == members[0].name {
					ports = append(ports, span{portCuts[class][m.ports], end(portCuts[class], m.ports)})
				}
			}
			if len(ports) == 0 {
				continue
			}
			q := Ports{Protocol: packetset.ClassNames[class], class: class, set: normal(ports).and(everyPort)}
			q.Ports = numbers(q.set)
			s.Ports = append(s.Ports, q)
		}
		for _, m := range members {
			if m.name >= 0 && !slices.Contains(s.Names, patterns[m.name]) {
				s.Names = append(s.Names, patterns[m.name])
			}
		}
		for _, i := range g.reach[members[0]] {
			c := g.cell(p, g.columns[i], members[0])
			c.Source = i
			s.Cells = append(s.Cells, c)
		}
		side.Services = append(side.Services, s)
	}
	w.label(side, fromLAN)
	return side, nil
}

// cut adds the places where a span begins and where what follows it does.
func cut(cuts []uint32, s span) []uint32 {
	if cuts = append(cuts, s.lo); s.hi != ^uint32(0) {
		cuts = append(cuts, s.hi+1)
	}
	return cuts
}

func sorted(v []uint32) []uint32 {
	slices.Sort(v)
	return slices.Compact(v)
}

// at returns the number of the elementary range that begins with a value.
func at(cuts []uint32, v uint32) int {
	i, _ := slices.BinarySearch(cuts, v)
	return i
}
