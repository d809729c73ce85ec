package vmm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// bootLimit is how long a machine may take to be ready. TCG on a busy host needs a
// few seconds.
const bootLimit = 60 * time.Second

// RunOptions are the options of Run.
type RunOptions struct {
	Restart Restart
	// MaxRestarts is after how many restarts in a row Run gives up. 0: never.
	MaxRestarts int
	// Watchdog is how long a firewall that is ready may show no sign of life before it is
	// restarted as after a crash. 0: for ever.
	Watchdog time.Duration
	OnLine   func(Line)                    // called with each line of the console, in order; may be nil
	Say      func(format string, a ...any) // called with messages for the user; may be nil
}

// crashGrace is how long a machine may take to end after its crash line: it prints a
// report and resets.
const crashGrace = 5 * time.Second

// Run boots a machine, and restarts it after crashes if the options say so. It
// returns nil after a power-off, *RefusedError if the firewall refuses to start, and
// ctx's cause if that ends first. The hypervisor has ended when Run returns.
func Run(ctx context.Context, h Hypervisor, c Config, o RunOptions) error {
	if o.OnLine == nil {
		o.OnLine = func(Line) {}
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if why := watchdogOff(&c, o.Watchdog); why != "" {
		o.Say("no watchdog: %s", why)
	}
	s := supervisor{pause: sleep, say: o.Say, boot: func(ctx context.Context) Outcome { return boot(ctx, h, c, bootLimit, &o) }}
	return s.run(ctx, o.Restart, o.MaxRestarts)
}

// errSilent is the end of a firewall that was ready and has not said why it ended. The
// status is 0 after a reset or SIGTERM as well as after a power-off: only the console
// tells them apart.
var errSilent = errors.New("the machine ended without saying why: it was reset or powered off, or the hypervisor was ended")

// boot runs a machine once. It must be ready within limit.
func boot(ctx context.Context, h Hypervisor, c Config, limit time.Duration, opts *RunOptions) Outcome {
	if c.Vsock.Path != "" {
		c.pulse = &pulse{}
	}
	var mu sync.Mutex
	var o Outcome
	ready, crashed := make(chan struct{}), make(chan struct{})
	start := time.Now()
	m, err := h.Start(c, func(l Line) {
		mu.Lock()
		was := o
		o.observe(l)
		if o.Ready && !was.Ready {
			close(ready)
		}
		if o.Crash != "" && was.Crash == "" {
			close(crashed)
		}
		mu.Unlock()
		opts.OnLine(l)
	})
	if err != nil {
		return Outcome{Err: err}
	}
	late := time.NewTimer(limit)
	defer late.Stop()
	var gaveUp error
	var hung <-chan struct{}
	select {
	case <-ready:
		hung = m.watch(c.pulse, opts.Watchdog, opts.Say)
	case <-crashed:
	case <-m.Done():
	case <-ctx.Done():
	case <-late.C:
		gaveUp = fmt.Errorf("the firewall was not ready within %v", limit)
		m.Stop()
	}
	select {
	case <-crashed: // it is restarted even if it does not end by itself
		select {
		case <-m.Done():
		case <-ctx.Done():
		case <-time.After(h.traits().grace):
		}
		m.Stop()
	case <-hung:
		gaveUp = hungError{opts.Watchdog}
		m.kill()
	case <-m.Done():
	case <-ctx.Done():
		m.Stop()
	}
	err = m.Wait()
	mu.Lock()
	defer mu.Unlock()
	o.Up = time.Since(start)
	switch o.Err = err; {
	case gaveUp != nil:
		o.Err = gaveUp
	case err == nil && o.Ready && !o.Stopped && ctx.Err() == nil:
		o.Err = errSilent
	}
	return o
}
