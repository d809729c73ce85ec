package matrix

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/thurward/thurward/internal/host/policy"
)

// A grid is the cells between elementary sources and services, and their classes.
type grid struct {
	cells   map[int]map[service][]reached
	ids     map[string]int // of contents of cells
	content map[int]map[service]int
	columns []int             // an elementary source of each class
	reach   map[service][]int // classes of sources that reach something
}

// fill numbers the contents of cells: what is the same has the same number. What a name
// opens is only what is not open without.
func (g *grid) fill() {
	g.content = map[int]map[service]int{}
	for s, row := range g.cells {
		g.content[s] = map[service]int{}
		for k, all := range row {
			if k.name >= 0 {
				var open []span
				for _, r := range row[service{k.class, k.ports, -1}] {
					open = append(open, r.dst)
				}
				all = less(all, normal(open))
			}
			all = tidy(all)
			if row[k] = all; len(all) > 0 {
				g.content[s][k] = contentID(g.ids, all)
			}
		}
	}
}

// less returns what is reached but for some destinations.
func less(all []reached, open set) (left []reached) {
	for _, r := range all {
		for _, d := range (set{r.dst}).but(open) {
			left = append(left, reached{d, r.rule, r.dnat})
		}
	}
	return left
}

// tidy sorts what is reached, and joins neighbours.
func tidy(all []reached) []reached {
	slices.SortFunc(all, func(a, b reached) int {
		return cmp.Or(cmp.Compare(a.rule, b.rule), cmp.Compare(a.dnat, b.dnat), cmp.Compare(a.dst.lo, b.dst.lo), cmp.Compare(a.dst.hi, b.dst.hi))
	})
	var out []reached
	for _, r := range all {
		if n := len(out); n > 0 && out[n-1].rule == r.rule && out[n-1].dnat == r.dnat && uint64(r.dst.lo) <= uint64(out[n-1].dst.hi)+1 {
			out[n-1].dst.hi = max(out[n-1].dst.hi, r.dst.hi)
			continue
		}
		out = append(out, r)
	}
	return out
}

// contentID returns the number of a content.
func contentID(ids map[string]int, all []reached) int {
	b := make([]byte, 0, 16*len(all))
	for _, r := range all {
		b = binary.LittleEndian.AppendUint32(b, r.dst.lo)
		b = binary.LittleEndian.AppendUint32(b, r.dst.hi)
		b = binary.LittleEndian.AppendUint32(b, uint32(r.rule))
		b = binary.LittleEndian.AppendUint32(b, uint32(r.dnat+1))
	}
	id, ok := ids[string(b)]
	if !ok {
		id = len(ids) + 1
		ids[string(b)] = id
	}
	return id
}

func (a service) compare(b service) int {
	return cmp.Or(cmp.Compare(a.class, b.class), cmp.Compare(a.ports, b.ports), cmp.Compare(a.name, b.name))
}

// group returns elementary sources that reach the same, each class in order; the classes in
// the order of their first. What reaches nothing is last.
func (g *grid) group(n int) (all [][]int) {
	at := map[string]int{}
	nothing := -1
	for s := range n {
		row := g.content[s]
		keys := make([]service, 0, len(row))
		for k := range row {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, service.compare)
		var b []byte
		for _, k := range keys {
			b = fmt.Appendf(b, "%d/%d/%d=%d ", k.class, k.ports, k.name, row[k])
		}
		i, ok := at[string(b)]
		if !ok {
			i = len(all)
			at[string(b)], all = i, append(all, nil)
			if len(b) == 0 {
				nothing = i
			}
		}
		all[i] = append(all[i], s)
	}
	if nothing >= 0 {
		last := all[nothing]
		all = append(slices.Delete(all, nothing, nothing+1), last)
	}
	return all
}

// services returns the elementary services that every source reaches the same of, in
// classes of one set of ports for all their names.
func (g *grid) services() (all [][]service) {
	// First the ports of one name, then the names of the same ports.
	column := map[service][]byte{}
	g.reach = map[service][]int{}
	var keys []service
	for i, c := range g.columns {
		for k, id := range g.content[c] {
			if column[k] == nil {
				keys = append(keys, k)
			}
			column[k] = fmt.Appendf(column[k], "%d:%d ", i, id)
			g.reach[k] = append(g.reach[k], i)
		}
	}
	slices.SortFunc(keys, service.compare)
	type key struct {
		name    int
		content string
	}
	at := map[key]int{}
	var groups [][]service
	for _, k := range keys {
		q := key{k.name, string(column[k])}
		i, ok := at[q]
		if !ok {
			i = len(groups)
			at[q], groups = i, append(groups, nil)
		}
		groups[i] = append(groups[i], k)
	}
	same := map[string]int{}
	for _, members := range groups {
		if members[0].name < 0 {
			all = append(all, members)
			continue
		}
		b := append([]byte{}, column[members[0]]...)
		for _, m := range members {
			b = fmt.Appendf(b, "%d/%d ", m.class, m.ports)
		}
		i, ok := same[string(b)]
		if !ok {
			i = len(all)
			same[string(b)], all = i, append(all, nil)
		}
		all[i] = append(all[i], members...)
	}
	return all
}

// cell returns what an elementary source reaches of a service.
func (g *grid) cell(p *policy.Policy, source int, k service) (c Cell) {
	var all, forwarded []span
	for _, r := range g.cells[source][k] {
		all = append(all, r.dst)
		if id := p.RuleID(r.rule); !slices.Contains(c.Rules, id) {
			c.Rules = append(c.Rules, id)
		}
		c.SNI = c.SNI || r.rule != p.DefaultRule() && p.Rules[r.rule].SNI
		if r.dnat >= 0 {
			forwarded = append(forwarded, r.dst)
			d := &p.DNAT[r.dnat]
			if by := d.WAN.String() + ":" + d.Ports.String(); !slices.Contains(c.By, by) {
				c.By = append(c.By, by)
			}
		}
	}
	c.dst, c.forwarded = normal(all), normal(forwarded)
	c.Destinations = texts(c.dst)
	return c
}
