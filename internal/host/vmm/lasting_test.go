package vmm

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOutlivesItsThread: a hypervisor that was started by a thread that ends, as one does
// that has been in another network namespace, goes on.
func TestOutlivesItsThread(t *testing.T) {
	m := &Machine{name: "sleep", cmd: exec.Command("sleep", "60")}
	started := make(chan error)
	var start func()
	start = func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if unix.Gettid() == os.Getpid() {
			go start() // but not the first thread
			return
		}
		_, err := launch(m, func(Line) {}, func() {})
		started <- err
	}
	go start()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.done:
		t.Errorf("it ended: %v", m.err)
	case <-time.After(500 * time.Millisecond):
	}
	m.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-m.done
}
