package main

import (
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
	guesttest.Receive(t, st)
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

// TestTopOnce: the state as text: at once without rates, or with those of the next
// snapshot of metrics.
func TestTopOnce(t *testing.T) {
	tail, g, send, st := receiver(t)
	send(g.Event(time.Now()), g.Event(time.Now()))
	code, out, errs := capture(t, "top", "--once", "--wait", "0s", "--socket", tail)
	if code != 0 || !strings.Contains(out, "no rates yet") {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
	var sender sync.WaitGroup
	sender.Go(func() {
		for end := time.Now().Add(10 * time.Second); st.Hub.Followers() == 0 && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(1200 * time.Millisecond) // rates of less than a second are not taken
		send(g.Snapshot()...)
		send(g.Event(time.Now()), g.Event(time.Now()))
	})
	code, out, errs = capture(t, "top", "--once", "--socket", tail)
	sender.Wait()
	for _, want := range []string{"203.0.113.10  connected  up 1h0m  version 1.0", "flows                         24000 of 65536    [####......]  37 %", "ports 203.0.113.10 tcp", "allow-web", "no_matching_allow_rule", "DNS ", "accepted ", "LAST VERDICTS"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 0 || strings.Contains(out, "\x1b[") || strings.Contains(out, "accepted 0/s") || strings.Contains(out, "no rates") || t.Failed() {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
}
