package policy

import (
	"crypto/sha256"
	"fmt"
	"sort"
	"strings"

	"github.com/thurward/thurward/internal/segment"
)

// loader collects the problems of one file.
type loader struct {
	file  string
	diags Diagnostics
	p     *Policy
}

// Load reads and validates a policy. The policy is nil when there are errors;
// the diagnostics hold every error and warning of the file in one run.
func Load(file string, src []byte) (*Policy, Diagnostics) {
	l := &loader{file: file, p: &Policy{File: file, Digest: sha256.Sum256(src)}}
	if root, ok := l.parseYAML(src); ok {
		l.document(root)
	}
	if !l.diags.HasErrors() {
		l.warnings()
	}
	l.diags.sort()
	if l.diags.HasErrors() {
		return nil, l.diags
	}
	return l.p, l.diags
}

func (l *loader) add(line, col int, path, code, msg, hint string) {
	const most = 1000 // a file that is wrong everywhere is not told more often
	if len(l.diags) < most {
		l.diags = append(l.diags, Diagnostic{File: l.file, Line: line, Column: col, Path: path, Severity: Error, Code: code, Message: msg, Hint: hint})
	}
}

func (l *loader) err(n *node, path, code, msg, hint string) {
	l.add(n.line, n.col, path, code, msg, hint)
}

func (l *loader) warn(line, col int, path, code, msg, hint string) {
	l.diags = append(l.diags, Diagnostic{File: l.file, Line: line, Column: col, Path: path, Severity: Warning, Code: code, Message: msg, Hint: hint})
}

// fields checks that n is a mapping with known keys only, and calls the
// function of each key that is there, in the order given.
type field struct {
	name string
	read func(n *node, path string)
}

func (l *loader) fields(n *node, path string, fs []field) bool {
	if n.kind != mapping {
		l.err(n, path, "type", "is "+n.kind.String(), "want a mapping of "+names(fs))
		return false
	}
	for _, k := range n.keys {
		known := false
		for _, f := range fs {
			known = known || f.name == k.text
		}
		if !known {
			l.err(k, join(path, k.text), "unknown-key", "unknown key", hintKey(k.text, fs))
		}
	}
	for _, f := range fs {
		if v := n.get(f.name); v != nil {
			f.read(v, join(path, f.name))
		}
	}
	return true
}

func names(fs []field) string {
	var s []string
	for _, f := range fs {
		s = append(s, f.name)
	}
	return strings.Join(s, ", ")
}

func hintKey(k string, fs []field) string {
	best, d := "", 3
	for _, f := range fs {
		if e := distance(k, f.name); e < d {
			best, d = f.name, e
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	return "known keys are " + names(fs)
}

// distance is the edit distance of two short words.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			c := prev
			if a[i-1] != b[j-1] {
				c++
			}
			prev = row[j]
			row[j] = min(c, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// document reads the top level.
func (l *loader) document(n *node) {
	ok := l.fields(n, "", []field{
		{"interfaces", l.interfaces},
		{"defaults", l.defaults},
		{"nat", func(n *node, path string) {
			l.fields(n, path, []field{{"snat", l.snat}, {"dnat", l.dnat}})
		}},
		{"rules", l.rules},
	})
	if !ok {
		return
	}
	if n.get("interfaces") == nil {
		l.err(n, "interfaces", "missing", "missing", "name one lan and one wan interface, as lan0: { address: 10.0.0.1/24 }")
	}
	if d := n.get("defaults"); d == nil || d.kind == mapping && d.get("default_action") == nil {
		at := n
		if d != nil {
			at = d
		}
		l.err(at, "defaults.default_action", "missing", "missing", "say what happens to traffic that no rule matches: default_action: deny")
	}
	if n.get("rules") == nil {
		l.err(n, "rules", "missing", "missing", "an empty list (rules: []) denies or accepts everything by default_action")
	}
}

// defaults reads defaults.
func (l *loader) defaults(n *node, path string) {
	d := &l.p.Defaults
	d.MaxFlows, d.Timeouts = DefaultMaxFlows, map[string]int{}
	later := func(what string) func(*node, string) {
		return func(n *node, path string) {
			l.warn(n.line, n.col, path, "no-effect", "has no effect in this version", what)
		}
	}
	l.fields(n, path, []field{
		{"default_action", func(n *node, path string) {
			if v, ok := l.word(n, path, "accept", "deny"); ok {
				d.Accept = v == "accept"
			}
		}},
		{"max_flows", func(n *node, path string) {
			if v, ok := l.number(n, path, segment.MinFlows, segment.MaxFlows); ok {
				d.MaxFlows = v
			}
		}},
		{"conntrack_timeouts", func(n *node, path string) {
			var fs []field
			for _, t := range Timeouts {
				fs = append(fs, field{t.Name, func(n *node, path string) {
					if v, ok := l.seconds(n, path); ok {
						d.Timeouts[t.Name] = v
					}
				}})
			}
			l.fields(n, path, fs)
		}},
		{"upstream_dns", func(n *node, path string) {
			if _, ok := l.address(n, path); ok {
				later("names are resolved by a later version's DNS proxy")(n, path)
			}
		}},
		{"flow_trace_sample_accept", later("traces come with a later version")},
		{"flow_trace_sample_drop", later("traces come with a later version")},
		{"dns_qps_per_client", later("the DNS proxy comes with a later version")},
	})
}

// warnings adds what is allowed and probably not meant.
func (l *loader) warnings() {
	p := l.p
	if p.Defaults.Accept {
		l.warn(1, 1, "defaults.default_action", "default-accept", "everything that no rule denies is let through, from the WAN too", "deny, with rules for what is allowed, is the safer default")
	}
	back := p.Defaults.Accept
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Accept && r.Direction != "egress" && (len(r.States) == 0 || has(r.States, "established")) {
			back = true
		}
	}
	egress := false
	for _, r := range p.Rules {
		egress = egress || r.Accept && r.Direction != "ingress"
	}
	if !back && egress {
		l.warn(p.Rules[0].Line, p.Rules[0].Column, "rules", "no-return", "no rule lets return traffic in", "add { id: allow-established, action: accept, direction: ingress, state: established }")
	}
	for j := range p.Rules {
		for i := range p.Rules[:j] {
			if covers(&p.Rules[i], &p.Rules[j]) {
				l.warn(p.Rules[j].Line, p.Rules[j].Column, fmt.Sprintf("rules[%d]", j), "covered",
					fmt.Sprintf("rule %q can never match: rule %q before it matches everything that it does", p.Rules[j].ID, p.Rules[i].ID), "move it up or remove it")
				break
			}
		}
		if len(p.Rules) > 2000 {
			break // pairs of that many rules take too long to look at
		}
	}
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// covers reports whether rule a matches everything that b does. It looks at
// fields one by one and may miss a cover that only several values make.
func covers(a, b *Rule) bool {
	if a.Direction != "" && a.Direction != b.Direction {
		return false
	}
	subset := func(as, bs []string) bool {
		if len(as) == 0 {
			return true
		}
		for _, v := range bs {
			if !has(as, v) {
				return false
			}
		}
		return len(bs) > 0
	}
	if !subset(a.Protocols, b.Protocols) || !subset(a.States, b.States) {
		return false
	}
	if len(a.Ports) > 0 {
		if len(b.Ports) == 0 {
			return false
		}
		for _, q := range b.Ports {
			in := false
			for _, r := range a.Ports {
				in = in || r.Lo <= q.Lo && q.Hi <= r.Hi
			}
			if !in {
				return false
			}
		}
	}
	return coversPrefixes(a.Source, b.Source) && coversPrefixes(a.Destination, b.Destination)
}

// knownInterfaces returns the names of the interfaces, for messages.
func (p *Policy) knownInterfaces() string {
	var s []string
	for _, f := range p.Interfaces {
		s = append(s, f.Name)
	}
	sort.Strings(s)
	return strings.Join(s, ", ")
}
