package conformance

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const limits = "../../docs/limits.md"

// bounded are the packages whose bounds docs/limits.md lists.
var bounded = []string{"internal/guest/conntrack", "internal/guest/nat", "internal/guest/neigh", "internal/guest/reassembly", "internal/guest/router", "internal/guest/dnsproxy", "internal/guest/endpoint", "internal/guest/sni", "internal/guest/icmperr", "internal/guest/tcp", "internal/guest/fqdn",
	"internal/guest/export", "internal/guest/virtio", "internal/guest/dot", "internal/guest/clienthello", "cmd/firewall"}

// bound matches the names of constants that bound something.
var bound = regexp.MustCompile(`^(max[A-Z]\w*|\w+(Max|Slots|Burst|Rate|Chunks|Groups|Share|Part)|few[A-Z]\w*|Max(Entries|Waiting|PerHop|Datagrams|Fragments|PerDatagram|PerSource)|ownPorts|buffers|holders)$`)

// consts returns the constants of a file, as the source has them.
func consts(t *testing.T, file string) map[string]string {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	fs := token.NewFileSet()
	f, err := parser.ParseFile(fs, file, src, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for i, n := range v.Names {
				if i < len(v.Values) {
					found[n.Name] = string(src[fs.Position(v.Values[i].Pos()).Offset:fs.Position(v.Values[i].End()).Offset])
				}
			}
		}
	}
	return found
}

// TestLimitsPage: the tests that docs/limits.md names exist, the constants have
// the values written there, and every bound of the packages is there.
func TestLimitsPage(t *testing.T) {
	b, err := os.ReadFile(limits)
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	found, fuzz := tests(t), fuzzTargets(t)
	rows := 0
	for n, l := range strings.Split(page, "\n") {
		named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(l, -1)
		if strings.HasPrefix(l, "| ") && !strings.HasPrefix(l, "| resource") && !strings.HasPrefix(l, "| ---") {
			rows++
			if len(named) == 0 || strings.Count(l, " | ") != 3 {
				t.Errorf("%s:%d: want four columns, and a test in the last", limits, n+1)
			}
		}
		for _, m := range named {
			if found[m[1]] == "" && !fuzz[m[1]] {
				t.Errorf("%s:%d: %s does not exist", limits, n+1, m[1])
			}
		}
	}
	if rows < 25 {
		t.Errorf("%d rows", rows)
	}
	values := 0
	for _, m := range regexp.MustCompile("`([a-z/]+\\.go)`: ((?:`[A-Za-z]+ = [^`]+`(?:, )?)+)").FindAllStringSubmatch(page, -1) {
		have := consts(t, "../../"+m[1])
		for _, c := range regexp.MustCompile("`([A-Za-z]+) = ([^`]+)`").FindAllStringSubmatch(m[2], -1) {
			values++
			if have[c[1]] != c[2] {
				t.Errorf("%s says that %s of %s is %s; it is %q", limits, c[1], m[1], c[2], have[c[1]])
			}
		}
	}
	if all := strings.Count(page, " = "); values != all || values < 30 {
		t.Errorf("%d of %d values are checked", values, all)
	}
	for _, p := range bounded {
		files, err := filepath.Glob("../../" + p + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatal(p, err)
		}
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue
			}
			for name := range consts(t, f) {
				if bound.MatchString(name) && !strings.Contains(page, "`"+name+" = ") && !strings.Contains(page, "`"+name+"`") {
					t.Errorf("%s: the bound %s is not in %s", f, name, limits)
				}
			}
		}
	}
}

// fuzzTargets returns the names of all fuzz targets.
func fuzzTargets(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	files, err := filepath.Glob("../../internal/*/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9_]+)\(f \*testing\.F\)`).FindAllSubmatch(b, -1) {
			all[string(m[1])] = true
		}
	}
	return all
}
