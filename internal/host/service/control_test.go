package service

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/deploy"
)

// served runs a service with its socket, in real time, until it is healthy.
func served(t *testing.T, first string) *world {
	t.Helper()
	w := newWorld(t, filepath.Join(t.TempDir(), "edge"), first)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- w.s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-over
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := Ask(t.Context(), w.store.Path)
		if err == nil && st.Healthy {
			return w
		}
		if time.Now().After(end) {
			t.Fatalf("not healthy: %+v, %v", st, err)
		}
	}
}

// TestControl: status, a change with what is said of it, the way back, one change at a time,
// and a change that is given up by who has to confirm it.
func TestControl(t *testing.T) {
	w := served(t, "old")
	path := w.store.Path
	if st, err := os.Lstat(filepath.Join(path, deploy.ControlName)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	e := w.put("new")
	var said []string
	if err := Request(t.Context(), path, Change{Image: e.Image, Say: func(s string) { said = append(said, s) }}); err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(said, "\n"); !strings.Contains(all, "is ready: version 1") || !strings.Contains(all, "has taken over") || !strings.Contains(all, "is current") {
		t.Errorf("said: %q", said)
	}
	if st, err := Ask(t.Context(), path); err != nil || st.Current.Image != e.Image || st.Running == nil || st.Running.Image != e.Image {
		t.Errorf("status %+v, %v", st, err)
	}

	slow := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	began := make(chan bool, 10)
	go func() {
		slow <- Request(ctx, path, Change{Watch: time.Minute, Say: func(string) { began <- true }, Confirm: func(context.Context) error { return nil }})
	}()
	<-began
	if err := Request(t.Context(), path, Change{}); err == nil || !strings.Contains(err.Error(), deploy.ErrBusy.Error()) {
		t.Errorf("two at once: %v", err)
	}
	<-began // it has taken over
	cancel()
	if err := <-slow; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		st, err := Ask(t.Context(), path)
		if err == nil && st.Healthy && st.Failed != nil && strings.Contains(st.Failed.Why, "has gone") && st.Current.Image == e.Image && st.Running.Image == e.Image {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("what nobody confirms stays: %+v, %v", st, err)
		}
	}
	busy := func(err error) bool { return err != nil && err.Error() == deploy.ErrBusy.Error() }
	err := error(deploy.ErrBusy) // for a moment more
	for end := time.Now().Add(20 * time.Second); busy(err) && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		err = Request(t.Context(), path, Change{Confirm: func(context.Context) error { return nil }})
	}
	if err != nil {
		t.Errorf("confirmed: %v", err)
	}
	if st, err := Ask(t.Context(), path); err != nil || st.Current.Policy != policyOf("old") {
		t.Errorf("status %+v, %v", st, err)
	}
}

// TestControlRefuses: what is no request gets an error and changes nothing; connections that
// say nothing, or too much, keep nobody else out for long.
func TestControlRefuses(t *testing.T) {
	w := served(t, "old")
	path := filepath.Join(w.store.Path, deploy.ControlName)
	send := func(s string) string {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second)) //nolint:errcheck // the test fails then
		c.Write([]byte(s))                              //nolint:errcheck // it may have been closed
		answer, _ := bufio.NewReader(c).ReadString('\n')
		return answer
	}
	for in, want := range map[string]string{
		"{\"do\":\"status\"}\n":                                      `"status":{`,
		"{\"do\":\"reboot\"}\n":                                      `is not known`,
		"{\"do\":\"status\",\"x\":1}\n":                              `unknown field`,
		"{\"do\":\"status\",\"image\":\"a\"}\n":                      `status takes nothing`,
		"{\"do\":\"status\"}{}\n":                                    `more than one value`,
		"{\"do\":\"deploy\"}\n":                                      `deploy needs an image`,
		"{\"do\":\"rollback\",\"image\":\"a\"}\n":                    `rollback takes none`,
		"{\"do\":\"rollback\"}\n":                                    `no previous image`,
		"{\"do\":\"deploy\",\"image\":\"../../x\"}\n":                `is no SHA-256`,
		"{\"do\":\"deploy\",\"image\":\"a\",\"watch_ms\":-1}\n":      `out of range`,
		"{\"do\":\"deploy\",\"image\":\"a\",\"watch_ms\":1e300}\n":   `error`,
		"{\"do\":\"deploy\",\"image\":\"a\",\"watch_ms\":3600001}\n": `out of range`,
		"GET / HTTP/1.1\n":                                           `error`,
		"\n":                                                         `error`,
		strings.Repeat("x", maxCall+1) + "\n":                        `too long`,
		strings.Repeat("[", maxCall-1) + "\n":                        `error`,
	} {
		if got := send(in); !strings.Contains(got, want) {
			t.Errorf("%.60q: %q, want %q", in, got, want)
		}
	}
	var idle []net.Conn
	for range 2 * maxClients {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for end := time.Now().Add(callLimit + 15*time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := Ask(t.Context(), w.store.Path); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("idle connections keep others out")
		}
	}
	for _, c := range idle {
		c.Close()
	}
	w.runs("after all that", "old")
}

// TestNoService: where none runs it is said, and what is left of one that was killed does not
// hinder the next.
func TestNoService(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "edge")
	w := newWorld(t, dir, "old")
	if _, err := Ask(t.Context(), dir); !errors.Is(err, ErrNoService) {
		t.Errorf("no socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, deploy.ControlName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := Ask(t.Context(), dir); !errors.Is(err, ErrNoService) {
		t.Errorf("a socket that is left: %v", err)
	}
	if l, err = w.s.listen(); err != nil {
		t.Errorf("a socket that is left: %v", err)
	} else {
		l.Close()
	}
	if err := os.WriteFile(filepath.Join(dir, deploy.ControlName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.listen(); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file in its place: %v", err)
	}
	empty, err := deploy.Open(filepath.Join(t.TempDir(), "other"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	w.s.c.Store = empty
	if err := w.s.Run(t.Context()); !errors.Is(err, deploy.ErrNone) {
		t.Errorf("without an image: %v", err)
	}
}
