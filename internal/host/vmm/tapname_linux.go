package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A TapMaker gives a network interface a TAP device for one start of a machine,
// which its hypervisor opens by name as user owner. drop is called once the hypervisor
// has ended.
type TapMaker func(owner int) (name string, drop func(), err error)

// NewTap returns the TAP devices for a spec, for hypervisors that take nothing else.
func NewTap(s Spec, n Network) (TapMaker, error) {
	switch s.Kind {
	case Tap:
		if _, err := tapBackend(s.Arg, 1); err != nil { // is it there, and is it one?
			return nil, err
		}
		return func(owner int) (string, func(), error) { return s.Arg, func() {}, tapIsOf(s.Arg, owner) }, nil
	case Bridge:
		if err := isBridge(s.Arg); err != nil {
			return nil, err
		}
		return func(owner int) (string, func(), error) {
			return madeTap(owner, func(name string) error { return joinBridge(s.Arg, name) })
		}, nil
	case Demo:
		return demoTap(n.Serve), nil
	}
	return nil, fmt.Errorf("network %v: only QEMU has it (want demo, tap:NAME or bridge:NAME)", s)
}

// tapIsOf returns an error if a TAP device belongs to another user than the one who is
// to open it. One that belongs to nobody is everybody's who may open /dev/net/tun.
func tapIsOf(name string, uid int) error {
	b, err := os.ReadFile("/sys/class/net/" + name + "/owner")
	if err != nil {
		return fmt.Errorf("network tap:%s: %w", name, err)
	}
	owner, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || owner < 0 || owner == uid || uid == 0 {
		return nil
	}
	return fmt.Errorf("network tap:%s: it belongs to user %d, and the hypervisor is user %d (--user %s)", name, owner, uid, userOf(owner))
}

// userOf writes a user as --user reads it.
func userOf(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("%d:%d", uid, uid)
}

// madeTap makes a TAP device that stays until drop.
func madeTap(owner int, join func(name string) error) (name string, drop func(), err error) {
	f, name, err := openTap("thw%d")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "", nil, fmt.Errorf("making a TAP device: %w (run as root, or make one: ip tuntap add dev NAME mode tap user $USER, and take tap:NAME)", err)
	}
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	fd := int(f.Fd())
	if err = unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner); err == nil {
		err = join(name)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	}
	if err != nil {
		return "", nil, fmt.Errorf("the TAP device %s: %w", name, err)
	}
	return name, func() { removeTap(name) }, nil
}

// removeTap removes a TAP device that stays without a program.
func removeTap(name string) {
	if f, _, err := openTap(name); err == nil {
		unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 0) //nolint:errcheck // it stays then
		f.Close()
	}
}

// serveTap joins the simulated network to a TAP device with several queues, which is gone once
// QEMU has ended.
func serveTap(serve func(net.Conn), queues int, id string, fd int) (Attachment, error) {
	fs, name, err := openTapQueues("thw%d", queues, true)
	if err != nil {
		return Attachment{}, err
	}
	packets, err := onlyPackets(name)
	if err != nil {
		closeAll(fs)
		return Attachment{}, err
	}
	ours, theirs := net.Pipe()
	go serve(theirs)
	go pump(ours, packets)
	at := tapAttachment(id, name, fd, fs...)
	at.Ended = func() {
		ours.Close()
		packets.Close()
	}
	return at, nil
}

// onlyPackets is packetSocket of a device that the host's own stack has no part in.
func onlyPackets(name string) (*os.File, error) {
	os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0) //nolint:errcheck // it adds a frame or two
	return packetSocket(name)
}

// demoTap joins the simulated network to a TAP device by a packet socket on it.
func demoTap(serve func(net.Conn)) TapMaker {
	return func(owner int) (string, func(), error) {
		var packets *os.File
		name, drop, err := madeTap(owner, func(name string) (err error) {
			packets, err = onlyPackets(name)
			return err
		})
		if err != nil {
			return "", nil, err
		}
		ours, theirs := net.Pipe()
		go serve(theirs)
		go pump(ours, packets)
		return name, func() {
			ours.Close()
			packets.Close()
			drop()
		}, nil
	}
}

// packetSocket brings a device up and opens a socket for the frames that its other
// end sends.
func packetSocket(name string) (*os.File, error) {
	index, err := bringUp(name)
	if err != nil {
		return nil, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("packet socket on %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "packets of "+name), nil
}

// maxFrame bounds a frame of the simulated network in bytes.
const maxFrame = 64 << 10

// pump passes frames between a connection that speaks QEMU's framing and a packet
// socket, until one of them is closed.
func pump(c net.Conn, packets *os.File) {
	var wg sync.WaitGroup
	wg.Go(func() {
		defer c.Close()
		b := make([]byte, 4+maxFrame)
		for {
			n, err := packets.Read(b[4:])
			if errors.Is(err, unix.ENETDOWN) { // until the hypervisor opens the device
				continue
			}
			if err != nil {
				return
			}
			binary.BigEndian.PutUint32(b, uint32(n))
			if _, err := c.Write(b[:4+n]); err != nil {
				return
			}
		}
	})
	b := make([]byte, maxFrame)
	for {
		if _, err := io.ReadFull(c, b[:4]); err != nil {
			break
		}
		n := binary.BigEndian.Uint32(b)
		if n > maxFrame {
			break
		}
		if _, err := io.ReadFull(c, b[:n]); err != nil {
			break
		}
		packets.Write(b[:n]) //nolint:errcheck // lost, as on a wire that is not plugged in
	}
	packets.Close()
	wg.Wait()
}
