package compile

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/filter/filtertest"
	"github.com/thurward/thurward/internal/host/policy/packetset"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var update = flag.Bool("update", false, "write testdata/plans.txt anew")

// TestPlans pins what each plan makes of some policies, how much of its bounds
// it uses for that, and what it expects of it. Who changes how trees are made
// sees here what changes, decides with the sweep (make bench) whether it
// is for the better, and writes the file anew with -update.
func TestPlans(t *testing.T) {
	ps := map[string]*ruleset.Policy{}
	var names []string
	add := func(name string, p *ruleset.Policy) { ps[name] = p; names = append(names, name) }
	for _, v := range filtertest.Variants {
		for _, n := range []int{10, 60, 300} {
			add(fmt.Sprintf("%s, %d", v.Name, n), v.Policy(n))
		}
	}
	for _, name := range []string{"nested port ranges, small first", "wide port ranges with sources", "crosses: sources to any, any to destinations", "all the same but for protocols that are one kind"} {
		add(name, filtertest.Hard(150)[name])
	}
	for seed := range uint64(6) {
		add(fmt.Sprintf("grid %d", seed), filtertest.Grid(rand.New(rand.NewPCG(seed, 8)), 12<<seed/3))
		add(fmt.Sprintf("crossing %d", seed), filtertest.Crossing(rand.New(rand.NewPCG(seed, 9))))
	}
	add("wider than 16 bits in each field", spread())
	var out strings.Builder
	for _, name := range names {
		p := ps[name]
		if err := Classifier(p); err != nil {
			t.Fatal(err)
		}
		c := &p.Classifier
		fmt.Fprintf(&out, "%s, built: trees %d, nodes %d, cells %d, entries %d, longest leaf %d\n", name, len(c.Trees), len(c.Nodes), len(c.Cells), len(c.Entries), c.Longest())
		boxes, ms := boxesOf(p)
		for i, pl := range append(append([]plan{}, plans...), smallLeaves[0]) {
			b := newBuilder(pl, boxes, len(ms), i >= len(plans)-1)
			before := [2]int{b.budget, b.work}
			b.root(ms)
			if !b.over || b.forced { // what has been given up is not whole
				b.weigh(ms)
			}
			cells, levels := 0, 0
			for j := range b.cells {
				cells += len(b.cells[j])
				levels = max(levels, ruleset.MaxLevel-int(b.t.Nodes[j].Level))
			}
			fmt.Fprintf(&out, "%s, plan %d: trees %d, nodes %d, cells %d, entries %d, longest leaf %d, levels %d, cost %.4f, used %d and %d, over %v\n", name, i,
				len(b.t.Trees), len(b.t.Nodes), cells, len(b.t.Entries), b.t.Longest(), levels, b.cost, before[0]-b.budget, before[1]-b.work, b.over)
		}
	}
	const file = "testdata/plans.txt"
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, exp := strings.Split(out.String(), "\n"), strings.Split(string(want), "\n")
	for i := range max(len(got), len(exp)) {
		if i >= len(got) || i >= len(exp) || got[i] != exp[i] {
			t.Fatalf("line %d is not as %s has it:\n%s\n%s", i+1, file, at(got, i), at(exp, i))
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}

// boxesOf returns the boxes of a policy's matches, and the indexes of those that
// a packet can match.
func boxesOf(p *ruleset.Policy) (boxes []box, ms []uint32) {
	boxes = make([]box, len(p.Matches))
	for i := range boxes {
		if boxes[i].set(p, i) {
			ms = append(ms, uint32(i))
		}
	}
	return boxes, ms
}

// spread is a policy whose matches lie at both ends of what each field can be.
func spread() *ruleset.Policy {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	for i := range 48 {
		m := ruleset.Match{Rule: uint32(i), Action: ruleset.Accept, PortHi: 65535}
		v := uint32(i/4) * 0x1745d174
		switch i % 4 {
		case 0:
			m.Src, m.SrcMask = filtertest.Prefix(v, 32)
		case 1:
			m.Dst, m.DstMask = filtertest.Prefix(^v, 32)
		case 2:
			m.PortLo = uint16(v >> 16)
			m.PortHi = m.PortLo
		case 3:
			m.Proto, m.Direction, m.State = []uint8{packet.TCP, packet.UDP, packet.ICMP, 47}[i/4%4], verdict.Direction(i/16%3), uint8(i/8%4)
		}
		p.Matches, p.Rules = append(p.Matches, m), append(p.Rules, ruleset.Rule{Action: m.Action})
	}
	return p
}

// TestBuildBounds: a policy with more rules or matches than Open takes is refused.
func TestBuildBounds(t *testing.T) {
	for _, c := range []struct {
		rules, matches int
		ok             bool
	}{{0, 0, true}, {1 << 20, 1 << 22, true}, {1<<20 + 1, 0, false}, {0, 1<<22 + 1, false}} {
		if err := fits(c.rules, c.matches); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
	}
	// Memory that nobody writes to takes none.
	p := &ruleset.Policy{Rules: make([]ruleset.Rule, 1<<20+1)}
	if err := Classifier(p); err == nil || err.Error() != "filter: too many rules for the classifier" || p.Classifier.Roots != nil {
		t.Errorf("%v", err)
	}
	p.Rules = p.Rules[1:]
	if err := Classifier(p); err != nil || len(p.Classifier.Roots) != 1 {
		t.Errorf("%v, %d roots", err, len(p.Classifier.Roots))
	}
}

// TestDepthIsBounded: at the last level all that is left is a leaf, and nodes say
// on which level they are.
func TestDepthIsBounded(t *testing.T) {
	boxes, ms := boxesOf(spread())
	for level := range 3 {
		b := newBuilder(smallLeaves[0], boxes, len(ms), true)
		ref := uint32(b.node(ms, packetset.All(), level))
		if (ref&ruleset.LeafBit != 0) != (level == 0) {
			t.Fatalf("level %d: %#x", level, ref)
		}
		for i, n := range b.t.Nodes {
			for _, c := range b.cells[i] {
				if below := level; uint32(c)&ruleset.LeafBit == 0 {
					if below = int(b.t.Nodes[c].Level); below != int(n.Level)-1 {
						t.Fatalf("a node of level %d leads to one of level %d", n.Level, below)
					}
				} else if n.Level == 0 || int(n.Level) > level {
					t.Fatalf("level %d of %d", n.Level, level)
				}
			}
		}
	}
}

// TestForcedBeyondBounds: the last plan goes on where its bounds end, with leaves
// as long as they must be; any other gives up. Either ends.
func TestForcedBeyondBounds(t *testing.T) {
	p := spread()
	boxes, ms := boxesOf(p)
	for _, c := range []struct {
		budget, work int
		over         bool
	}{{0, 1 << 30, true}, {1, 1 << 30, true}, {1 << 30, 0, true}, {1 << 30, 1, true}, {1 << 30, 1 << 30, false}} {
		for _, forced := range []bool{false, true} {
			b := newBuilder(plans[3], boxes, len(ms), forced)
			b.budget, b.work = c.budget, c.work
			b.root(ms)
			if b.over != c.over {
				t.Errorf("%+v, forced %v: over %v", c, forced, b.over)
			}
			// Given up at the root, or a single leaf of what nothing hides.
			if c.budget == 0 || c.work == 0 {
				if leaf := b.t.Trees[0].Ref; len(b.t.Nodes) != 0 || forced && (leaf != ruleset.LeafBit || len(b.t.Entries) == 0) || !forced && leaf != ruleset.EmptyLeaf {
					t.Errorf("%+v, forced %v: %d nodes, tree %#x", c, forced, len(b.t.Nodes), leaf)
				}
			}
			if forced {
				q := *p
				if q.Classifier = b.t; b.over {
					for i := range b.cells {
						q.Classifier.Nodes[i].Cell = uint32(len(q.Classifier.Cells))
						q.Classifier.Cells = append(q.Classifier.Cells, b.cells[i]...)
					}
					q.Classifier.Roots = []ruleset.Root{{Trees: uint32(len(b.t.Trees))}}
					atEdges(t, rand.New(rand.NewPCG(1, 1)), &q, 500, "forced")
				}
			}
		}
	}
}
