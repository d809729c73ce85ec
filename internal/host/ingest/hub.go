package ingest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"net"
	"sync"
	"time"
)

// Bounds of a hub. A follower that reads too slowly loses the oldest lines, and
// gets an event that counts them.
const (
	MaxFollowers = 32
	queueBytes   = 1 << 20 // of lines that wait for one follower
	partCost     = 64      // bytes of memory of a part beside its lines
)

// A Hub forwards the lines of firewalls to any number of followers, since a guest
// has a connection to one reader only. A follower that joins first gets each
// firewall's HELLO and its last snapshot of metrics. A line "# FROM name" precedes
// a line that is from another firewall than the line before. A hub never waits for
// a follower. It is safe for concurrent use; the zero Hub is ready.
type Hub struct {
	// Snapshot yields the last whole snapshot of a source's metrics as lines, in
	// pieces, until yield returns false. It is for followers that join; without
	// it they wait for the next snapshot.
	Snapshot func(s *Source, yield func([]byte) bool)

	mu        sync.Mutex
	sources   map[*Source]identity
	followers map[*follower]struct{}
}

// An identity is a firewall's HELLO, "" before it, and its name.
type identity struct{ hello, name string }

// Publish forwards a line of a source.
func (h *Hub) Publish(s *Source, it Item) {
	raw := it.Raw
	switch it.Kind {
	case BeatKind:
		return // it is about the connection that it came by
	case FromKind:
		return // a source must not send lines in the name of another one
	case Malformed:
		// The beginning of a line that is too long could be read as a line of
		// another kind, such as a HELLO. The prefix prevents it.
		raw = "? " + raw[:min(len(raw), maxShown)]
	}
	l := line(raw)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sources == nil {
		h.sources = map[*Source]identity{}
	}
	t, ok := h.sources[s]
	if it.Kind == HelloKind || !ok {
		t = identity{name: s.Hello.Name()}
		if it.Kind == HelloKind {
			t.hello = it.Raw
		}
		h.sources[s] = t
	}
	for f := range h.followers {
		f.put(t.name, l)
	}
}

// maxShown is how many bytes of a malformed line are forwarded.
const maxShown = 256

func line(s string) []byte { return append(append(make([]byte, 0, len(s)+1), s...), '\n') }

// Gone removes a source whose connection has ended.
func (h *Hub) Gone(s *Source) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sources, s)
}

// Followers returns the number of followers.
func (h *Hub) Followers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.followers)
}

// Serve accepts followers until ctx ends; then it closes the listener and all
// of them, and returns nil. What followers send is not read.
func (h *Hub) Serve(ctx context.Context, l net.Listener) error {
	return accept(ctx, l, func(c net.Conn) (serve func()) {
		f := h.join()
		if f == nil {
			return nil
		}
		return func() {
			defer h.leave(f)
			go func() { // notices at once that the follower has closed the connection
				var b [64]byte
				for {
					if _, err := c.Read(b[:]); err != nil {
						f.close()
						return
					}
				}
			}()
			f.write(c)
		}
	})
}

// join makes a follower, nil if there are too many.
func (h *Hub) join() *follower {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.followers) >= MaxFollowers {
		return nil
	}
	f := &follower{wake: make(chan struct{}, 1)}
	sources := maps.Clone(h.sources)
	f.first = func(yield func(part) bool) { // called without the lock, since it may take long
		goOn := true
		for s, t := range sources {
			if t.hello == "" {
				continue
			}
			if goOn = goOn && yield(part{t.name, line(t.hello)}); !goOn {
				return
			}
			if h.Snapshot != nil {
				h.Snapshot(s, func(b []byte) bool { goOn = goOn && yield(part{t.name, b}); return goOn })
			}
		}
	}
	if h.followers == nil {
		h.followers = map[*follower]struct{}{}
	}
	h.followers[f] = struct{}{}
	return f
}

func (h *Hub) leave(f *follower) {
	f.close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.followers, f)
}

// A follower is one connection that a hub writes to.
type follower struct {
	first  iter.Seq[part] // the parts that it gets first, made one at a time
	mu     sync.Mutex
	queue  []part
	size   int   // of the queue in bytes
	lost   int64 // lines that were removed from the queue, not reported yet
	closed bool
	wake   chan struct{}
}

// A part is one or more whole lines of one firewall.
type part struct {
	name  string
	lines []byte // shared by all followers
}

// put queues lines, and removes the oldest if there is no room.
func (f *follower) put(name string, lines []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	f.queue, f.size = append(f.queue, part{name, lines}), f.size+len(lines)+partCost
	for f.size > queueBytes && len(f.queue) > 1 {
		f.size -= len(f.queue[0].lines) + partCost
		f.lost += int64(bytes.Count(f.queue[0].lines, []byte("\n")))
		f.queue = f.queue[1:]
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *follower) close() {
	f.mu.Lock()
	f.closed, f.queue, f.size = true, nil, 0
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// take empties the queue, and returns how many lines were lost before it.
func (f *follower) take() (q []part, lost int64, closed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q, lost, closed = f.queue, f.lost, f.closed
	f.queue, f.size, f.lost = nil, 0, 0
	return q, lost, closed
}

// write sends queued lines until the follower closes the connection.
func (f *follower) write(c net.Conn) {
	last := ""
	send := func(b net.Buffers, q []part) bool {
		for _, p := range q {
			if p.name != last {
				b = append(b, []byte(fromPrefix+p.name+"\n"))
				last = p.name
			}
			b = append(b, p.lines)
		}
		_, err := b.WriteTo(c)
		return err == nil
	}
	for p := range f.first {
		if !send(nil, []part{p}) {
			return
		}
	}
	f.first = nil
	for range f.wake {
		q, lost, closed := f.take()
		if closed {
			return
		}
		var b net.Buffers
		if lost > 0 {
			b = append(b, lostLine(time.Now(), lost))
		}
		if !send(b, q) {
			return
		}
	}
}

// lostLine returns the event that tells a follower how many lines it has lost. It
// has the form of the firewall's own, but for event.provider, which says where the
// loss was.
func lostLine(now time.Time, n int64) []byte {
	return fmt.Appendf(nil, `{"@timestamp":"%s","event.kind":"event","event.category":["network"],"event.type":["info"],`+
		`"event.action":"lines-lost","event.outcome":"failure","event.provider":"tail","firewall.lost_lines":%d}`+"\n",
		now.UTC().Format("2006-01-02T15:04:05.000000Z"), n)
}
