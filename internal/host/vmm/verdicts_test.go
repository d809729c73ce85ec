package vmm

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestStreamTap: the events of a stream become the lines that the console would have had,
// however the stream is cut; lines of other kinds, ones that are too long and one without
// an end do not.
func TestStreamTap(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", maxLine) + `"}`
	fits := `{"a":"` + strings.Repeat("x", maxLine-8) + `"}`
	stream := "# HELLO {}\n{\"a\":1}\n\n" + long + "\n{\"a\":2}\nthurward: crash: x\n# METRIC {\n" + fits + "\n{\"a\":3}\n{\"cut"
	want := []string{`{"a":1}`, `{"a":2}`, fits, `{"a":3}`}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		var got []string
		tap := streamTap{onLine: func(l Line) {
			if l.Kind != EventLine || l.Text != "thurward: event "+l.Rest {
				t.Errorf("kind %d: %.40q, %.40q", l.Kind, l.Text, l.Rest)
			}
			got = append(got, l.Rest)
		}}
		for b := []byte(stream); len(b) > 0; {
			n := min(len(b), 1+r.IntN(1+r.IntN(100_000)))
			piece := slices.Clone(b[:n])
			tap.write(piece)
			clear(piece) // it must not be kept
			b = b[n:]
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d events, want %d: %.200q", seed, len(got), len(want), got)
		}
		if len(tap.part) > maxLine {
			t.Errorf("%d bytes are kept", len(tap.part))
		}
	}
}

// TestVerdictsOnTheConsole: the firewall prints events if that was asked for, and not
// otherwise: the processor leaves the guest for each byte of the console.
func TestVerdictsOnTheConsole(t *testing.T) {
	for v, want := range map[Verdicts]bool{NoVerdicts: false, StreamVerdicts: false, ConsoleVerdicts: true} {
		if got := (&Config{Verdicts: v}).Cmdline(); strings.Contains(got, "thurward.events=console") != want {
			t.Errorf("%d: %q", v, got)
		}
	}
}

// TestSinkAfterTheEnd: what comes after the end of a start is not passed on.
func TestSinkAfterTheEnd(t *testing.T) {
	n := 0
	s := lineSink{onLine: func(Line) { n++ }}
	s.line(Line{})
	s.close()
	s.line(Line{})
	if n != 1 {
		t.Errorf("%d lines", n)
	}
}
