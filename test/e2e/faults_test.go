package e2e

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A monitored is a lab whose QEMU has a monitor (QMP), and whose stream is read.
type monitored struct {
	*lab
	qmp, qtest string
	ends       []vmm.End // before each restart

	endReceiver func()
	deaf        atomic.Bool // the receiver of the stream does not read
	gone        atomic.Bool // it has ended
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
	m.qtest = filepath.Join(dir, "qtest")
	script := fmt.Sprintf("#!/bin/sh\nexec %s \"$@\" -qmp unix:%s,server=on,wait=off -qtest unix:%s,server=on,wait=off -qtest-log none\n",
		q.Path, m.qmp, m.qtest)
	path := filepath.Join(dir, "qemu")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	stream, err := net.Listen("unix", filepath.Join(dir, "v_9000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stream.Close() })
	m.endReceiver = func() { m.gone.Store(true); stream.Close() }
	go func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for err == nil && !m.gone.Load() {
					if m.deaf.Load() {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					_, err = io.CopyN(io.Discard, c, 1)
				}
			}()
		}
	}()
	vsock := func(c *vmm.Config) { c.Vsock.Path = filepath.Join(dir, "v") }
	m.lab = newLabWith(t, &vmm.QEMU{Path: path, Version: q.Version}, false, vsock,
		vmm.RunOptions{Restart: vmm.OnCrash, Watchdog: watchdog, Say: t.Logf, Told: m.told})
	m.awaitReady()
	return m
}

// command gives QEMU a command by its monitor; arguments are JSON, or "".
func (m *monitored) command(name, arguments string) {
	m.t.Helper()
	m.ask(name, arguments, nil)
}

// ask is command with its answer, unless that is nil.
func (m *monitored) ask(name, arguments string, answer any) {
	m.t.Helper()
	if arguments == "" {
		arguments = "{}"
	}
	c, err := net.Dial("unix", m.qmp)
	if err != nil {
		m.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(limit)) //nolint:errcheck // reads fail then
	r := bufio.NewReader(c)
	for _, say := range [][2]string{{}, {"qmp_capabilities", "{}"}, {name, arguments}} {
		if say[0] != "" {
			if _, err := fmt.Fprintf(c, "{\"execute\":%q,\"arguments\":%s}\n", say[0], say[1]); err != nil {
				m.t.Fatal(err)
			}
		}
		l, err := r.ReadString('\n')
		for err == nil && strings.HasPrefix(l, `{"timestamp"`) { // an event
			l, err = r.ReadString('\n')
		}
		if err != nil && say[0] != name || strings.Contains(l, `"error"`) { // it may have ended
			m.t.Fatal(err, l)
		}
		if say[0] == name && answer != nil {
			if err := json.Unmarshal([]byte(l), answer); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// destroyData overwrites the program's variables in the machine's memory.
func (m *monitored) destroyData() {
	m.t.Helper()
	in, err := parts()
	if err != nil {
		m.t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(in.Program))
	if err != nil {
		m.t.Fatal(err)
	}
	memory, err := os.OpenFile(m.memoryFile(), os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer memory.Close()
	for _, s := range f.Progs {
		if s.Type == elf.PT_LOAD && s.Flags&elf.PF_W != 0 {
			if _, err := memory.WriteAt(bytes.Repeat([]byte{0xff}, int(s.Memsz)), int64(s.Vaddr)); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// memoryFile finds the file that is the machine's memory, which QEMU shares with back ends.
func (m *monitored) memoryFile() string {
	m.t.Helper()
	for _, pid := range children(os.Getpid()) {
		names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			m.t.Fatal(err)
		}
		for _, n := range names {
			if to, err := os.Readlink(n); err == nil && strings.Contains(to, "memfd:") {
				if st, err := os.Stat(n); err == nil && st.Size() == 64<<20 {
					return n
				}
			}
		}
	}
	m.t.Fatal("QEMU shares no memory")
	return ""
}

// said reports whether a line of the console has s.
func (m *monitored) said(s string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.lines, func(l string) bool { return strings.Contains(l, s) })
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
		{"QMP system_reset", func(m *monitored) { m.command("system_reset", "") }, true, limit},
		{"QMP quit", func(m *monitored) { m.command("quit", "") }, true, limit},
		{"the guest crashes", func(m *monitored) {
			m.destroyData()
			m.awaitReady()
			if !m.said("thurward: crash: ") {
				m.t.Error("it did not report a crash")
			}
			m.ready <- vmm.ReadyInfo{} // for the test
		}, true, limit},
		{"QMP set_link: the LAN's link goes down and up", func(m *monitored) {
			m.command("set_link", `{"name":"n0","up":false}`)
			time.Sleep(time.Second)
			m.command("set_link", `{"name":"n0","up":true}`)
		}, false, limit},
		{"the receiver of the stream does not read for two watchdogs", func(m *monitored) {
			m.deaf.Store(true)
			for until := time.Now().Add(2 * watchdog); time.Now().Before(until); {
				if _, err := m.get(soon(m.t), m.Alice, "/"); err != nil {
					m.t.Fatal(err)
				}
			}
			m.deaf.Store(false)
		}, false, limit + 2*watchdog},
		{"the receiver of the stream ends", func(m *monitored) {
			m.endReceiver()
			time.Sleep(2 * vmm.MinWatchdog)
		}, false, limit + 2*vmm.MinWatchdog},
		{"QMP stop for two watchdogs and cont", func(m *monitored) {
			m.command("stop", "")
			time.Sleep(2 * watchdog)
			m.command("cont", "")
		}, false, limit + 2*watchdog},
		{"the LAN's device resets itself", func(m *monitored) {
			m.poke(m.slot(vmm.LAN)+0x70, make([]byte, 4)) // its status register
			m.awaitLine("the lan interface was reset and works again")
		}, false, limit},
		{"the LAN's device asks for a reset", func(m *monitored) {
			m.breakQueue(vmm.LAN)
			m.get(brief(m.t), m.Alice, "/") //nolint:errcheck // the device notices at the next frame
			m.awaitLine("the lan interface was reset and works again")
			if !m.said("the lan interface has stopped: the device asks for a reset") {
				m.t.Error("the device did not ask for a reset")
			}
		}, false, limit},
		{"the packet loop hangs", func(m *monitored) {
			m.poke(m.function("router.(*Engine).Poll"), jumpToItself)
			m.awaitReady()
			m.ended(vmm.ReasonHang, "router.(*Engine).Poll+0x0 ", "main.main+")
			m.ready <- vmm.ReadyInfo{} // for the test
		}, true, limit + watchdog},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := watchdog
			if f.name == "the receiver of the stream ends" { // it tries to connect every 5 seconds
				w = vmm.MinWatchdog
			}
			m := newMonitored(t, w)
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
