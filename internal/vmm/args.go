package vmm

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A Role says which side of the firewall a NIC is on.
type Role string

// The roles. A NIC without one is there but not named to the image.
const (
	LAN  Role = "lan"
	WAN  Role = "wan"
	None Role = ""
)

// A NIC is one network interface of the machine.
type NIC struct {
	Role    Role
	MAC     string // aa:bb:cc:dd:ee:ff
	Backend Backend
}

// DefaultMAC returns the address of a NIC for which the policy sets none.
func DefaultMAC(r Role) string {
	if r == LAN {
		return "52:54:00:74:68:01"
	}
	return "52:54:00:74:68:02"
}

// Config is a machine to boot.
type Config struct {
	Image    string
	KVM      bool // else TCG
	MemoryMB int
	CPUs     int
	NICs     []NIC
	Vsock    Vsock
	Append   string // boot arguments of the user, after the launcher's
	// Log is called with what the launcher's own devices have to tell; may be
	// nil.
	Log func(format string, a ...any)
}

// Cmdline returns the machine's boot arguments.
func (c *Config) Cmdline() string {
	var a []string
	for _, n := range c.NICs {
		if n.Role != None {
			a = append(a, fmt.Sprintf("thurward.%s=%s", n.Role, n.MAC))
		}
	}
	a = append(a, "thurward.events=console")
	if c.Append != "" {
		a = append(a, c.Append)
	}
	return strings.Join(a, " ")
}

// firstFD is the number under which QEMU finds the first inherited file.
const firstFD = 3

// args returns QEMU's arguments, and the files that it inherits as numbers
// from firstFD on. The caller closes the files once QEMU runs.
func (c *Config) args(v Version) (args []string, files []*os.File, err error) {
	machine := "microvm"
	var nics []string
	shared := false
	for i, n := range c.NICs {
		id := "n" + strconv.Itoa(i)
		at, err := n.Backend(id, v, firstFD+len(files))
		if err != nil {
			closeAll(files)
			return nil, nil, err
		}
		files = append(files, at.Files...)
		shared = shared || at.SharedMemory
		nics = append(nics, at.Args...)
		nics = append(nics, "-device", "virtio-net-device,netdev="+id+",mac="+n.MAC)
	}
	log := c.Log
	if log == nil {
		log = func(string, ...any) {}
	}
	at, err := c.Vsock.attach(firstFD+len(files), log)
	if err != nil {
		closeAll(files)
		return nil, nil, err
	}
	files = append(files, at.Files...)
	shared = shared || at.SharedMemory
	nics = append(nics, at.Args...)
	mem := strconv.Itoa(c.MemoryMB) + "M"
	if shared {
		machine += ",memory-backend=mem"
		args = append(args, "-object", "memory-backend-memfd,id=mem,size="+mem+",share=on")
	}
	args = append([]string{"-M", machine}, args...)
	if c.KVM {
		// The capabilities MSR cannot be set on every nested host.
		args = append(args, "-accel", "kvm", "-cpu", "host,-arch-capabilities")
	} else {
		args = append(args, "-accel", "tcg", "-cpu", "max")
	}
	args = append(args, "-smp", strconv.Itoa(c.CPUs), "-m", mem,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-global", "virtio-mmio.force-legacy=false",
		"-kernel", c.Image, "-append", c.Cmdline())
	return append(args, nics...), files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
