package vmm

import (
	"context"
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
	OnLine   func(Line)                    // called with each line of the console, in order, and each event; may be nil
	Say      func(format string, a ...any) // called with messages for the user; may be nil
	Told     func(End)                     // called before each restart, in place of Say; may be nil
	// Alive is called every few seconds while all is as it should be: the firewall shows signs
	// of life, or it is being started or restarted, within the times for that. It is not called
	// while the firewall is silent, nor by a supervision that does not go on. May be nil.
	Alive func()
}

// crashGrace is how long a machine may take to end after its crash line: it prints a
// report and resets.
const crashGrace = 5 * time.Second

// Run boots a machine, and restarts it after crashes if the options say so. It
// returns nil after a power-off, *RefusedError if the firewall refuses to start, and
// ctx's cause if that ends first. The hypervisor has ended when Run returns.
func Run(ctx context.Context, h Hypervisor, c Config, o RunOptions) error {
	o = o.whole()
	if why := watchdogOff(&c, o.Watchdog); why != "" {
		o.Say("no watchdog: %s", why)
	}
	return Supervise(ctx, func(ctx context.Context) Outcome { return boot(ctx, h, c, bootLimit, &o) }, Pause, o)
}

// Supervise calls boot, which runs a machine until its end, and calls it again after
// crashes if the options say so, with the pauses and the result of Run. pause ends early
// when its context does, and may end early for another reason.
func Supervise(ctx context.Context, boot func(context.Context) Outcome,
	pause func(context.Context, time.Duration) error, o RunOptions) error {
	o = o.whole()
	quiet := func(ctx context.Context, d time.Duration) error {
		defer alive(o.Alive, d)()
		return pause(ctx, d)
	}
	s := supervisor{pause: quiet, say: o.Say, told: o.Told, boot: boot}
	return s.run(ctx, o.Restart, o.MaxRestarts)
}

// whole returns the options with functions where there are none.
func (o RunOptions) whole() RunOptions {
	if o.OnLine == nil {
		o.OnLine = func(Line) {}
	}
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Alive == nil {
		o.Alive = func() {}
	}
	return o
}

// aliveEvery is how often Alive is called at least.
const aliveEvery = 2 * time.Second

// alive calls f now and then every aliveEvery, until the function that it returns is called,
// but for no longer than most: whoever waits is late then.
func alive(f func(), most time.Duration) (stop func()) {
	f()
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(aliveEvery)
		defer tick.Stop()
		late := time.NewTimer(most)
		defer late.Stop()
		for {
			select {
			case <-done:
				return
			case <-late.C:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// boot runs a machine once. It must be ready within limit.
func boot(ctx context.Context, h Hypervisor, c Config, limit time.Duration, opts *RunOptions) Outcome {
	g, err := Start(h, c, *opts)
	if err != nil {
		return Outcome{Err: err}
	}
	return g.wait(ctx, limit)
}

// nmiGrace is how long a machine that hangs may take to begin a report at an NMI, and
// reportGrace to end it.
const (
	nmiGrace    = 500 * time.Millisecond
	reportGrace = 1500 * time.Millisecond
)

// interrupt sends a machine that hangs an NMI, at which it reports where it stands, whatever it
// does, where the hypervisor can.
func (m *Machine) interrupt() {
	if m.control != nil {
		m.control.interrupt() //nolint:errcheck // it is ended all the same
	}
}

// fired returns a channel that is closed when the machine's watchdog device fires, nil where
// that is not seen.
func (m *Machine) fired() <-chan struct{} {
	if m.control == nil {
		return nil
	}
	return m.control.fired
}

// lastWords waits for the report of a machine that was sent an NMI, and for its end.
func (m *Machine) lastWords(crashed <-chan struct{}) {
	if m.control == nil {
		return
	}
	select {
	case <-crashed:
		m.endsWithin(reportGrace)
	case <-m.done:
	case <-time.After(nmiGrace):
	}
}
