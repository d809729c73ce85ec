package vmm

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// tapBackend opens an existing TAP device itself, for errors that name the cause and
// the remedy.
func tapBackend(name string, queues int) (Backend, error) {
	if _, err := os.Stat("/sys/class/net/" + name); err != nil {
		return nil, fmt.Errorf("network tap:%s: there is no such device (make it: ip tuntap add dev %s mode tap user $USER && ip link set %s up)", name, name, name)
	}
	if _, err := os.Stat("/sys/class/net/" + name + "/tun_flags"); err != nil {
		return nil, fmt.Errorf("network tap:%s: is not a TAP device", name)
	}
	return func(id string, _ Version, fd int) (Attachment, error) {
		several := multiQueue(name)
		n, why := queues, ""
		if n > 1 && !several {
			n, why = 1, name+" was made for one queue (make it with: ip tuntap add dev "+name+" mode tap multi_queue user $USER)"
		}
		fs, _, err := openTapQueues(name, n, several)
		if err != nil {
			return Attachment{}, fmt.Errorf("network tap:%s: %w%s", name, err, tapHint(err, name))
		}
		at := tapAttachment(id, name, fd, fs...)
		at.there, at.single = whileThere(name, ""), why
		if several && n == 1 {
			own, err := copyFile(fs[0])
			if err != nil {
				closeAll(fs)
				return Attachment{}, fmt.Errorf("network tap:%s: %w", name, err)
			}
			at.plugs = []*Plug{queuePlug(own)} // the kernel empties a queue that is detached
			at.Ended = func() { own.Close() }
		}
		return at, nil
	}, nil
}

func tapHint(err error, name string) string {
	switch {
	case errors.Is(err, unix.EBUSY):
		return " (another program holds it)"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return " (it must belong to you: ip tuntap add dev " + name + " mode tap user $USER)"
	}
	return ""
}

// tapAttachment is that of a TAP device whose queues are open files.
func tapAttachment(id, name string, fd int, queues ...*os.File) Attachment {
	netdev := fmt.Sprintf("tap,id=%s,fd=%d", id, fd)
	if len(queues) > 1 {
		netdev = fmt.Sprintf("tap,id=%s,fds=%s", id, numbers(fd, len(queues)))
	}
	return Attachment{mtu: mtuOf(name), Args: []string{"-netdev", netdev}, Files: queues, queues: len(queues), tap: true}
}

// numbers are n numbers of files from first on, as QEMU takes them.
func numbers(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

// openTapQueues is openTapQueue for n queues of one device.
func openTapQueues(name string, n int, several bool) (fs []*os.File, dev string, err error) {
	dev = name
	for range n {
		var f *os.File
		if f, dev, err = openTapQueue(dev, several); err != nil {
			closeAll(fs)
			return nil, "", err
		}
		fs = append(fs, f)
	}
	return fs, dev, nil
}

// openTap opens a TAP device, which is made if it does not exist; name may be a
// pattern such as thw%d. It returns the device's name.
func openTap(name string) (*os.File, string, error) { return openTapQueue(name, false) }

// openTapQueue is openTap, and with several for a device that may have more programs than
// one.
func openTapQueue(name string, several bool) (*os.File, string, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("/dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		// With a virtio header QEMU offers checksum and segmentation
		// offload, which a guest may refuse.
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if several {
			flags |= unix.IFF_MULTI_QUEUE
		}
		ifr.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		unix.Close(fd)
		return nil, "", err
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), ifr.Name(), nil
}

// copyFile returns another descriptor of an open file.
func copyFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// bridgeBackend makes a TAP device for each start, up and on the bridge; it is removed
// with QEMU's end. Without the right to do that it uses QEMU's setuid helper, if the
// administrator allowed the helper to use the bridge.
func bridgeBackend(bridge string, queues int) (Backend, error) {
	if err := isBridge(bridge); err != nil {
		return nil, err
	}
	return func(id string, _ Version, fd int) (Attachment, error) {
		fs, name, err := openTapQueues("thw%d", queues, queues > 1)
		if err == nil {
			if err = joinBridge(bridge, name); err == nil {
				at := tapAttachment(id, name, fd, fs...)
				p := bridgePlug(name)
				p.empty = func() {
					for _, f := range fs {
						empty(f)
					}
				}
				at.plugs = []*Plug{p}
				at.there = whileThere(name, bridge)
				return at, nil
			}
			closeAll(fs)
		}
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
			return Attachment{}, fmt.Errorf("network bridge:%s: %w", bridge, err)
		}
		if err := helperAllows(bridge); err != nil {
			return Attachment{}, fmt.Errorf("network bridge:%s: %w", bridge, err)
		}
		f, err := helpedTap(bridge)
		if err != nil {
			return Attachment{}, fmt.Errorf("network bridge:%s: %w", bridge, err)
		}
		at := tapAttachment(id, bridge, fd, f) // the helper gives its device the bridge's MTU
		at.single = "QEMU's bridge helper makes devices with one (run as root, or make one with several and take tap:NAME)"
		return at, nil
	}, nil
}

func isBridge(name string) error {
	if _, err := os.Stat("/sys/class/net/" + name + "/bridge"); err != nil {
		return fmt.Errorf("network bridge:%s: there is no such bridge (make it: ip link add %s type bridge && ip link set %s up)", name, name, name)
	}
	return nil
}

// joinBridge adds a device to a bridge and brings it up. It has the bridge's MTU then: a bridge
// whose MTU nobody has set would take the smaller one of its ports.
func joinBridge(bridge, dev string) error {
	if err := setMTU(dev, mtuOf(bridge)); err != nil {
		return err
	}
	index, err := bringUp(dev)
	if err != nil {
		return err
	}
	return onInterface(bridge, func(s int, ifr *unix.Ifreq) error {
		ifr.SetUint32(uint32(index))
		if err := unix.IoctlIfreq(s, unix.SIOCBRADDIF, ifr); err != nil {
			return fmt.Errorf("adding %s: %w", dev, err)
		}
		return nil
	})
}

// bringUp sets a device up and returns its number.
func bringUp(dev string) (index int, err error) {
	if index, err = indexOf(dev); err != nil {
		return 0, err
	}
	return index, onInterface(dev, func(s int, ifr *unix.Ifreq) error {
		if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, ifr); err != nil {
			return fmt.Errorf("flags of %s: %w", dev, err)
		}
		ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
		if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
			return fmt.Errorf("bringing up %s: %w", dev, err)
		}
		return nil
	})
}

// mtuOf returns the MTU of a device in bytes, 0 for the usual one.
func mtuOf(dev string) int {
	b, err := os.ReadFile("/sys/class/net/" + dev + "/mtu")
	n, err2 := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || err2 != nil || n == usualMTU {
		return 0
	}
	return n
}

const usualMTU = 1500

// setMTU sets the MTU of a new device, where it is not to be the usual one.
func setMTU(dev string, mtu int) error {
	if mtu == 0 {
		return nil
	}
	return onInterface(dev, func(s int, ifr *unix.Ifreq) error {
		ifr.SetUint32(uint32(mtu))
		if err := unix.IoctlIfreq(s, unix.SIOCSIFMTU, ifr); err != nil {
			return fmt.Errorf("MTU of %s: %w", dev, err)
		}
		return nil
	})
}

// indexOf returns the number of a device.
func indexOf(dev string) (index int, err error) {
	err = onInterface(dev, func(s int, ifr *unix.Ifreq) error {
		if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr); err != nil {
			return fmt.Errorf("index of %s: %w", dev, err)
		}
		index = int(ifr.Uint32())
		return nil
	})
	return index, err
}

// onInterface calls f with a request about an interface, and a socket for it.
func onInterface(name string, f func(s int, ifr *unix.Ifreq) error) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return f(s, ifr)
}

// helperACL is where QEMU's bridge helper looks for the bridges it may use.
const helperACL = "/etc/qemu/bridge.conf"

func helperAllows(bridge string) error {
	b, _ := os.ReadFile(helperACL)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "allow" && (f[1] == bridge || f[1] == "all") {
			return nil
		}
	}
	return fmt.Errorf("only root may add a device to it (run as root, or let QEMU's helper do it: echo 'allow %s' | sudo tee -a %s)", bridge, helperACL)
}

// helpers are where distributions put QEMU's bridge helper, which is setuid root.
var helpers = []string{"/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper", "/usr/lib/qemu-bridge-helper"}

// helpedTap lets QEMU's helper make a TAP device on a bridge. QEMU itself could not: it
// starts no programs, and gains no rights by any.
func helpedTap(bridge string) (*os.File, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	for _, h := range helpers {
		if _, err = os.Stat(h); err != nil {
			continue
		}
		c := exec.Command(h, "--use-vnet", "--br="+bridge, "--fd=3")
		c.ExtraFiles = []*os.File{theirs}
		out, err := c.CombinedOutput()
		theirs.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %s", h, err, strings.TrimSpace(string(out)))
		}
		return receiveTap(ours)
	}
	theirs.Close()
	return nil, fmt.Errorf("QEMU's bridge helper is not installed (it is none of %s)", strings.Join(helpers, ", "))
}

// receiveTap receives the descriptor of a TAP device.
func receiveTap(c *net.UnixConn) (*os.File, error) {
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), control)
	if err != nil {
		return nil, fmt.Errorf("QEMU's bridge helper: %w", err)
	}
	got := receivedFDs(control[:n])
	if len(got) != 1 {
		return nil, errors.New("QEMU's bridge helper sent no device")
	}
	return got[0], nil
}
