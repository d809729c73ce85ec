package guesttest

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"
)

// Receive has a receiver (dashboard.Receiver) listen, and run until the test's end.
func Receive(t testing.TB, r interface {
	Open() error
	Run(context.Context) error
}) {
	t.Helper()
	if err := r.Open(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// OverUnix returns a client that finds each host at a Unix socket.
func OverUnix(path string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}
