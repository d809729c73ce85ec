package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A monitored is a lab whose QEMU has a monitor (QMP), and whose stream is read.
type monitored struct {
	*lab
	qmp string
}

// newMonitored boots one under a watchdog.
func newMonitored(t *testing.T, watchdog time.Duration) *monitored {
	t.Helper()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	m := &monitored{qmp: filepath.Join(dir, "qmp")}
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" -qmp unix:%s,server=on,wait=off\n", q.Path, m.qmp)
	path := filepath.Join(dir, "qemu")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "v_9000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go io.Copy(io.Discard, c) //nolint:errcheck // until its end
		}
	}()
	vsock := func(c *vmm.Config) { c.Vsock.Path = filepath.Join(dir, "v") }
	m.lab = newLabWith(t, &vmm.QEMU{Path: path, Version: q.Version}, false, vsock,
		vmm.RunOptions{Restart: vmm.OnCrash, Watchdog: watchdog, Say: t.Logf})
	m.awaitReady()
	return m
}

// command gives QEMU a command by its monitor.
func (m *monitored) command(name string) {
	m.t.Helper()
	c, err := net.Dial("unix", m.qmp)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit)) //nolint:errcheck // reads fail then
	r := bufio.NewReader(c)
	for _, say := range []string{"", "qmp_capabilities", name} {
		if say != "" {
			if _, err := fmt.Fprintf(c, "{\"execute\":%q}\n", say); err != nil {
				m.t.Fatal(err)
			}
		}
		if _, err := r.ReadString('\n'); err != nil && say != name {
			m.t.Fatal(err)
		}
	}
}

func (m *monitored) signal(s syscall.Signal) {
	m.t.Helper()
	kids := children(os.Getpid())
	if len(kids) != 1 {
		m.t.Fatalf("children %v, want QEMU alone", kids)
	}
	if err := syscall.Kill(kids[0], s); err != nil {
		m.t.Fatal(err)
	}
}

// TestFaults: after each fault packets pass again, by themselves, within the time that the table of
// docs/architecture/07 says.
func TestFaults(t *testing.T) {
	const watchdog = 5 * time.Second
	for _, f := range []struct {
		name   string
		do     func(m *monitored)
		boots  bool          // another machine is started
		within time.Duration // from the fault to an answer through the firewall
	}{
		{"SIGKILL to the VMM", func(m *monitored) { m.signal(syscall.SIGKILL) }, true, limit},
		{"SIGTERM to the VMM", func(m *monitored) { m.signal(syscall.SIGTERM) }, true, limit},
		{"SIGSTOP to the VMM for two watchdogs", func(m *monitored) {
			m.signal(syscall.SIGSTOP)
			time.Sleep(2 * watchdog)
			m.signal(syscall.SIGCONT)
		}, false, limit + 2*watchdog},
		{"none for two watchdogs", func(*monitored) { time.Sleep(2 * watchdog) }, false, limit + 2*watchdog},
		{"QMP system_reset", func(m *monitored) { m.command("system_reset") }, true, limit},
		{"QMP quit", func(m *monitored) { m.command("quit") }, true, limit},
		{"QMP stop: the guest stands still", func(m *monitored) { m.command("stop") }, true, limit + watchdog},
	} {
		t.Run(f.name, func(t *testing.T) {
			m := newMonitored(t, watchdog)
			if _, err := m.get(soon(t), m.Alice, "/"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second) // the stream is connected, and beats
			began := time.Now()
			f.do(m)
			if f.boots {
				m.awaitReady()
			}
			if _, err := m.get(soon(t), m.Alice, "/"); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			t.Logf("outage %v", took.Round(10*time.Millisecond))
			if took > f.within {
				t.Errorf("packets again after %v, want %v", took, f.within)
			}
			if !f.boots && len(m.ready) != 0 {
				t.Error("another machine was started")
			}
		})
	}
}
