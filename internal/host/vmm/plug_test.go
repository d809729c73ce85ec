package vmm

import (
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPortWithoutCarrier: a TAP device that no hypervisor has opened yet, as between its
// making and Firecracker's start, can be joined to its bridge, however long that takes.
func TestPortWithoutCarrier(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			for _, up := range [][]string{{"link", "add", "b0", "type", "bridge"}, {"link", "set", "dev", "b0", "up"}} {
				if err := exec.Command("ip", up...).Run(); err != nil {
					return err
				}
			}
			name, drop, err := madeTap(os.Geteuid(), func(name string) error { return joinBridge("b0", name) })
			if err != nil {
				return err
			}
			defer drop()
			p := bridgePlug(name)
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if err := p.In(); err != nil {
					return err
				}
			}
			return p.Out()
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
