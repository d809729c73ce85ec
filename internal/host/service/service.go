package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A Guest is one start of a machine (vmm.Guest).
type Guest interface {
	Ready() <-chan struct{}
	Info() vmm.ReadyInfo
	Gateway() <-chan struct{}
	Signs() (n uint64, seen bool)
	Wait(ctx context.Context) vmm.Outcome
}

// A Plan is what is known of an image before it is started.
type Plan struct {
	Policy   string    // digest, as the ready line has it
	MACs     [2]string // of the LAN and the WAN
	MemoryMB int
}

// Config is what a Service needs.
type Config struct {
	Store *deploy.Store
	// Inspect returns what the image in a file says of itself, or why it must not be started.
	// image is what was read from the file.
	Inspect func(path string, image []byte) (Plan, error)
	// Start starts the image in a file once. image is what Inspect has seen of it: the file may
	// be another by now.
	Start func(path string, image []byte, gate *vmm.Gate) (Guest, error)
	// Free returns how many megabytes of memory the host has left.
	Free    func() (int, error)
	Options vmm.RunOptions // Restart, MaxRestarts, Say
	// Changed is called when a machine became the one that runs, and is ready; may be nil.
	Changed func()

	now  func() time.Time // for tests
	tick time.Duration
}

// A Service runs one firewall.
type Service struct {
	c        Config
	requests chan *request
	pending  *request // was taken in a pause
	busy     sync.Mutex

	mu     sync.Mutex
	record deploy.Record
	active *machine
	doing  string
	starts int
}

// A machine is one that was started.
type machine struct {
	Guest
	entry  deploy.Entry
	plan   Plan
	gate   *vmm.Gate
	began  time.Time
	stop   context.CancelFunc
	ended  chan struct{} // closed once it has
	result vmm.Outcome   // valid then

	mu    sync.Mutex
	signs uint64    // at the last look
	heard time.Time // when they last grew
}

// New returns a service.
func New(c Config) *Service {
	if c.now == nil {
		c.now = time.Now
	}
	if c.tick == 0 {
		c.tick = 100 * time.Millisecond
	}
	if c.Options.Say == nil {
		c.Options.Say = func(string, ...any) {}
	}
	return &Service{c: c, requests: make(chan *request)}
}

// takeWait is how long a service waits for a deployment without one to end.
const takeWait = 10 * time.Second

// Run runs the firewall until ctx ends, or starting it again would not help.
func (s *Service) Run(ctx context.Context) error {
	release, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer release()
	if s.record, err = s.c.Store.Recover(); errors.Is(err, deploy.ErrReadOnly) {
		s.record, err = s.c.Store.Record()
	}
	if err != nil {
		return err
	}
	control, err := s.listen()
	readOnly := errors.Is(err, deploy.ErrReadOnly)
	if err != nil && !readOnly {
		return err
	}
	serveCtx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	if readOnly { // as file systems become with damaged disks: that stops no firewall
		s.c.Options.Say("%s is read-only: the firewall runs, but its image cannot be changed, and nobody can ask for its status", s.c.Store.Path)
	} else {
		wg.Go(func() { s.serve(serveCtx, control) })
	}
	return vmm.Supervise(ctx, s.boot, s.pause, s.c.Options)
}

// take makes this process the one that runs the firewall.
func (s *Service) take(ctx context.Context) (release func(), err error) {
	for end := time.Now().Add(takeWait); ; {
		release, err = s.c.Store.Run()
		if !errors.Is(err, deploy.ErrRuns) || time.Now().After(end) {
			return release, err
		}
		if err := vmm.Pause(ctx, 50*time.Millisecond); err != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// boot runs the current image until its machine's end, and makes changes meanwhile.
func (s *Service) boot(ctx context.Context) vmm.Outcome {
	var m *machine
	if s.pending == nil {
		var err error
		if m, err = s.start(ctx, s.record.Current, true); err != nil {
			return vmm.Outcome{Err: err}
		}
	}
	for {
		q := s.pending
		s.pending = nil
		if q == nil {
			select {
			case <-m.ended:
				s.use(nil)
				return m.result
			case q = <-s.requests:
			}
		}
		var why error
		m, why = s.change(ctx, m, q)
		q.finish(why)
		if m == nil {
			s.use(nil)
			return vmm.Outcome{Err: why, Ready: true} // it was, before: the supervisor starts it again
		}
	}
}

// pause waits before a restart. A request ends it.
func (s *Service) pause(ctx context.Context, d time.Duration) error {
	s.do("waiting to start again")
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	case s.pending = <-s.requests:
	}
	return nil
}

// start starts an image's machine, joined to its networks or standing by. One that is
// joined is the one that runs.
func (s *Service) start(ctx context.Context, e deploy.Entry, joined bool) (*machine, error) {
	b, err := s.c.Store.Image(&e)
	if err != nil {
		return nil, fmt.Errorf("the image sha256:%.12s…: %w (thurward rollback takes the previous one)", e.Image, err)
	}
	m := &machine{entry: e, gate: vmm.NewGate(joined), ended: make(chan struct{}), began: s.c.now()}
	if m.plan, err = s.c.Inspect(s.c.Store.ImagePath(&e), b); err != nil {
		return nil, fmt.Errorf("%w (thurward rollback takes the previous image)", err)
	}
	if m.Guest, err = s.c.Start(s.c.Store.ImagePath(&e), b, m.gate); err != nil {
		return nil, err
	}
	m.heard = s.c.now()
	runs, stop := context.WithCancel(ctx)
	m.stop = stop
	go func() {
		m.result = m.Wait(runs)
		stop()
		close(m.ended)
	}()
	if joined {
		s.use(m)
	}
	return m, nil
}

// use makes a machine the one that runs; nil: none does.
func (s *Service) use(m *machine) {
	s.mu.Lock()
	s.active, s.doing = m, ""
	if m != nil {
		s.starts++
	}
	s.mu.Unlock()
	if m == nil || s.c.Changed == nil {
		return
	}
	go func() {
		select {
		case <-m.Ready():
			s.c.Changed()
		case <-m.ended:
		}
	}()
}

// do says what the service does, for its status.
func (s *Service) do(what string) {
	s.mu.Lock()
	s.doing = what
	s.mu.Unlock()
}

// end ends a machine and waits for it.
func (m *machine) end() {
	m.stop()
	<-m.ended
}

// over reports whether a machine has ended.
func (m *machine) over() bool {
	select {
	case <-m.ended:
		return true
	default:
		return false
	}
}
