package vmm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Restart says when the launcher starts a machine again.
type Restart string

// The choices.
const (
	Never   Restart = "never"
	OnCrash Restart = "on-crash"
)

// ParseRestart reads the value of --restart.
func ParseRestart(s string) (Restart, error) {
	switch r := Restart(s); r {
	case Never, OnCrash:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a restart policy (want never or on-crash)", s)
}

// Back-off between restarts: the first pause, which doubles with each crash
// in a row, and how many crashes in a row are too many. A machine that has
// been up for calm begins a new row.
const (
	firstPause  = time.Second
	maxRestarts = 5
	calm        = time.Minute
)

// An Outcome is how a machine ended.
type Outcome struct {
	Ready   bool   // its rules were live
	Refused string // why it would not start
	Stopped bool   // it said that it ends in good order
	Crash   string // what went wrong, from its own report
	Err     error  // what went wrong with QEMU
	Up      time.Duration
}

// heard notes what a line of the console says of the outcome. A firewall that
// is ready refuses nothing any more: whoever says so then is somebody else.
func (o *Outcome) heard(l Line) {
	switch l.Kind {
	case Ready:
		o.Ready = true
	case Refused:
		if !o.Ready {
			o.Refused = l.Rest
		}
	case Stopped:
		o.Stopped = true
	case Crashed:
		if o.Crash == "" {
			o.Crash = l.Rest
		}
	}
}

// crashed reports whether the end was one that a restart may cure.
func (o *Outcome) crashed() bool { return o.Crash != "" || o.Err != nil && o.Ready }

// RefusedError is a firewall that would not start: its image or its machine
// is not right, and another start would not help.
type RefusedError struct{ Reason string }

// Error says why.
func (e *RefusedError) Error() string { return "the firewall refuses to start: " + e.Reason }

// err is what an outcome that is not followed by a restart means: nil for a
// machine that was up and powered off.
func (o *Outcome) err() error {
	switch {
	case o.Refused != "":
		return &RefusedError{o.Refused}
	case o.Crash != "":
		return errors.New("the firewall crashed: " + o.Crash)
	case o.Err != nil:
		return o.Err
	case !o.Ready:
		return errors.New("the machine ended before its rules were live, without saying why")
	}
	return nil
}

// A supervisor boots a machine until it ends for good.
type supervisor struct {
	boot  func(context.Context) Outcome
	pause func(context.Context, time.Duration) error // returns early when the context ends
	say   func(format string, a ...any)
}

// run returns nil after a power-off or when ctx ends after the machine was up.
func (s *supervisor) run(ctx context.Context, r Restart) error {
	pause, row, up := firstPause, 0, false
	for {
		o := s.boot(ctx)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// What has been up before can be so again: that it does not start now is
		// the host's doing, out of memory or descriptors, and may pass.
		crashed := o.crashed() || up && !o.Ready
		if up = up || o.Ready; !crashed || o.Refused != "" || r == Never {
			return o.err()
		}
		if o.Up >= calm {
			pause, row = firstPause, 0
		}
		if row++; row > maxRestarts {
			return fmt.Errorf("gave up after %d restarts in a row: %w", maxRestarts, o.err())
		}
		s.say("%v; starting it again in %v (%d of %d)", o.err(), pause, row, maxRestarts)
		if err := s.pause(ctx, pause); err != nil {
			return context.Cause(ctx)
		}
		pause *= 2
	}
}

// sleep is the supervisor's pause on the real clock.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
