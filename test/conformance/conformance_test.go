// Package conformance makes docs/rfc-conformance.md: each requirement of
// docs/rfc-requirements.txt with the tests that prove it, which it finds by
// their names.
package conformance

import (
	"bufio"
	"bytes"
	"flag"
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

var update = flag.Bool("update", false, "write docs/rfc-conformance.md")

const (
	list = "../../docs/rfc-requirements.txt"
	page = "../../docs/rfc-conformance.md"
)

// A requirement is one line of the list.
type requirement struct {
	rfc, id, level, text string
	also                 []string
	wontfix, note        string
	tests                []string // found by name
	line                 int
}

// An rfc is a heading of the list.
type rfc struct {
	name, title  string
	requirements []*requirement
}

// parse reads the list.
func parse(b []byte) (rfcs []*rfc, err error) {
	var r *requirement
	seen := map[string]bool{}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; sc.Scan(); n++ {
		l := sc.Text()
		fail := func(why string) error { return fmt.Errorf("line %d: %s: %q", n, why, l) }
		switch {
		case strings.TrimSpace(l) == "" || l[0] == '#':
		case l[0] == '\t':
			k, v, ok := strings.Cut(strings.TrimSpace(l), ": ")
			if r == nil || !ok || v == "" {
				return nil, fail("want also:, wontfix: or note: below a requirement")
			}
			switch k {
			case "also":
				r.also = append(r.also, strings.Fields(v)...)
			case "wontfix":
				r.wontfix = v
			case "note":
				r.note = v
			default:
				return nil, fail("want also:, wontfix: or note:")
			}
		case strings.Contains(l, "|"):
			f := strings.Split(l, " | ")
			if len(f) != 3 || len(rfcs) == 0 {
				return nil, fail("want id | level | text below an RFC")
			}
			c := rfcs[len(rfcs)-1]
			r = &requirement{rfc: c.name, id: f[0], level: f[1], text: f[2], line: n}
			if !regexp.MustCompile(`^(REQ-\d+[a-z]?|S\d+(\.\d+)*)$`).MatchString(r.id) {
				return nil, fail("an id is REQ-1a or S1.2.3")
			}
			if !slices.Contains([]string{"MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "RECOMMENDED", "MAY"}, r.level) {
				return nil, fail("not a level of RFC 2119")
			}
			if seen[c.name+r.id] {
				return nil, fail("twice")
			}
			seen[c.name+r.id] = true
			c.requirements = append(c.requirements, r)
		default:
			name, title, ok := strings.Cut(l, " ")
			if !ok || !regexp.MustCompile(`^RFC\d+$`).MatchString(name) {
				return nil, fail("want RFC1234 title")
			}
			rfcs, r = append(rfcs, &rfc{name: name, title: title}), nil
		}
	}
	return rfcs, sc.Err()
}

// tests returns the names of all tests of the tree, with their files.
func tests(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	re := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(t \*testing\.T\)`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", path)
		for _, m := range re.FindAllSubmatch(b, -1) {
			found[string(m[1])] = rel
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var named = regexp.MustCompile(`^Test(RFC\d+)_(?:REQ(\d+[a-z]?)|S(\d+(?:_\d+)*))_`)

// assign gives each requirement its tests, and returns what does not fit.
func assign(rfcs []*rfc, found map[string]string) (problems []string) {
	byID, listed := map[string]*requirement{}, map[string]bool{}
	for _, c := range rfcs {
		for _, r := range c.requirements {
			byID[c.name+" "+r.id] = r
			for _, a := range r.also {
				if found[a] == "" {
					problems = append(problems, fmt.Sprintf("line %d: %s does not exist", r.line, a))
				}
				r.tests = append(r.tests, a)
				listed[a] = true
			}
		}
	}
	names := make([]string, 0, len(found))
	for n := range found {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		m := named.FindStringSubmatch(n)
		if m == nil {
			continue
		}
		if !slices.ContainsFunc(rfcs, func(c *rfc) bool { return c.name == m[1] }) {
			continue // of another RFC
		}
		id := "REQ-" + m[2]
		if m[3] != "" {
			id = "S" + strings.ReplaceAll(m[3], "_", ".")
		}
		r := byID[m[1]+" "+id]
		switch {
		case r == nil && !listed[n]:
			problems = append(problems, fmt.Sprintf("%s is a test of %s %s, which is not in the list", n, m[1], id))
		case r != nil && !slices.Contains(r.tests, n):
			r.tests = append(r.tests, n)
		}
	}
	for _, c := range rfcs {
		for _, r := range c.requirements {
			sort.Strings(r.tests)
			if r.wontfix != "" && len(r.tests) > 0 {
				problems = append(problems, fmt.Sprintf("line %d: %s %s is wontfix and has tests", r.line, r.rfc, r.id))
			}
		}
	}
	return problems
}

// render makes the page.
func render(rfcs []*rfc, found map[string]string) []byte {
	var b bytes.Buffer
	count := map[string]int{}
	status := func(r *requirement) string {
		switch {
		case r.wontfix != "":
			return "WONTFIX"
		case len(r.tests) > 0:
			return "PASS"
		}
		return "PENDING"
	}
	for _, c := range rfcs {
		for _, r := range c.requirements {
			count[status(r)]++
		}
	}
	fmt.Fprintf(&b, `# Conformance

What the RFCs ask of a firewall with NAT, and the tests that prove it. Made from
[rfc-requirements.txt](rfc-requirements.txt) and the names of the tests by `+"`go test\n./test/conformance -update`"+`; a test fails when this page is stale. PASS means that
the named tests exist and are part of `+"`make test`"+`; WONTFIX comes with its reason;
PENDING is neither.

%d PASS, %d WONTFIX, %d PENDING.
`, count["PASS"], count["WONTFIX"], count["PENDING"])
	for _, c := range rfcs {
		fmt.Fprintf(&b, "\n## RFC %s: %s\n\n| requirement | level | what it asks for | | proof |\n| --- | --- | --- | --- | --- |\n", c.name[3:], c.title)
		for _, r := range c.requirements {
			proof := r.wontfix
			for i, n := range r.tests {
				if i > 0 {
					proof += ", "
				}
				proof += fmt.Sprintf("[`%s`](../%s)", n, found[n])
			}
			if r.note != "" {
				if proof != "" {
					proof += "; "
				}
				proof += r.note
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", strings.Replace(r.id, "S", "section ", 1), r.level, r.text, status(r), proof)
		}
	}
	return b.Bytes()
}

// TestConformancePage: docs/rfc-conformance.md is what the list and the tests
// say.
func TestConformancePage(t *testing.T) {
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	rfcs, err := parse(b)
	if err != nil {
		t.Fatalf("%s: %v", list, err)
	}
	found := tests(t)
	for _, p := range assign(rfcs, found) {
		t.Error(p)
	}
	want := render(rfcs, found)
	if *update && !t.Failed() {
		if err := os.WriteFile(page, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: go test ./test/conformance -update", page)
	}
}

// TestListErrors: mistakes in the list are found.
func TestListErrors(t *testing.T) {
	for _, c := range []struct{ list, want string }{
		{"REQ-1 | MUST | x", "below an RFC"},
		{"RFC1 t\nREQ1 | MUST | x", "an id is"},
		{"RFC1 t\nREQ-1 | WOULD | x", "level"},
		{"RFC1 t\nREQ-1 | MUST | x\nREQ-1 | MUST | y", "twice"},
		{"RFC1 t\nREQ-1 | MUST | x\n\tperhaps: y", "want also"},
		{"RFC1 t\n\tnote: y", "below a requirement"},
	} {
		if _, err := parse([]byte(c.list)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.list, err, c.want)
		}
	}
	found := map[string]string{"TestRFC1_REQ1_X": "a", "TestRFC1_REQ2_X": "a", "TestRFC2_REQ2_X": "a", "TestRFC1_REQ3_X": "a"}
	rfcs, err := parse([]byte("RFC1 t\nREQ-1 | MUST | x\n\talso: TestGone\nREQ-3 | MAY | y\n\twontfix: no"))
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(assign(rfcs, found), "\n")
	for _, w := range []string{"TestGone does not exist", "TestRFC1_REQ2_X is a test of RFC1 REQ-2, which is not in the list", "RFC1 REQ-3 is wontfix and has tests"} {
		if !strings.Contains(got, w) {
			t.Errorf("%q is not noticed: %s", w, got)
		}
	}
}
