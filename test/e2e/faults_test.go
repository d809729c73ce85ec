package e2e

import (
	"bufio"
	"bytes"
	"context"
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
	image      string    // a copy of its own
	unable     string    // while there is a file of this name QEMU cannot be started
	ends       []vmm.End // before each restart

	endReceiver func()
	hangUp      atomic.Pointer[net.Conn]
	heard       atomic.Int64 // bytes of the stream
	deaf        atomic.Bool  // the receiver of the stream does not read
	gone        atomic.Bool  // it has ended
}

// newMonitored boots one under a watchdog. The pause before each restart is that before the
// first: faults that come by themselves are what is measured.
func newMonitored(t *testing.T, watchdog time.Duration, configure func(*vmm.Config)) *monitored {
	t.Helper()
	q, err := vmm.FindQEMU()
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	m := &monitored{qmp: filepath.Join(dir, "qmp")}
	m.qtest = filepath.Join(dir, "qtest")
	m.unable = filepath.Join(dir, "unable")
	script := fmt.Sprintf("#!/bin/sh\nif [ -e %[4]s ]; then rm %[4]s; echo 'cannot set up guest memory: Cannot allocate memory' >&2; exit 1; fi\nexec %[1]s \"$@\" -qmp unix:%[2]s,server=on,wait=off -qtest unix:%[3]s,server=on,wait=off -qtest-log none\n",
		q.Path, m.qmp, m.qtest, m.unable)
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
			m.hangUp.Store(&c)
			go func() {
				defer c.Close()
				for err == nil && !m.gone.Load() {
					if m.deaf.Load() {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					var n int64
					n, err = io.CopyN(io.Discard, c, 1)
					m.heard.Add(n)
				}
			}()
		}
	}()
	b, err := os.ReadFile(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	m.image = filepath.Join(dir, "thurward.img")
	if err := os.WriteFile(m.image, b, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context, h vmm.Hypervisor, c vmm.Config, o vmm.RunOptions) error {
		return vmm.Supervise(ctx, func(ctx context.Context) vmm.Outcome {
			g, err := vmm.Start(h, c, o)
			if err != nil {
				return vmm.Outcome{Err: err}
			}
			return g.Wait(ctx)
		}, func(ctx context.Context, d time.Duration) error { return vmm.Pause(ctx, min(d, time.Second)) }, o)
	}
	m.lab = newLabRun(t, &vmm.QEMU{Path: path, Version: q.Version}, false, func(c *vmm.Config) {
		c.Vsock.Path, c.Image = filepath.Join(dir, "v"), m.image
		if configure != nil {
			configure(c)
		}
	}, vmm.RunOptions{Restart: vmm.OnCrash, Watchdog: watchdog, Say: t.Logf, Told: m.told}, run)
	m.mu.Lock()
	m.breaks = true
	m.mu.Unlock()
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

// destroyData overwrites the program's variables in the machine's memory, those that the image
// brings along: what has addresses behind them is zeroed memory that lies elsewhere, and at these
// addresses of the machine are page tables.
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
			if _, err := memory.WriteAt(bytes.Repeat([]byte{0xff}, int(s.Filesz)), int64(s.Vaddr)); err != nil {
				m.t.Fatal(err)
			}
		}
	}
}

// memoryFile finds the file that is the machine's memory, which QEMU shares with back ends.
func (m *monitored) memoryFile() string {
	m.t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.pid()))
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
	if err := syscall.Kill(m.pid(), s); err != nil {
		m.t.Fatal(err)
	}
}

// pid returns the process of its QEMU, which is told from those of other tests by its monitor.
func (m *monitored) pid() int {
	m.t.Helper()
	var mine []int
	for _, pid := range children(os.Getpid()) {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(b, []byte("unix:"+m.qmp+",")) {
			mine = append(mine, pid)
		}
	}
	if len(mine) != 1 {
		m.t.Fatalf("children %v are its QEMU, want one", mine)
	}
	return mine[0]
}
