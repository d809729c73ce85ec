package vmm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/host/peer"
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
	MAC     string   // aa:bb:cc:dd:ee:ff
	Backend Backend  // QEMU's
	Tap     TapMaker // the other hypervisors'
	TapName string   // of tap:NAME, for Print
	// OnBridge says that Tap makes a device on a bridge, which can be parted from it.
	OnBridge bool
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
	Machine  MachineType
	NoDog    bool // no watchdog device, for which QEMU takes longer to start
	KVM      bool // else TCG
	MemoryMB int
	CPUs     int
	NICs     []NIC
	Vsock    Vsock
	Trusted  peer.Users // whose sockets the stream may go to, beside this user's and root's
	Name     string     // for those who read the stream; "": its WAN address
	Verdicts Verdicts   // how the launcher gets events; StreamVerdicts needs Vsock.Path
	Append   string     // boot arguments of the user, after the launcher's
	// Log is called with what the launcher's own devices have to tell; may be
	// nil.
	Log func(format string, a ...any)

	// Gate joins the machine to its networks and its stream to the receiver, and parts
	// them while it runs. nil: it is joined.
	Gate *Gate

	saved   bool       // the machine will be saved
	pulse   *pulse     // counts the guest's signs of life, of one start; may be nil
	onEvent func(Line) // called with events of the stream, of one start; may be nil
	control *control   // QEMU's monitor, of one start: see args
	dog     bool       // QEMU has a watchdog device, and the machine a bus for it
}

// Cmdline returns the machine's boot arguments.
func (c *Config) Cmdline() string {
	var a []string
	for _, n := range c.NICs {
		if n.Role != None {
			a = append(a, fmt.Sprintf("thurward.%s=%s", n.Role, n.MAC))
		}
	}
	if c.Verdicts == ConsoleVerdicts {
		a = append(a, "thurward.events=console")
	}
	if p := c.Vsock.port(); p != DefaultPort {
		a = append(a, fmt.Sprintf("thurward.vsock_port=%d", p))
	}
	if c.Append != "" {
		a = append(a, c.Append)
	}
	return strings.Join(a, " ")
}

// log returns Log, or a function that does nothing.
func (c *Config) log() func(format string, a ...any) {
	if c.Log == nil {
		return func(string, ...any) {}
	}
	return c.Log
}

// dials counts the connections of streams, so that each has an address of its own.
var dials atomic.Uint64

// A dialer connects the stream to the socket at a path.
type dialer func(path string) (*net.UnixConn, error)

// dialer returns that of a machine: through its gate, to sockets of users that are trusted.
func (c *Config) dialer() dialer {
	trusted, gate, log, name := c.Trusted, c.Gate, c.log(), c.Name
	return func(path string) (*net.UnixConn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
		defer cancel()
		from := ""
		if name != "" {
			from = ingest.GivenAddress(name, fmt.Sprintf("%d.%d", os.Getpid(), dials.Add(1)))
		}
		conn, err := gate.pass(func() (*net.UnixConn, error) { return trusted.DialFrom(ctx, from, path) })
		if errors.Is(err, peer.ErrForeign) { // the socket at the path may be another user's
			log("vsock: %v (--trust-user for one that you know)", err)
		}
		return conn, err
	}
}

// join joins a machine that is being started to its networks, unless its gate is shut.
func (c *Config) join(plugs []*Plug) error {
	for _, p := range plugs {
		if err := c.Gate.add(p); err != nil {
			return err
		}
	}
	return nil
}

// firstFD is the number under which QEMU finds the first inherited file.
const firstFD = 3

// args returns QEMU's arguments, and all of its attachments as one, whose files
// it inherits as numbers from firstFD on. The caller closes the files once QEMU
// runs.
func (c *Config) args(v Version) (args []string, all Attachment, err error) {
	// Nothing of the guest's memory is in a core of QEMU.
	machine := c.Machine.name() + ",dump-guest-core=off"
	for i, n := range c.NICs {
		id := "n" + strconv.Itoa(i)
		at, err := n.Backend(id, v, firstFD+len(all.Files))
		if err != nil {
			all.drop()
			return nil, all, err
		}
		if why := c.Machine.passes(&at); why != "" {
			at.drop()
			all.drop()
			return nil, all, fmt.Errorf("--machine %v: %s (want another network, or --machine q35)", c.Machine, why)
		}
		c.addVhostNet(&at, firstFD+len(all.Files))
		all.add(at)
		all.plugs = append(all.plugs, at.plug())
		all.Args = append(all.Args, "-device", c.Machine.netDevice()+",netdev="+id+",mac="+n.MAC+at.hostMTU()+at.multiQueue(c.Machine)+c.Machine.through())
		c.sayQueues(n.Role, at.queues, at.single)
	}
	at, err := c.attachVsock(firstFD + len(all.Files))
	if err != nil {
		all.drop()
		return nil, all, err
	}
	all.add(at)
	if at, c.control, err = controlAttachment(firstFD + len(all.Files)); err != nil {
		all.drop()
		return nil, all, err
	}
	all.add(at)
	mem := strconv.Itoa(c.MemoryMB) + "M"
	if all.SharedMemory {
		machine += ",memory-backend=mem"
		// Sealed, so that it cannot be cut short under those it is shared with.
		args = append(args, "-object", "memory-backend-memfd,id=mem,size="+mem+",share=on,seal=on")
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
	if c.dog {
		// The firewall reports where it stands at an NMI, and the launcher ends one that does
		// not even do that.
		action := "-action watchdog=inject-nmi"
		if !v.AtLeast(6, 0) {
			action = "-watchdog-action inject-nmi"
		}
		args = append(args, append([]string{"-device", dogDevice}, strings.Fields(action)...)...)
	}
	return append(append(args, c.Machine.iommu()...), all.Args...), all, nil
}

// sayQueues says that a network has fewer pairs of queues than the machine has processors for, with
// the reason if it can be helped.
func (c *Config) sayQueues(r Role, have int, why string) {
	have = max(have, 1)
	if want := Queues(c.CPUs); have >= want || r == None {
		return
	}
	if why == "" {
		why = "only TAP devices have several, with QEMU (tap:NAME or bridge:NAME)"
	}
	c.log()("the %s has %d pair of queues: of %d processors one forwards packets: %s", r, have, c.CPUs, why)
}

// dogDevice is the watchdog device that the image knows.
const dogDevice = "i6300esb"

// add makes a part of one attachment of another.
func (a *Attachment) add(b Attachment) {
	a.there = append(a.there, b.there...)
	a.Args, a.Files, a.Sockets = append(a.Args, b.Args...), append(a.Files, b.Files...), append(a.Sockets, b.Sockets...)
	a.SharedMemory, a.HostNetwork = a.SharedMemory || b.SharedMemory, a.HostNetwork || b.HostNetwork
	if before := a.Ended; before != nil && b.Ended != nil {
		a.Ended = func() { before(); b.Ended() }
	} else if b.Ended != nil {
		a.Ended = b.Ended
	}
}

// drop gives up what no QEMU was started for.
func (a *Attachment) drop() {
	closeAll(a.Files)
	a.end()
}

func (a *Attachment) end() {
	if a.Ended != nil {
		a.Ended()
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
