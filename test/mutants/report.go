package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A state is what became of a mutant.
type state int

const (
	noticed    state = iota
	survived         // tests reach it, and all pass
	unreached        // no test runs its code
	equivalent       // listed as not changing what the code does
)

func (s state) String() string {
	return [...]string{"noticed", "survived", "unreached", "equivalent"}[s]
}

type fate struct {
	m     *mutant
	state state
	why   string
}

func (f *fate) by() string {
	if f.why == "" {
		return ""
	}
	return "  (" + f.why + ")"
}

type result struct {
	o      *options
	total  int
	listed map[string]map[string]string // package, key: reason
	fates  []fate
	left   []string // tests that fail without a mutant, with all compiled in
}

// equivalentFile lists, in the folder of a package, the mutants that change
// nothing that matters, each with the reason: "key -- reason".
const equivalentFile = "mutants.txt"

func readEquivalent(sources []*source) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, s := range sources {
		p := filepath.Join(s.dir, equivalentFile)
		f, err := os.Open(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		defer f.Close()
		all[s.short] = map[string]string{}
		sc := bufio.NewScanner(f)
		for n := 1; sc.Scan(); n++ {
			line := strings.TrimSpace(sc.Text())
			if line == "" || strings.HasPrefix(line, "# ") {
				continue
			}
			key, reason, ok := strings.Cut(line, " -- ")
			if !ok || strings.TrimSpace(reason) == "" {
				return nil, fmt.Errorf("%s:%d: no reason: write \"key -- reason\"", p, n)
			}
			all[s.short][strings.TrimSpace(key)] = strings.TrimSpace(reason)
		}
		if err := sc.Err(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stale fails for entries of mutants that do not exist any more.
func (r *result) stale(all []*mutant, o *options) error {
	have := map[string]bool{}
	for _, m := range all {
		have[m.pkg.short+" "+m.key()] = true
	}
	var bad []string
	for pkg, keys := range r.listed {
		for k := range keys {
			if !have[pkg+" "+k] {
				bad = append(bad, fmt.Sprintf("internal/%s/%s: %s", pkg, equivalentFile, k))
			}
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		return fmt.Errorf("listed as equivalent, but there is no such mutant; take the line out or mend its key:\n  %s", strings.Join(bad, "\n  "))
	}
	return nil
}

// share is how many of the mutants that are not equivalent were noticed, in percent.
func (r *result) share() float64 {
	n, of := 0, 0
	for _, f := range r.fates {
		if f.state == noticed {
			n++
		}
		if f.state != equivalent {
			of++
		}
	}
	return percent(n, of)
}

func percent(n, of int) float64 {
	if of == 0 {
		return 100
	}
	return 100 * float64(n) / float64(of)
}

// print writes the tables.
func (r *result) print(w io.Writer, took time.Duration) {
	for _, t := range r.left {
		fmt.Fprintf(w, "left out: %s fails with the mutants compiled in and none switched on\n", t)
	}
	r.table(w, "package", func(m *mutant) string { return m.pkg.short })
	r.table(w, "kind", func(m *mutant) string { return m.kind })
	fmt.Fprintf(w, "%d of %d mutants, seed %d, in %v\n", len(r.fates), r.total, r.o.seed, took.Round(time.Second))
}

func (r *result) table(w io.Writer, head string, of func(*mutant) string) {
	var names []string
	sum := map[string]*[4]int{}
	for _, f := range r.fates {
		n := of(f.m)
		if sum[n] == nil {
			sum[n] = &[4]int{}
			names = append(names, n)
		}
		sum[n][f.state]++
	}
	slices.Sort(names)
	var total [4]int
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\tmutants\tnoticed\tsurvived\tunreached\tequivalent\tof those not equivalent\t\n", head)
	row := func(n string, s *[4]int) {
		all := s[0] + s[1] + s[2] + s[3]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%.1f %%\t\n", n, all, s[noticed], s[survived], s[unreached], s[equivalent], percent(s[noticed], all-s[equivalent]))
	}
	for _, n := range names {
		row(n, sum[n])
		for i := range total {
			total[i] += sum[n][i]
		}
	}
	row("all", &total)
	t.Flush()
}
