package main

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nftablesApart returns how many packets this kernel forwards in a second of the
// time of a processor that does nothing else; the generator has the other one.
func nftablesApart(flows, size int, d time.Duration) (perCPU float64, err error) {
	if _, err := exec.LookPath("nft"); err != nil {
		return 0, errors.New("nft is not installed (apt-get install nftables)")
	}
	l, err := newLinux(false)
	if err != nil {
		return 0, err
	}
	defer l.close()
	mac, err := l.firewallMAC()
	if err != nil {
		return 0, err
	}
	st := newStream(flows, size, false, [6]byte{2, 0xbe, 0xef, 0, 0, 0}, mac)
	if err := l.prime(st, flows); err != nil {
		return 0, err
	}
	if err := l.nft(l.wan, dropAll); err != nil {
		return 0, err
	}
	threads, err := l.threaded(1)
	if err != nil {
		return 0, err
	}
	if _, _, err := l.send(st, d/8); err != nil { // the thread is there, and warm
		return 0, err
	}
	threads = append(threads, kernelThreads("ksoftirqd/1")...)
	before, err := taskTime(threads...)
	if err != nil {
		return 0, err
	}
	n, _, err := l.send(st, d)
	if err != nil {
		return 0, err
	}
	after, err := taskTime(threads...)
	if err != nil {
		return 0, err
	}
	if n == 0 || after <= before {
		return 0, errors.New("nothing arrived")
	}
	return n / (after - before).Seconds(), nil
}

// threaded has fl0 receive in threads of the kernel on a processor, one for each
// queue, and returns their schedstats. A veth device has NAPI when it has GRO, and
// uses it when its peer has no TSO.
func (l *linux) threaded(cpu int) (schedstats []string, err error) {
	fd, err := packetSocket(l.fw, "fl0")
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // at the end
	if err := errors.Join(ethtool(fd, "fl0", setGRO, 1), ethtool(l.tx, "lan0", setTSO, 0)); err != nil {
		return nil, err
	}
	if out, err := exec.Command("ip", "netns", "exec", l.fw, "sh", "-c", "echo 1 > /sys/class/net/fl0/threaded").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("threaded NAPI: %w: %s", err, out)
	}
	schedstats = kernelThreads("napi/fl0")
	if len(schedstats) == 0 {
		return nil, errors.New("threaded NAPI: no thread")
	}
	var set unix.CPUSet
	set.Set(cpu)
	for _, s := range schedstats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(s)))
		if err == nil {
			err = unix.SchedSetaffinity(pid, &set)
		}
		if err != nil {
			return nil, fmt.Errorf("pinning NAPI's thread: %w", err)
		}
	}
	return schedstats, nil
}

// Commands of SIOCETHTOOL (linux/ethtool.h).
const (
	setTSO = 0x1f
	setGRO = 0x2c
)

// ethtool sets a value of a device, by a socket in its namespace.
func ethtool(fd int, dev string, cmd, data uint32) error {
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
