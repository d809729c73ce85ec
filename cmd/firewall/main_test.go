package main

import (
	"strings"
	"testing"
)

// TestSaidIsOneLine: every message is one line of printable text that begins as all do, and
// not without end.
func TestSaidIsOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"note: the machine has no vsock device":                                                  "thurward: note: the machine has no vsock device\n",
		"its certificate is refused: x\n\nthurward: refusing to start: y\x1b[2J\u009b\u202e\xff": `thurward: its certificate is refused: x\x0a\x0athurward: refusing to start: y\x1b[2J\u009b\u202e\xff` + "\n",
	} {
		if got := string(line(in)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := line(strings.Repeat("\n", 100000)); len(got) > maxSaid+len("thurward: \n") {
		t.Errorf("%d bytes", len(got))
	}
}
