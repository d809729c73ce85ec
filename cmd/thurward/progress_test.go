package main

import (
	"strings"
	"testing"
	"time"
)

// TestProgress: nothing in the first second, then once a second, and the line is gone at
// the end. What showed nothing clears nothing.
func TestProgress(t *testing.T) {
	var b strings.Builder
	p := progress{w: &b}
	end := p.end(func() error { b.WriteString("next"); return nil })
	at := time.Unix(1_000_000, 0)
	p.showAt(at, 1, 1000<<20)
	p.showAt(at.Add(999*time.Millisecond), 10<<20, 1000<<20)
	if end(); b.String() != "next" {
		t.Errorf("%q in the first second", b.String())
	}
	b.Reset()
	p.showAt(at.Add(time.Second), 250<<20, 1000<<20)
	p.showAt(at.Add(1500*time.Millisecond), 300<<20, 1000<<20)
	p.showAt(at.Add(2*time.Second), 1000<<20, 1000<<20)
	p.showAt(at.Add(9*time.Second), 1, 0)
	end()
	if want := "\r 25 % of 1000 MB\r100 % of 1000 MB\r\x1b[Knext"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
