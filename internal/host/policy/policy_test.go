package policy_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/check"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/host/policy/explain"
	"github.com/thurward/thurward/internal/host/policy/prove"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

var update = flag.Bool("update", false, "write what is wanted into the txtar files")

// TestPolicies runs the files of testdata: each holds a policy (rules.yaml) and
// the diagnostics that are wanted (want.diag), the tables (want.tables), and what
// came of the policy's own tests (want.verdicts).
func TestPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			a, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var src []byte
			for _, s := range a.Files {
				if s.Name == "rules.yaml" {
					src = s.Data
				}
			}
			got := map[string]string{}
			p, ds := check.Load("rules.yaml", src)
			for _, d := range ds {
				got["want.diag"] += d.String() + "\n"
			}
			if p != nil {
				s, err := compile.Compile(p)
				if err != nil {
					t.Fatal(err)
				}
				got["want.tables"] = tables(s)
				for _, r := range prove.Run(p, s) {
					if r.Wrong == "" {
						r.Wrong = "holds"
					} else if r.Flow != nil {
						r.Wrong = fmt.Sprintf("%v: %s", r.Flow, r.Wrong)
					}
					got["want.verdicts"] += fmt.Sprintf("%s %s: %s\n", r.Statement.Word(), r.Statement.Name, r.Wrong)
				}
				for _, r := range explain.RunTests(p, s) {
					if r.Wrong == "" {
						r.Wrong = "as expected: " + explain.Describe(p, &r.Outcome)
					}
					got["want.verdicts"] += fmt.Sprintf("%s: %v: %s\n", r.Test.Name, r.Test.Flow, r.Wrong)
				}
				b := compile.Encode(s)
				if q, err := ruleset.Open(b); err != nil || q.Digest != s.Digest {
					t.Fatalf("the compiled policy does not open: %v", err)
				}
			}
			if *update {
				files := a.Files[:1]
				for _, n := range []string{"want.diag", "want.tables", "want.verdicts"} {
					if got[n] != "" {
						files = append(files, txtar.File{Name: n, Data: []byte(got[n])})
					}
				}
				a.Files = files
				if err := os.WriteFile(f, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			for _, w := range a.Files[1:] {
				if got[w.Name] != string(w.Data) {
					t.Errorf("%s: got\n%swant\n%s", w.Name, got[w.Name], w.Data)
				}
				delete(got, w.Name)
			}
			for n, v := range got {
				t.Errorf("%s is not wanted:\n%s", n, v)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, name := range files {
		if a, err := txtar.ParseFile(name); err == nil {
			f.Add(a.Files[0].Data)
		}
	}
	f.Add([]byte("<<: *x\n---\n"))
	f.Add([]byte("? [a]\n: b\n!!str x: &a *a"))
	schema, err := jsonschema.NewCompiler().Compile(policy.SchemaFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, ds := check.Load("fuzz.yaml", src)
		if p == nil && !ds.HasErrors() {
			t.Fatal("refused without an error")
		}
		for _, d := range ds {
			if d.Line < 1 || d.Column < 1 || d.Message == "" || strings.Contains(d.String(), "\n") {
				t.Fatalf("diagnostic %+v", d)
			}
		}
		if p != nil {
			s, err := compile.Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			explain.RunTests(p, s)
			prove.Run(p, s)
			if err := policy.Validate(schema, src); err != nil {
				t.Fatalf("the loader accepts what the schema does not: %v", err)
			}
			if _, err := ruleset.Open(compile.Encode(s)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
