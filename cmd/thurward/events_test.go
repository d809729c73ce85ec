package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
)

// receiver runs a receiver with one firewall connected, and returns its socket
// for followers and what sends the firewall's lines.
func receiver(t *testing.T) (tail string, g *guesttest.Guest, send func(...string), st *dashboard.Station) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vsock")
	st = &dashboard.Station{Guest: "unix:" + ingest.GuestSocket(path), Tail: "unix:" + ingest.TailSocket(path)}
	if err := st.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g = &guesttest.Guest{Boot: "00112233445566778899aabbccddeeff", WAN: "203.0.113.10/24", Start: time.Now().Add(-time.Hour)}
	send, _ = guesttest.Dial(t, ingest.GuestSocket(path))
	send(g.Hello(time.Now()))
	send(g.Snapshot()...)
	until(t, func() bool { v := st.Model.Views(time.Now()); return len(v) == 1 && !v[0].Snapshot.IsZero() })
	return ingest.TailSocket(path), g, send, st
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("timed out")
		}
	}
}

// TestEventsFollows: events sees what comes from the moment it has joined on,
// filtered, and says how to ask the policy.
func TestEventsFollows(t *testing.T) {
	tail, g, send, st := receiver(t)
	var sender sync.WaitGroup
	sender.Go(func() {
		for end := time.Now().Add(10 * time.Second); st.Hub.Followers() == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		for range 12 {
			send(g.Event(time.Now()), "not a line")
		}
	})
	code, out, errs := capture(t, "events", "--socket", tail, "--action", "drop", "--host", "10.0.0.0/24", "--explain", "-n", "3")
	sender.Wait() // it has more to send than was to be read
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if code != 0 || len(lines) != 6 || !strings.Contains(lines[0], "DROP    egress  tcp   10.0.0.") || !strings.Contains(lines[0], "default-deny (no_matching_allow_rule)") ||
		!strings.HasPrefix(lines[1], "    thurward explain --from lan --proto tcp --src 10.0.0.") || !strings.Contains(errs, "lines could not be read") {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
}

func TestEventsFromFile(t *testing.T) {
	g := &guesttest.Guest{Boot: "aa", WAN: "203.0.113.10/24"}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var text strings.Builder
	text.WriteString("thurward: ready version=1\n" + g.Hello(now) + "\n" + strings.Join(g.Snapshot(), "\n") + "\n" + g.Span(now) + "\n")
	for range 4 {
		text.WriteString(g.Event(now) + "\n")
	}
	text.WriteString("thurward: event " + g.Event(now) + "\nnonsense\n")
	file := write(t, "events.jsonl", text.String())
	golden, err := os.ReadFile("../../internal/guest/export/testdata/events.golden")
	if err != nil {
		t.Fatal(err)
	}
	recorded := write(t, "golden", string(golden))
	for _, c := range []struct {
		args  []string
		code  int
		lines int
		want  string
	}{
		{[]string{"events", file, "--utc"}, 0, 5, "12:00:00.000  ACCEPT  egress  tcp   10.0.0.3:40001 → 198.51.100.80:443 (github.com)  rule allow-web, as 203.0.113.10:40001"},
		{[]string{"events", file, "--name", "*.example"}, 0, 1, "telemetry.example"},
		{[]string{"events", file, "--domain", "github.com", "--action", "dns-query"}, 0, 1, "github.com A → 198.51.100.80  answered in 12ms"},
		{[]string{"events", file, "--rule", "allow-web,default-deny", "--reason", "rule"}, 0, 3, "END"},
		{[]string{"events", file, "--firewall", "203.0.113.99"}, 0, 0, ""},
		{[]string{"events", file, "--json", "--spans", "--action", "none"}, 0, 1, `"traceId"`},
		{[]string{"events", recorded, "--json"}, 0, strings.Count(string(golden), "\n"), `"event.action":"drop"`},
		{[]string{"events", "/nowhere"}, 1, 0, "no such file"},
		{[]string{"events", "a", "b"}, 2, 0, "one file at most"},
		{[]string{"events", "--host", "alice"}, 2, 0, "is not an address"},
		{[]string{"events", "--spans"}, 2, 0, "needs --json"},
		{[]string{"events", "--explain", "--json"}, 2, 0, "--explain"},
		{[]string{"events", "--socket", "/nowhere/s"}, 1, 0, "thurward run and thurward-collector do"},
		{[]string{"top", "--socket", "/nowhere/s"}, 1, 0, "nothing offers a stream"},
		{[]string{"top", "--wait", "-1s"}, 2, 0, "is negative"},
		{[]string{"top", "x"}, 2, 0, "unexpected argument"},
	} {
		code, out, errs := capture(t, c.args...)
		if code != c.code || strings.Count(out, "\n") != c.lines || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit %d, %d lines, want %d, %d and %q\n%s\n%s", c.args, code, strings.Count(out, "\n"), c.code, c.lines, c.want, out, errs)
		}
	}
}

func TestTopOnce(t *testing.T) {
	tail, g, send, _ := receiver(t)
	send(g.Event(time.Now()), g.Event(time.Now()))
	code, out, errs := capture(t, "top", "--once", "--socket", tail)
	for _, want := range []string{"203.0.113.10  connected  up 1h0m  version 1.0", "flows                         22500 of 65536    [###.......]  34 %", "ports 203.0.113.10 tcp", "allow-web", "no_matching_allow_rule", "DNS 0 queries/s", "LAST VERDICTS"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 0 || strings.Contains(out, "\x1b[") || t.Failed() {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
}

// TestTopView: the live view keeps to the terminal's size, pauses, and turns
// to the next firewall.
func TestTopView(t *testing.T) {
	m := dashboard.NewModel()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	model := &topModel{model: m, now: func() time.Time { return now }}
	model.refresh()
	if !strings.Contains(model.draw(), "waiting for a firewall") {
		t.Error(model.draw())
	}
	for _, wan := range []string{"203.0.113.10/24", "203.0.113.20/24"} {
		g, s := &guesttest.Guest{Boot: wan, WAN: wan, Start: now.Add(-time.Minute)}, &ingest.Source{}
		for i := range 3 {
			for _, l := range append(append([]string{g.Hello(now)}, g.Snapshot()...), g.Event(now), g.Event(now)) {
				it := ingest.Parse(l)
				if it.Kind == ingest.HelloKind {
					s.Hello = it.Hello
				}
				m.Add(s, it, now.Add(time.Duration(i)*10*time.Second))
			}
		}
	}
	now = now.Add(20 * time.Second)
	model.refresh()
	for _, size := range []struct{ Width, Height int }{{120, 40}, {80, 24}, {20, 5}, {1, 1}} {
		model.width, model.height = size.Width, size.Height
		lines := strings.Split(model.draw(), "\n")
		if len(lines) > size.Height && size.Height > 1 {
			t.Errorf("%dx%d: %d lines", size.Width, size.Height, len(lines))
		}
		for _, l := range lines[:len(lines)-1] {
			if n := len([]rune(stripped(l))); n > size.Width {
				t.Errorf("%dx%d: %d columns: %q", size.Width, size.Height, n, l)
			}
		}
	}
	model.width, model.height = 120, 40
	if !strings.Contains(model.draw(), "203.0.113.10  connected") || !strings.Contains(model.draw(), "accepted 11.39k/s   dropped 48/s") {
		t.Error(model.draw())
	}
	model.press("tab")
	if !strings.Contains(model.draw(), "203.0.113.20  connected") || !strings.Contains(model.draw(), "firewall 2 of 2") {
		t.Error(model.draw())
	}
	model.press("p")
	before := model.draw()
	now = now.Add(time.Hour)
	model.refresh()
	if model.draw() != before || !strings.Contains(before, "PAUSED") {
		t.Error("the view goes on while paused")
	}
	if !model.press("q") {
		t.Error("q does not quit")
	}
}

// stripped removes ANSI attributes.
func stripped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == 0x1b {
			for i < len(s) && s[i] != 'm' {
				i++
			}
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
