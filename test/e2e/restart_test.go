package e2e

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/thurward/thurward/internal/host/vmm"
)

// TestRestart: when the machine is lost the launcher boots another one into
// the same networks, and traffic flows again.
func TestRestart(t *testing.T) {
	l := newLab(t, false, nil)
	l.awaitReady()
	if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} { // QEMU ends with 0 at the latter
		kids := children(os.Getpid())
		if len(kids) != 1 {
			t.Fatalf("children %v, want QEMU alone", kids)
		}
		if err := syscall.Kill(kids[0], s); err != nil {
			t.Fatal(err)
		}
		l.awaitReady()
		if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
			t.Errorf("after the restart, %v: %v", s, err)
		}
	}
}

// TestUnixSocket: a network behind a stream socket that something else
// listens on.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lan.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l := newLab(t, false, func(c *vmm.Config) {
		b, err := vmm.NewBackend(vmm.Spec{Kind: vmm.Unix, Arg: path}, vmm.Network{})
		if err != nil {
			t.Fatal(err)
		}
		c.NICs[0].Backend = b
	})
	go l.LANSwitch.Serve(listener, "vm")
	l.awaitReady()
	if _, err := l.get(soon(t), l.Alice, "/"); err != nil {
		t.Error(err)
	}
}
