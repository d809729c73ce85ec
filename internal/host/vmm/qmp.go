package vmm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// A control is the launcher's end of QEMU's monitor protocol (QMP), on a socket that QEMU
// inherits. QEMU may be in the hands of its guest: what it says is bounded, and decides nothing
// but what is told, and whether the machine is paused.
type control struct {
	c  net.Conn
	mu sync.Mutex

	stopped  bool          // the machine is paused: by a command, not by a signal
	watchdog bool          // the machine's watchdog device has fired
	fired    chan struct{} // closed then
	shutdown string        // why the machine ended (QMP's ShutdownCause), "" if it is not known
	done     chan struct{}
}

// maxControl is the longest line of QMP that is read, in bytes. The greeting has some 200.
const maxControl = 64 << 10

// sendLimit is how long QEMU may take to read a command.
const sendLimit = 500 * time.Millisecond

// controlAttachment gives QEMU one end of a socket, whose number will be fd.
func controlAttachment(fd int) (Attachment, *control, error) {
	c, theirs, err := socketPair()
	if err != nil {
		return Attachment{}, nil, fmt.Errorf("socket pair for QEMU's monitor: %w", err)
	}
	k := &control{c: c, done: make(chan struct{}), fired: make(chan struct{})}
	go k.read()
	return Attachment{Files: []*os.File{theirs}, Ended: k.close, Args: []string{
		"-chardev", "socket,id=control,fd=" + strconv.Itoa(fd), "-mon", "chardev=control,mode=control"}}, k, nil
}

// read follows what QEMU says until its end.
func (k *control) read() {
	defer close(k.done)
	defer k.c.Close()
	k.send("qmp_capabilities") //nolint:errcheck // it has ended, which is noticed elsewhere
	for r := bufio.NewReaderSize(k.c, maxControl); ; {
		b, err := r.ReadSlice('\n')
		if err != nil {
			if err == bufio.ErrBufferFull {
				io.Copy(io.Discard, k.c) //nolint:errcheck // until its end
			}
			return
		}
		k.observe(b)
	}
}

// observe takes one line.
func (k *control) observe(b []byte) {
	var m struct {
		Event string `json:"event"`
		Data  struct {
			Reason string `json:"reason"`
		} `json:"data"`
	}
	if json.Unmarshal(b, &m) != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch m.Event {
	case "STOP":
		k.stopped = true
	case "RESUME":
		k.stopped = false
	case "WATCHDOG":
		if !k.watchdog {
			close(k.fired)
		}
		k.watchdog = true
	case "SHUTDOWN":
		k.shutdown = m.Data.Reason
	}
}

// send gives a command without arguments. The answer is not awaited.
func (k *control) send(command string) error {
	k.c.SetWriteDeadline(time.Now().Add(sendLimit)) //nolint:errcheck // sockets take one
	_, err := fmt.Fprintf(k.c, "{\"execute\":%q}\n", command)
	return err
}

// interrupt has the processor take an NMI, at which the guest reports where it was, and
// resets.
func (k *control) interrupt() error { return k.send("inject-nmi") }

func (k *control) paused() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.stopped
}

// close ends it once QEMU has ended: what that said last is still read.
func (k *control) close() {
	select {
	case <-k.done:
	case <-time.After(sendLimit):
		k.c.Close()
	}
}

// ended returns what is known of the machine's end.
func (k *control) ended() (shutdown string, watchdog bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.shutdown, k.watchdog
}
