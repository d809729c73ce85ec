package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/terminal"
)

// Bounds of what run prints. A guest may print without end on its console, and the
// reader of the output may stop reading: neither must block the launcher, or fill its
// memory or a disk. The image prints at most 100 lines per second of about 700 bytes,
// and 500 at once.
const (
	outputWaits = 1 << 20   // bytes that wait for a reader
	outputBurst = 1 << 20   // bytes at once
	outputRate  = 128 << 10 // bytes per second
	outputLimit = time.Second
)

// An output writes to w from a goroutine of its own, so that Write never waits. Writes
// beyond its bounds are dropped, and the number of their lines is written in their
// place. It is safe for concurrent use.
type output struct {
	w    io.Writer
	now  func() time.Time
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	queue   []byte
	budget  float64 // bytes that may be written, at the time last
	last    time.Time
	dropped int // lines, not reported yet
	closed  bool
}

func newOutput(w io.Writer, now func() time.Time) *output {
	o := &output{
		w: w, now: now, wake: make(chan struct{}, 1), done: make(chan struct{}),
		budget: outputBurst, last: now(),
	}
	go o.run()
	return o
}

// Write takes p and never fails.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	o.budget = min(outputBurst, o.budget+outputRate*now.Sub(o.last).Seconds())
	o.last = now
	if o.closed || len(o.queue)+len(p) > outputWaits || float64(len(p)) > o.budget {
		o.dropped += max(1, bytes.Count(p, []byte("\n")))
		return len(p), nil
	}
	o.report()
	o.budget -= float64(len(p))
	o.queue = append(o.queue, p...)
	o.signal()
	return len(p), nil
}

// Colour reports whether the output is a terminal that shows colours.
func (o *output) Colour() bool { return terminal.Colour(o.w) }

// report queues a line that counts dropped lines.
func (o *output) report() {
	if o.dropped > 0 {
		o.queue = fmt.Appendf(o.queue,
			"thurward: %d lines were not printed: there were too many, or nobody read them\n", o.dropped)
		o.dropped = 0
	}
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *output) run() {
	defer close(o.done)
	for range o.wake {
		o.mu.Lock()
		b, over := o.queue, o.closed
		o.queue = nil
		o.mu.Unlock()
		o.w.Write(b) //nolint:errcheck // SIGPIPE ends the program
		if over {
			return
		}
	}
}

// close writes queued bytes and the number of dropped lines, and returns after at most
// limit.
func (o *output) close(limit time.Duration) {
	o.mu.Lock()
	o.report()
	o.closed = true
	o.mu.Unlock()
	o.signal()
	select {
	case <-o.done:
	case <-time.After(limit):
	}
}
