package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// TestFaultFullDisk: a launcher whose output is on a full disk goes on: the firewall boots, its
// stream arrives, and SIGTERM ends both in good order.
func TestFaultFullDisk(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	r := newReceiver(t)
	r.listen()
	cmd, _, _ := thurwardRun(t, "--accel", "tcg", "--lan", "user", "--wan", "user", "--reader", "none", "--vsock", r.path)
	cmd.Stdout, cmd.Stderr = full, full
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.await("the stream", func() bool { return len(r.lines) > 0 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// TestFaultTap: a TAP device that is deleted and made again takes the network away for the time
// it is missing, and not for longer: the launcher starts a machine that has the new one.
func TestFaultTap(t *testing.T) {
	t.Parallel()
	if _, err := vmm.FindQEMU(); err != nil {
		t.Skip(err)
	}
	h := newHosts(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	server := exec.Command("ip", "netns", "exec", h.wan, "python3", "-u", "-m", "http.server", "--directory", dir, "80")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }() //nolint:errcheck // it was killed
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	var mu sync.Mutex
	var ends []vmm.End
	l := newLabWith(t, q, false, func(c *vmm.Config) {
		for i, s := range []vmm.Spec{{Kind: vmm.Tap, Arg: h.tap}, {Kind: vmm.Bridge, Arg: h.brW}} {
			b, err := vmm.NewBackend(s, vmm.Network{})
			if err != nil {
				t.Skip(err)
			}
			c.NICs[i].Backend = b
		}
	}, vmm.RunOptions{Restart: vmm.OnCrash, Say: t.Logf, Told: func(e vmm.End) { mu.Lock(); ends = append(ends, e); mu.Unlock(); t.Log(e.Text) }})
	l.awaitReady()
	passes := func() {
		t.Helper()
		for until := time.Now().Add(2 * limit); ; {
			out, err := h.in(soon(t), h.lan, "curl", "-sS", "--max-time", "1", "http://198.51.100.80/f")
			if err == nil && out == "x" {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("curl: %v: %s", err, out)
			}
		}
	}
	passes()
	const missing = time.Second
	began := time.Now()
	h.ip("link del " + h.tap)
	time.Sleep(missing)
	h.addTap()
	passes()
	t.Logf("outage %v, of which it was missing for %v", time.Since(began).Round(10*time.Millisecond), missing)
	mu.Lock()
	defer mu.Unlock()
	if len(ends) == 0 || ends[0].Reason != vmm.ReasonNetwork {
		t.Errorf("ends %+v, want one for %s", ends, vmm.ReasonNetwork)
	}
}
