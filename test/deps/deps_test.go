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
		"kernel.txt":       {"./internal/kernel/cmd", ""},
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
	"crypto/rand":   "reserves 32 MB; machine.Random is the source",
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

// TestImportDirection: packet is below conntrack, nat and filter, those are
// below dataplane, and none of them knows a device or the kernel.
func TestImportDirection(t *testing.T) {
	level := map[string]int{"prefetch": 0, "packet": 0, "frame": 0, "telemetry": 0, "segment": 0, "printable": 0, "conntrack": 1, "nat": 1, "filter": 1, "fqdn": 1, "dnsproxy": 2, "tcpend": 1, "dotlink": 2, "clienthello": 0, "dataplane": 3}
	for name, l := range level {
		for _, d := range deps(t, "./internal/"+name, "") {
			p, ours := strings.CutPrefix(d, module+"internal/")
			if !ours || p == name {
				continue
			}
			m, ok := level[p]
			if !ok {
				t.Errorf("%s imports %s", name, p)
			} else if m > l || m == l && l > 0 {
				t.Errorf("%s imports %s, which is not below it", name, p)
			}
		}
	}
}

// long files, and why.
var long = map[string]string{
	"test/kernel/guest/main.go": "one check of the kernel after the other",
}

var notOurs = regexp.MustCompile(`/work/|\.library|/shared/`)

// TestTree: files are short, packages are documented, and nothing points to
// the machine it was written on.
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
		if rel == ".git" {
			return nil // of a worktree: it names where the repository is
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if notOurs.Match(b) && rel != "test/deps/deps_test.go" {
			t.Errorf("%s names a path of some machine", rel)
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
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
// there.
func TestSpecification(t *testing.T) {
	spec, err := os.ReadFile("../../SPECIFICATION.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Za-z0-9_]+)`").FindAllSubmatch(spec, -1)
	if len(names) < 20 {
		t.Fatalf("%d names in SPECIFICATION.md", len(names))
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
