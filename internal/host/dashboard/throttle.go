package dashboard

import (
	"sync"
	"time"
)

// A Throttle logs messages, at most one in a while about the same subject: what a
// guest or a client does must not fill a log. It is safe for concurrent use.
type Throttle[T any] struct {
	Say func(message string, fields ...T)

	mu   sync.Mutex
	last map[string]time.Time
}

const (
	throttleInterval = 30 * time.Second // between messages about one subject
	maxSubjects      = 256              // that are remembered; then all are forgotten
)

// About logs a message about a subject, or drops it.
func (t *Throttle[T]) About(now time.Time, subject, message string, fields ...T) {
	t.mu.Lock()
	last, ok := t.last[subject]
	if ok && now.Sub(last) < throttleInterval {
		t.mu.Unlock()
		return
	}
	if t.last == nil || len(t.last) >= maxSubjects {
		t.last = map[string]time.Time{}
	}
	t.last[subject] = now
	t.mu.Unlock()
	t.Say(message, fields...)
}
