package vmm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/thurward/thurward/internal/host/peer"
)

// An Attachment is how one QEMU process reaches one network.
type Attachment struct {
	Args         []string   // -netdev and what it needs
	Files        []*os.File // inherited, numbered from the fd that the backend was given
	SharedMemory bool       // the machine's memory must be shared with other processes
	HostNetwork  bool       // QEMU itself opens connections
	Sockets      []string   // that QEMU connects to, by path in Args
	Ended        func()     // called once QEMU has ended; may be nil

	there []func() string // each says why a device that joins the machine is gone, "" while it is not
	tap   bool            // Args ends with the -netdev of a TAP device
	// queues is how many pairs of queues the network has, 0 for one; single says why it has one, if
	// that can be helped.
	queues int
	single string
	mtu    int     // of the TAP device, where it is not the usual one
	plugs  []*Plug // one, where a running machine can be joined and parted; of several, nil for each that cannot
}

// plug returns that of the attachment of one network, or nil.
func (a *Attachment) plug() *Plug {
	if len(a.plugs) == 0 {
		return nil
	}
	return a.plugs[0]
}

// hostMTU is the property by which QEMU's device reports the MTU of its link, "" where that is the
// usual one. The device refuses ones that no IPv4 link has.
func (a *Attachment) hostMTU() string {
	if a.mtu < 68 || a.mtu > 65535 {
		return ""
	}
	return ",host_mtu=" + strconv.Itoa(a.mtu)
}

// multiQueue are the properties of a device with several pairs of queues: on PCI, an interrupt for
// each queue, one for the control queue and one for changes.
func (a *Attachment) multiQueue(m MachineType) string {
	switch {
	case a.queues < 2:
		return ""
	case m == Microvm:
		return ",mq=on"
	}
	return ",mq=on,vectors=" + strconv.Itoa(2*a.queues+2)
}

// Queues returns how many pairs of queues a machine with so many processors uses.
func Queues(cpus int) int {
	n := 1
	for 2*n <= cpus && n < maxQueues {
		n *= 2
	}
	return n
}

// maxQueues is how many pairs of queues the image uses.
const maxQueues = 8

// A Backend makes an Attachment for the netdev with the given id. It is
// called once for each start of the machine; fd is the number that its first
// file will have.
type Backend func(id string, v Version, fd int) (Attachment, error)

// Network is what NewBackend may need beyond the spec.
type Network struct {
	Serve  func(net.Conn) // Demo: serves a connection in QEMU's stream framing, and closes it
	Subnet netip.Prefix   // User: the network that QEMU simulates
	Host   netip.Addr     // User: QEMU's address in it

	// Demo, Tap, Bridge: how many pairs of queues a machine of QEMU may have; 0: one.
	Queues int
	// VhostUser: how many pairs of queues the back end has for a machine of QEMU, which does not
	// start if it has fewer; 0: one.
	BackEndQueues int

	Trusted peer.Users // Unix, VhostUser: whose sockets are used beside this user's and root's
}

// NewBackend returns the backend of a spec, and checks what can be checked before
// the machine starts.
func NewBackend(s Spec, n Network) (Backend, error) {
	switch s.Kind {
	case Demo:
		return serveBackend(n.Serve, n.Queues), nil
	case User:
		return userBackend(n)
	case Tap:
		return tapBackend(s.Arg, max(n.Queues, 1))
	case Bridge:
		return bridgeBackend(s.Arg, max(n.Queues, 1))
	case Unix:
		return unixBackend(s.Arg, n.Trusted), nil
	case VhostUser:
		return vhostUserBackend(s.Arg, n.BackEndQueues, n.Trusted), nil
	}
	return nil, fmt.Errorf("network %v: invalid", s)
}

// Unplugged is a backend without a network.
func Unplugged(id string, _ Version, _ int) (Attachment, error) {
	return Attachment{Args: []string{"-netdev", "hubport,id=" + id + ",hubid=" + strings.TrimPrefix(id, "n")}}, nil
}

// serveBackend passes one end of a socket pair to serve and the other to QEMU, so
// that no other process can connect to either, and no file is left behind. A machine that may
// have several queues gets a TAP device with them, from who may make one.
func serveBackend(serve func(net.Conn), queues int) Backend {
	return func(id string, v Version, fd int) (Attachment, error) {
		why := ""
		if queues > 1 {
			at, err := serveTap(serve, queues, id, fd)
			if err == nil {
				return at, nil
			}
			why = fmt.Sprintf("the simulated network has several by a TAP device only: %v (run as root)", err)
		}
		c, theirs, err := socketPair()
		if err != nil {
			return Attachment{}, fmt.Errorf("socket pair for the simulated network: %w", err)
		}
		go serve(c)
		at := streamAttachment(id, v, fd, theirs)
		at.single = why
		at.Ended = func() { c.Close() }
		return at, nil
	}
}

// socketPair returns two ends of a stream socket: ours, and one to be inherited.
func socketPair() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "socket pair")
	theirs = os.NewFile(uintptr(fds[1]), "socket pair")
	c, err := net.FileConn(f) // a copy of f's descriptor
	f.Close()
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}

// streamAttachment gives QEMU a connected stream socket. The stream netdev exists
// since 7.2; the older socket netdev has the same framing.
func streamAttachment(id string, v Version, fd int, f *os.File) Attachment {
	dev := "socket,id=" + id + ",fd=" + strconv.Itoa(fd)
	if v.AtLeast(7, 2) {
		dev = "stream,id=" + id + ",server=off,addr.type=fd,addr.str=" + strconv.Itoa(fd)
	}
	return Attachment{Args: []string{"-netdev", dev}, Files: []*os.File{f}}
}

// trustHint is the error for a socket of another user.
const trustHint = "network %s:%s: %w (--trust-user for one that you know)"

func unixBackend(path string, trusted peer.Users) Backend {
	return func(id string, v Version, fd int) (Attachment, error) {
		ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
		defer cancel()
		c, err := trusted.Dial(ctx, path)
		if errors.Is(err, peer.ErrForeign) {
			return Attachment{}, fmt.Errorf(trustHint, "unix", path, err)
		}
		if err != nil {
			return Attachment{}, fmt.Errorf("network unix:%s: %w (something must listen there and speak QEMU's stream framing)", path, err)
		}
		defer c.Close()
		f, err := c.File()
		if err != nil {
			return Attachment{}, fmt.Errorf("network unix:%s: %w", path, err)
		}
		return streamAttachment(id, v, fd, f), nil
	}
}

func vhostUserBackend(path string, queues int, trusted peer.Users) Backend {
	return func(id string, v Version, _ int) (Attachment, error) {
		// QEMU connects to it, and shares all of the machine's memory with it.
		if err := trusted.Socket(path); errors.Is(err, peer.ErrForeign) {
			return Attachment{}, fmt.Errorf(trustHint, "vhost-user", path, err)
		} else if errors.Is(err, fs.ErrNotExist) {
			return Attachment{}, fmt.Errorf("network vhost-user:%s: there is no such socket (start the vhost-user back end first)", path)
		}
		netdev := "vhost-user,id=" + id + ",chardev=c" + id
		if queues > 1 {
			netdev += ",queues=" + strconv.Itoa(queues)
		}
		return Attachment{SharedMemory: true, Sockets: []string{path}, queues: queues, Args: []string{
			"-chardev", "socket,id=c" + id + ",path=" + escape(path) + reconnect(v), "-netdev", netdev}}, nil
	}
}

// reconnect has QEMU connect every second to a back end that has ended.
func reconnect(v Version) string {
	if v.AtLeast(9, 2) {
		return ",reconnect-ms=1000"
	}
	return ",reconnect=1"
}

// userBackend makes QEMU's user-mode network simulate the one that the policy was
// written for, since the firewall's addresses are fixed in its image.
func userBackend(n Network) (Backend, error) {
	if !n.Subnet.IsValid() || !n.Host.IsValid() || !n.Subnet.Contains(n.Host) {
		return nil, fmt.Errorf("network user: the image does not say which network it expects (use tap: or bridge:)")
	}
	return func(id string, _ Version, _ int) (Attachment, error) {
		netdev := "user,id=" + id + ",ipv6=off,net=" + n.Subnet.Masked().String() + ",host=" + n.Host.String() + userDNS(n)
		return Attachment{HostNetwork: true, Args: []string{"-netdev", netdev}}, nil
	}, nil
}

// userDNS gives QEMU's name server, which forwards to the host's own resolver, another
// address than the host's, if the network has room.
func userDNS(n Network) string {
	for a := n.Host.Next(); n.Subnet.Contains(a) && n.Subnet.Contains(a.Next()); a = a.Next() {
		if a != n.Subnet.Addr() {
			return ",dns=" + a.String()
		}
	}
	return ""
}

// escape writes a path as an option value of QEMU, where a comma separates.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
