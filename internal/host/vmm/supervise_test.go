package vmm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// play runs a supervisor over outcomes, one for each start. It records pauses and does
// not wait.
func play(t *testing.T, r Restart, most int, outcomes ...Outcome) (pauses []time.Duration, starts int, err error) {
	t.Helper()
	s := supervisor{
		boot: func(context.Context) Outcome {
			if starts == len(outcomes) {
				t.Fatalf("start %d was not expected", starts+1)
			}
			starts++
			return outcomes[starts-1]
		},
		pause: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil },
		say:   func(string, ...any) {},
	}
	return pauses, starts, s.run(t.Context(), r, most)
}

func TestRestarts(t *testing.T) {
	crash := Outcome{Ready: true, Crash: "page fault", Up: 2 * time.Second}
	off := Outcome{Ready: true}
	sec := time.Second
	for name, c := range map[string]struct {
		restart  Restart
		most     int
		outcomes []Outcome
		pauses   []time.Duration
		err      string
	}{
		"power-off is the end":     {OnCrash, 0, []Outcome{off}, nil, ""},
		"refusal is the end":       {OnCrash, 0, []Outcome{{Refused: "no policy"}}, nil, "refuses to start: no policy"},
		"refusal after a report":   {OnCrash, 0, []Outcome{{Refused: "no policy", Crash: "x"}}, nil, "refuses to start"},
		"silence is an error":      {OnCrash, 0, []Outcome{{}}, nil, "without saying why"},
		"qemu does not start":      {OnCrash, 0, []Outcome{{Err: errors.New("qemu: bad option")}}, nil, "bad option"},
		"qemu is killed while up":  {OnCrash, 0, []Outcome{{Ready: true, Err: errors.New("qemu: killed")}, off}, []time.Duration{sec}, ""},
		"the next start fails":     {OnCrash, 0, []Outcome{crash, {Err: errors.New("out of memory")}, {}, off}, []time.Duration{sec, 2 * sec, 4 * sec}, ""},
		"no start succeeds":        {OnCrash, 5, []Outcome{crash, {}, {}, {}, {}, {}}, []time.Duration{sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec}, "gave up after 5 restarts"},
		"refusal after a crash":    {OnCrash, 0, []Outcome{crash, {Refused: "no policy"}}, []time.Duration{sec}, "refuses to start"},
		"one crash":                {OnCrash, 0, []Outcome{crash, off}, []time.Duration{sec}, ""},
		"crash before ready":       {OnCrash, 0, []Outcome{{Crash: "early"}, off}, []time.Duration{sec}, ""},
		"not when never":           {Never, 0, []Outcome{crash}, nil, "crashed: page fault"},
		"doubling, then giving up": {OnCrash, 5, []Outcome{crash, crash, crash, crash, crash, crash}, []time.Duration{sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec}, "gave up after 5 restarts"},
		"no end without a limit": {OnCrash, 0, append(slices.Repeat([]Outcome{crash}, 9), off), []time.Duration{
			sec, 2 * sec, 4 * sec, 8 * sec, 16 * sec, 32 * sec, 60 * sec, 60 * sec, 60 * sec}, ""},
		"a calm minute begins a new row": {OnCrash, 0, []Outcome{crash, crash, {Ready: true, Crash: "late", Up: time.Hour}, off}, []time.Duration{sec, 2 * sec, sec}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pauses, starts, err := play(t, c.restart, c.most, c.outcomes...)
			if starts != len(c.outcomes) {
				t.Errorf("%d starts, want %d", starts, len(c.outcomes))
			}
			if len(pauses) != len(c.pauses) {
				t.Fatalf("pauses %v, want %v", pauses, c.pauses)
			}
			for i := range pauses {
				if pauses[i] != c.pauses[i] {
					t.Errorf("pauses %v, want %v", pauses, c.pauses)
				}
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v, want %q", err, c.err)
			}
		})
	}
}

// TestForgedRefusal: a refusal counts only before the machine is ready; after that a
// crash is followed by a restart.
func TestForgedRefusal(t *testing.T) {
	heard := func(console string) (o Outcome) {
		readConsole(strings.NewReader(console), func(l Line) { o.observe(l) })
		return o
	}
	const ready, refusal, crash = "thurward: ready version=1\n", "thurward: refusing to start: forged\n", "thurward: crash: page fault\n"
	for console, starts := range map[string]int{
		ready + refusal + crash: 2,
		ready + "thurward: upstream 192.0.2.1:853: its certificate is refused: " + refusal + crash: 2,
		ready + crash + refusal: 2,
		refusal:                 1,
		refusal + crash:         1,
		crash:                   2,
		ready:                   1,
	} {
		outcomes := []Outcome{heard(console), {Ready: true}}
		if _, n, err := play(t, OnCrash, 0, outcomes[:starts]...); n != starts || (err != nil) != strings.HasPrefix(console, refusal) {
			t.Errorf("%q: %d starts (%v), want %d", console, n, err, starts)
		}
	}
}

func TestInterruptEndsThePause(t *testing.T) {
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := supervisor{
		boot:  func(context.Context) Outcome { return Outcome{Ready: true, Crash: "x"} },
		pause: func(ctx context.Context, _ time.Duration) error { cancel(why); return ctx.Err() },
		say:   func(string, ...any) {},
	}
	if err := s.run(ctx, OnCrash, 0); err != why {
		t.Errorf("%v, want %v", err, why)
	}
}

// TestRestartsAreSaid: each with its reason, the pause, and how many there were.
func TestRestartsAreSaid(t *testing.T) {
	outcomes := []Outcome{{Ready: true, Crash: "a"}, {Ready: true, Err: silentEnd{reason: ReasonUnknown}}, {Ready: true, Up: time.Hour, Err: hungError{time.Minute}}, {Ready: true}}
	for most, want := range map[int][]string{
		0: {"crashed: a; starting it again in 1s (restart 1 in a row)", "without saying why", "again in 2s (restart 2 in a row)",
			"no sign of life for 1m0s; starting it again in 1s (restart 1 in a row, 3 in all)"},
		7: {"(restart 2 in a row of at most 7)", "(restart 1 in a row of at most 7, 3 in all)"},
	} {
		var said strings.Builder
		n := 0
		s := supervisor{
			boot:  func(context.Context) Outcome { n++; return outcomes[n-1] },
			pause: func(context.Context, time.Duration) error { return nil },
			say:   func(format string, a ...any) { fmt.Fprintf(&said, format+"\n", a...) },
		}
		if err := s.run(t.Context(), OnCrash, most); err != nil {
			t.Error(err)
		}
		for _, w := range want {
			if !strings.Contains(said.String(), w) {
				t.Errorf("at most %d: no %q in:\n%s", most, w, said.String())
			}
		}
	}
}
