package policyview

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy/policytest"
)

const rules = policytest.SmallWorld + `defaults: { default_action: deny }
groups: { addresses: { tablets: [10.0.0.8/29], kids: [10.0.0.8/30, 10.0.0.7] } }
rules:
  - { id: web, action: accept, direction: egress, source: $tablets, destination_port: 443, protocol: tcp }
`

// TestFinder: a policy is found among files by its digest, also one that was written later;
// what is none, or another, is passed over, and said.
func TestFinder(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file("a.yaml", rules+"# another\n")
	file("broken.yaml", "rules: [")
	if err := os.Mkdir(filepath.Join(dir, "folder.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	var said []string
	f := &Finder{Files: []string{filepath.Join(dir, "*.yaml"), filepath.Join(dir, "gone")}, Say: func(format string, a ...any) { said = append(said, fmt.Sprintf(format, a...)) }}
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	digest := Digest([]byte(rules))
	if p := f.Find(digest); p != nil {
		t.Errorf("found %s, which is not there", p.Digest)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "folder.yaml: is not a regular file") || !strings.Contains(all, "gone: file does not exist") {
		t.Errorf("said %q", all)
	}
	file("b.yaml", rules)
	p := f.Find(digest)
	if p == nil || p.Digest != digest || len(p.Rules) != 2 || p.Rules[0].ID != "web" {
		t.Fatalf("%+v", p)
	}
	tables, err := p.Reach()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(tables); err != nil || !strings.Contains(string(b), `"label":"$tablets"`) {
		t.Errorf("%v %s", err, b)
	}
	for address, want := range map[string][]string{"10.0.0.9": {"$kids", "$tablets"}, "10.0.0.7": {"$kids"}, "10.0.0.6": nil, "no address": nil} {
		if got := p.Groups(address); !slices.Equal(got, want) {
			t.Errorf("%s is in %v, want %v", address, got, want)
		}
	}
	if p := f.Find(Digest([]byte("rules: ["))); p != nil || !strings.Contains(said[len(said)-1], "broken.yaml is not valid: ") {
		t.Errorf("%v, said %q", p, said[len(said)-1])
	}
	if err := (&Finder{Files: []string{"[a"}}).Check(); err == nil {
		t.Error("[a is a pattern")
	}
	for i := range maxFiles {
		file(fmt.Sprintf("0%d.yaml", i), "x")
	}
	if p := f.Find(digest); p != nil || !strings.Contains(said[len(said)-1], "more than 256 files") {
		t.Errorf("%v, said %q", p, said[len(said)-1])
	}
}
