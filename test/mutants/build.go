package main

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A binary is a package's tests with all mutants compiled in.
type binary struct {
	path  string
	dir   string   // in which its tests run
	flags []string // for every run
	tests []*test
}

// testers names whose tests are run for a mutant of the package: its own, and
// those of what is built upon it. own: its own only.
func testers(short string, own bool) []string {
	if own {
		return []string{short}
	}
	switch short {
	case "host/policy/packetset":
		return []string{short, "host/policy/compile"}
	case "host/policy/compile":
		return []string{short, "host/policy", "guest/filter", "shared/ruleset"}
	case "guest/filter":
		return []string{short, "host/policy/compile", "guest/router"}
	case "guest/conntrack", "guest/nat", "guest/neigh", "guest/reassembly", "guest/fqdn", "guest/clienthello", "shared/packet", "shared/ruleset",
		"guest/dnsproxy", "guest/dot", "guest/tcp", "guest/endpoint", "guest/sni", "guest/icmperr":
		return []string{short, "guest/router"}
	}
	return []string{short}
}

// change writes the changed files and the list that puts them in place of the
// originals. A line on which a change does not compile is left as it is.
func change(fset *token.FileSet, sources []*source, work string) ([]*mutant, string, error) {
	var all []*mutant
	overlay := map[string]string{}
	for n, s := range sources {
		before := len(all)
		for try := 0; ; try++ {
			all = all[:before]
			for _, f := range s.files {
				f.edit = edits{}
			}
			find(fset, s, &all)
			bad, err := check(s)
			if err != nil {
				return nil, "", err
			}
			if bad == 0 {
				break
			}
			if try == 20 {
				return nil, "", fmt.Errorf("%s: changes do not compile", s.path)
			}
		}
		dir := filepath.Join(work, fmt.Sprintf("src%d", n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, "", err
		}
		put := func(original, text string) error {
			p := filepath.Join(dir, filepath.Base(original))
			overlay[original] = p
			return os.WriteFile(p, []byte(text), 0o644)
		}
		for _, f := range s.files {
			if err := put(f.path, f.edit.apply(f.text)); err != nil {
				return nil, "", err
			}
		}
		if err := put(filepath.Join(s.dir, "mutant_helper.go"), fmt.Sprintf(helper, s.name)); err != nil {
			return nil, "", err
		}
	}
	p := filepath.Join(work, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return nil, "", err
	}
	return all, p, os.WriteFile(p, b, 0o644)
}

// check type-checks a changed package and notes the lines that have errors. It
// returns how many are new.
func check(s *source) (int, error) {
	fset := token.NewFileSet()
	var parsed []*ast.File
	bad := 0
	for _, f := range s.files {
		text := f.edit.apply(f.text)
		a, err := parser.ParseFile(fset, f.path, text, parser.SkipObjectResolution)
		if err != nil {
			return 0, fmt.Errorf("%s: a change cannot be parsed: %w", f.path, err)
		}
		parsed = append(parsed, a)
	}
	a, err := parser.ParseFile(fset, "mutant_helper.go", fmt.Sprintf(helper, s.name), 0)
	if err != nil {
		return 0, err
	}
	parsed = append(parsed, a)
	conf := s.conf
	var first error
	conf.Error = func(err error) {
		e, ok := err.(types.Error)
		if !ok {
			return
		}
		if first == nil {
			first = err
		}
		at := fset.Position(e.Pos)
		for _, f := range s.files {
			if f.path == at.Filename && !f.skip[at.Line] {
				f.skip[at.Line] = true
				bad++
			}
		}
	}
	_, err = conf.Check(s.path, fset, parsed, nil)
	if err != nil && bad == 0 {
		return 0, first
	}
	return bad, nil
}

// noFailFile is for tests that use rapid, which know this flag. What they find
// with a mutant would be kept beside the sources, and run again without it.
const noFailFile = "-rapid.nofailfile"

// learnFlags asks the binary which of these it knows.
func (b *binary) learnFlags() {
	if command(context.Background(), b, 0, noFailFile, "-test.list", ".").Run() == nil {
		b.flags = []string{noFailFile}
	}
}

// compile builds the test binaries.
func compile(work, overlay string, sources []*source, own bool) (map[string]*binary, error) {
	bins := map[string]*binary{}
	for _, s := range sources {
		for _, t := range testers(s.short, own) {
			if bins[t] != nil {
				continue
			}
			b := &binary{path: filepath.Join(work, strings.ReplaceAll(t, "/", "-")+".test"), dir: filepath.Join(root(), "internal", t)}
			cmd := exec.Command("go", "test", "-c", "-vet=off", "-overlay", overlay, "-o", b.path, "./internal/"+t)
			cmd.Dir = root()
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return nil, fmt.Errorf("building the tests of internal/%s: %w\n%s", t, err, out)
			}
			if _, err := os.Stat(b.path); err != nil {
				return nil, fmt.Errorf("internal/%s has no tests", t)
			}
			b.learnFlags()
			bins[t] = b
		}
	}
	return bins, nil
}
