package vmm

import (
	"strings"
	"testing"
)

func TestParseLine(t *testing.T) {
	for in, want := range map[string]Line{
		"thurward: ready version=1 boot_us=5\r\n": {Ready, "thurward: ready version=1 boot_us=5", "version=1 boot_us=5"},
		"\x1bcthurward: ready version=1\n":        {Ready, "thurward: ready version=1", "version=1"},
		"thurward: event {}\n":                    {EventLine, "thurward: event {}", "{}"},
		"thurward: refusing to start: no NIC\n":   {Refused, "thurward: refusing to start: no NIC", "no NIC"},
		"thurward: crash: page fault":             {Crashed, "thurward: crash: page fault", "page fault"},
		"thurward: probe ok\r\n":                  {ProbeOK, "thurward: probe ok", ""},
		"thurward: note: one device\n":            {Output, "thurward: note: one device", ""},
		"goroutine 1 [running]:\n":                {Output, "goroutine 1 [running]:", ""},
		"x thurward: event {}":                    {Output, "x thurward: event {}", ""},
		// What stands further on in a line is part of what somebody else said.
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
	want := ReadyInfo{Version: "v1", Policy: "sha256:ab", LAN: "l", WAN: "w", BootUS: 1234}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestParseEvent(t *testing.T) {
	want := Event{Action: "accept", Reason: "rule", RuleID: "allow-web", Direction: "egress", Transport: "tcp",
		SrcIP: "10.0.0.2", SrcPort: 40112, DstIP: "198.51.100.80", DstPort: 80, XlatIP: "203.0.113.10", XlatPort: 40112}
	for name, in := range map[string]string{
		"dotted": `{"event.action":"accept","event.reason":"rule","rule.id":"allow-web","network.direction":"egress","network.transport":"tcp","source.ip":"10.0.0.2","source.port":40112,"destination.ip":"198.51.100.80","destination.port":80,"network.translated.address":"203.0.113.10","network.translated.port":40112}`,
		"nested": `{"event":{"action":"accept","reason":"rule"},"rule":{"id":"allow-web"},"network":{"direction":"egress","transport":"tcp","translated":{"address":"203.0.113.10","port":40112}},"source":{"ip":"10.0.0.2","port":40112},"destination":{"ip":"198.51.100.80","port":80}}`,
		"mixed":  `{"event":{"action":"accept"},"event.reason":"rule","rule.id":"allow-web","network":{"direction":"egress","transport":"tcp"},"network.translated":{"address":"203.0.113.10","port":40112},"source":{"ip":"10.0.0.2","port":40112},"destination":{"ip":"198.51.100.80","port":80},"other":1}`,
	} {
		got, err := ParseEvent(ParseLine("thurward: event " + in))
		got.JSON = ""
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, in := range []string{"", "{", "[]", `{"source.port":"x"}`, `{"source.port":70000}`, `{"a":"` + strings.Repeat("x", maxEvent) + `"}`} {
		if e, err := ParseEvent(Line{Kind: EventLine, Rest: in}); err == nil {
			t.Errorf("%q: %+v", in, e)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	f.Add(`{"event.action":"drop","event":{"action":"x"},"event.action.more":1}`)
	f.Add(`{"a":1,"a.b":2}`)
	f.Add(`{"":{"":{}}}`)
	f.Fuzz(func(t *testing.T, s string) {
		e, err := ParseEvent(Line{Kind: EventLine, Rest: s})
		if err == nil && e.JSON != s {
			t.Errorf("%q became %q", s, e.JSON)
		}
	})
}

func TestLongConsoleLineIsSplit(t *testing.T) {
	var n, bytes int
	readConsole(strings.NewReader(strings.Repeat("x", maxLine+10)+"\nthurward: probe ok\n"), func(l Line) { n++; bytes += len(l.Text) })
	if n != 3 || bytes != maxLine+10+len("thurward: probe ok") {
		t.Errorf("%d lines, %d bytes", n, bytes)
	}
}

// TestRestOfALongLineIsOutput: whoever makes a line long enough cannot begin
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
