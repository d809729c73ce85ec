package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/ingest/guesttest"
	"github.com/thurward/thurward/internal/host/vmm"
)

// said collects the launcher's messages.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *said) has(t string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.b.String(), t)
}

// TestReaderGivesWay: run does not read the stream while another process reads it, and
// takes over when that process ends.
func TestReaderGivesWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vsock")
	other, err := ingest.Listen("unix:" + ingest.GuestSocket(path))
	if err != nil {
		t.Fatal(err)
	}
	var out said
	l := &launch{vsock: vmm.Vsock{Path: path}, reader: readerAuto, page: "127.0.0.1:0", errOut: &out}
	stop, reads := l.startReader(context.Background())
	defer stop()
	if !reads || l.verdicts(reads) != vmm.StreamVerdicts {
		t.Error("the other process reads it: the events pass through this one")
	}
	if !out.has("another process reads the stream already") {
		t.Fatal(out.b.String())
	}
	other.Close()
	until(t, func() bool { return out.has("watch it with thurward events --socket " + path + "_tail") })
	g := &guesttest.Guest{Boot: "b", WAN: "203.0.113.10/24", Start: time.Now()}
	send, _ := guesttest.Dial(t, ingest.GuestSocket(path))
	send(append([]string{g.Hello(time.Now())}, g.Snapshot()...)...)
	code, text, errs := capture(t, "top", "--once", "--socket", ingest.TailSocket(path))
	if code != 0 || !strings.Contains(text, "203.0.113.10  connected") {
		t.Errorf("exit %d\n%s\n%s", code, text, errs)
	}
	stop()
	if _, err := net.Dial("unix", ingest.GuestSocket(path)); err == nil {
		t.Error("the reader goes on after its end")
	}
}

// TestReaderPageTaken: if its address is in use the page gets another port.
func TestReaderPageTaken(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var out said
	l := &launch{vsock: vmm.Vsock{Path: filepath.Join(t.TempDir(), "vsock")}, reader: readerAuto, page: taken.Addr().String(), errOut: &out}
	stop, _ := l.startReader(context.Background())
	defer stop()
	until(t, func() bool { return out.has("gets another port") && out.has("page http://127.0.0.1:") })
	for _, l := range []*launch{{vsock: vmm.Vsock{Path: l.vsock.Path}, reader: readerNone}, {reader: readerAuto}} {
		l.errOut = &out
		stop, reads := l.startReader(context.Background()) // does nothing
		stop()
		if v := l.verdicts(reads); v != vmm.NoVerdicts || !out.has("verdicts are not printed") {
			t.Errorf("verdicts by way %d", v)
		}
		l.lan.Kind, l.wan.Kind = vmm.Demo, vmm.Demo
		if v := l.verdicts(reads); v != vmm.ConsoleVerdicts {
			t.Errorf("the demonstration gets its verdicts by way %d", v)
		}
	}
}

func TestReaderFlags(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--reader=always", "want auto or none"}, {"--page=0.0.0.0:80", "loopback"}, {"--page=9464", "--page"},
	} {
		if code, _, errs := capture(t, "run", c.args); code != 2 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d %s", c.args, code, errs)
		}
	}
}
