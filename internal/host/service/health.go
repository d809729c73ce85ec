package service

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Times of a change.
const (
	// signWait is how long a machine that stands by may take to show its first sign of
	// life: it tries to connect at least every 7 seconds.
	signWait = 10 * time.Second
	// silence is how long it may show none while it is watched.
	silence = 10 * time.Second
)

// errStopping is why a change ends with the service.
var errStopping = errors.New("the service is ending")

// ended is why a machine that should run does not.
func (m *machine) why(what string) error {
	if err := m.result.Reason(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return errors.New(what)
}

// check waits until the new machine is ready, and compares what it says with its image. It
// stands by, or runs already.
func (c *changing) check(ctx context.Context) error {
	m := c.new
	select {
	case <-m.Ready():
	case <-m.ended:
		return m.why("the new machine ended before it was ready")
	case <-ctx.Done():
		return errStopping
	}
	if have := m.Info().Policy; have != c.plan.Policy {
		return fmt.Errorf("the new machine runs the policy %s, its image has %s", have, c.plan.Policy)
	}
	c.tell("the new machine is ready: version %s, policy %s", m.Info().Version, m.Info().Policy)
	for end := c.c.now().Add(signWait); ; {
		n, seen := m.Signs()
		if !seen || n > 0 {
			return nil
		}
		if c.c.now().After(end) {
			return fmt.Errorf("the new machine has shown no sign of life within %v", signWait)
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
}

// wait waits a moment for the new machine.
func (c *changing) wait(ctx context.Context) error {
	t := time.NewTimer(c.c.tick)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.new.ended:
		return c.new.why("the new machine has ended")
	case <-ctx.Done():
		return errStopping
	}
}

// watch watches the new machine in its place, and asks who made the request at the end. What
// has to happen may take as long as silence, where the watch is shorter.
func (c *changing) watch(ctx context.Context) error {
	began := c.c.now()
	signs, last := c.before, began
	for {
		now := c.c.now()
		n, seen := c.new.Signs()
		if !seen || n != signs {
			signs, last = n, now
		}
		missing := c.missing(seen && signs == c.before)
		switch {
		case now.Sub(last) > silence:
			return fmt.Errorf("the new machine has shown no sign of life for %v", silence)
		case now.Sub(began) > max(c.q.watch, silence) && missing != "":
			return errors.New("the new machine " + missing)
		case now.Sub(began) >= c.q.watch && missing == "":
			return c.confirmed(ctx)
		case c.q.confirm != nil && c.q.ctx.Err() != nil:
			return errGone
		}
		if err := c.wait(ctx); err != nil {
			return err
		}
	}
}

var errGone = errors.New("who had to confirm the change has gone")

// missing says what the new machine has not done since it took over, "" if all.
func (c *changing) missing(silent bool) string {
	if silent {
		return "has shown no sign of life since it took over"
	}
	if c.gateway {
		select {
		case <-c.new.Gateway():
		default:
			return "has not heard its gateway, which the old one had"
		}
	}
	return ""
}

// confirmed asks who made the request, if that is wanted, while the new machine has to go on.
func (c *changing) confirmed(ctx context.Context) error {
	if c.q.confirm == nil {
		return nil
	}
	asked, cancel := context.WithCancel(c.q.ctx)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- c.q.confirm(asked) }()
	select {
	case err := <-answer:
		if err != nil {
			return fmt.Errorf("not confirmed: %w", err)
		}
		return nil
	case <-c.new.ended:
		return c.new.why("the new machine has ended")
	case <-ctx.Done():
		return errStopping
	}
}
