package evasions

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

const page = "../../docs/evasions.md"

var update = flag.Bool("update", false, "write the lists of attacks into docs/evasions.md")

// catalogue is the list of a family in the documentation.
func catalogue(attacks []attack) string {
	var b strings.Builder
	b.WriteString("| attack | trick | source | what happens |\n| --- | --- | --- | --- |\n")
	for _, at := range attacks {
		fate := at.fate
		if at.open != "" {
			fate = "**passes**: " + at.open
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", at.name, cell(at.trick), cell(at.source), cell(fate))
	}
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// section returns where in a page a part begins and ends that is made by
// programs.
func section(t *testing.T, text, name string) (from, to int) {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->\n"
	from, to = strings.Index(text, begin)+len(begin), strings.Index(text, end)
	if from < len(begin) || to < from {
		t.Fatalf("%s has no part %q", page, name)
	}
	return from, to
}

// TestPage: docs/evasions.md lists the attacks as they are.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text, n := string(b), 0
	for _, f := range families {
		from, to := section(t, text, f.name)
		want := catalogue(f.attacks)
		n += len(f.attacks)
		if text[from:to] != want && !*update {
			t.Errorf("the part %q of %s differs; go test ./test/evasions -run TestPage -update writes it", f.name, page)
		}
		text = text[:from] + want + text[to:]
	}
	count := fmt.Sprintf("%d attacks", n)
	if !strings.Contains(text, count) && !*update {
		t.Errorf("%s does not say that there are %s", page, count)
	}
	if *update {
		text = regexp.MustCompile(`\d+ attacks`).ReplaceAllString(text, count)
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
