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
	weigh func(*T) int  // bytes that one takes up
	share *share        // of the memory of all queues
	wait  time.Duration // how long one waits for others
	give  func(context.Context, []T) error
	drop  func(n int)

	mu    sync.Mutex
	items []T
	bytes int
	wake  chan struct{}
	done  chan struct{}
}

// start makes a queue work until ctx ends.
func (q *queue[T]) start(ctx context.Context) *queue[T] {
	q.wake, q.done = make(chan struct{}, 1), make(chan struct{})
	q.share.join(q.trim)
	go q.run(ctx)
	return q
}

// put adds one.
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

// trim drops the oldest beyond size, and beyond so many bytes; the newest is
// kept.
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

// batchBytes bounds a batch: what a pipeline makes of one is several times
// larger.
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
		q.items, q.bytes = nil, 0 // let the memory of a full queue go
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

// A memory is shared by the queues of all connections, in equal parts.
type memory struct {
	total int

	mu     sync.Mutex
	shares map[*share]func(bytes int)
}

// fewest is by how many the memory is divided at least, so that a queue that
// is alone leaves room for others.
const fewest = 4

// A share is one queue's part.
type share struct{ of *memory }

// join counts in a queue. The others have less from now on.
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
