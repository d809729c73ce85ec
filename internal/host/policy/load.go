package policy

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/thurward/thurward/internal/host/meant"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// loader collects the problems of one file.
type loader struct {
	Report
	p      *Policy
	groups groups

	addrGroups map[string][]netip.Prefix // resolved
	portGroups map[string][]PortRange
	referred   int // values that references to groups stood for

	first bool // the document is of the first format (firstformat.go)

	entries entryIndex // of nat.dnat

	keys func(path string, known []field) // for tests: called with the keys that are known in each place
}

// Load reads and validates a policy. The policy is nil when there are errors; the
// diagnostics hold every error of the file in one run. See package check for
// warnings.
func Load(file string, src []byte) (*Policy, Diagnostics) {
	l := &loader{Report: Report{File: file}, p: &Policy{File: file, Digest: sha256.Sum256(src)}}
	if root, ok := l.parseYAML(src); ok {
		l.document(root)
		l.fits(root)
	}
	ds := l.Diagnostics()
	if ds.HasErrors() {
		return nil, ds
	}
	l.p.AddressGroups, l.p.PortGroups = l.addrGroups, l.portGroups
	return l.p, ds
}

func (l *loader) add(line, col int, path, code, msg, hint string) {
	l.Add(Diagnostic{File: l.File, Line: line, Column: col, Path: path, Severity: Error, Code: code, Message: msg, Hint: hint})
}

func (l *loader) err(n *node, path, code, msg, hint string) {
	l.add(n.line, n.col, path, code, msg, hint)
}

// fields checks that n is a mapping with known keys only, and calls the
// function of each key that is there, in the order given.
type field struct {
	name string
	read func(n *node, path string)
}

func (l *loader) fields(n *node, path string, fs []field) bool {
	if l.keys != nil {
		l.keys(path, fs)
	}
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
	var ws []string
	for _, f := range fs {
		ws = append(ws, f.name)
	}
	if best := meant.Word(k, ws); best != "" {
		return "did you mean " + best + "?"
	}
	return "known keys are " + names(fs)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Limits on what the lists of a policy multiply to.
const (
	MaxMatches = 1 << 20 // of all rules: 80 MB of tables
	maxEntries = 1 << 16 // of each kind of NAT
)

// fits refuses a policy whose lists, multiplied, take more than its tables hold.
func (l *loader) fits(root *node) {
	total := 0
	for i := range l.p.Rules {
		r := &l.p.Rules[i]
		n := r.Combinations()
		if total += n; total > MaxMatches || n > MaxMatches || n < 0 {
			l.add(r.Line, r.Column, r.Path, "too-large", fmt.Sprintf("the lists of the rules up to this one make more than %d combinations", MaxMatches), "use wider networks and port ranges, or fewer lists in one rule")
			break
		}
	}
	snat, dnat := 0, 0
	external := map[netip.Addr]bool{}
	for _, n := range l.p.SNAT {
		snat += max(len(n.External), 1)
		for _, a := range n.External {
			external[a] = true
		}
	}
	if len(external) > maxExternal-1 { // and the interface's own
		l.err(root, "nat.snat", "too-large", fmt.Sprintf("%d external addresses", len(external)), fmt.Sprintf("at most %d are supported, each of which takes memory for its ports", maxExternal-1))
	}
	for _, d := range l.p.DNAT {
		dnat += len(d.Protocols) * max(len(d.From), 1)
	}
	if snat > maxEntries || dnat > maxEntries {
		l.err(root, "nat", "too-large", fmt.Sprintf("the lists of the entries make more than %d combinations", maxEntries), "use wider networks, or fewer lists in one entry")
	}
}

// document reads the top level. The order is that of use: rules refer to
// groups and are checked against interfaces and NAT, tests against rules.
func (l *loader) document(n *node) {
	l.p.Defaults = Defaults{MaxFlows: ruleset.DefaultMaxFlows, DNSRate: ruleset.DefaultDNSRate, Timeouts: map[string]int{}}
	l.p.DNS.MaxNames = ruleset.DefaultDNSNames
	l.p.Log = defaultLog()
	if l.first = n.kind == mapping && n.get("interfaces") == nil; l.first {
		l.assume(n)
	}
	ok := l.fields(n, "", []field{
		{"interfaces", l.interfaces},
		{"groups", l.readGroups},
		{"defaults", l.defaults},
		{"dns", l.dns},
		{"nat", func(n *node, path string) {
			l.fields(n, path, []field{{"snat", l.snat}, {"dnat", l.dnat}})
		}},
		{"log", l.log},
		{"rules", l.rules},
		{"tests", l.tests},
		{"never", l.statements(false)},
		{"always", l.statements(true)},
	})
	if !ok {
		return
	}
	l.assumeUpstream(n)
	if d := n.get("defaults"); d == nil || d.kind == mapping && d.get("default_action") == nil {
		at := n
		if d != nil {
			at = d
		}
		const hint = "say what happens to traffic that no rule matches: default_action: deny"
		if l.first {
			l.p.Defaults.Line, l.p.Defaults.Column, l.p.Defaults.Action = at.line, at.col, ruleset.Deny
			l.Warn(at.line, at.col, "defaults.default_action", "assumed", "missing, as in policies as first published; taken to be deny", hint)
		} else {
			l.err(at, "defaults.default_action", "missing", "missing", hint)
		}
	}
	if n.get("rules") == nil {
		l.err(n, "rules", "missing", "missing", "an empty list (rules: []) denies or accepts everything by default_action")
	}
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
