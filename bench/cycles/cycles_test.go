package main

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestInstructions: what a packet costs is what SPECIFICATION.md says, in instructions. The
// bounds are those measured with go1.26 and a twentieth, so that a compiler may differ. It
// counts every scenario but those with many flows, which execute the same.
func TestInstructions(t *testing.T) {
	if _, err := exec.LookPath("valgrind"); err != nil {
		t.Skip("valgrind is not installed (scripts/need.sh cycles installs it)")
	}
	program := filepath.Join(t.TempDir(), "cycles")
	if b, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	for _, x := range []struct {
		name  string
		bound int
	}{{"udp-16", 775}, {"tcp-1k", 920}, {"new", 3260}, {"end", 1260}, {"flood", 5000}} {
		s, err := find(x.name, 4)
		if err != nil {
			t.Fatal(err)
		}
		costs, err := count(program, s)
		if err != nil {
			t.Fatal(err)
		}
		parts, err := s.split(costs)
		if err != nil {
			t.Error(err)
		}
		for i, c := range parts {
			if c.instructions < 0 {
				t.Errorf("%s: stage %d of %d has %d instructions: the stages overlap", x.name, i, len(parts), c.instructions)
			}
		}
		got := costs[poll].instructions / s.packets
		t.Logf("%s: %d instructions", x.name, got)
		if got > x.bound {
			t.Errorf("%s: %d instructions, more than %d", x.name, got, x.bound)
		}
		if got < x.bound*2/3 {
			t.Errorf("%s: %d instructions; the bound of %d says nothing", x.name, got, x.bound)
		}
	}
}

// TestClock: the clock that the chain of multiplications shows is one that a processor can
// have: where the compiler makes one of several, it is four times as fast; and all times are
// of one thread, also where other goroutines let Go move this one from thread to thread.
func TestClock(t *testing.T) {
	var stop atomic.Bool
	var others sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		others.Go(func() {
			for !stop.Load() {
				runtime.GC() // stops them all, and lets them go on anywhere
			}
		})
	}
	defer others.Wait()
	defer stop.Store(true)
	s, err := find("udp-16", 64)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.cycles(20)
	if err != nil {
		t.Fatal(err)
	}
	if p.cycles <= 0 || p.median < p.cycles {
		t.Errorf("%.0f cycles a packet, %.0f in the median", p.cycles, p.median)
	}
	// Squares of odd numbers, one after the other, are powers: none is left out.
	if got := spin(8, 3); got != power(3, 256) {
		t.Errorf("8 multiplications of 3 by itself give %d, want 3 to the 256th", got)
	}
}

// power returns x to the n.
func power(x, n uint64) uint64 {
	y := uint64(1)
	for range n {
		y *= x
	}
	return y
}

// TestParse: costs are those of the lines, with calls counted once.
func TestParse(t *testing.T) {
	costs, err := parse([]byte(`version: 1
positions: line
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw

fl=/x/pipeline.go
fn=github.com/thurward/thurward/internal/guest/router.(*Engine).Poll
10 5 1 1 0 1 2 0 1
cfi=/x/transmit.go
cfn=github.com/thurward/thurward/internal/guest/router.(*Engine).flush
calls=2 30
12 7 0 0 0 1
13 1

fn=github.com/thurward/thurward/internal/guest/router.(*Engine).flush
30 7 0 0 0 1
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]cost{poll: {13, 4, 1}, flush: {7, 1, 0}, poll + " > " + flush: {7, 1, 0}} {
		if costs[name] != want {
			t.Errorf("%s: %+v, want %+v", name, costs[name], want)
		}
	}
	s := scenario{stages: []stage{{"a", []string{poll}, []string{poll + " > " + flush}}}}
	if parts, err := s.split(costs); err != nil || parts[0] != (cost{6, 3, 1}) || parts[1] != (cost{7, 1, 0}) {
		t.Errorf("%+v, %v", parts, err)
	}
	s.stages[0].in = []string{"gone"}
	if _, err := s.split(costs); err == nil {
		t.Error("a function that is not there is no error")
	}
	for _, bad := range []string{"", "events: Ir\nfn=x\n1 2 3\n", "events: Ir\nfn=x\n1 a\n"} {
		if _, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q is parsed", bad)
		}
	}
}
