package importing

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// page has the table, between two comments.
const (
	page  = "../../docs/import.md"
	begin = "<!-- the table of test/importing: go test ./test/importing -update -->\n"
	end   = "<!-- end of the table -->\n"
)

// A row is what the table tells of a rule set.
type row struct {
	about   *about
	tally   tally
	partial bool   // --partial is needed
	refused string // why there is no policy
	sides   string // how the interfaces are known without a hint
}

// table compares the page's table with the rows, or writes it.
func table(t *testing.T, rows []*row) {
	t.Helper()
	src, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(src), begin)
	old, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table: want the lines %q and %q", page, begin, end)
	}
	text := render(rows)
	switch {
	case *update:
		if err := os.WriteFile(page, []byte(head+begin+text+end+tail), 0o666); err != nil {
			t.Fatal(err)
		}
	case old != text:
		t.Errorf("%s is not what was measured (go test ./test/importing -update writes it):\n%s", page, text)
	}
}

func render(rows []*row) string {
	var b strings.Builder
	total := tally{announced: map[string]int{}, silent: map[string]int{}, byDesign: map[string]int{}}
	b.WriteString("| rule set | made by | packets | equal | by design | stricter | differs | more permissive " +
		"| refused otherwise | silent | policy | interfaces |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		y := &r.tally
		p := "yes"
		switch {
		case r.refused != "":
			p = "no"
		case r.partial:
			p = "with --partial"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.about.name, r.about.Software, y.cells(), p, r.sides)
		total.packets += y.packets
		total.equal += y.equal
		add(total.announced, y.announced)
		add(total.silent, y.silent)
		add(total.byDesign, y.byDesign)
	}
	fmt.Fprintf(&b, "| **all** | %d rule sets | %s | | |\n", len(rows), total.cells())
	b.WriteString("\nWhat thurward does by design, whatever was imported:\n\n" +
		"| class | Linux → thurward | packets | |\n| --- | --- | --- | --- |\n")
	for _, c := range classes {
		why := c.why
		for _, p := range c.pairs {
			fmt.Fprintf(&b, "| %s | %d | %s |\n", c.row(p), total.byDesign[c.row(p)], why)
			why = ""
		}
	}
	return b.String()
}

// cells are the columns of the numbers.
func (y *tally) cells() string {
	return fmt.Sprintf("%d | %d | %d | %d | %d | %d | %d | %d", y.packets, y.equal, sum(y.byDesign),
		y.announced[stricter], y.announced[differs], y.announced[permissive], y.announced[answer], sum(y.silent))
}

func add(to, from map[string]int) {
	for k, n := range from {
		to[k] += n
	}
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// classesAreUsed fails the test for a pair of a class that excuses nothing in the corpus: it is not
// needed.
func classesAreUsed(t *testing.T, rows []*row) {
	t.Helper()
	for _, c := range classes {
		for _, p := range c.pairs {
			if !slices.ContainsFunc(rows, func(r *row) bool { return r.tally.byDesign[c.row(p)] > 0 }) {
				t.Errorf("no packet of the corpus is in the class %q", c.row(p))
			}
		}
	}
}
