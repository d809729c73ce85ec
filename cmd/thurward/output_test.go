package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// A standing clock has a time that is set by the test.
type standing struct{ t time.Time }

func (s *standing) now() time.Time { return s.t }

// TestOutputOrder: lines within the bounds are written, whole and in order.
func TestOutputOrder(t *testing.T) {
	var b, want bytes.Buffer
	o := newOutput(&b, time.Now)
	for i := range 1000 {
		fmt.Fprintf(o, "line %d\n", i)
		fmt.Fprintf(&want, "line %d\n", i)
	}
	o.close(5 * time.Second)
	if b.String() != want.String() {
		t.Errorf("%d bytes, want %d", b.Len(), want.Len())
	}
}

// TestOutputBlocked: if the output is not read, Write does not wait, the queue is
// bounded, and the number of dropped lines is written later.
func TestOutputBlocked(t *testing.T) {
	r, w := io.Pipe()
	c := &standing{time.Unix(0, 0)}
	o := newOutput(w, c.now)
	line := []byte(strings.Repeat("x", 999) + "\n")
	for range 20_000 {
		c.t = c.t.Add(time.Second) // time enough for the rate
		o.Write(line)
	}
	if o.mu.Lock(); cap(o.queue) > 3*outputWaits {
		t.Errorf("%d bytes wait", cap(o.queue))
	}
	o.mu.Unlock()
	began := time.Now()
	o.close(50 * time.Millisecond)
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the end took %v", d)
	}
	b := make(chan []byte)
	go func() { x, _ := io.ReadAll(r); b <- x }()
	<-o.done
	w.Close()
	got := <-b
	kept, dropped := 0, 0
	for l := range strings.Lines(string(got)) {
		if n := 0; l[0] == 't' {
			fmt.Sscanf(l, "thurward: %d lines", &n)
			dropped += n
		} else {
			kept++
		}
	}
	if kept+dropped != 20_000 || dropped == 0 {
		t.Errorf("%d lines and %d dropped", kept, dropped)
	}
}

// TestOutputRate: a guest that prints without end does not fill a disk, and one
// that prints as the image does loses nothing.
func TestOutputRate(t *testing.T) {
	for name, c := range map[string]struct {
		line, perSecond int
		all             bool
	}{
		"the image":    {700, 100, true},
		"without end":  {1000, 100_000, false},
		"long lines":   {64 << 10, 1000, false},
		"a crash dump": {100, 1000, true},
	} {
		clock := &standing{time.Unix(0, 0)}
		n := &counting{}
		o := newOutput(n, clock.now)
		line := append(bytes.Repeat([]byte("x"), c.line-1), '\n')
		const seconds = 10
		for range seconds {
			for range c.perSecond {
				clock.t = clock.t.Add(time.Second / time.Duration(c.perSecond))
				for o.waits() > outputWaits/2 {
					time.Sleep(time.Millisecond)
				}
				o.Write(line)
			}
		}
		o.close(5 * time.Second)
		if all := n.n == seconds*c.perSecond*c.line; all != c.all || n.n > outputBurst+(seconds+1)*outputRate+100_000 {
			t.Errorf("%s: %d bytes in %d seconds", name, n.n, seconds)
		}
	}
}

func (o *output) waits() int { o.mu.Lock(); defer o.mu.Unlock(); return len(o.queue) }

type counting struct{ n int }

func (c *counting) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }
