// Package deps keeps watch over what is linked into the image and over the
// structure of the tree.
package deps

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the lists of linked packages")

const module = "github.com/thurward/thurward/"

func deps(t *testing.T, pkg, tags string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", tags, "-deps", pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	d := strings.Fields(string(out))
	sort.Strings(d)
	return d
}

// TestImageDependencies: every package linked into the image is on a list that
// somebody has looked at.
func TestImageDependencies(t *testing.T) {
	for file, of := range map[string]struct{ pkg, tags string }{
		"firewall.txt":     {"./cmd/firewall", ""},
		"firewall-dot.txt": {"./cmd/firewall", "dot"},
		"kernel.txt":       {"./cmd/kernel", ""},
	} {
		got := strings.Join(deps(t, of.pkg, of.tags), "\n") + "\n"
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s (tags %q) links other packages than %s lists; if that is meant: go test ./test/deps -update, and say why in the commit", of.pkg, of.tags, file)
		}
	}
}

// banned says what must not be linked into an image, and why.
var banned = map[string]string{
	"net/http":      "the image serves nothing",
	"net":           "the image has no sockets",
	"encoding/json": "lines are rendered without reflection",
	"crypto/rand":   "reserves 32 MB; sys.Random is the source",
	"os/exec":       "there is nothing to execute",
	"gvisor.dev":    "no TCP/IP stack between the drivers and the filter (ADR 0003)",
	"go.yaml.in":    "no parser of policies in the image",
	"regexp":        "nothing is matched by patterns at run time",
}

// allowed says what of that the program with DNS over TLS links all the same,
// and why. Policies without it do not pay for it (ADR 0010).
var allowed = map[string]string{
	"net":         "crypto/tls takes a net.Conn and crypto/x509 a net.IP; there are no sockets behind them",
	"crypto/rand": "crypto/tls asks it; its 32 MB are not touched and so take no memory",
}

func TestBannedFromImage(t *testing.T) {
	for tags, exempt := range map[string]map[string]string{"": nil, "dot": allowed} {
		linked := map[string]bool{}
		for _, d := range deps(t, "./cmd/firewall", tags) {
			linked[d] = true
			for b, why := range banned {
				if exempt[d] == "" && (d == b || strings.HasPrefix(d, b+"/") && strings.Contains(b, ".")) {
					t.Errorf("the image (tags %q) links %s: %s", tags, d, why)
				}
			}
		}
		for d := range exempt {
			if !linked[d] {
				t.Errorf("the image (tags %q) does not link %s any more: take it off the list", tags, d)
			}
		}
	}
}

// A tables package holds state of packets; it takes input and time as arguments
// and returns what to do.
var tables = []string{"conntrack", "nat", "filter", "fqdn", "clienthello", "neigh", "reassembly"}

// plain are the packages of the guest that a table may import: no more than
// hints to the processor, and frames as numbers of buffers, in lists, which some
// tables keep until there is something to be done with them.
var plain = []string{"internal/guest/prefetch", "internal/guest/framebuf"}

// TestFloors: the three floors of internal/ keep their law. What both sides
// mean by the same word, shared, imports neither floor; what is linked into the
// image, guest, never imports host; host may import guest. Within guest, a
// table knows no other package but those of plain data, and the router no
// device.
func TestFloors(t *testing.T) {
	cmd := exec.Command("go", "list", "-tags", "dot", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	// floor returns the part of the tree that a package is in.
	floor := func(path string) string {
		for _, f := range []string{"internal/shared", "internal/guest", "internal/host", "cmd/firewall", "cmd/kernel"} {
			if path == f || strings.HasPrefix(path, f+"/") {
				return f
			}
		}
		return "" // command line, tools, tests
	}
	may := map[string][]string{
		"internal/shared": {"internal/shared"},
		"internal/guest":  {"internal/shared", "internal/guest"},
		"cmd/firewall":    {"internal/shared", "internal/guest"},
		"cmd/kernel":      {"internal/shared", "internal/guest"},
		"internal/host":   {"internal/shared", "internal/guest", "internal/host"},
	}
	packages := 0
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		f := strings.Fields(line)
		from, ours := strings.CutPrefix(f[0], module)
		if !ours {
			continue
		}
		allowed, ruled := may[floor(from)]
		if !ruled {
			continue
		}
		packages++
		for _, im := range f[1:] {
			to, ours := strings.CutPrefix(im, module)
			if !ours {
				continue
			}
			if !slices.Contains(allowed, floor(to)) {
				t.Errorf("%s imports %s: %s may import %v", from, to, floor(from), allowed)
			}
			table := slices.Contains(tables, strings.TrimPrefix(from, "internal/guest/"))
			if table && floor(to) != "internal/shared" && !slices.Contains(plain, to) {
				t.Errorf("%s imports %s: a table imports plain data only", from, to)
			}
			if from == "internal/guest/router" && slices.Contains([]string{"internal/guest/virtio", "internal/guest/sys"}, to) {
				t.Errorf("%s imports %s: the router knows ports, not devices", from, to)
			}
			if to == "internal/guest/router" && floor(from) == "internal/guest" {
				t.Errorf("%s imports %s: nothing in the guest is above the router but its main", from, to)
			}
		}
	}
	if packages < 30 {
		t.Fatalf("%d packages with a floor", packages)
	}
}

// TestTrustedBase: the two folders shared and guest are what is linked into the
// image, no more and no less.
func TestTrustedBase(t *testing.T) {
	linked := map[string]bool{}
	for _, file := range []string{"firewall-dot.txt", "kernel.txt"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range strings.Fields(string(b)) {
			linked[p] = true
			if to, ours := strings.CutPrefix(p, module); ours && !strings.HasPrefix(to, "internal/shared/") && !strings.HasPrefix(to, "internal/guest/") && !strings.HasPrefix(to, "cmd/") {
				t.Errorf("%s links %s, which lies elsewhere", file, to)
			}
		}
	}
	cmd := exec.Command("go", "list", "-tags", "dot", "./internal/shared/...", "./internal/guest/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range strings.Fields(string(out)) {
		if !linked[p] && !strings.HasSuffix(p, "test") { // rulesettest and the like help tests
			t.Errorf("%s is not linked into the image: it belongs to internal/host", p)
		}
	}
}

// long files, and why.
var long = map[string]string{
	"test/kernel/guest/main.go": "one check of the kernel after the other",
}

// TestTree: files are short and packages are documented.
func TestTree(t *testing.T) {
	documented := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("../..", path)
		if d.IsDir() {
			if rel == ".git" || rel == "build" || rel == "bin" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := bytes.Count(b, []byte("\n")); n > 500 && long[rel] == "" {
			t.Errorf("%s has %d lines; split it, or list it in test/deps with the reason", rel, n)
		}
		dir := filepath.Dir(rel)
		has := regexp.MustCompile(`(?m)^// (Package|Command) [a-z0-9-]+ `).Match(b)
		documented[dir] = documented[dir] || has
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for d, ok := range documented {
		if !ok {
			t.Errorf("package %s has no documentation", d)
		}
	}
}

// TestSpecification: every test and benchmark that SPECIFICATION.md names is
// there; each promise has a number of its own, and names a test, or is pending; and
// a figure that is only measured has the command beside it.
func TestSpecification(t *testing.T) {
	spec, err := os.ReadFile("../../SPECIFICATION.md")
	if err != nil {
		t.Fatal(err)
	}
	test := regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Za-z0-9_]+)`")
	names := test.FindAllSubmatch(spec, -1)
	if len(names) < 20 {
		t.Fatalf("%d names in SPECIFICATION.md", len(names))
	}
	promises := map[string]bool{}
	for n, l := range strings.Split(string(spec), "\n") {
		id := regexp.MustCompile(`^(\d+[a-z]?)\. `).FindStringSubmatch(l)
		if id == nil {
			continue
		}
		if promises[id[1]] {
			t.Errorf("SPECIFICATION.md:%d: there are two %s", n+1, id[1])
		}
		promises[id[1]] = true
		command := regexp.MustCompile("`(make|go (test|run)) [^`]+`").MatchString(l)
		if !test.MatchString(l) && !command && !strings.Contains(l, "*pending*") {
			t.Errorf("SPECIFICATION.md:%d: %s names no test", n+1, id[1])
		}
		if strings.Contains(strings.ToLower(l), "measured") && !command && !strings.Contains(l, "by hand") && !strings.Contains(l, "which the test prints") {
			t.Errorf("SPECIFICATION.md:%d: %s has a figure that is measured, and no command", n+1, id[1])
		}
	}
	if len(promises) < 150 {
		t.Fatalf("%d promises", len(promises))
	}
	var all bytes.Buffer
	filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			b, _ := os.ReadFile(path)
			all.Write(b)
		}
		return nil
	})
	for _, n := range names {
		if !bytes.Contains(all.Bytes(), []byte(fmt.Sprintf("func %s(", n[1]))) {
			t.Errorf("SPECIFICATION.md names %s, which does not exist", n[1])
		}
	}
}
