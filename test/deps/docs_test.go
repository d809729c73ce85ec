package deps

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A source is a file of the tree: its path from the root, and its content.
type source struct{ rel, text string }

// tree reads the files of the tree, once. Built files and git's own are left out.
var tree = sync.OnceValues(func() (all []source, err error) {
	kinds := []string{".go", ".s", ".md", ".txt", ".yaml", ".json", ".sh", ".js", ".html", ".css", ""}
	err = filepath.WalkDir("../..", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", p)
		if d.IsDir() {
			if rel == ".git" || rel == "build" || rel == "bin" || d.Name() == "fuzz" && strings.Contains(rel, "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !slices.Contains(kinds, path.Ext(rel)) {
			return nil
		}
		b, err := os.ReadFile(p)
		all = append(all, source{rel, string(b)})
		return err
	})
	return all, err
})

// walk calls do with each file of the tree.
func walk(t *testing.T, do func(rel, text string)) {
	t.Helper()
	all, err := tree()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		do(f.rel, f.text)
	}
}

// exists reports whether a path from the root is a file or a folder.
func exists(rel string) bool {
	_, err := os.Stat(filepath.Join("../..", rel))
	return err == nil
}

// prose returns a page without its fenced blocks, which stay as empty lines.
func prose(page string) string {
	lines, fenced := strings.Split(page, "\n"), false
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
			lines[i] = ""
		} else if fenced {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// anchors returns the names by which a page's headings can be linked to, as
// GitHub makes them.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`).FindAllStringSubmatch(prose(page), -1) {
		s := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		s = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(strings.ToLower(s), "")
		s = strings.ReplaceAll(s, " ", "-")
		name := s
		for n := 1; all[name]; n++ {
			name = fmt.Sprintf("%s-%d", s, n)
		}
		all[name] = true
	}
	return all
}

// TestLinks: each link of a document that leads into the tree leads to a file
// that is there, and to a heading that is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	links := 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" {
			return
		}
		for n, l := range strings.Split(prose(text), "\n") {
			for _, m := range link.FindAllStringSubmatch(l, -1) {
				if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
					continue
				}
				links++
				file, anchor, _ := strings.Cut(m[1], "#")
				to := rel
				if file != "" {
					to = path.Join(path.Dir(rel), file)
				}
				if strings.HasPrefix(to, "../") || !exists(to) {
					t.Errorf("%s:%d: %s does not exist", rel, n+1, m[1])
					continue
				}
				if anchor == "" || path.Ext(to) != ".md" {
					continue
				}
				b, err := os.ReadFile(filepath.Join("../..", to))
				if err != nil {
					t.Fatal(err)
				}
				if !anchors(string(b))[anchor] {
					t.Errorf("%s:%d: %s has no heading #%s", rel, n+1, to, anchor)
				}
			}
		}
	})
	if links < 200 {
		t.Fatalf("%d links", links)
	}
}

// TestIndex: docs/README.md leads to every page under docs but runbooks, which the
// page on operations lists, and records of decisions.
func TestIndex(t *testing.T) {
	index := map[string]string{"docs/README.md": "", "docs/architecture/07-operations.md": ""}
	for p := range index {
		b, err := os.ReadFile("../../" + p)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+\.md)[)#]`).FindAllStringSubmatch(string(b), -1) {
			index[path.Join(path.Dir(p), m[1])] = p
		}
	}
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || !strings.HasPrefix(rel, "docs/") || strings.HasPrefix(rel, "docs/adr/") || rel == "docs/README.md" {
			return
		}
		if index[rel] == "" {
			t.Errorf("docs/README.md does not lead to %s", rel)
		}
	})
}

// made are documents that a command writes, and names that stand for any.
var made = []string{"build/evasions.md"}

// TestDocumentsExist: a document that code, a comment, a message or another
// document names is in the repository. Its path is from the root, or from the
// file that names it.
func TestDocumentsExist(t *testing.T) {
	name := regexp.MustCompile(`[A-Za-z0-9_./-]*[A-Za-z0-9_-]\.md\b`)
	names := 0
	walk(t, func(rel, text string) {
		if rel == "test/deps/docs_test.go" {
			return
		}
		if path.Ext(rel) == ".md" { // what a link is called is no path
			text = regexp.MustCompile(`\[[^]\n]*\]\(`).ReplaceAllString(text, "[](")
		}
		for n, l := range strings.Split(text, "\n") {
			for _, m := range name.FindAllString(l, -1) {
				_, ours, url := strings.Cut(m, "thurward/thurward/blob/main/")
				if strings.HasPrefix(m, "//") && !url {
					continue // of another place
				}
				if url {
					m = ours
				}
				names++
				if !exists(m) && !exists(path.Join(path.Dir(rel), m)) && !slices.Contains(made, strings.TrimPrefix(m, "/")) {
					t.Errorf("%s:%d: there is no document %s", rel, n+1, m)
				}
			}
		}
	})
	if names < 200 {
		t.Fatalf("%d names of documents", names)
	}
}

// TestPathsExist: a file or folder of the tree that a document names is there:
// as internal/guest/nat, cmd/kernel/power.go or test/hostile/, or as power.go alone.
func TestPathsExist(t *testing.T) {
	bases := map[string]bool{}
	walk(t, func(rel, _ string) { bases[path.Base(rel)] = true })
	base := regexp.MustCompile("`([a-z0-9_]+\\.(?:go|s))`")
	name := regexp.MustCompile("`\\.?/?((?:internal|cmd|test|bench|docs|deploy|scripts|schemas|examples|collector)/[A-Za-z0-9_./-]+)`")
	names := 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || rel == "CHANGELOG.md" || strings.HasPrefix(rel, "docs/adr/") {
			return // what was decided then
		}
		for n, l := range strings.Split(text, "\n") {
			for _, m := range base.FindAllStringSubmatch(l, -1) {
				if !bases[m[1]] {
					t.Errorf("%s:%d: there is no file %s", rel, n+1, m[1])
				}
			}
			for _, m := range name.FindAllStringSubmatch(l, -1) {
				names++
				if to := strings.TrimSuffix(m[1], "/..."); !exists(strings.TrimRight(to, "/")) {
					t.Errorf("%s:%d: there is no %s", rel, n+1, m[1])
				}
			}
		}
	})
	if names < 80 {
		t.Fatalf("%d paths", names)
	}
}

// TestRecords: decisions are cited by numbers that are there, and each is in a
// file of its own.
func TestRecords(t *testing.T) {
	files, err := filepath.Glob("../../docs/adr/[0-9][0-9][0-9][0-9]-*.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		number := filepath.Base(f)[:4]
		if there[number] {
			t.Errorf("there are two records %s", number)
		}
		there[number] = true
		if !strings.HasPrefix(string(b), "# "+strings.TrimLeft(number, "0")+". ") {
			t.Errorf("%s does not begin with its number", f)
		}
	}
	walk(t, func(rel, text string) {
		for _, m := range regexp.MustCompile(`\bADR (\d{4})`).FindAllStringSubmatch(text, -1) {
			if !there[m[1]] {
				t.Errorf("%s: there is no ADR %s", rel, m[1])
			}
		}
	})
}

// commands returns what the code spans and the fenced blocks of a page say,
// line by line, without prompts and comments.
func commands(page string) (all []string) {
	fenced := false
	for _, l := range strings.Split(page, "\n") {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			l, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "$ "), " #")
			all = append(all, l)
		}
	}
	// A span may be broken over two lines.
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(prose(page), -1) {
		all = append(all, strings.Join(strings.Fields(m[1]), " "))
	}
	return all
}

// goFlags are flags of go test and go run that documents use.
var goFlags = []string{"run", "bench", "benchtime", "benchmem", "count", "cpu", "fuzz", "fuzztime", "fuzzminimizetime", "parallel", "timeout", "v", "tags", "p", "mod", "vet"}

// TestCommands: each command of make and go that a document shows has its
// target, its packages, its tests and its flags.
func TestCommands(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	collector, err := os.ReadFile("../../collector/cmd/thurward-collector/main.go")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || rel == "CHANGELOG.md" {
			return
		}
		for _, c := range commands(text) {
			for _, m := range regexp.MustCompile(`^(?:\S*/)?thurward-collector ([a-z-]+)`).FindAllStringSubmatch(c, -1) {
				if !strings.Contains(string(collector), `"`+m[1]+`"`) {
					t.Errorf("%s: the collector has no command %s: %s", rel, m[1], c)
				}
			}
			for _, m := range regexp.MustCompile(`^(?:[A-Z_]+=\S+ )*make ([a-z-]+)`).FindAllStringSubmatch(c, -1) {
				shown++
				if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
					t.Errorf("%s: make has no target %s: %s", rel, m[1], c)
				}
			}
			for _, m := range regexp.MustCompile(`scripts/[a-z-]+\.sh`).FindAllString(c, -1) {
				if !exists(m) {
					t.Errorf("%s: there is no %s", rel, m)
				}
			}
			if f := words(c); len(f) > 2 && f[0] == "go" && (f[1] == "test" || f[1] == "run" || f[1] == "list") {
				shown++
				for _, wrong := range goCommand(f[1:]) {
					t.Errorf("%s: %s: %s", rel, c, wrong)
				}
			}
		}
	})
	if shown < 30 {
		t.Fatalf("%d commands", shown)
	}
}

// TestMetricsAreThere: a metric that a document names is one that readers know.
func TestMetricsAreThere(t *testing.T) {
	var known string
	for _, f := range []string{"internal/host/ingest/schema.go", "internal/host/dashboard/metrics.go", "internal/host/dashboard/text.go", "cmd/thurward/restarts.go", "collector/thurwardreceiver/own.go", "collector/thurwardaccess/access.go"} {
		b, err := os.ReadFile("../../" + f)
		if err != nil {
			t.Fatal(err)
		}
		known += string(b)
	}
	names := 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || rel == "CHANGELOG.md" {
			return
		}
		for _, m := range regexp.MustCompile("`(thurward_[a-z_]+)").FindAllStringSubmatch(text, -1) {
			names++
			if !strings.Contains(known, m[1]) {
				t.Errorf("%s: there is no metric %s", rel, m[1])
			}
		}
	})
	if names < 150 {
		t.Fatalf("%d names of metrics", names)
	}
}

// TestAlertsAreCounted: documents say how many alerts there are.
func TestAlertsAreCounted(t *testing.T) {
	alerts, err := os.ReadFile("../../deploy/observability/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want, said := fmt.Sprint(strings.Count(string(alerts), "alert: ")), 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || rel == "CHANGELOG.md" {
			return
		}
		for _, m := range regexp.MustCompile(`\b(\d+) alerts\b`).FindAllStringSubmatch(text, -1) {
			if said++; m[1] != want {
				t.Errorf("%s says %s alerts, there are %s", rel, m[1], want)
			}
		}
	})
	if said == 0 {
		t.Error("no document says how many alerts there are")
	}
}

// words divides a command as a shell would, quotes taken off.
func words(c string) (f []string) {
	for _, w := range regexp.MustCompile(`'[^']*'|\S+`).FindAllString(c, -1) {
		f = append(f, strings.Trim(w, `'`))
	}
	return f
}

// goCommand returns what is wrong with a command of go.
func goCommand(f []string) (wrong []string) {
	var source string
	for _, w := range f[1:] {
		if !strings.HasPrefix(w, "./") {
			continue
		}
		files, _ := filepath.Glob(filepath.Join("../..", w, "*.go"))
		if dir, all := strings.CutSuffix(w, "..."); len(files) == 0 && !(all && exists(dir)) {
			wrong = append(wrong, "there is no package "+w)
		}
		for _, file := range files {
			b, _ := os.ReadFile(file)
			source += string(b)
		}
	}
	for i, w := range f[1:] {
		if !strings.HasPrefix(w, "-") || source == "" {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if !slices.Contains(goFlags, name) && !regexp.MustCompile(`flag\.[A-Za-z0-9]+\([^)]*"`+name+`"`).MatchString(source) {
			wrong = append(wrong, "there is no flag "+w)
		}
		kind := map[string]string{"run": "(?:Test|Fuzz|Example)", "bench": "Benchmark", "fuzz": "Fuzz"}[name]
		if kind == "" || f[0] != "test" {
			continue
		}
		if value == "" && i+2 < len(f) {
			value = f[i+2]
		}
		if value == "^$" || value == "xxx" || value == "." {
			continue
		}
		re, err := regexp.Compile(value)
		if err != nil {
			wrong = append(wrong, err.Error())
			continue
		}
		found := false
		for _, m := range regexp.MustCompile(`(?m)^func (`+kind+`[A-Za-z0-9_]*)\(`).FindAllStringSubmatch(source, -1) {
			found = found || re.MatchString(m[1])
		}
		if !found {
			wrong = append(wrong, "nothing is called "+value)
		}
	}
	return wrong
}

// TestNamedTests: the tests that documents and comments name are there, as
// TestX, FuzzX or BenchmarkX, or by the beginning of their names, as TestS16_….
func TestNamedTests(t *testing.T) {
	out, err := exec.Command("grep", "-rhoE", `^func (Test|Fuzz|Benchmark)[A-Za-z0-9_]+\(`, "--include=*_test.go", "../..").Output()
	if err != nil {
		t.Fatal(err)
	}
	there := string(out)
	named := regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9_]*)`")
	names := 0
	walk(t, func(rel, text string) {
		if path.Ext(rel) != ".md" || rel == "CHANGELOG.md" {
			return
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			names++
			if !strings.Contains(there, "func "+m[1]+"(") {
				t.Errorf("%s names %s, which does not exist", rel, m[1])
			}
		}
	})
	if names < 500 {
		t.Fatalf("%d names of tests", names)
	}
}

// TestDocumentsAreChecked: the checks of this file notice what they are for.
func TestDocumentsAreChecked(t *testing.T) {
	page := "# A `b` c, d\n## A `b` c, d\n```\n# no heading\nmake test  # why\n```\nand `go test\n./test/deps -run 'X'`"
	if a := anchors(page); len(a) != 2 || !a["a-b-c-d"] || !a["a-b-c-d-1"] {
		t.Errorf("anchors: %v", a)
	}
	if c := strings.Join(commands(page), "|"); !strings.Contains(c, "|make test ") || !strings.Contains(c, "|go test ./test/deps -run 'X'") {
		t.Errorf("commands: %q", c)
	}
	for c, want := range map[string]string{
		"go test ./test/nowhere":                   "there is no package",
		"go test ./test/deps -run TestNever":       "nothing is called",
		"go test ./test/deps -never":               "there is no flag",
		"go test ./test/deps -run 'TestLinks$' -v": "",
		"go test ./test/deps -update":              "",
	} {
		if got := strings.Join(goCommand(words(c)[1:]), ", "); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", c, got, want)
		}
	}
}
