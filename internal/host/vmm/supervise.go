package vmm

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Restart is when the launcher restarts a machine.
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

// Back-off between restarts: the first pause, which doubles with each crash in a row up to
// maxPause. A crash after an uptime of calm begins a new row.
const (
	firstPause = time.Second
	maxPause   = time.Minute
	calm       = time.Minute
)

// An Outcome is how a machine ended.
type Outcome struct {
	Ready   bool   // it was ready
	Refused string // why it refused to start
	Stopped bool   // it ended in order
	Gateway bool   // it has heard its gateway
	Crash   string // its crash line
	Err     error  // of QEMU
	Up      time.Duration

	Watchdog  bool     // the machine's watchdog device has fired
	Registers []string // of its crash report
	Stack     []string // the report's addresses with their names
}

// observe updates the outcome by a line of the console. A firewall that is ready does
// not refuse to start any more: such a line is then from elsewhere.
func (o *Outcome) observe(l Line) {
	switch l.Kind {
	case Ready:
		o.Ready = true
	case Refused:
		if !o.Ready {
			o.Refused = l.Rest
		}
	case Stopped:
		o.Stopped = true
	case Gateway:
		o.Gateway = true
	case Crashed:
		if o.Crash == "" {
			o.Crash = l.Rest
		}
	}
}

// crashed reports whether a restart may help.
func (o *Outcome) crashed() bool { return o.Crash != "" || o.Err != nil && o.Ready }

// RefusedError is the error of a firewall that refuses to start: its image or its
// machine is wrong, and a restart would not help.
type RefusedError struct{ Reason string }

// Error returns the reason.
func (e *RefusedError) Error() string { return "the firewall refuses to start: " + e.Reason }

// Reason returns why a machine ended, nil for one that was ready and powered off.
func (o *Outcome) Reason() error { return o.err() }

// err returns the error of an outcome after which there is no restart, nil for a
// machine that was ready and powered off.
func (o *Outcome) err() error {
	switch {
	case o.Refused != "":
		return &RefusedError{o.Refused}
	case errors.As(o.Err, new(hungError)), errors.As(o.Err, new(lostError)), o.Watchdog && o.Err != nil:
		return o.Err
	case o.Crash != "":
		return errors.New("the firewall crashed: " + o.Crash)
	case o.Err != nil:
		return o.Err
	case !o.Ready:
		return errors.New("the machine ended before its rules were live, without saying why")
	}
	return nil
}

// A supervisor boots a machine until it ends without restart.
type supervisor struct {
	boot  func(context.Context) Outcome
	pause func(context.Context, time.Duration) error // returns early when the context ends
	say   func(format string, a ...any)
	told  func(End) // in place of say where a machine is started again; may be nil
}

// run returns nil after a power-off or when ctx ends after the machine was up. It gives up
// after most restarts in a row; with 0 it never does.
func (s *supervisor) run(ctx context.Context, r Restart, most int) error {
	pause, row, all, up := firstPause, 0, 0, false
	for {
		o := s.boot(ctx)
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// A machine that was ready before can be so again: the host may lack
		// memory or descriptors for the moment.
		crashed := o.crashed() || up && !o.Ready
		if up = up || o.Ready; !crashed || o.Refused != "" || r == Never {
			return o.err()
		}
		if o.Up >= calm {
			pause, row = firstPause, 0
		}
		if row++; most > 0 && row > most {
			return fmt.Errorf("gave up after %d restarts in a row: %w", most, o.err())
		}
		all++
		s.tell(End{Reason: o.kind(), Text: fmt.Sprintf("%v; starting it again in %v (%s)", o.err(), pause, ordinal(row, most, all)),
			Up: o.Up, Pause: pause, Row: row, All: all, Registers: o.Registers, Stack: o.Stack})
		if err := s.pause(ctx, pause); err != nil {
			return context.Cause(ctx)
		}
		pause = min(2*pause, maxPause)
	}
}

// tell tells that a machine is started again.
func (s *supervisor) tell(e End) {
	if s.told != nil {
		s.told(e)
		return
	}
	s.say("%s", e.Text)
}

// ordinal says which restart this is: in its row, and since the launcher's start where that is
// another number.
func ordinal(row, most, all int) string {
	s := fmt.Sprintf("restart %d in a row", row)
	if most > 0 {
		s += fmt.Sprintf(" of at most %d", most)
	}
	if all != row {
		s += fmt.Sprintf(", %d in all", all)
	}
	return s
}

// Pause waits, on the real clock, until ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
