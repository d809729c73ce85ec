package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/terminal"
)

// Bounds of what run prints. A guest says what it likes on its console, and who
// reads may stop: neither is to hold the launcher up, nor to fill its memory or
// the disk under a log. The image prints at most 100 lines a second, of about 700
// bytes, and 500 at once.
const (
	outputWaits = 1 << 20   // bytes that wait for a reader
	outputBurst = 1 << 20   // bytes at once
	outputRate  = 128 << 10 // bytes a second
	outputLimit = time.Second
)

// An output passes on what is written to it, from a goroutine of its own: Write
// never waits. What is too much or too fast is dropped, whole writes, and how
// many lines that were is written in their place. It is safe for concurrent use.
type output struct {
	w    io.Writer
	now  func() time.Time
	wake chan struct{}
	done chan struct{}

	mu      sync.Mutex
	queue   []byte
	budget  float64 // bytes that may be written at last
	last    time.Time
	dropped int // lines, not yet told
	closed  bool
}

func newOutput(w io.Writer, now func() time.Time) *output {
	o := &output{w: w, now: now, wake: make(chan struct{}, 1), done: make(chan struct{}), budget: outputBurst, last: now()}
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
	o.tell()
	o.budget -= float64(len(p))
	o.queue = append(o.queue, p...)
	o.signal()
	return len(p), nil
}

// Colour reports whether the output leads to a terminal that may show colours.
func (o *output) Colour() bool { return terminal.Colour(o.w) }

// tell queues a line that says what was dropped before it.
func (o *output) tell() {
	if o.dropped > 0 {
		o.queue = fmt.Appendf(o.queue, "thurward: %d lines were not printed: there were too many, or nobody read them\n", o.dropped)
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
		o.w.Write(b) //nolint:errcheck // a pipe's end ends the program, as for others
		if over {
			return
		}
	}
}

// close writes what waits, and how much was dropped, for as long as limit.
func (o *output) close(limit time.Duration) {
	o.mu.Lock()
	o.tell()
	o.closed = true
	o.mu.Unlock()
	o.signal()
	select {
	case <-o.done:
	case <-time.After(limit):
	}
}
