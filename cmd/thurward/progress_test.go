package main

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
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

// TestReplayShowsProgress: replay with standard error on a terminal says how far it is, and a
// file gets none of it.
func TestReplayShowsProgress(t *testing.T) {
	capture, err := os.ReadFile("../../internal/host/replay/testdata/lan.pcap")
	if err != nil {
		t.Fatal(err)
	}
	const header = 24
	big := bytes.Repeat(capture[header:], 1+8192/replayFrames(t, capture[header:]))
	file := filepath.Join(t.TempDir(), "big.pcap")
	if err := os.WriteFile(file, append(capture[:header:header], big...), 0o600); err != nil {
		t.Fatal(err)
	}
	defer func(d time.Duration) { progressPause = d }(progressPause)
	progressPause = 0
	args := []string{"replay", "-f", "../../rules.yaml", "--lan", file}
	keyboard, terminal := pty(t)
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = nowhere, terminal
	code := run(args)
	os.Stdout, os.Stderr = out, errs
	terminal.Close()
	// The terminal's other end is closed: it reads what was written, and then an error.
	b, _ := io.ReadAll(keyboard)
	if code != 0 || !bytes.Contains(b, []byte(" % of ")) || !bytes.HasSuffix(b, []byte("\x1b[K")) {
		t.Errorf("exit %d: %q", code, b)
	}
}

// replayFrames counts the frames of a capture without its header.
func replayFrames(t *testing.T, b []byte) (n int) {
	t.Helper()
	for len(b) >= 16 {
		size := 16 + int(binary.LittleEndian.Uint32(b[8:]))
		if size > len(b) {
			t.Fatal("not a capture of this byte order")
		}
		b = b[size:]
		n++
	}
	return n
}
