package main

import (
	"context"
	"errors"
	"fmt"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// A test is a test or the seeds of a fuzz target.
type test struct {
	name string
	took time.Duration
	hits []byte // by number of mutant: it reaches its code
	bad  bool   // fails, or is flaky, without a mutant
}

// run does what the options say.
func run(o *options) (*result, error) {
	work := o.work
	if work == "" {
		dir, err := os.MkdirTemp("", "mutants")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		work = dir
	} else if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	work, err := filepath.Abs(work)
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	sources, err := load(fset, o.packages)
	if err != nil {
		return nil, err
	}
	all, overlay, err := change(fset, sources, work)
	if err != nil {
		return nil, err
	}
	r := &result{o: o, total: len(all)}
	if r.listed, err = readEquivalent(sources); err != nil {
		return nil, err
	}
	if err := r.stale(all, o); err != nil {
		return nil, err
	}
	chosen := choose(o, all)
	if o.list {
		for _, m := range chosen {
			fmt.Printf("internal/%s/%s:%d: %s\n", m.pkg.short, m.file, m.line, m.key())
		}
		return r, nil
	}
	bins, err := compile(work, overlay, sources, o.own)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, m := range chosen {
		for _, t := range testers(m.pkg.short, o.own) {
			wanted[t] = true
		}
	}
	if err := measure(bins, wanted, work, len(all)+2, o.workers); err != nil {
		return nil, err
	}
	for name, b := range bins {
		for _, t := range b.tests {
			if t.bad {
				r.left = append(r.left, name+"."+t.name)
			}
		}
	}
	sort.Strings(r.left)
	jobs := make(chan *mutant)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range o.workers {
		wg.Go(func() {
			for m := range jobs {
				f := fate{m: m}
				if reason, ok := r.listed[m.pkg.short][m.key()]; ok {
					f.state, f.why = equivalent, reason
				} else {
					f.state, f.why = try(m, bins, o.own)
				}
				mu.Lock()
				r.fates = append(r.fates, f)
				if f.state == survived || f.state == unreached || o.verbose {
					fmt.Printf("%s internal/%s/%s:%d: %s%s\n", f.state, m.pkg.short, m.file, m.line, m.key(), f.by())
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range chosen {
		jobs <- m
	}
	close(jobs)
	wg.Wait()
	return r, nil
}

// choose returns the mutants that are to be tested, in order.
func choose(o *options, all []*mutant) []*mutant {
	var some []*mutant
	for _, m := range all {
		if (len(o.kinds) == 0 || slices.Contains(o.kinds, m.kind)) && (o.only == "" || strings.Contains(m.key(), o.only) || strings.Contains(m.file, o.only)) {
			some = append(some, m)
		}
	}
	if o.sample > 0 && o.sample < len(some) {
		rng := rand.New(rand.NewPCG(o.seed, 0))
		rng.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		some = some[:o.sample]
		slices.SortFunc(some, func(a, b *mutant) int { return a.id - b.id })
	}
	return some
}

var testName = regexp.MustCompile(`^(Test|Fuzz)`)

// measure runs each test alone, without a mutant: how long it takes, and which
// mutants' code it reaches.
func measure(bins map[string]*binary, wanted map[string]bool, work string, mutants, workers int) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	slots := make(chan int, workers)
	for i := range workers {
		slots <- i
	}
	for name, b := range bins {
		if !wanted[name] {
			continue
		}
		out, err := command(context.Background(), b, 0, "-test.list", ".").Output()
		if err != nil {
			return fmt.Errorf("%s: %w", b.path, err)
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); testName.MatchString(line) {
				b.tests = append(b.tests, &test{name: line})
			}
		}
		for _, t := range b.tests {
			slot := <-slots
			wg.Go(func() {
				defer func() { slots <- slot }()
				hits := filepath.Join(work, fmt.Sprintf("hits%d", slot))
				err := os.WriteFile(hits, make([]byte, mutants), 0o644)
				if err == nil {
					c := command(context.Background(), b, 0, "-test.run", "^"+t.name+"$", "-test.timeout", "5m")
					c.Env = append(c.Env, envHits+"="+hits)
					start := time.Now()
					t.bad = c.Run() != nil
					t.took = time.Since(start)
					t.hits, err = os.ReadFile(hits)
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return failed
}

// command runs a test binary with one mutant switched on. Its memory is
// limited, since a mutant may take all that there is.
func command(ctx context.Context, b *binary, id int, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `ulimit -v 12000000; exec "$0" "$@"`, b.path}, append(slices.Clone(b.flags), args...)...)...)
	c.Dir = b.dir
	c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", envMutant, id), "GOMAXPROCS=2",
		// No files beside the code, and no search for a smaller failure.
		"RAPID_NOFAILFILE=1", "RAPID_SHRINKTIME=0s")
	return c
}

// try runs the tests that reach a mutant until one notices it.
func try(m *mutant, bins map[string]*binary, own bool) (state, string) {
	reached := false
	for _, name := range testers(m.pkg.short, own) {
		b := bins[name]
		var tests []*test
		var sum time.Duration
		for _, t := range b.tests {
			if !t.bad && t.hits[m.id] != 0 {
				tests = append(tests, t)
				sum += t.took
			}
		}
		if len(tests) == 0 {
			continue
		}
		reached = true
		sort.SliceStable(tests, func(i, k int) bool { return tests[i].took < tests[k].took })
		// In portions, the quick ones first, so that a test that hangs
		// costs little.
		for len(tests) > 0 {
			n, took := 0, time.Duration(0)
			for n < len(tests) && (n == 0 || took+tests[n].took < 2*time.Second) {
				took += tests[n].took
				n++
			}
			var names []string
			for _, t := range tests[:n] {
				names = append(names, t.name)
			}
			tests = tests[n:]
			limit := 10*time.Second + 5*took
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			out, err := command(ctx, b, m.id, "-test.failfast", "-test.timeout", limit.String(), "-test.run", "^("+strings.Join(names, "|")+")$").CombinedOutput()
			late := errors.Is(ctx.Err(), context.DeadlineExceeded)
			cancel()
			if late {
				return noticed, "time"
			}
			if err != nil {
				return noticed, who(name, out)
			}
		}
	}
	if !reached {
		return unreached, ""
	}
	return survived, ""
}

var failedTest = regexp.MustCompile(`--- FAIL: (\w+)`)

// who is the test that failed.
func who(pkg string, out []byte) string {
	if m := failedTest.FindSubmatch(out); m != nil {
		return pkg + "." + string(m[1])
	}
	return pkg + ", which crashed"
}
