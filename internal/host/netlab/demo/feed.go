package demo

import (
	"context"
	"sync"

	"github.com/thurward/thurward/internal/host/ecs"
)

// A Feed passes the firewall's events to steps that wait for them. It is safe for
// concurrent use; the zero Feed is ready.
type Feed struct {
	mu      sync.Mutex
	waiting []*waiter
}

type waiter struct {
	match func(ecs.Event) bool
	found chan ecs.Event // room for one
}

// Add passes an event to the first wait that it matches, and reports whether there was
// one.
func (f *Feed) Add(e ecs.Event) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range f.waiting {
		if w.match(e) {
			w.found <- e
			f.waiting = append(f.waiting[:i:i], f.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// Expect begins to wait for an event; call it before the cause of the event. The
// function that it returns waits until ctx ends.
func (f *Feed) Expect(match func(ecs.Event) bool) func(context.Context) (ecs.Event, error) {
	w := &waiter{match: match, found: make(chan ecs.Event, 1)}
	f.mu.Lock()
	f.waiting = append(f.waiting, w)
	f.mu.Unlock()
	return func(ctx context.Context) (ecs.Event, error) {
		select {
		case e := <-w.found:
			return e, nil
		case <-ctx.Done():
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for i, o := range f.waiting {
			if o == w {
				f.waiting = append(f.waiting[:i:i], f.waiting[i+1:]...)
				return nil, ctx.Err()
			}
		}
		return <-w.found, nil // it was found meanwhile
	}
}
