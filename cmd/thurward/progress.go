package main

import (
	"io"
	"time"

	"github.com/thurward/thurward/internal/shared/printable"
)

// progress shows on a terminal how far something is, at most once a second and not in
// the first one. It writes to the terminal itself: it moves in its line.
type progress struct {
	w     io.Writer
	last  time.Time
	shown bool
}

// progressPause is how long nothing is said at first, and then between two lines.
var progressPause = time.Second

// show says how many of all bytes are done.
func (p *progress) show(done, all int64) { p.showAt(time.Now(), done, all) }

func (p *progress) showAt(now time.Time, done, all int64) {
	if p.last.IsZero() {
		p.last = now
	}
	if now.Sub(p.last) < progressPause || all <= 0 {
		return
	}
	p.last, p.shown = now, true
	printable.Fprintf(p.w, "\r%3d %% of %d MB", done*100/all, all>>20)
}

// end returns a function that clears the line and then calls next.
func (p *progress) end(next func() error) func() error {
	return func() error {
		if p.shown {
			printable.Fprintf(p.w, "\r\x1b[K")
		}
		return next()
	}
}
