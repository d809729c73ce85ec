package filter_test

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

func decided(a ruleset.Action, rule, shadow uint32) filter.Verdict {
	return filter.Verdict{Action: a, Rule: rule, Shadow: shadow}
}

// TestNewLooksAtRoots: a policy with rules has a root for each name; one without
// rules needs none, and gives the default.
func TestNewLooksAtRoots(t *testing.T) {
	p := filtertest.Variants[0].Policy(6)
	p.Names = make([]ruleset.Name, 2)
	for n, want := range map[int]bool{0: false, 1: false, 2: false, 3: true, 4: false} {
		p.Classifier.Roots = make([]ruleset.Root, n)
		if c, err := filter.New(p); (err == nil) != want || (c != nil) != want {
			t.Errorf("%d roots: %v", n, err)
		}
	}
	p = &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Reject}, Rules: make([]ruleset.Rule, 3)}
	c, err := filter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if v := c.Decide(&filter.Packet{Names: []uint32{0, 7}}); v != (decided(ruleset.Reject, 3, filter.NoRule)) {
		t.Errorf("%+v", v)
	}
}

// TestMostTrees: a root of as many trees as there may be, each a leaf of one
// entry; every one of them decides, and names beyond the roots are none.
func TestMostTrees(t *testing.T) {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Reject}, Names: make([]ruleset.Name, 1), Rules: make([]ruleset.Rule, 2*ruleset.MaxTrees)}
	c := &p.Classifier
	c.Roots = []ruleset.Root{{Trees: ruleset.MaxTrees}, {Tree: ruleset.MaxTrees, Trees: ruleset.MaxTrees}}
	for i := range uint32(2 * ruleset.MaxTrees) {
		p.Matches = append(p.Matches, ruleset.Match{Rule: i, Action: ruleset.Accept})
		c.Trees = append(c.Trees, ruleset.Tree{First: i, Ref: ruleset.LeafBit | i})
		c.Entries = append(c.Entries, ruleset.Entry{Port: uint16(10 * i), PortSpan: 9, Match: i | ruleset.Last, Rule: uint32(ruleset.Accept)<<ruleset.ActionShift | i})
	}
	f, err := filter.New(p)
	if err != nil {
		t.Fatal(err)
	}
	for port := range uint16(170) {
		for _, names := range [][]uint32{nil, {0}, {1, 0}, {1}, {^uint32(0)}} {
			want := decided(ruleset.Reject, uint32(len(p.Rules)), filter.NoRule)
			if named := len(names) > 0 && names[len(names)-1] == 0; port < 80 || named && port < 160 {
				want = decided(ruleset.Accept, uint32(port/10), filter.NoRule)
			}
			if got := f.Decide(&filter.Packet{DstPort: port, Names: names}); got != want {
				t.Fatalf("port %d, names %v: %+v, want %+v", port, names, got, want)
			}
		}
	}
}

// TestLeavesThatEnd: a leaf just behind the entries is empty, as one far behind
// them is, and the last entry of the table ends its leaf whatever it says.
func TestLeavesThatEnd(t *testing.T) {
	for _, c := range []struct {
		ref  uint32
		want ruleset.Action
	}{{ruleset.LeafBit | 2, ruleset.Deny}, {ruleset.LeafBit | 3, ruleset.Deny}, {ruleset.EmptyLeaf, ruleset.Deny}, {ruleset.LeafBit, ruleset.Accept}, {ruleset.LeafBit | 1, ruleset.Deny}} {
		p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}, Rules: make([]ruleset.Rule, 2), Matches: make([]ruleset.Match, 2)}
		p.Classifier = ruleset.Classifier{Roots: []ruleset.Root{{Trees: 1}}, Trees: []ruleset.Tree{{Ref: c.ref}},
			Entries: []ruleset.Entry{{Port: 7, Rule: uint32(ruleset.Accept) << ruleset.ActionShift}, {Port: 9, Match: 1, Rule: uint32(ruleset.Accept)<<ruleset.ActionShift | 1}}}
		f, err := filter.New(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Decide(&filter.Packet{DstPort: 7}).Action; got != c.want {
			t.Errorf("%#x: %d", c.ref, got)
		}
		if got := f.Decide(&filter.Packet{DstPort: 8}).Action; got != ruleset.Deny {
			t.Errorf("%#x: %d", c.ref, got)
		}
	}
}
