package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const sample = `package a

type kind uint8

const big kind = 7

// Fits is covered but for its lower bound and its second operand.
func Fits(n int, ok bool) bool {
	if n > 10 {
		return false
	}
	if n < 0 || ok && n ==
		3 {
		return false
	}
	return n <= 10
}

func Never(n int) (k kind, err error) {
	for i := 0; i < n; i++ {
		k += big
		if k&1 != 0 {
			continue
		}
		note(int(k) * 2)
	}
	return k << 1, nil
}

var notes []int

func note(n int) { notes = append(notes, n-1) }
`

const sampleTest = `package a

import "testing"

func TestFits(t *testing.T) {
	if !Fits(10, false) || Fits(11, false) {
		t.Error("wrong")
	}
}
`

func write(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func TestMutants(t *testing.T) {
	files := map[string]string{"go.mod": "module example\n\ngo 1.24\n", "internal/a/a.go": sample, "internal/a/a_test.go": sampleTest,
		"internal/a/mutants.txt": "# a comment\nFits boundary: n <= 10 => n < 10 -- only for this test\n"}
	write(t, files)
	r, err := run(&options{packages: []string{"a"}, workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.left) > 0 {
		t.Errorf("the sample's own test fails with the mutants compiled in: %v", r.left)
	}
	got := map[string]state{}
	for _, f := range r.fates {
		got[f.m.key()] = f.state
	}
	for key, want := range map[string]state{
		"Fits boundary: n > 10 => n >= 10":                    noticed,
		"Fits negation: n > 10 => n <= 10":                    noticed,
		"Fits condition: n > 10 => true":                      noticed,
		"Fits return: return false => go on":                  survived, // the last line says the same
		"Fits return: return false => return true":            noticed,
		"Fits boundary: n < 0 => n <= 0":                      survived,
		"Fits operand: n < 0 || ok && n == 3 => n < 0":        survived,
		"Fits operand: n < 0 || ok && n == 3 => ok && n == 3": survived,
		"Fits operand: ok && n == 3 => n == 3":                survived,
		"Fits andor: ok && n == 3 => ok || n == 3":            survived,
		"Fits boundary: n <= 10 => n < 10":                    equivalent,
		"Never assign: k += big => nothing":                   unreached,
		"Never arith: k += big => k -= big":                   unreached,
		"Never arith: k << 1 => k >> 1":                       unreached,
		"Never constant: big => big + 1":                      unreached,
		"Never call: note(int(k) * 2) => nothing":             unreached,
		"Never return: continue => go on":                     unreached,
		"Never return: return k << 1 => the zero value":       unreached,
		"note constant: 1 => 1 - 1":                           unreached,
	} {
		if s, ok := got[key]; !ok {
			t.Errorf("no mutant %q", key)
		} else if s != want {
			t.Errorf("%s: %v, want %v", key, s, want)
		}
	}
	for _, k := range allKinds {
		if !slices.ContainsFunc(r.fates, func(f fate) bool { return f.m.kind == k }) {
			t.Errorf("no mutant of kind %s", k)
		}
	}
	var out strings.Builder
	r.print(&out, 0)
	if !strings.Contains(out.String(), "equivalent") || r.share() <= 0 || r.share() >= 100 {
		t.Errorf("share %v of\n%s", r.share(), out.String())
	}
}

// The choice is the same each time, and another one for another seed.
func TestChoice(t *testing.T) {
	var all []*mutant
	for i := range 1000 {
		all = append(all, &mutant{id: i + 1, kind: kindCall})
	}
	ids := func(seed uint64) (l []int) {
		for _, m := range choose(&options{sample: 20, seed: seed}, all) {
			l = append(l, m.id)
		}
		return l
	}
	if a, b := ids(1), ids(1); !slices.Equal(a, b) || len(a) != 20 {
		t.Errorf("%v, then %v", a, b)
	}
	if slices.Equal(ids(1), ids(2)) {
		t.Error("two seeds, one choice")
	}
}

func TestListOfEquivalents(t *testing.T) {
	for name, c := range map[string]struct{ list, want string }{
		"no reason":      {"Fits boundary: n > 10 => n >= 10\n", "mutants.txt:1: no reason"},
		"no such mutant": {"Fits boundary: n > 11 => n >= 11 -- gone\n", "no such mutant"},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, map[string]string{"go.mod": "module example\n\ngo 1.24\n", "internal/a/a.go": sample, "internal/a/a_test.go": sampleTest, "internal/a/mutants.txt": c.list})
			if _, err := run(&options{packages: []string{"a"}, workers: 1}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
