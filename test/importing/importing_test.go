// Package importing compares rule sets that real software made with the policies that
// thurward import makes of them. The kernel gets a set in a network namespace and packets made
// from the edges of its rules; thurward's data plane gets the imported policy and the same
// packets. Each difference must be announced by a note of the importer: at a rule that the
// packet met, with the effect that it has. What thurward does by design for every policy is
// listed in classes.
package importing

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/importer"
	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
)

var (
	update = flag.Bool("update", false, "write docs/import.md's table")
	only   = flag.String("set", "", "compare this rule set alone")
)

// least is how many rule sets the corpus has.
const least = 39

func TestRealRuleSets(t *testing.T) {
	needsRoot(t)
	var rows []*row
	for _, a := range read(t) {
		if *only != "" && a.name != *only {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			rows = append(rows, compare(t, a))
		})
	}
	if t.Failed() || *only != "" {
		return
	}
	if len(rows) < least {
		t.Errorf("the corpus has %d rule sets, want at least %d", len(rows), least)
	}
	classesAreUsed(t, rows)
	table(t, rows)
}

// compare returns the table's row of a rule set. Silent differences fail the test.
func compare(t *testing.T, a *about) *row {
	k, src, lines := loaded(t, a)
	r := &row{about: a, sides: a.interfaces(t, src)}
	res, err := a.read()(src, a.options())
	if err == nil {
		r.partial = res.Permissive()
	} else {
		res = nil
	}
	c, err2 := compareWith(t, k, a, res, lines)
	if err = errors.Join(err, err2); err != nil {
		r.refused = err.Error()
		c.found[a.name+" | no policy"] = nil
	}
	r.tally = c.tally
	t.Logf("%d packets, %d equal, announced %v, by design %v, silent %v",
		c.tally.packets, c.tally.equal, c.tally.announced, c.tally.byDesign, c.tally.silent)
	for sig, s := range c.found {
		t.Errorf("silent: %s%s", sig, c.example(s, r))
	}
	return r
}

// loaded returns a kernel with a rule set, what the importer reads of it, and its lines.
func loaded(t *testing.T, a *about) (k *kernel, src []byte, lines []string) {
	t.Helper()
	k = newKernel(t, a)
	src, err := os.ReadFile(a.rules())
	if err != nil {
		t.Fatal(err)
	}
	lines = strings.Split(string(src), "\n")
	if a.format() == "nft" {
		src, lines = k.listing, strings.Split(string(k.list("-n")), "\n")
	}
	k.watch()
	return k, src, lines
}

func (a *about) read() func([]byte, importer.Options) (*importer.Result, error) {
	if a.format() == "nft" {
		return importer.NFT
	}
	return importer.IPTables
}

// compareWith compares a kernel with what was imported.
func compareWith(t *testing.T, k *kernel, a *about, res *importer.Result, lines []string) (c *comparison, err error) {
	t.Helper()
	c = &comparison{a: a, k: k, found: map[string]*step{}, excuses: classes}
	c.tally = tally{announced: map[string]int{}, silent: map[string]int{}, byDesign: map[string]int{}}
	if res == nil {
		return c, nil
	}
	c.notes = res.Notes
	if c.g, err = guardOf(a, res.YAML); err != nil {
		return c, err
	}
	for _, p := range probesOf(a, lines) {
		if err := c.probe(&p); err != nil {
			t.Fatal(err)
		}
	}
	return c, nil
}

// guardOf makes thurward's side of the policy that was printed.
func guardOf(a *about, yaml []byte) (*guard, error) {
	p, ds := policy.Load("rules.yaml", yaml)
	if p == nil {
		return nil, fmt.Errorf("the policy is not valid: %v", ds)
	}
	seg, err := compile.Compile(p)
	if err != nil {
		return nil, err
	}
	return newGuard(a, seg, p), nil
}

func (c *comparison) example(s *step, r *row) string {
	if s == nil {
		return ": " + r.refused
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n    %s, in %s: %v\n    Linux     %s\n    thurward  %s\n    met:\n",
		s.what, c.a.Interfaces[s.in].Name, &s.sent, s.k.describe(c.a), s.t.describe(c.a))
	for _, m := range s.k.met.rules {
		fmt.Fprintf(&b, "      %s %s: %s\n", m.table, m.chain, c.k.places[m])
	}
	for _, n := range c.notes {
		if s.met[placeOf(n.Place)] != nil {
			fmt.Fprintf(&b, "      note: %s\n", n.String())
		}
	}
	return b.String()
}
