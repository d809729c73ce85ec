package vmm

import (
	"context"
	"sync"
	"time"
)

// A Guest is one start of a machine, and what its console and its devices tell of it.
type Guest struct {
	m     *Machine
	limit time.Duration // traits.grace
	pulse *pulse        // nil: its stream is not seen here
	opts  RunOptions
	lines *lineSink
	start time.Time

	ready, crashed chan struct{}
	reached        chan struct{} // the gateway has been heard

	mu     sync.Mutex
	o      Outcome
	info   ReadyInfo
	report reporter
}

// Start starts a machine once. The caller waits for its end with Wait.
func Start(h Hypervisor, c Config, o RunOptions) (*Guest, error) {
	g := &Guest{limit: h.traits().grace, opts: o.whole(), start: time.Now(),
		ready: make(chan struct{}), crashed: make(chan struct{}), reached: make(chan struct{}), report: reporter{path: c.Image}}
	g.lines = &lineSink{onLine: g.opts.OnLine}
	if c.Vsock.Path != "" {
		c.pulse = &pulse{}
		g.pulse = c.pulse
	}
	if c.Verdicts == StreamVerdicts {
		c.onEvent = g.lines.line
	}
	var err error
	g.m, err = h.Start(c, g.line)
	return g, err
}

// line takes a line of the console.
func (g *Guest) line(l Line) {
	g.mu.Lock()
	was := g.o
	g.o.observe(l)
	if g.o.Ready && !was.Ready {
		g.info = ParseReady(l)
		close(g.ready)
	}
	if g.o.Crash != "" && was.Crash == "" {
		close(g.crashed)
	}
	if g.o.Gateway && !was.Gateway {
		close(g.reached)
	}
	var named []string
	if g.o.Crash != "" {
		named = g.report.line(l.Text)
	}
	g.mu.Unlock()
	g.lines.line(l)
	for _, s := range named {
		g.lines.line(Line{Text: shown(s)})
	}
}

// Ready is closed when the rules are live; Info then says which.
func (g *Guest) Ready() <-chan struct{} { return g.ready }

// Info returns what the machine said when it was ready.
func (g *Guest) Info() ReadyInfo {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.info
}

// Gateway is closed when the firewall has heard its gateway.
func (g *Guest) Gateway() <-chan struct{} { return g.reached }

// Signs returns a number that grows with each sign of life that the machine gives by its
// stream. It reports false where the stream is not seen by this process.
func (g *Guest) Signs() (n uint64, seen bool) {
	if g.pulse == nil {
		return 0, false
	}
	return g.pulse.Packets.Load(), true
}

// Wait waits for the machine's end. It ends one that is not ready in time, hangs, has
// crashed, or is still there when ctx ends.
func (g *Guest) Wait(ctx context.Context) Outcome { return g.wait(ctx, bootLimit) }

func (g *Guest) wait(ctx context.Context, limit time.Duration) Outcome {
	m := g.m
	defer g.lines.close()
	late := time.NewTimer(max(0, limit-time.Since(g.start)))
	defer late.Stop()
	var gaveUp error
	var hung, lost <-chan error
	starting := alive(g.opts.Alive, limit)
	defer starting()
	select {
	case <-g.ready:
		starting()
		hung, lost = m.watch(g.pulse, g.opts), m.lost()
	case <-g.crashed:
	case <-m.Done():
	case <-ctx.Done():
	case <-late.C:
		gaveUp = notReady(limit)
		m.Stop()
	}
	select {
	case <-g.crashed: // it is restarted even if it does not end by itself
		select {
		case <-m.Done():
		case <-ctx.Done():
		case <-time.After(g.limit):
		}
		m.Stop()
	case gaveUp = <-hung:
		m.interrupt()
		m.lastWords(g.crashed)
		m.kill()
	case gaveUp = <-lost:
		m.Stop()
	case <-m.fired(): // an NMI was sent with it
		gaveUp = silentEnd{reason: ReasonWatchdog}
		m.lastWords(g.crashed)
		m.kill()
	case <-m.Done():
	case <-ctx.Done():
		m.Stop()
	}
	err := m.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.o
	o.Up, o.Registers, o.Stack = time.Since(g.start), g.report.lines, g.report.names
	if m.control != nil {
		_, o.Watchdog = m.control.ended()
	}
	switch o.Err = err; {
	case gaveUp != nil:
		o.Err = gaveUp
	case err == nil && o.Ready && !o.Stopped && ctx.Err() == nil:
		o.Err = m.silent()
	}
	return o
}
