package vmm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long QEMU may take to end after SIGTERM; then it is killed.
const stopGrace = 2 * time.Second

// outputGrace is how long output is read after QEMU's end.
const outputGrace = time.Second

// maxLine is the largest length of a line of the console in bytes. The rest of a
// longer one is another line.
const maxLine = 64 << 10

// A Machine is a running QEMU.
type Machine struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when QEMU has ended and its console is read
	err    error         // valid once done is closed
	stop   sync.Once
	stderr tail
}

// Start boots a machine. onLine is called with each line of its console, in order,
// from one goroutine. It should not block: while it does the console is not read,
// and the machine may have to wait.
func (q *QEMU) Start(c Config, onLine func(Line)) (*Machine, error) {
	args, all, err := c.args(q.Version)
	if err != nil {
		return nil, err
	}
	defer closeAll(all.Files)
	m := &Machine{cmd: exec.Command(q.Path, args...), done: make(chan struct{})}
	m.stderr.internalError = m.Stop
	m.cmd.ExtraFiles = all.Files
	m.cmd.WaitDelay = outputGrace
	// A process group of its own, so that Ctrl-C reaches the launcher only,
	// which ends QEMU in order; and should the launcher be killed, QEMU ends.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	m.cmd.Stderr = &m.stderr
	console, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe for the console: %w", err)
	}
	m.cmd.Stdout = w
	err = m.cmd.Start()
	w.Close()
	if err != nil {
		console.Close()
		all.end()
		return nil, fmt.Errorf("starting %s: %w", q.Path, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		readConsole(console, onLine)
	}()
	go func() {
		err := m.cmd.Wait()
		all.end()
		// What QEMU has printed is still read, but not longer than this: another
		// process may hold its output open, or onLine block.
		console.SetReadDeadline(time.Now().Add(outputGrace)) //nolint:errcheck // a pipe takes one
		select {
		case <-read:
		case <-time.After(2 * outputGrace):
		}
		console.Close()
		m.err = m.result(err)
		close(m.done)
	}()
	return m, nil
}

// readConsole splits the console into lines.
func readConsole(r io.Reader, onLine func(Line)) {
	br := bufio.NewReaderSize(r, maxLine)
	rest := false // of a line that was too long: it is output
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			l := ParseLine(string(b))
			if rest || err == io.EOF && l.Kind == EventLine { // EOF: the machine was ended while it printed
				l = Line{Text: shown(l.Text)}
			}
			onLine(l)
		}
		rest = err == bufio.ErrBufferFull
		if err != nil && err != bufio.ErrBufferFull {
			return
		}
	}
}

// result returns an error for QEMU's end, with its standard error.
func (m *Machine) result(err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if s := strings.TrimSpace(m.stderr.String()); s != "" {
		return fmt.Errorf("qemu: %w: %s", err, s)
	}
	return fmt.Errorf("qemu: %w", err)
}

// Pid returns QEMU's process id.
func (m *Machine) Pid() int { return m.cmd.Process.Pid }

// Done is closed when the machine has ended and all of its console was read.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for the machine's end. It returns nil if QEMU exited with 0, as it does
// after a power-off and after a reset.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// Stop ends the machine without power-off, and does not wait for its end. It may be
// called more than once.
func (m *Machine) Stop() {
	m.stop.Do(func() {
		m.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended
		time.AfterFunc(stopGrace, func() {
			select {
			case <-m.done:
			default:
				m.cmd.Process.Kill() //nolint:errcheck // it may have ended
			}
		})
	})
}

// tailLen is how much of QEMU's standard error is kept, in bytes.
const tailLen = 4096

// A tail keeps the last tailLen bytes that are written to it. It calls
// internalError if KVM fails and QEMU pauses the machine for ever, as a triple fault
// under nested KVM makes it.
type tail struct {
	internalError func()

	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if bytes.Contains(t.b, []byte("KVM internal error")) && t.internalError != nil {
		go t.internalError()
	}
	if n := len(t.b) - tailLen; n > 0 {
		t.b = t.b[n:]
	}
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
