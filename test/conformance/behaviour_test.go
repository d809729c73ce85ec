package conformance

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

const behaviours = "../../docs/behaviour.md"

// behaviourID finds the id of a behaviour in a test's name: behind the beginning,
// or behind the requirement of an RFC whose test it is as well.
var behaviourID = regexp.MustCompile(`^Test(?:RFC\d+_REQ\d+[a-z]?_)?(S\d\dn?)_`)

// A proof is a test, and whether it runs on the booted image.
type proof struct {
	name  string
	image bool
}

// proofs returns the tests of each behaviour, and whatever else is called a test.
func proofs(t *testing.T) (byID map[string][]proof, all map[proof]bool) {
	t.Helper()
	byID, all = map[string][]proof{}, map[proof]bool{}
	re := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(t \*testing\.T\)`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range re.FindAllSubmatch(b, -1) {
			p := proof{string(m[1]), strings.HasPrefix(path, "../../test/e2e/")}
			all[p] = true
			if id := behaviourID.FindStringSubmatch(p.name); id != nil {
				byID[id[1]] = append(byID[id[1]], p)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return byID, all
}

var inCell = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`(?:, )?")

// fill returns a cell of tests with those of its id that are missing, and without
// those that are gone. What the cell says besides stays.
func fill(cell, id string, image bool, byID map[string][]proof, all map[proof]bool) string {
	var names []string
	for _, m := range inCell.FindAllStringSubmatch(cell, -1) {
		of := behaviourID.FindStringSubmatch(m[1])
		if of == nil || of[1] != id || all[proof{m[1], image}] {
			names = append(names, m[1])
		}
	}
	for _, p := range byID[id] {
		if p.image == image && !slices.Contains(names, p.name) {
			names = append(names, p.name)
		}
	}
	if len(names) == 0 {
		return cell
	}
	sort.Strings(names)
	rest := strings.Trim(inCell.ReplaceAllString(cell, ""), ",; ")
	if rest == "–" || rest == "not tested yet" {
		rest = ""
	}
	s := "`" + strings.Join(names, "`, `") + "`"
	if rest != "" {
		s += ", " + rest
	}
	return s
}

// checkBehaviours returns the page as it should be, and what is wrong with it that
// writing it anew does not mend.
func checkBehaviours(page string, byID map[string][]proof, all map[proof]bool) (want string, problems []string) {
	lines, seen := strings.Split(page, "\n"), map[string]bool{}
	for n, l := range lines {
		if !regexp.MustCompile(`^\| S\d`).MatchString(l) {
			continue
		}
		c := strings.Split(strings.Trim(l, "|"), "|")
		if len(c) != 4 {
			problems = append(problems, fmt.Sprintf("line %d: want four columns", n+1))
			continue
		}
		id := strings.TrimSpace(c[0])
		if seen[id] {
			problems = append(problems, fmt.Sprintf("line %d: %s twice", n+1, id))
		}
		seen[id] = true
		for i, image := range []bool{false, true} {
			cell := fill(strings.TrimSpace(c[2+i]), id, image, byID, all)
			c[2+i] = " " + cell + " "
			named := inCell.FindAllStringSubmatch(cell, -1)
			for _, m := range named {
				if !all[proof{m[1], image}] {
					problems = append(problems, fmt.Sprintf("line %d: %s is no test there", n+1, m[1]))
				}
			}
			if len(named) == 0 && !slices.Contains([]string{"–", "not tested yet", "not built yet"}, strings.Split(cell, ";")[0]) {
				problems = append(problems, fmt.Sprintf("line %d: %s has no test: say \"not tested yet\" or \"not built yet\"", n+1, id))
			}
		}
		lines[n] = "|" + strings.Join(c, "|") + "|"
	}
	for id, p := range byID {
		if !seen[id] {
			problems = append(problems, fmt.Sprintf("%s is a test of %s, which is not there", p[0].name, id))
		}
	}
	return strings.Join(lines, "\n"), problems
}

// TestBehaviourPage: docs/behaviour.md has each behaviour that a test names, with
// all of its tests, and names none that is gone.
func TestBehaviourPage(t *testing.T) {
	b, err := os.ReadFile(behaviours)
	if err != nil {
		t.Fatal(err)
	}
	byID, all := proofs(t)
	want, problems := checkBehaviours(string(b), byID, all)
	for _, p := range problems {
		t.Errorf("%s: %s", behaviours, p)
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(behaviours, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(b) {
		t.Errorf("%s is stale: go test ./test/conformance -update", behaviours)
	}
	// Scripts have ids in the names of their files.
	scripts, err := filepath.Glob("../../internal/host/*/testdata/S[0-9][0-9]*.txt")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, s := range scripts {
		id, _, _ := strings.Cut(filepath.Base(s), "_")
		if !strings.Contains(want, "| "+id+" |") {
			t.Errorf("%s is of %s, which is not in %s", s, id, behaviours)
		}
	}
	for _, m := range regexp.MustCompile(`S\d\d_[a-z_]+\.txt`).FindAllString(want, -1) {
		if !slices.ContainsFunc(scripts, func(s string) bool { return filepath.Base(s) == m }) {
			t.Errorf("%s names %s, which does not exist", behaviours, m)
		}
	}
	if n := strings.Count(want, "\n| S"); n < 50 {
		t.Errorf("%d behaviours", n)
	}
}

// TestBehaviourErrors: mistakes in the page are found.
func TestBehaviourErrors(t *testing.T) {
	byID := map[string][]proof{"S01": {{"TestS01_A", false}, {"TestS01_B", true}}}
	all := map[proof]bool{{"TestS01_A", false}: true, {"TestS01_B", true}: true, {"TestOther", false}: true}
	for _, c := range []struct{ page, want, problem string }{
		{"| S01 | x | `TestOther` | not tested yet |", "| S01 | x | `TestOther`, `TestS01_A` | `TestS01_B` |", ""},
		{"| S01 | x | `TestS01_A`, `TestS01_C`, a.txt | `TestS01_B` |", "| S01 | x | `TestS01_A`, a.txt | `TestS01_B` |", ""},
		{"| S01 | x | `TestS01_A`, `TestGone` | `TestS01_B` |", "", "TestGone is no test there"},
		{"| S01 | x | `TestS01_A` | `TestOther` |", "", "TestOther is no test there"},
		{"| S01 | x | | |\n| S01 | x | | |", "", "S01 twice"},
		{"| S01 | x | |", "", "want four columns"},
		{"| S01 | x | | |\n| S02 | x |  | – |", "", "S02 has no test"},
		{"| S02 | x | – | – |", "", "S01, which is not there"},
	} {
		got, problems := checkBehaviours(c.page, byID, all)
		all := strings.Join(problems, "\n")
		if c.problem == "" && (got != c.want || all != "") || !strings.Contains(all, c.problem) {
			t.Errorf("%s:\n%s\n%s, want %s%s", c.page, got, all, c.want, c.problem)
		}
	}
}
