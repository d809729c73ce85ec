package main

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// manager is a service manager's socket.
func manager(t *testing.T) (next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		b := make([]byte, 4096)
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) //nolint:errcheck // a socket takes one
		n, _ := c.Read(b)                                         //nolint:errcheck // nothing came
		return string(b[:n])
	}
}

// TestNotify: the service manager hears that the firewall is ready when it is, once, each
// sign of life, and its end; and no text of the console becomes a message of its own.
func TestNotify(t *testing.T) {
	next := manager(t)
	n := newNotifier(t.Errorf)
	lines := 0
	o := n.attach(vmm.RunOptions{OnLine: func(vmm.Line) { lines++ }})
	want := func(want string) {
		t.Helper()
		if got := next(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	o.OnLine(vmm.ParseLine("thurward: booting\n"))
	want("")
	o.Alive()
	want("WATCHDOG=1")
	o.OnLine(vmm.ParseLine("thurward: ready version=dev\n"))
	want("STATUS=the rules are live: version=dev")
	want("READY=1")
	o.OnLine(vmm.ParseLine("thurward: crash: x\n"))
	want("STATUS=the firewall crashed: x")
	o.OnLine(vmm.ParseLine("thurward: ready version=dev\n"))
	want("STATUS=the rules are live")
	want("") // it was ready
	o.OnLine(vmm.Line{Kind: vmm.Crashed, Rest: "x\nMAINPID=1\r\x00" + strings.Repeat("y", 5000)})
	if got := next(); strings.ContainsAny(got, "\n\r\x00") || len(got) > maxStatus+20 {
		t.Errorf("%q", got)
	}
	if lines != 5 {
		t.Errorf("%d lines were passed on", lines)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stop := n.stopOn(ctx)
	want("")
	cancel()
	want("STOPPING=1")
	if stop() {
		t.Error("it was not reported yet")
	}
}

// TestNobodyIsNotified: without a service manager nothing changes, and one that is gone is
// reported once and stops nothing.
func TestNobodyIsNotified(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n := newNotifier(t.Errorf)
	if n != nil {
		t.Error("somebody is notified")
	}
	if o := n.attach(vmm.RunOptions{}); o.Alive != nil || o.OnLine != nil {
		t.Error("the options changed")
	}
	n.stopOn(t.Context())()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	said := 0
	n = newNotifier(func(string, ...any) { said++ })
	for range 3 {
		n.attach(vmm.RunOptions{}).Alive()
	}
	if said != 1 {
		t.Errorf("said %d times", said)
	}
}
