package layout

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/diff"
	"github.com/thurward/thurward/internal/host/policy/policytest"
)

// formatted formats a document that must be formatted, and again: the second time nothing
// changes.
func formatted(t testing.TB, src []byte) []byte {
	t.Helper()
	out, err := Format(src)
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	again, err := Format(out)
	if err != nil || !bytes.Equal(again, out) {
		t.Fatalf("formatted again it is another (%v):\n%s\n-- first --\n%s", err, again, out)
	}
	for i, l := range strings.Split(string(out), "\n") {
		if strings.TrimRight(l, " \t\r") != l {
			t.Errorf("white space at the end of line %d: %q", i+1, l)
		}
	}
	return out
}

// TestFormat: what the layout is.
func TestFormat(t *testing.T) {
	for _, c := range []struct{ name, src, want string }{
		{"levels", "a:\n        b:   1\n        c:\n            d: x\n", "a:\n  b: 1\n  c:\n    d: x\n"},
		{"lists stand inside", "rules:\n- id: a\n  action:   deny\n-   id: b\n", "rules:\n  - id: a\n    action: deny\n  - id: b\n"},
		{"lists of lists", "a:\n- - 1\n  -   2\n-\n  - 3\n", "a:\n  - - 1\n    - 2\n  -\n    - 3\n"},
		{"flow", "a: {b: 1,c: [ x,y , z ],d: {}, e: []}\n", "a: { b: 1, c: [x, y, z], d: {}, e: [] }\n"},
		{"flow over lines", "a: {b: 1,\n        c: [x,\n  y]\n     }\nd: [\n1,\n2\n]\n", "a: { b: 1,\n  c: [x,\n  y]\n}\nd: [\n  1,\n  2\n]\n"},
		{"comments", "#  one\na:    1   #two\n\n\n\n   # three\nb:\n     # four\n     c: 2\n   \n# five\n\n", "#  one\na: 1 #two\n\n# three\nb:\n  # four\n  c: 2\n\n# five\n"},
		{"a comment that ends a block", "a:\n    b: 1\n    # of a\nc: 2\n", "a:\n  b: 1\n  # of a\nc: 2\n"},
		{"no comment", "a: x#y\nb: \"# z\"\nc: '#'\n", "a: x#y\nb: \"# z\"\nc: '#'\n"},
		{"quotes", "a: \"x: y,  {z\"\nb:   'it''s,  [so'\n\"c\":1\n\"d\"  : 2\n", ""},
		{"colons", "dst:   10.0.0.1:443\nurl: a://b:c\n{ }: 1\n", ""},
		{"CRLF and tabs between", "a:\t1\r\nb:  \t{c:\t2}\t# x\r\n", "a: 1\nb: { c: 2 } # x\n"},
		{"anchors", "a: &x   { b: 1 }\nc:   *x\nd: [ *x , *x ]\ne: { f: *x , g: *x }\nh: &y\n    i: 1\n", "a: &x { b: 1 }\nc: *x\nd: [*x , *x]\ne: { f: *x , g: *x }\nh: &y\n  i: 1\n"},
		{"literal", "ca: |\n      line\n        deeper\n\n      last\nb:   >-\n   folded\n   more\n", "ca: |\n  line\n    deeper\n\n  last\nb: >-\n  folded\n  more\n"},
		{"several lines", "a: \"one\n      two\"\nb: three\n    four\nc:   five\n", "a: \"one\n  two\"\nb: three\n  four\nc: five\n"},
		{"nothing at the end", "a: 1", "a: 1\n"},
		{"merge", "a: &b { c: 1 }\nd:\n   <<:  *b\n   e: 2\n", "a: &b { c: 1 }\nd:\n  <<: *b\n  e: 2\n"},
		{"a byte order mark", "\ufeffa:  1\n", "a: 1\n"},
	} {
		if c.want == "" {
			if _, err := Format([]byte(c.src)); err != nil {
				continue // refused is well, as long as nothing is changed
			}
			formatted(t, []byte(c.src))
			continue
		}
		if got := string(formatted(t, []byte(c.src))); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// TestRefuses: what is no YAML, or cannot be kept, is an error with its place.
func TestRefuses(t *testing.T) {
	for src, want := range map[string]string{
		"":                       "empty",
		"# only a comment\n":     "empty",
		"a: [1\n":                "line",
		"a:\n\tb: 1\n":           "line",
		"a: 1\n---\nb: 2\n":      "second YAML document",
		"? a\n: 1\n":             "begin with ?",
		"a: 1\nb: \u2028\n":      "line 2: '\\u2028' may break",
		"a: \"x\n":               "line",
		strings.Repeat("[", 200): "",
		"a: " + strings.Repeat("x", policy.MaxBytes): "at most",
	} {
		if out, err := Format([]byte(src)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v, want %q\n%.100s", src, err, want, out)
		}
	}
}

// same fails unless two policies are one: valid or not, and compiled to the same bytes.
func same(t *testing.T, a, b []byte) (valid bool) {
	t.Helper()
	p, _ := policy.Load("a.yaml", a)
	q, _ := policy.Load("a.yaml", b)
	if (p == nil) != (q == nil) {
		t.Fatalf("one is valid:\n%s\n-- formatted --\n%s", a, b)
	}
	if p == nil {
		return false
	}
	// All that was read, but for places and the digest of the file.
	places := regexp.MustCompile(`(Line|Column):\d+|Digest:\[[^]]*\]`)
	said := func(p *policy.Policy) string { return places.ReplaceAllString(fmt.Sprintf("%+v", *p), "") }
	if said(p) != said(q) {
		t.Fatalf("another policy:\n%s\n-- formatted --\n%s", a, b)
	}
	d, err := diff.Compare(p, q, 1000, 1)
	if err != nil || !d.Same() {
		t.Fatalf("%v %+v", err, d)
	}
	if len(p.Tests) != len(q.Tests) || len(p.Statements) != len(q.Statements) {
		t.Fatal("other tests")
	}
	return true
}

// TestExamplesAreFormatted: the examples have the layout, and so has what init writes;
// the policies of other tests keep their meaning.
func TestExamplesAreFormatted(t *testing.T) {
	root := "../../../../"
	var files []string
	for _, g := range []string{"examples/*.yaml", "examples/*/rules.yaml", "rules.yaml"} {
		more, err := filepath.Glob(root + g)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) < 7 {
		t.Fatal(files)
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if out := formatted(t, src); !bytes.Equal(out, src) {
			t.Errorf("%s is not formatted (thurward fmt -w)", f)
		}
		if d := time.Since(begin); d > time.Minute {
			t.Errorf("%s took %v", f, d)
		}
	}
	scripts, err := filepath.Glob("../testdata/*.txt")
	if err != nil || len(scripts) < 40 {
		t.Fatal(err, scripts)
	}
	valid := 0
	for _, f := range scripts {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		_, src, _ := bytes.Cut(b, []byte("-- rules.yaml --\n"))
		src, _, _ = bytes.Cut(src, []byte("\n-- "))
		if out, err := Format(src); err == nil && same(t, src, formatted(t, out)) {
			valid++
		}
	}
	if valid < 20 {
		t.Errorf("%d valid policies", valid)
	}
}

// scrambled returns a document with other white space: what the layout must undo.
func scrambled(r *rand.Rand, src string) string {
	var b strings.Builder
	end := "\n"
	if r.IntN(3) == 0 {
		end = "\r\n"
	}
	factor := 1 + r.IntN(4)
	remarks := []string{"# a remark", "#  { not: [flow", "# 'quote", `# "another`, "#x: y"}
	inFlow := func(l string) string { // white space that means nothing
		var o strings.Builder
		quote := byte(0)
		for i := 0; i < len(l); i++ {
			c := l[i]
			o.WriteByte(c)
			switch {
			case quote != 0:
				if c == quote {
					quote = 0
				}
			case c == '"' || c == '\'':
				quote = c
			case (c == ',' || c == '{' || c == '[') && r.IntN(3) == 0:
				o.WriteString(strings.Repeat(" ", r.IntN(4)))
			}
		}
		return o.String()
	}
	for _, l := range strings.Split(strings.TrimRight(src, "\n"), "\n") {
		t := strings.TrimLeft(l, " ")
		if r.IntN(6) == 0 {
			b.WriteString(strings.Repeat(" ", r.IntN(9)) + end)
		}
		indent := (len(l) - len(t)) * factor
		if r.IntN(8) == 0 {
			b.WriteString(strings.Repeat(" ", indent) + remarks[r.IntN(len(remarks))] + end)
		}
		if rest, ok := strings.CutPrefix(t, "- "); ok { // what is inside moves, too
			t = "-" + strings.Repeat(" ", 2*factor-1) + rest
		}
		b.WriteString(strings.Repeat(" ", indent) + inFlow(t))
		if r.IntN(6) == 0 && !strings.Contains(t, "#") {
			b.WriteString(strings.Repeat(" ", 1+r.IntN(5)) + remarks[r.IntN(len(remarks))])
		}
		b.WriteString(strings.Repeat(" ", r.IntN(3)) + end)
	}
	return b.String()
}

// TestFormatKeepsMeaning: random policies, in random white space, in flow and in block
// form, compile to the same, keep all comments in their order, and are brought into one
// layout.
func TestFormatKeepsMeaning(t *testing.T) {
	r := rand.New(rand.NewPCG(20261130, 370))
	remarks, valid := 0, 0
	for range 200 {
		src := policytest.Small(r)
		if r.IntN(2) == 0 {
			src = blocks(src)
		}
		messy := scrambled(r, src)
		out := formatted(t, []byte(messy))
		if same(t, []byte(messy), out) {
			valid++
		}
		// Comments are compared word by word.
		of := func(s string) (all []string) {
			for l := range strings.Lines(s) {
				if i := strings.Index(l, "#"); i >= 0 {
					all = append(all, strings.TrimSpace(l[i:]))
				}
			}
			return all
		}
		before, after := of(messy), of(string(out))
		if strings.Join(before, "\n") != strings.Join(after, "\n") {
			t.Fatalf("comments\n%q became\n%q", before, after)
		}
		remarks += len(before)
		// Without comments and empty lines every scrambling has one layout.
		bare := func(s string) string {
			var o strings.Builder
			for l := range strings.Lines(s) {
				if i := strings.Index(l, "#"); i >= 0 {
					l = strings.TrimRight(l[:i], " ") + "\n"
				}
				if strings.TrimSpace(l) != "" {
					o.WriteString(l)
				}
			}
			return o.String()
		}
		if a, b := bare(string(out)), bare(string(formatted(t, []byte(scrambled(r, src))))); a != b {
			t.Fatalf("two layouts of one policy:\n%s\n-- and --\n%s", a, b)
		}
	}
	if remarks < 200 || valid < 200 {
		t.Errorf("%d comments, %d valid policies: too few to say anything", remarks, valid)
	}
}

// blocks returns a policy with its rules as blocks, in the lists' other form.
func blocks(src string) string {
	var b strings.Builder
	for l := range strings.Lines(src) {
		if t := strings.TrimSpace(l); strings.HasPrefix(l, "  - { id: ") && !strings.Contains(l, "[") {
			for i, f := range strings.Split(strings.TrimSuffix(strings.TrimPrefix(t, "- { "), " }"), ", ") {
				b.WriteString(map[bool]string{true: "  - ", false: "    "}[i == 0] + f + "\n")
			}
			continue
		}
		b.WriteString(l)
	}
	return b.String()
}

// TestLongFiles: a file of ten thousand rules, a very long line, and a deep document.
func TestLongFiles(t *testing.T) {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 20000 {
		fmt.Fprintf(&b, "-  {id: r%d,   action: deny}   # %d\n", i, i)
	}
	b.WriteString("groups: {addresses: {all: [")
	for i := range 100000 {
		fmt.Fprintf(&b, "10.%d.%d.%d ,", i>>16, i>>8&255, i&255)
	}
	b.WriteString("]}}\n")
	begin := time.Now()
	out := formatted(t, []byte(b.String()))
	if d := time.Since(begin); d > time.Minute || !bytes.Contains(out, []byte("  - { id: r19999, action: deny } # 19999\n")) {
		t.Errorf("took %v", d)
	}
	deep := ""
	for i := range 30 {
		deep += strings.Repeat("   ", i) + "a:\n"
	}
	formatted(t, []byte(deep+strings.Repeat("   ", 30)+"b: 1\n"))
}

// FuzzFormat: whatever it is given, the result means the same, and is formatted.
func FuzzFormat(f *testing.F) {
	for _, s := range []string{"a: {b: [c,'d'], e: \"f\"} # g\n", "- - a\n  - |\n    b\n", "a: &x b\nc: *x\n", "a:\r\n  - b: 1\r\n", "'a':  !t b\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		out, err := Format(src)
		if err != nil {
			return
		}
		again, err := Format(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q became %q, and that %q (%v)", src, out, again, err)
		}
	})
}
