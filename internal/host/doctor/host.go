package doctor

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/thurward/thurward/internal/host/vmm"
)

// A Host is what the checks look at. Tests replace its parts.
type Host struct {
	Root  string                   // where /proc, /sys and /dev are; "" is this host's
	Page  string                   // the address of run's page; "": none
	Tail  string                   // the Unix socket for followers of the stream
	Parts func(name string) string // where a part of an image is; "": nowhere
	// Probe boots an image to see how fast KVM is; nil: no image was given.
	Probe func() (kvm bool, why string, err error)

	Open       func(path string) error // for reading and writing
	Listen     func(address string) error
	Dial       func(socket string) error
	LookPath   func(program string) (string, error)
	Hypervisor func(name string) (version string, err error)
}

// This returns the host that this process is on.
func This() *Host {
	return &Host{Open: open, Listen: listen, Dial: dial, LookPath: exec.LookPath, Hypervisor: hypervisor}
}

func open(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

func listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// dialLimit is how long a socket may take to answer.
const dialLimit = time.Second

func dial(socket string) error {
	c, err := net.DialTimeout("unix", socket, dialLimit)
	if err != nil {
		return err
	}
	return c.Close()
}

func hypervisor(name string) (string, error) {
	switch name {
	case "qemu":
		q, err := vmm.FindQEMU()
		if err != nil {
			return "", err
		}
		return q.String(), nil
	case "firecracker":
		f, err := vmm.FindFirecracker()
		if err != nil {
			return "", err
		}
		return f.String(), nil
	}
	c, err := vmm.FindCloudHypervisor()
	if err != nil {
		return "", err
	}
	return c.String(), nil
}

// maxFile bounds what is read of a file of the kernel's, in bytes.
const maxFile = 1 << 20

// read returns the beginning of a file of the kernel's, "" if there is none.
func (h *Host) read(path string) string {
	f, err := os.Open(filepath.Join(h.Root, path))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxFile)) //nolint:errcheck // what could be read is judged
	return string(b)
}

func (h *Host) exists(path string) bool {
	_, err := os.Stat(filepath.Join(h.Root, path))
	return err == nil
}

// interfaces returns the names of network interfaces, in order.
func (h *Host) interfaces() (names []string) {
	entries, _ := os.ReadDir(filepath.Join(h.Root, "/sys/class/net")) //nolint:errcheck // none
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// members returns the devices on a bridge.
func (h *Host) members(bridge string) (names []string) {
	entries, _ := os.ReadDir(filepath.Join(h.Root, "/sys/class/net", bridge, "brif")) //nolint:errcheck // none
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

func isMissing(err error) bool { return errors.Is(err, os.ErrNotExist) }
