package thurwardreceiver

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
)

// Pauses between attempts at a pipeline that refuses: the first, which
// doubles, and the longest.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// A queue stands between a firewall's connection and a pipeline, so that one
// signal whose pipeline refuses does not hold up the others, and the firewall
// never waits. When it is full the oldest are dropped and counted.
type queue[T any] struct {
	size  int           // most that wait
	batch int           // most that are given at once
	wait  time.Duration // how long one waits for others
	give  func(context.Context, []T) error
	drop  func(n int)

	mu      sync.Mutex
	items   []T
	dropped int
	wake    chan struct{}
	done    chan struct{}
}

// start makes a queue work until ctx ends.
func (q *queue[T]) start(ctx context.Context) *queue[T] {
	q.wake, q.done = make(chan struct{}, 1), make(chan struct{})
	go q.run(ctx)
	return q
}

// put adds one.
func (q *queue[T]) put(v T) {
	q.mu.Lock()
	q.items = append(q.items, v)
	n := len(q.items)
	lost := n > q.size
	if lost {
		var zero T
		q.items[0] = zero
		q.items = q.items[1:]
	}
	q.mu.Unlock()
	if lost {
		q.drop(1)
	}
	if n == 1 || n >= q.batch {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// take removes up to a batch.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.items), q.batch)
	b := append([]T(nil), q.items[:n]...)
	q.items = q.items[n:]
	if len(q.items) == 0 {
		q.items = nil // let the memory of a full queue go
	}
	return b
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// run gives batches to the pipeline. After ctx has ended it makes one attempt
// at each that is left.
func (q *queue[T]) run(ctx context.Context) {
	defer close(q.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if q.len() == 0 {
			select {
			case <-q.wake:
			case <-ctx.Done():
				if q.len() == 0 {
					return
				}
			}
		}
		timer.Reset(q.wait)
		for full := false; !full && q.len() < q.batch; {
			select {
			case <-q.wake:
			case <-timer.C:
				full = true
			case <-ctx.Done():
				full = true
			}
		}
		if b := q.take(); len(b) > 0 && !q.try(ctx, b) {
			q.drop(len(b))
		}
	}
}

// try gives a batch until the pipeline takes it, refuses it for good, or ctx
// has ended.
func (q *queue[T]) try(ctx context.Context, b []T) bool {
	for pause := firstRetry; ; pause = min(2*pause, lastRetry) {
		err := q.give(context.WithoutCancel(ctx), b)
		if err == nil {
			return true
		}
		if consumererror.IsPermanent(err) {
			return false
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}
