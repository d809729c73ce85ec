package vmm

import (
	"bytes"
	"sync"
)

// Verdicts is by which way the launcher gets the firewall's events.
type Verdicts uint8

// The ways. The console is slow: the processor leaves the guest for each byte, so that the
// packet that caused an event, and those behind it, wait until its line is printed.
const (
	NoVerdicts      Verdicts = iota
	ConsoleVerdicts          // the firewall prints them on the console
	StreamVerdicts           // the launcher reads them from the stream that it passes on
)

// eventPrefix begins an event's line on the console.
const eventPrefix = "thurward: event "

// A streamTap finds the events in a stream that passes through the launcher, and calls
// onLine with each as the console would have shown it. The zero streamTap of a connection
// is ready. It is used by one goroutine.
type streamTap struct {
	onLine func(Line)
	part   []byte // the beginning of a line
	skip   bool   // the line is too long: its rest is not kept
}

// write takes the next bytes of the stream. A line that is longer than a line of the
// console may be is left out, and so is the end of a stream without a line's end.
func (t *streamTap) write(b []byte) {
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		rest := b
		if i >= 0 {
			rest = b[:i]
		}
		if t.skip = t.skip || len(t.part)+len(rest) > maxLine; t.skip {
			t.part = t.part[:0]
		} else {
			t.part = append(t.part, rest...)
		}
		if i < 0 {
			return
		}
		if !t.skip && len(t.part) > 0 && t.part[0] == '{' {
			s := string(t.part)
			t.onLine(Line{Kind: EventLine, Text: eventPrefix + s, Rest: s})
		}
		t.part, t.skip = t.part[:0], false
		b = b[i+1:]
	}
}

// A lineSink passes lines of the console and of the stream on, one at a time, until it is
// closed.
type lineSink struct {
	mu     sync.Mutex
	closed bool
	onLine func(Line)
}

func (s *lineSink) line(l Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.onLine(l)
	}
}

func (s *lineSink) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

// tap returns what takes the bytes of a new connection of the guest, or nil: the events
// are not read from it.
func (c *Config) tap() func([]byte) {
	if c.onEvent == nil {
		return nil
	}
	t := &streamTap{onLine: c.onEvent}
	return t.write
}
