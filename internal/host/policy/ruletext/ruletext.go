// Package ruletext writes the rules of a compiled policy in words, from what the image
// has and without rules.yaml.
package ruletext

import (
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A Rule is a rule in words.
type Rule struct {
	ID, Name string
	Action   string
	Shadow   bool
	Matches  []string // the sets of packets that it matches, as diff writes them, the first of them
	More     int      // how many are left out
}

// mostBoxes is how many matches of a rule are joined. Of more the first are written as they
// are: a policy may have a million.
const mostBoxes = 512

// Of returns the rules of a policy in their order, each with at most so many sets.
func Of(rs *ruleset.Policy, most int) []Rule {
	out := make([]Rule, len(rs.Rules))
	boxes := make([][]box, len(rs.Rules))
	for i := range rs.Rules {
		r := &rs.Rules[i]
		out[i] = Rule{ID: rs.Text(r.ID), Name: rs.Text(r.Name), Action: r.Action.String(), Shadow: r.Mode == ruleset.Shadow}
	}
	left := make([]int, len(rs.Rules))
	for i := range rs.Matches {
		m := &rs.Matches[i]
		if len(boxes[m.Rule]) == mostBoxes {
			left[m.Rule]++
			continue
		}
		if b, _, ok := packetset.FromMatch(m); ok {
			name := ""
			if m.Name != 0 {
				name = compile.Pattern(rs, &rs.Names[m.Name-1])
			}
			boxes[m.Rule] = append(boxes[m.Rule], box{b, name})
		}
	}
	space := packetset.NewSpace(nil)
	for i := range out {
		bs, more := boxes[i], 0
		if left[i] > 0 {
			bs, more = bs[:min(most, mostBoxes)], left[i]+mostBoxes-min(most, mostBoxes)
		}
		texts := describe(space, bs)
		out[i].Matches = texts[:min(len(texts), most)]
		out[i].More = len(texts) - len(out[i].Matches) + more
	}
	return out
}

type box struct {
	packetset.Box
	name string
}

// describe writes boxes, those with the same names together.
func describe(space *packetset.Space, all []box) []string {
	byNames := map[packetset.Box][]string{}
	var order []packetset.Box
	for _, b := range all {
		if _, ok := byNames[b.Box]; !ok {
			order = append(order, b.Box)
			byNames[b.Box] = nil
		}
		if b.name != "" && !slices.Contains(byNames[b.Box], b.name) {
			byNames[b.Box] = append(byNames[b.Box], b.name)
		}
	}
	var keys []string
	groups := map[string][]packetset.Region{}
	for _, b := range order {
		k := strings.Join(byNames[b], ", ")
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], packetset.Region{Box: b})
	}
	out := []string{}
	for _, k := range keys {
		for _, r := range space.Merge(groups[k]) {
			for _, d := range space.Describe(&r) {
				text := d.String()
				if k != "" {
					text += " to " + k
				}
				out = append(out, text)
			}
		}
	}
	return out
}
