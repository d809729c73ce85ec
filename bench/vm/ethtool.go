package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

const setGRO = 0x2c // ETHTOOL_SGRO (linux/ethtool.h)

// ethtool sets a value of a device in a namespace.
func ethtool(ns, dev string, cmd, data uint32) error {
	fd, err := packetSocket(ns, dev)
	if err != nil {
		return err
	}
	defer unix.Close(fd)                           //nolint:errcheck // at the end
	value := struct{ cmd, data uint32 }{cmd, data} // struct ethtool_value
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:], dev)
	ifr.data = unsafe.Pointer(&value)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); e != 0 {
		return fmt.Errorf("ethtool command %#x on %s: %w", cmd, dev, e)
	}
	return nil
}
