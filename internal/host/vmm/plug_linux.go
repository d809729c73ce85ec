package vmm

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attributes of a bridge's port and its states (linux/if_link.h, linux/if_bridge.h).
const (
	attrProtInfo = 12 // IFLA_PROTINFO
	attrState    = 1  // IFLA_BRPORT_STATE

	portDisabled   = 0
	portForwarding = 3
)

// bridgePlug is that of a TAP device on a bridge: as a disabled port it neither gets frames
// nor passes them on, and its machine notices nothing. It does not work on a bridge that
// runs the spanning tree protocol, which sets the states itself.
func bridgePlug(name string) *Plug {
	set := func(state uint8) func() error { return func() error { return setPort(name, state) } }
	return &Plug{In: set(portForwarding), Out: set(portDisabled)}
}

// setPort sets the state of the port that a device is on its bridge (RTM_SETLINK).
func setPort(name string, state uint8) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	attrs := netlink.NewAttributeEncoder()
	attrs.Nested(attrProtInfo, func(e *netlink.AttributeEncoder) error { e.Uint8(attrState, state); return nil })
	b, err := attrs.Encode()
	if err != nil {
		return err
	}
	info := make([]byte, unix.SizeofIfInfomsg)
	info[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(info[4:], uint32(dev.Index))
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer c.Close()
	_, err = c.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_SETLINK, Flags: netlink.Request | netlink.Acknowledge},
		Data:   append(info, b...),
	})
	if err != nil {
		return fmt.Errorf("state of the bridge's port %s: %w", name, err)
	}
	return nil
}

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
	return &Plug{In: set(true, unix.IFF_ATTACH_QUEUE), Out: set(false, unix.IFF_DETACH_QUEUE)}
}
