package vmm

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopGrace is how long a hypervisor may take to end after it was asked to.
const stopGrace = 2 * time.Second

// askGrace is how long the guest may take to end after it was asked to: telemetry
// leaves before.
const askGrace = 1500 * time.Millisecond

// outputGrace is how long the end of a hypervisor's output may come after its own.
const outputGrace = time.Second

// maxLine is the largest length of a line of the console in bytes. The rest of a
// longer one is another line.
const maxLine = 64 << 10

// A Machine is a running hypervisor with its guest.
type Machine struct {
	name   string // of the hypervisor
	cmd    *exec.Cmd
	log    func() string          // the end of the hypervisor's log; may be nil
	ask    func() error           // asks the guest to end in good order; may be nil
	save   func(dir string) error // stops the machine and saves it; nil where the hypervisor cannot
	paused func() bool            // asks the hypervisor whether the machine is paused; may be nil
	end    syscall.Signal         // that ends the hypervisor in order; 0: SIGTERM

	control *control        // QEMU's monitor; nil for others
	there   []func() string // see Attachment
	done    chan struct{}   // closed when the hypervisor has ended and its console is read
	err     error           // valid once done is closed
	stop    sync.Once
	stderr  tail
}

// result turns the hypervisor's end into an error that says what it said.
func (m *Machine) result(err error) error {
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	s := strings.TrimSpace(m.stderr.String())
	if m.log != nil {
		s = strings.TrimSpace(s + "\n" + m.log())
	}
	if s != "" {
		return fmt.Errorf("%s: %w: %s", m.name, err, s)
	}
	return fmt.Errorf("%s: %w", m.name, err)
}

// Pid returns the hypervisor's process id.
func (m *Machine) Pid() int { return m.cmd.Process.Pid }

// Done is closed when the machine has ended and all of its console was read.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for the machine's end and returns nil when the hypervisor exited with 0:
// after a power-off as well as after a reset.
func (m *Machine) Wait() error {
	<-m.done
	return m.err
}

// Stop ends the machine and does not wait for it: in good order where the guest can
// be asked, otherwise at once. It may be called more than once.
func (m *Machine) Stop() {
	m.stop.Do(func() {
		go func() {
			if m.ask != nil && m.ask() == nil && m.endsWithin(askGrace) {
				return
			}
			end := m.end
			if end == 0 {
				end = syscall.SIGTERM
			}
			m.cmd.Process.Signal(end) //nolint:errcheck // it may have ended
			if !m.endsWithin(stopGrace) {
				m.cmd.Process.Kill() //nolint:errcheck // it may have ended
			}
		}()
	})
}

// kill ends a machine that does not answer, at once.
func (m *Machine) kill() { m.cmd.Process.Kill() } //nolint:errcheck // it may have ended

// endsWithin waits for the machine's end.
func (m *Machine) endsWithin(d time.Duration) bool {
	select {
	case <-m.done:
		return true
	case <-time.After(d):
		return false
	}
}

// tailLen is how much of a hypervisor's standard error is kept, in bytes.
const tailLen = 4096

// kvmError is what QEMU prints when KVM fails.
const kvmError = "KVM internal error"

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
	if bytes.Contains(t.b, []byte(kvmError)) && t.internalError != nil {
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
