package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A request is to change the image that runs.
type request struct {
	ctx      context.Context // ends when nobody waits for the answer any more
	entry    deploy.Entry    // Image is set
	rollback bool            // to the previous image, in place of entry
	watch    time.Duration   // how long the new machine is watched
	cold     bool            // the old machine ends before the new one starts
	// confirm asks who made the request whether all is well, once the watch is over; nil:
	// nobody is asked.
	confirm func(ctx context.Context) error

	say      func(format string, a ...any)
	answered chan error
}

func (q *request) finish(err error) { q.answered <- err }

// change replaces the machine that runs, which may be nil, by that of another image. It
// returns the machine that runs then: the old one, if the new one is not healthy, with the
// reason. If none does it returns nil and why.
func (s *Service) change(ctx context.Context, old *machine, q *request) (runs *machine, why error) {
	defer s.do("")
	s.do("changing the image")
	c := &changing{Service: s, q: q, old: old, was: s.record}
	if why = c.prepare(); why != nil {
		s.c.Options.Say("the image is not changed: %v", why) // who asked is told, too
		return old, c.failed(why)
	}
	if why = c.begin(ctx); why == nil {
		why = c.check(ctx)
	}
	if why == nil {
		why = c.takeOver()
	}
	if why == nil {
		why = c.watch(ctx)
	}
	if why == nil {
		why = c.commit()
	}
	if why != nil {
		return c.back(ctx, why)
	}
	if c.old != nil {
		c.old.end()
	}
	c.tell("the image sha256:%.12s… is current", c.new.entry.Image)
	return c.new, nil
}

// changing is one change.
type changing struct {
	*Service
	q        *request
	old, new *machine
	was      deploy.Record
	next     deploy.Record
	plan     Plan // of the new image
	gateway  bool // the old machine knew its gateway
	before   uint64
}

// tell tells who made the request, and the log.
func (c *changing) tell(format string, a ...any) {
	c.c.Options.Say(format, a...)
	c.q.say(format, a...)
}

// prepare checks the image, and that there is room for what is to be written.
func (c *changing) prepare() error {
	e := c.q.entry
	if c.q.rollback {
		if c.was.Previous == nil {
			return errors.New("there is no previous image")
		}
		e = *c.was.Previous
	}
	b, err := c.c.Store.Image(&e)
	if err != nil {
		return err
	}
	if c.plan, err = c.c.Inspect(c.c.Store.ImagePath(&e), b); err != nil {
		return err
	}
	e.Policy, e.Size = c.plan.Policy, int64(len(b))
	c.next = c.was.Next(e, c.c.now())
	return c.c.Store.Prepare(c.next)
}

// reserveMB is what a hypervisor needs beside the memory of its machine, and what is left to
// the host.
const reserveMB = 96

// begin starts the new machine: beside the old one if that is possible, otherwise in its
// place.
func (c *changing) begin(ctx context.Context) (err error) {
	if c.old != nil {
		select {
		case <-c.old.Gateway():
			c.gateway = true
		default:
		}
	}
	if why := c.mustStop(); why != "" {
		c.tell("the old machine ends first: %s", why)
		return c.beginCold(ctx)
	}
	if c.old != nil {
		if free, err := c.c.Free(); err == nil && free < c.plan.MemoryMB+reserveMB {
			return fmt.Errorf("%d MB of memory are free, and the new machine needs %d MB beside the old one (--cold ends the old one first)",
				free, c.plan.MemoryMB+reserveMB)
		}
	}
	c.new, err = c.start(ctx, c.next.Current, c.old == nil)
	if errors.Is(err, vmm.ErrNoPlug) {
		c.tell("the old machine ends first: %v", err)
		return c.beginCold(ctx)
	}
	return err
}

func (c *changing) beginCold(ctx context.Context) (err error) {
	if c.old != nil {
		c.old.end()
	}
	c.new, err = c.start(ctx, c.next.Current, true)
	return err
}

// mustStop says why the old machine has to end before the new one starts, "" if not.
func (c *changing) mustStop() string {
	switch {
	case c.old == nil || c.old.over():
		return ""
	case c.q.cold:
		return "asked for"
	case !c.old.gate.Movable():
		return "its networks cannot be changed while it runs (bridge: and tap: with multi_queue can)"
	case c.old.plan.MACs != c.plan.MACs:
		return "the new policy has other hardware addresses (mac), which a machine announces when it starts"
	}
	return ""
}

// takeOver gives the new machine the old one's place.
func (c *changing) takeOver() error {
	c.before, _ = c.new.Signs()
	began := c.c.now()
	var from *vmm.Gate
	if c.old != nil && !c.old.over() {
		from = c.old.gate
	}
	if err := vmm.Switch(from, c.new.gate); err != nil {
		return err
	}
	c.use(c.new)
	c.tell("the new machine has taken over, in %v; it is watched for %v", c.c.now().Sub(began).Round(time.Microsecond), c.q.watch)
	return nil
}

// commit makes the new image the current one.
func (c *changing) commit() error {
	err := c.c.Store.Commit()
	r, readErr := c.c.Store.Record()
	if err != nil && (readErr != nil || r.Current.Image != c.next.Current.Image) {
		return fmt.Errorf("the change cannot be written down: %w", err)
	}
	if err != nil {
		c.tell("the change is written down, and may be lost with the power: %v", err)
	}
	c.setRecord(c.next)
	if _, err := c.c.Store.Recover(); err != nil {
		c.tell("putting the folder in order: %v", err)
	}
	return nil
}

func (s *Service) setRecord(r deploy.Record) {
	s.mu.Lock()
	s.record = r
	s.mu.Unlock()
}

// back gives the place to the old machine again, or starts its image anew where that machine
// is over.
func (c *changing) back(ctx context.Context, why error) (*machine, error) {
	c.tell("going back: %v", why)
	old := c.old
	switch {
	case old != nil && !old.over():
		if c.new != nil {
			var from *vmm.Gate
			if !c.new.over() {
				from = c.new.gate
			}
			if err := vmm.Switch(from, old.gate); err != nil {
				why = errors.Join(why, err)
			}
		}
		c.use(old)
		if c.new != nil {
			c.new.end()
		}
	default:
		if c.new != nil {
			c.new.end()
		}
		old = nil
		if ctx.Err() == nil && c.was.Current.Image != "" {
			var err error
			if old, err = c.start(ctx, c.was.Current, true); err != nil {
				old, why = nil, errors.Join(why, err)
			}
		}
	}
	return old, c.failed(why)
}

// failed writes down that the change did not happen.
func (c *changing) failed(why error) error {
	c.c.Store.Abandon()
	image := c.q.entry.Image
	if c.next.Current.Image != "" {
		image = c.next.Current.Image
	}
	r := c.was
	r.Failed = &deploy.Failure{Image: image, When: c.c.now().UTC().Truncate(time.Second), Why: why.Error()}
	if r.Current.Image != "" {
		if err := c.c.Store.Set(r); err != nil {
			c.tell("the failure cannot be written down: %v", err)
		} else {
			c.setRecord(r)
		}
		if _, err := c.c.Store.Recover(); err != nil {
			c.tell("putting the folder in order: %v", err)
		}
	}
	return why
}
