package main

import (
	"context"
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
func receiver(t *testing.T) (tail string, g *guesttest.Guest, send func(...string), st *dashboard.Receiver) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vsock")
	st = &dashboard.Receiver{Guest: "unix:" + ingest.GuestSocket(path), Tail: "unix:" + ingest.TailSocket(path)}
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

// TestEventsFollows: events prints filtered events from the time of its connection, and
// the commands that ask the policy.
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

// TestTopView: the view fits the terminal, pauses, and shows the next firewall.
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
