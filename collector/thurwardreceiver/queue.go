package thurwardreceiver

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/collector/consumer/consumererror"
)

// Pauses between attempts to send to a pipeline that refuses: the first one, which
// doubles, and the longest.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// A queue is between a firewall's connection and a pipeline, so that a pipeline that
// refuses does not block the other signals or the firewall. When it is full the oldest
// items are dropped and counted.
type queue[T any] struct {
	size  int           // largest number of items
	batch int           // largest number of items of one batch
	weigh func(*T) int  // memory of an item in bytes
	share *share        // of the memory of all queues
	wait  time.Duration // how long an item waits for others
	give  func(context.Context, []T) error
	drop  func(n int)

	mu    sync.Mutex
	items []T
	bytes int
	wake  chan struct{}
	done  chan struct{}
}

// start runs the queue until ctx ends.
func (q *queue[T]) start(ctx context.Context) *queue[T] {
	q.wake, q.done = make(chan struct{}, 1), make(chan struct{})
	q.share.join(q.trim)
	go q.run(ctx)
	return q
}

// put adds an item.
func (q *queue[T]) put(v T) {
	q.mu.Lock()
	q.items, q.bytes = append(q.items, v), q.bytes+q.weigh(&v)
	n := len(q.items)
	q.mu.Unlock()
	q.trim(q.share.each())
	if n == 1 || n >= q.batch {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// trim drops the oldest items beyond size and beyond a number of bytes, but not the
// newest one.
func (q *queue[T]) trim(bytes int) {
	q.mu.Lock()
	lost := 0
	for len(q.items) > q.size || q.bytes > bytes && len(q.items) > 1 {
		var zero T
		q.bytes -= q.weigh(&q.items[0])
		q.items[0] = zero
		q.items = q.items[1:]
		lost++
	}
	q.mu.Unlock()
	if lost > 0 {
		q.drop(lost)
	}
}

// batchBytes bounds a batch. In a pipeline it uses several times as much memory.
const batchBytes = 512 << 10

// take removes up to a batch.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < min(len(q.items), q.batch) && (n == 0 || bytes < batchBytes) {
		bytes += q.weigh(&q.items[n])
		n++
	}
	b := append([]T(nil), q.items[:n]...)
	clear(q.items[:n])
	q.items, q.bytes = q.items[n:], q.bytes-bytes
	if len(q.items) == 0 {
		q.items, q.bytes = nil, 0 // frees the memory of a full queue
	}
	return b
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}

// run sends batches to the pipeline. After ctx has ended it tries once to send each
// batch that is left.
func (q *queue[T]) run(ctx context.Context) {
	defer close(q.done)
	defer q.share.leave()
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

// try sends a batch until the pipeline takes it, refuses it permanently, or ctx has
// ended.
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

// A memory is a number of bytes that the queues of all connections share equally.
type memory struct {
	total int

	mu     sync.Mutex
	shares map[*share]func(bytes int)
}

// fewest is the least number of parts of a memory, so that a single queue leaves room
// for others.
const fewest = 4

// A share is one queue's part of a memory.
type share struct{ of *memory }

// join adds a queue, which makes the parts of the others smaller.
func (s *share) join(trim func(bytes int)) {
	m := s.of
	m.mu.Lock()
	if m.shares == nil {
		m.shares = map[*share]func(int){}
	}
	m.shares[s] = trim
	var all []func(int)
	for _, t := range m.shares {
		all = append(all, t)
	}
	m.mu.Unlock()
	each := s.each()
	for _, t := range all {
		t(each)
	}
}

func (s *share) leave() {
	s.of.mu.Lock()
	delete(s.of.shares, s)
	s.of.mu.Unlock()
}

func (s *share) each() int {
	s.of.mu.Lock()
	defer s.of.mu.Unlock()
	return s.of.total / max(len(s.of.shares), fewest)
}
