package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is Linux's struct mmsghdr.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// sendmmsg sends a batch of messages with one system call, as often as it
// takes.
func sendmmsg(fd int, m []mmsghdr) error {
	for len(m) > 0 {
		n, _, e := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), 0, 0, 0)
		switch e {
		case 0:
			m = m[n:]
		case unix.ENOBUFS, unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("sendmmsg: %w", e)
		}
	}
	return nil
}
