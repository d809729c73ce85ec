package ruleset_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/compile"
	. "github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestCheckBoundaries: each condition of a policy at its last good value and at
// its first bad one, each alone.
func TestCheckBoundaries(t *testing.T) {
	nine := Addr{10: 0xff, 11: 0xff, 12: 9, 15: 9}
	tls, plain := Upstream{Address: nine, Port: 853, TLS: 1, ServerName: Text{0, 1}}, Upstream{Address: nine, Port: 53}
	for _, c := range []struct {
		what      string
		good, bad func(p *Policy)
		want      string
	}{
		{"accepting", func(p *Policy) { p.Settings.DefaultAction = Accept }, func(p *Policy) { p.Settings.DefaultAction = 0 }, "no default action"},
		{"rejecting", func(p *Policy) { p.Settings.DefaultAction = Reject }, func(p *Policy) { p.Settings.DefaultAction = 4 }, "no default action"},
		{"fragments", func(p *Policy) { p.Settings.Fragments = FragmentsReassemble }, func(p *Policy) { p.Settings.Fragments = 2 }, "settings out of range"},
		{"flags", func(p *Policy) { p.Settings.Flags = 127 }, func(p *Policy) { p.Settings.Flags = 128 }, "settings out of range"},
		{"names", func(p *Policy) { p.Settings.DNSNames = 1 << 20 }, func(p *Policy) { p.Settings.DNSNames = 1<<20 + 1 }, "settings out of range"},
		{"few flows", func(p *Policy) { p.Settings.MaxFlows = 1 << 10 }, func(p *Policy) { p.Settings.MaxFlows = 1<<10 - 1 }, "capacity of the flow table out of range"},
		{"many flows", func(p *Policy) { p.Settings.MaxFlows = 4 << 20 }, func(p *Policy) { p.Settings.MaxFlows = 4<<20 + 1 }, "capacity of the flow table out of range"},

		{"role", func(p *Policy) { p.Interfaces[0].Role = LAN }, func(p *Policy) { p.Interfaces[0].Role = 0 }, "interface 0 is invalid"},
		{"role of the second", func(p *Policy) { p.Interfaces[1].Role = WAN }, func(p *Policy) { p.Interfaces[1].Role = 3 }, "interface 1 is invalid"},
		{"prefix", func(p *Policy) { p.Interfaces[1].PrefixLen = 24 }, func(p *Policy) { p.Interfaces[1].PrefixLen = 129 }, "interface 1 is invalid"},
		{"MAC", func(p *Policy) { p.Interfaces[1].HasMAC = 1 }, func(p *Policy) { p.Interfaces[1].HasMAC = 2 }, "interface 1 is invalid"},
		{"interface's name", func(p *Policy) { p.Interfaces[1].Name = Text{296, 4} }, func(p *Policy) { p.Interfaces[1].Name = Text{297, 4} }, "interface 1 is invalid"},

		{"snat interface", func(p *Policy) { p.SNAT[0].Interface = 1 }, func(p *Policy) { p.SNAT[0].Interface = 2 }, "snat entry 0 is invalid"},
		{"snat ports", func(p *Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 1, 1 }, func(p *Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 0, 1 }, "snat entry 0 is invalid"},
		{"snat order of ports", func(p *Policy) { p.SNAT[1].PortLo, p.SNAT[1].PortHi = 7, 7 }, func(p *Policy) { p.SNAT[1].PortLo, p.SNAT[1].PortHi = 8, 7 }, "snat entry 1 is invalid"},

		{"dnat port", func(p *Policy) { p.DNAT[0].PortLo = 1 }, func(p *Policy) { p.DNAT[0].PortLo = 0 }, "dnat entry 0 is invalid"},
		{"dnat one port", func(p *Policy) { p.DNAT[1].PortLo, p.DNAT[1].PortHi = 9, 9 }, func(p *Policy) { p.DNAT[1].PortLo, p.DNAT[1].PortHi = 10, 9 }, "dnat entry 1 is invalid"},
		{"dnat target", func(p *Policy) { p.DNAT[1].ToPort = 1 }, func(p *Policy) { p.DNAT[1].ToPort = 0 }, "dnat entry 1 is invalid"},
		{"dnat last target", func(p *Policy) { p.DNAT[1].PortLo, p.DNAT[1].PortHi, p.DNAT[1].ToPort = 2, 4, 65533 }, func(p *Policy) { p.DNAT[1].PortLo, p.DNAT[1].PortHi, p.DNAT[1].ToPort = 2, 4, 65534 }, "dnat entry 1 is invalid"},
		{"dnat hairpin", func(p *Policy) { p.DNAT[1].Hairpin = 1 }, func(p *Policy) { p.DNAT[1].Hairpin = 2 }, "dnat entry 1 is invalid"},
		{"dnat TCP", func(p *Policy) { p.DNAT[1].Proto = 6 }, func(p *Policy) { p.DNAT[1].Proto = 5 }, "dnat entry 1 is invalid"},
		{"dnat UDP", func(p *Policy) { p.DNAT[1].Proto = 17 }, func(p *Policy) { p.DNAT[1].Proto = 18 }, "dnat entry 1 is invalid"},

		{"name", func(p *Policy) { p.Names[1].Text = Text{0, 253} }, func(p *Policy) { p.Names[1].Text = Text{0, 254} }, "name 1 is invalid"},
		{"short name", func(p *Policy) { p.Names[1].Text = Text{299, 1} }, func(p *Policy) { p.Names[1].Text = Text{299, 0} }, "name 1 is invalid"},
		{"name's place", func(p *Policy) { p.Names[1].Text = Text{299, 1} }, func(p *Policy) { p.Names[1].Text = Text{300, 1} }, "name 1 is invalid"},
		{"wildcard", func(p *Policy) { p.Names[1].Wildcard = 1 }, func(p *Policy) { p.Names[1].Wildcard = 2 }, "name 1 is invalid"},
		{"blocked name", func(p *Policy) { p.Blocked[0].Text.Len = 253 }, func(p *Policy) { p.Blocked[0].Text.Len = 254 }, "name 0 is invalid"},
		{"private name", func(p *Policy) { p.Private[0].Wildcard = 1 }, func(p *Policy) { p.Private[0].Wildcard = 2 }, "name 0 is invalid"},

		{"upstream's port", func(p *Policy) { p.Upstreams[1].Port = 1 }, func(p *Policy) { p.Upstreams[1].Port = 0 }, "upstream 1 is invalid"},
		{"upstream with TLS", func(p *Policy) { p.Upstreams[1] = tls }, func(p *Policy) { p.Upstreams[1] = tls; p.Upstreams[1].TLS = 2 }, "upstream 1 is invalid"},
		{"TLS without a name", func(p *Policy) { p.Upstreams[1] = tls }, func(p *Policy) { p.Upstreams[1] = tls; p.Upstreams[1].ServerName.Len = 0 }, "upstream 1 is invalid"},
		{"a name without TLS", func(p *Policy) { p.Upstreams[1] = tls }, func(p *Policy) { p.Upstreams[1] = tls; p.Upstreams[1].TLS = 0 }, "upstream 1 is invalid"},
		{"upstream's name", func(p *Policy) { p.Upstreams[1] = tls; p.Upstreams[1].ServerName = Text{299, 1} }, func(p *Policy) { p.Upstreams[1] = tls; p.Upstreams[1].ServerName = Text{1 << 20, 1} }, "upstream 1 is invalid"},
		{"certificates", func(p *Policy) { p.Strings = make([]byte, 64<<10); p.Upstreams[1].CA.Len = 64 << 10 }, func(p *Policy) { p.Strings = make([]byte, 64<<10+1); p.Upstreams[1].CA.Len = 64<<10 + 1 }, "upstream 1 is invalid"},
		{"certificates' place", func(p *Policy) { p.Upstreams[1].CA = Text{299, 1} }, func(p *Policy) { p.Upstreams[1].CA = Text{1 << 20, 1} }, "upstream 1 is invalid"},
		{"eight with TLS", func(p *Policy) { p.Upstreams = []Upstream{tls, tls, tls, tls, tls, tls, tls, tls, plain} }, func(p *Policy) { p.Upstreams = []Upstream{tls, tls, tls, tls, plain, tls, tls, tls, tls, tls} }, "upstream 9 is invalid"},

		{"mode", func(p *Policy) { p.Rules[1].Mode = Shadow }, func(p *Policy) { p.Rules[1].Mode = 2 }, "rule 1 is invalid"},
		{"rule that accepts", func(p *Policy) { p.Rules[1].Action = Accept }, func(p *Policy) { p.Rules[1].Action = 0 }, "rule 1 is invalid"},
		{"rule that rejects", func(p *Policy) { p.Rules[1].Action = Reject }, func(p *Policy) { p.Rules[1].Action = 4 }, "rule 1 is invalid"},
		{"quiet", func(p *Policy) { p.Rules[1].Quiet = 1 }, func(p *Policy) { p.Rules[1].Quiet = 2 }, "rule 1 is invalid"},
		{"sni", func(p *Policy) { p.Rules[1].SNI = 1 }, func(p *Policy) { p.Rules[1].SNI = 2 }, "rule 1 is invalid"},
		{"rule's id", func(p *Policy) { p.Rules[1].ID = Text{299, 1} }, func(p *Policy) { p.Rules[1].ID = Text{1 << 20, 1} }, "rule 1 is invalid"},
		{"rule's name", func(p *Policy) { p.Rules[1].Name = Text{299, 1} }, func(p *Policy) { p.Rules[1].Name = Text{1 << 20, 1} }, "rule 1 is invalid"},

		{"match's rule", func(p *Policy) { p.Matches[1].Rule = 0 }, func(p *Policy) { p.Matches[1].Rule = 2 }, "match 1 is invalid"},
		{"match's action", func(p *Policy) { p.Matches[1].Action = Accept }, func(p *Policy) { p.Matches[1].Action = Deny }, "match 1 is invalid"},
		{"direction", func(p *Policy) { p.Matches[1].Direction = verdict.Ingress }, func(p *Policy) { p.Matches[1].Direction = 3 }, "match 1 is invalid"},
		{"ports", func(p *Policy) { p.Matches[1].PortLo, p.Matches[1].PortHi = 80, 80 }, func(p *Policy) { p.Matches[1].PortLo, p.Matches[1].PortHi = 81, 80 }, "match 1 is invalid"},
		{"state", func(p *Policy) { p.Matches[1].State = 3 }, func(p *Policy) { p.Matches[1].State = 4 }, "match 1 is invalid"},
		{"match's name", func(p *Policy) { p.Matches[1].Name = 2 }, func(p *Policy) { p.Matches[1].Name = 3 }, "match 1 is invalid"},
	} {
		two := func() *Policy {
			p := sample()
			p.SNAT = append(p.SNAT, p.SNAT[0])
			p.DNAT = append(p.DNAT, p.DNAT[0])
			p.Names = append(p.Names, p.Names[0])
			p.Upstreams = append(p.Upstreams, p.Upstreams[0])
			p.Rules = append(p.Rules, p.Rules[0])
			p.Matches = append(p.Matches, p.Matches[0])
			p.Matches[1].Rule = 1
			p.Strings = append(p.Strings, bytes.Repeat([]byte("x"), 300-len(p.Strings))...)
			p.Classifier = Classifier{Roots: make([]Root, 3)}
			return p
		}
		p := two()
		c.good(p)
		for i := range p.Matches { // a match has the action of its rule
			if c.what != "match's action" {
				p.Matches[i].Action = p.Rules[p.Matches[i].Rule].Action
			}
		}
		if _, err := Open(aligned(compile.Encode(p))); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		p = two()
		c.bad(p)
		if _, err := Open(aligned(compile.Encode(p))); err == nil || err.Error() != "ruleset: "+c.want {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
}

// TestClassifierBoundaries: the same for the classifier's tables, whose places
// and numbers the data plane follows without looking.
func TestClassifierBoundaries(t *testing.T) {
	const end = Cell(EmptyLeaf)
	for _, c := range []struct {
		what      string
		good, bad func(c *Classifier)
		want      string
	}{
		{"a root for each name", func(c *Classifier) {}, func(c *Classifier) { c.Roots = append(c.Roots, Root{}) }, "the classifier has no root for each name"},
		{"a root less", func(c *Classifier) {}, func(c *Classifier) { c.Roots = c.Roots[:1] }, "the classifier has no root for each name"},
		{"eight trees", func(c *Classifier) { c.Trees = make([]Tree, 9); c.Roots[0].Trees = 8 }, func(c *Classifier) { c.Trees = make([]Tree, 9); c.Roots[0].Trees = 9 }, "a root of the classifier is invalid"},
		{"trees up to the end", func(c *Classifier) { c.Trees = make([]Tree, 3); c.Roots[1] = Root{Tree: 1, Trees: 2} }, func(c *Classifier) { c.Trees = make([]Tree, 3); c.Roots[1] = Root{Tree: 2, Trees: 2} }, "a root of the classifier is invalid"},
		{"no trees at the end", func(c *Classifier) { c.Roots[0] = Root{Tree: 1} }, func(c *Classifier) { c.Roots[0] = Root{Tree: 2} }, "a root of the classifier is invalid"},
		{"a sum that comes round", func(c *Classifier) {}, func(c *Classifier) { c.Roots[0] = Root{Tree: ^uint32(0), Trees: 1} }, "a root of the classifier is invalid"},
		{"shadow trees up to the end", func(c *Classifier) { c.Roots[0] = Root{ShadowTree: 0, ShadowTrees: 1} }, func(c *Classifier) { c.Roots[0] = Root{ShadowTree: 0, ShadowTrees: 2} }, "a root of the classifier is invalid"},
		{"a tree's node", func(c *Classifier) { c.Trees[0].Ref = 1 }, func(c *Classifier) { c.Trees[0].Ref = 2 }, "a tree of the classifier is invalid"},
		{"a second tree's leaf", func(c *Classifier) { c.Trees = append(c.Trees, Tree{Ref: LeafBit | 5}) }, func(c *Classifier) { c.Trees = append(c.Trees, Tree{Ref: 5}) }, "a tree of the classifier is invalid"},
		{"field", func(c *Classifier) { c.Nodes[1].Field = FieldKind }, func(c *Classifier) { c.Nodes[1].Field = FieldKind + 1 }, "a node of the classifier is invalid"},
		{"shift", func(c *Classifier) { c.Nodes[1].Shift = 31 }, func(c *Classifier) { c.Nodes[1].Shift = 32 }, "a node of the classifier is invalid"},
		{"level", func(c *Classifier) { c.Nodes[0].Level = 15 }, func(c *Classifier) { c.Nodes[0].Level = 16 }, "a node of the classifier is invalid"},
		{"cells from the first on", func(c *Classifier) {}, func(c *Classifier) { c.Nodes[0] = Node{Cell: 1, Parts: 0, Level: 2} }, "a node of the classifier is invalid"},
		{"cells behind each other", func(c *Classifier) { c.Cells = append(c.Cells, end) }, func(c *Classifier) { c.Nodes[1].Cell = 3; c.Cells = append(c.Cells, end) }, "a node of the classifier is invalid"},
		{"cells up to the end", func(c *Classifier) { c.Nodes[1].Parts = 2; c.Cells = append(c.Cells, end, end) }, func(c *Classifier) { c.Nodes[1].Parts = 3; c.Cells = append(c.Cells, end, end) }, "a node of the classifier is invalid"},
		{"parts that come round", func(c *Classifier) {}, func(c *Classifier) { c.Nodes[1].Parts = ^uint32(0) - 1 }, "a node of the classifier is invalid"},
		{"a node below", func(c *Classifier) { c.Nodes[0].Level = 2 }, func(c *Classifier) { c.Nodes[0].Level = 1 }, "a cell of the classifier is invalid"},
		{"a node's own cell", func(c *Classifier) { c.Cells[1] = 1 }, func(c *Classifier) { c.Cells[1] = 0 }, "a cell of the classifier is invalid"},
		{"the last cell of a node", func(c *Classifier) { c.Cells[2] = LeafBit | 77 }, func(c *Classifier) { c.Cells[2] = 2 }, "a cell of the classifier is invalid"},
		{"an entry's match", func(c *Classifier) { c.Entries[0].Match = 0 }, func(c *Classifier) { c.Entries[0].Match = 1 }, "an entry of the classifier is invalid"},
		{"a last entry's match", func(c *Classifier) { c.Entries[0].Match = Last }, func(c *Classifier) { c.Entries[0].Match = Last | 1 }, "an entry of the classifier is invalid"},
		{"an entry's rule", func(c *Classifier) { c.Entries[0].Rule = uint32(Accept) << 24 }, func(c *Classifier) { c.Entries[0].Rule = uint32(Accept)<<24 | 1<<23 }, "an entry of the classifier is invalid"},
		{"an entry's action", func(c *Classifier) { c.Entries = append(c.Entries, c.Entries[0]) }, func(c *Classifier) {
			c.Entries = append(c.Entries, c.Entries[0])
			c.Entries[1].Rule = uint32(Deny) << 24
		}, "an entry of the classifier is invalid"},
	} {
		p := sample()
		c.good(&p.Classifier)
		if _, err := Open(aligned(compile.Encode(p))); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		p = sample()
		c.bad(&p.Classifier)
		if _, err := Open(aligned(compile.Encode(p))); err == nil || err.Error() != "ruleset: "+c.want {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
}

// TestNoClassifier: a policy without rules needs no tables; one with any of
// them, or with rules, needs all.
func TestNoClassifier(t *testing.T) {
	bare := func() *Policy {
		p := sample()
		p.Matches, p.Names, p.Classifier = nil, nil, Classifier{}
		return p
	}
	if _, err := Open(aligned(compile.Encode(bare()))); err != nil {
		t.Error(err)
	}
	rooted := bare()
	rooted.Classifier.Roots = make([]Root, 1)
	if _, err := Open(aligned(compile.Encode(rooted))); err != nil {
		t.Error(err)
	}
	rooted.Classifier.Roots[0].Trees = 1
	if _, err := Open(aligned(compile.Encode(rooted))); err == nil || !strings.Contains(err.Error(), "a root of") {
		t.Errorf("a root without trees: %v", err)
	}
	for what, f := range map[string]func(p *Policy){
		"a match":  func(p *Policy) { p.Matches = sample().Matches },
		"a tree":   func(p *Policy) { p.Classifier.Trees = make([]Tree, 1) },
		"a node":   func(p *Policy) { p.Classifier.Nodes = make([]Node, 1) },
		"a cell":   func(p *Policy) { p.Classifier.Cells = make([]Cell, 1) },
		"an entry": func(p *Policy) { p.Classifier.Entries = make([]Entry, 1) },
	} {
		p := bare()
		f(p)
		if _, err := Open(aligned(compile.Encode(p))); err == nil || !strings.Contains(err.Error(), "root for each name") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// edited are rulesets one step away from a good one: each 32-bit number of the
// header with each value that often goes wrong.
func edited() [][]byte {
	var all [][]byte
	good := compile.Encode(sample())
	for at := OffVersion; at < OffTables+8*NumTables; at += 4 {
		old := binary.LittleEndian.Uint32(good[at:])
		for _, v := range []uint32{0, 1, old - 1, old + 1, old + 16, uint32(len(good)), 1 << 31, ^uint32(0), ^uint32(15)} {
			b := bytes.Clone(good)
			binary.LittleEndian.PutUint32(b[at:], v)
			all = append(all, b)
		}
	}
	for _, n := range []int{0, 1, 7, 8, HeaderSize - 1, HeaderSize, HeaderSize + 1, len(good) - 1, len(good) + 1} {
		all = append(all, append(bytes.Clone(good), 0)[:n])
	}
	return all
}
