package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// States of a bridge's port (linux/if_bridge.h).
const (
	portDisabled   = 0
	portForwarding = 3
)

// bridgePlug is that of a TAP device on a bridge: as a disabled port it neither gets frames
// nor passes them on, and its machine notices nothing. It does not work on a bridge that
// runs the spanning tree protocol, which sets the states itself.
func bridgePlug(name string) *Plug {
	index := 0 // found once: a machine's device stays
	set := func(state uint8) func() error {
		return func() (err error) {
			if index == 0 {
				if index, err = indexOf(name); err != nil {
					return err
				}
			}
			if err := setPort(index, state); err != nil {
				return fmt.Errorf("state of the bridge's port %s: %w", name, err)
			}
			return nil
		}
	}
	return &Plug{In: set(portForwarding), Out: set(portDisabled)}
}

// setPort sets the state of the port that a device is on its bridge (RTM_SETLINK). The bridge
// forgets which addresses were behind it: frames to them go to all ports, until their new
// place is known.
func setPort(index int, state uint8) error {
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(unix.IFLA_PROTINFO, func(e *netlink.AttributeEncoder) error {
		e.Uint8(unix.IFLA_BRPORT_STATE, state)
		e.Flag(unix.IFLA_BRPORT_FLUSH, true)
		return nil
	})
	b, err := attrs.Encode()
	if err != nil {
		return err
	}
	info := make([]byte, unix.SizeofIfInfomsg)
	info[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(info[4:], uint32(index))
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_SETLINK, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(info, b...),
	})
	if state == portForwarding && errors.Is(err, unix.ENETDOWN) {
		// A device that no program holds has no carrier. The bridge sets this state itself
		// when it has one.
		return nil
	}
	return err
}

// empty takes the frames that wait in a TAP device, from before it was parted: a machine that
// stands by would ask in vain for the hosts that they go to.
func empty(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, maxFrame)
	for range maxWaiting {
		n := 0
		if e := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) }); e != nil || err != nil || n <= 0 {
			return
		}
	}
}

// maxWaiting is more than the frames that wait in a TAP device (txqueuelen).
const maxWaiting = 10000

// multiQueue reports whether a TAP device may have several programs on it.
func multiQueue(name string) bool {
	b, err := os.ReadFile("/sys/class/net/" + name + "/tun_flags")
	flags, err2 := strconv.ParseUint(strings.TrimSpace(strings.TrimPrefix(string(b), "0x")), 16, 32)
	return err == nil && err2 == nil && flags&unix.IFF_MULTI_QUEUE != 0
}

// queuePlug is that of a program's queue of a TAP device that may have several. A detached
// queue gets no frames. f is an own copy of the queue's file. It is attached.
func queuePlug(f *os.File) *Plug {
	attached := true
	set := func(to bool, flag uint16) func() error {
		return func() error {
			if attached == to {
				return nil // the kernel refuses it
			}
			ifr, err := unix.NewIfreq("")
			if err != nil {
				return err
			}
			ifr.SetUint16(flag)
			raw, err := f.SyscallConn()
			if err != nil {
				return err
			}
			if e := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNSETQUEUE, ifr) }); e != nil {
				return e
			}
			if err != nil {
				return fmt.Errorf("queue of the TAP device: %w", err)
			}
			attached = to
			return nil
		}
	}
	p := &Plug{In: set(true, unix.IFF_ATTACH_QUEUE), Out: set(false, unix.IFF_DETACH_QUEUE)}
	p.empty = func() { go holdHeader(f) }
	return p
}

// holdHeader keeps the length of the headers that precede frames as it is, until a machine
// that starts is as far as to need the same. It is one of the whole device: QEMU sets that of
// old drivers when it starts, and a machine that runs on another queue would no longer
// understand its frames.
func holdHeader(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	size := func() (n int, err error) {
		e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TUNGETVNETHDRSZ) })
		return n, errors.Join(e, err)
	}
	held, err := size()
	for end := time.Now().Add(bootLimit); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		n := 0
		if n, err = size(); err == nil && n != held {
			if e := raw.Control(func(fd uintptr) { err = unix.IoctlSetPointerInt(int(fd), unix.TUNSETVNETHDRSZ, held) }); e != nil {
				return // the machine has ended
			}
		}
	}
}
