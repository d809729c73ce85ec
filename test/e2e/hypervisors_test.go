package e2e

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// onOthers runs f on the hypervisors beside QEMU that are installed here, and names
// those that are not.
func onOthers(t *testing.T, f func(t *testing.T, h vmm.Hypervisor)) {
	t.Helper()
	firecracker := func(pci bool, jail string) func() (vmm.Hypervisor, error) {
		return func() (vmm.Hypervisor, error) {
			h, err := vmm.FindFirecracker()
			if err != nil {
				return nil, err
			}
			if h.PCI = pci; jail != "" {
				h.Jail, err = vmm.FindJail(jail)
			}
			return h, err
		}
	}
	for _, m := range []struct {
		name string
		find func() (vmm.Hypervisor, error)
	}{
		{"firecracker", firecracker(false, "")}, {"firecracker-pci", firecracker(true, "")}, {"jailer", firecracker(false, "nobody")},
		{"cloud-hypervisor", func() (vmm.Hypervisor, error) { return vmm.FindCloudHypervisor() }},
	} {
		t.Run(m.name, func(t *testing.T) {
			h, err := m.find()
			if err != nil {
				t.Skip(err)
			}
			if err := vmm.KVMError(); err != nil {
				t.Skip(err)
			}
			if os.Geteuid() != 0 {
				t.Skip("only root may make TAP devices")
			}
			f(t, h)
		})
	}
}

// TestHypervisors: the image boots on the other hypervisors, forwards what is allowed
// and nothing else, and tells it over vsock.
func TestHypervisors(t *testing.T) {
	onOthers(t, func(t *testing.T, h vmm.Hypervisor) {
		l, r := watchedOn(t, h, true, nil)
		traffic(t, l)
		r.awaitEvents(1, map[string]any{"event.action": "drop", "destination.port": 25.0})
		// A hypervisor that is lost is started again, into the same networks.
		kids := children(os.Getpid())
		if len(kids) != 1 {
			t.Fatalf("children %v, want %v alone", kids, h)
		}
		if err := syscall.Kill(kids[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		l.awaitReady()
		traffic(t, l)
		end := time.Now()
		l.cancel()
		if err := <-l.ended; !errors.Is(err, errTestOver) {
			t.Error(err)
		}
		t.Logf("%v: ended within %v", h, time.Since(end).Round(time.Millisecond))
		l.ended <- nil // for the end of the test
		if !strings.Contains(strings.Join(l.lines, "\n"), "thurward: stopped: ") {
			t.Error("the firewall did not end in good order")
		}
	})
}
