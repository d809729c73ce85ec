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

type pair struct{ a, b int }

func Pair(n int) pair {
	if n == 0 {
		return pair{}
	}
	return pair{n, n}
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
		"Pair return: return pair{} => go on":                 unreached,
		"Pair return: return pair{n, n} => the zero value":    unreached,
	} {
		if s, ok := got[key]; !ok {
			t.Errorf("no mutant %q", key)
		} else if s != want {
			t.Errorf("%s: %v, want %v", key, s, want)
		}
	}
	if s, ok := got["Pair return: return pair{} => the zero value"]; ok {
		t.Errorf("what is the zero value already is made that, and is %v", s)
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

// TestListsAreCurrent: what the packages list as equivalent exists, so that who changes code
// hears of it before the sample of mutants is taken.
func TestListsAreCurrent(t *testing.T) {
	t.Chdir("../..")
	r, err := run(&options{packages: strings.Split(core, ","), list: true, sample: 1, workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, keys := range r.listed {
		listed += len(keys)
	}
	if listed < 50 || r.total < 10000 {
		t.Errorf("%d entries and %d mutants were looked at", listed, r.total)
	}
}

// A test that finds an input with a mutant, as rapid's do, must not leave it beside
// the sources; where the binary does not know the flag for that, it is not given.
func TestNothingIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		imports, flag string
		want          []string
	}{
		"knows the flag": {`import ("flag"; "os"; "testing")`, `var off = flag.Bool("rapid.nofailfile", false, "")`, []string{noFailFile}},
		"does not":       {`import ("os"; "testing")`, `var no bool; var off = &no`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			test := "package a\n" + c.imports + "\n" + c.flag + `
func TestFits(t *testing.T) {
	if !Fits(10, false) {
		if !*off {
			os.WriteFile("found.fail", nil, 0o644)
		}
		t.Error("wrong")
	}
}
`
			write(t, map[string]string{"go.mod": "module example\n\ngo 1.24\n", "internal/a/a.go": sample, "internal/a/a_test.go": test})
			work := t.TempDir()
			o := &options{packages: []string{"a"}, workers: 1, own: true, work: work, only: "Fits condition: n > 10 => true"}
			r, err := run(o)
			if err != nil || len(r.fates) != 1 || r.fates[0].state != noticed {
				t.Fatalf("%+v, %v", r, err)
			}
			if _, err := os.Stat("internal/a/found.fail"); (err == nil) != (c.want == nil) {
				t.Errorf("left beside the sources: %v", err == nil)
			}
			b := &binary{path: filepath.Join(work, "a.test"), dir: "internal/a"}
			if b.learnFlags(); !slices.Equal(b.flags, c.want) {
				t.Errorf("flags %v, want %v", b.flags, c.want)
			}
		})
	}
}

// Whose tests are run for a mutant.
func TestTesters(t *testing.T) {
	for _, c := range []struct {
		pkg  string
		own  bool
		want []string
	}{
		{"guest/nat", false, []string{"guest/nat", "guest/router"}},
		{"guest/nat", true, []string{"guest/nat"}},
		{"guest/router", false, []string{"guest/router"}},
		{"guest/virtio", false, []string{"guest/virtio"}},
	} {
		if got := testers(c.pkg, c.own); !slices.Equal(got, c.want) {
			t.Errorf("%s, own %v: %v", c.pkg, c.own, got)
		}
	}
}
