package vmm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// A Hypervisor is a virtual machine monitor: QEMU, Firecracker or
// cloud-hypervisor.
type Hypervisor interface {
	// Start boots a machine. onLine is called with each line of its console, in
	// order, from one goroutine. It should not block: while it does the console
	// is not read, and the machine may have to wait.
	Start(c Config, onLine func(Line)) (*Machine, error)
	// Print returns what would be run for a machine: a command line, and a
	// configuration where there is one.
	Print(c Config) (string, error)
	// String names it with its version.
	String() string

	traits() traits
}

// traits are in what a hypervisor's machines end differently.
type traits struct {
	// grace is how long a machine may take to end after it has said that it
	// crashed. One that the hypervisor starts again by itself does not end.
	grace time.Duration
}

// launch starts a machine of which name, cmd, log and ask are set. ended is called
// once it has ended, or was not started.
func launch(m *Machine, onLine func(Line), ended func()) (*Machine, error) {
	m.done = make(chan struct{})
	m.stderr.internalError = m.Stop
	m.cmd.WaitDelay = outputGrace
	// A process group of its own, so that Ctrl-C reaches the launcher only,
	// which ends the machine in order; and should the launcher be killed, the
	// hypervisor ends.
	if m.cmd.SysProcAttr == nil {
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	}
	m.cmd.Stderr = &m.stderr
	console, w, err := os.Pipe()
	if err != nil {
		ended()
		return nil, fmt.Errorf("pipe for the console: %w", err)
	}
	m.cmd.Stdout = w
	err = startLasting(m.cmd)
	w.Close()
	if err != nil {
		console.Close()
		ended()
		return nil, fmt.Errorf("starting %s: %w", m.cmd.Path, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		readConsole(console, onLine)
	}()
	go func() {
		err := m.cmd.Wait()
		ended()
		// What the hypervisor has printed is still read, but not longer than this:
		// another process may hold its output open, or onLine block.
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
