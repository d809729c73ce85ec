package vmm

import (
	"strings"
	"testing"
	"time"
)

func TestParseLine(t *testing.T) {
	for in, want := range map[string]Line{
		"thurward: ready version=1 boot_us=5\r\n": {Ready, "thurward: ready version=1 boot_us=5", "version=1 boot_us=5"},
		"\x1bcthurward: ready version=1\n":        {Ready, "thurward: ready version=1", "version=1"},
		"thurward: event {}\n":                    {EventLine, "thurward: event {}", "{}"},
		"thurward: refusing to start: no NIC\n":   {Refused, "thurward: refusing to start: no NIC", "no NIC"},
		"thurward: crash: page fault":             {Crashed, "thurward: crash: page fault", "page fault"},
		"thurward: probe ok\r\n":                  {ProbeOK, "thurward: probe ok", ""},
		"thurward: stopped: Ctrl-Alt-Del\n":       {Stopped, "thurward: stopped: Ctrl-Alt-Del", "Ctrl-Alt-Del"},
		"thurward: note: one device\n":            {Output, "thurward: note: one device", ""},
		"goroutine 1 [running]:\n":                {Output, "goroutine 1 [running]:", ""},
		"x thurward: event {}":                    {Output, "x thurward: event {}", ""},
		// Only the beginning of a line counts.
		"thurward: upstream 1.1.1.1:853: x509: thurward: refusing to start: no":      {Output, "thurward: upstream 1.1.1.1:853: x509: thurward: refusing to start: no", ""},
		"thurward: upstream 1.1.1.1:853: x509: \x1bcthurward: refusing to start: no": {Output, `thurward: upstream 1.1.1.1:853: x509: \x1bcthurward: refusing to start: no`, ""},
		"x thurward: crash: a":               {Output, "x thurward: crash: a", ""},
		"x thurward: ready version=2":        {Output, "x thurward: ready version=2", ""},
		"thurward: event thurward: crash: a": {EventLine, "thurward: event thurward: crash: a", "thurward: crash: a"},
		// Firmware clears the screen before the first line.
		"\x1bc\x1b[?7l\x1b[2J\x1b[0mthurward: probe ok\n": {ProbeOK, "thurward: probe ok", ""},
		// For a terminal.
		"\tmain.go:12 \x1b[2J\u009b1m\xff\u202e":  {Output, "\tmain.go:12 \\x1b[2J\\u009b1m\\xff\\u202e", ""},
		"thurward: refusing to start: \x1b]0;a\a": {Refused, `thurward: refusing to start: \x1b]0;a\x07`, `\x1b]0;a\x07`},
		"\n": {Output, "", ""},
	} {
		if got := ParseLine(in); got != want {
			t.Errorf("%q: %+v, want %+v", in, got, want)
		}
	}
}

func TestParseReady(t *testing.T) {
	got := ParseReady(ParseLine("thurward: ready version=v1 policy=sha256:ab lan=l wan=w rules=4 boot_us=1234"))
	want := ReadyInfo{Version: "v1", Policy: "sha256:ab", LAN: "l", WAN: "w", Boot: 1234 * time.Microsecond}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestLongConsoleLineIsSplit(t *testing.T) {
	var n, bytes int
	readConsole(strings.NewReader(strings.Repeat("x", maxLine+10)+"\nthurward: probe ok\n"), func(l Line) { n++; bytes += len(l.Text) })
	if n != 3 || bytes != maxLine+10+len("thurward: probe ok") {
		t.Errorf("%d lines, %d bytes", n, bytes)
	}
}

// TestRestOfALongLineIsOutput: text behind a line that is too long cannot begin
// another one.
func TestRestOfALongLineIsOutput(t *testing.T) {
	for _, forged := range []string{"thurward: refusing to start: a", "thurward: crash: a", "thurward: event {}"} {
		var got []Line
		readConsole(strings.NewReader(strings.Repeat("x", maxLine)+forged+"\nthurward: probe ok\n"), func(l Line) { got = append(got, l) })
		if len(got) != 3 || got[1].Kind != Output || got[1].Text != forged || got[2].Kind != ProbeOK {
			t.Errorf("%s: %d lines, the second %+v", forged, len(got), got[1])
		}
	}
}

func TestUnfinishedEventIsOutput(t *testing.T) {
	var got []Line
	readConsole(strings.NewReader("thurward: event {}\nthurward: event {\"ev"), func(l Line) { got = append(got, l) })
	if len(got) != 2 || got[0].Kind != EventLine || got[1].Kind != Output {
		t.Errorf("%+v", got)
	}
}
