// Package netns has what tests need that send packets through the kernel of this machine:
// network namespaces, a thread on one processor, sockets of whole frames.
package netns

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pin keeps the test on its thread and on one processor until its end. That processor's
// queue of packets is in order: once a frame has come out, nothing that was sent before
// it is still on its way.
func Pin(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for c := range 1024 {
		if all.IsSet(c) {
			one.Set(c)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.SchedSetaffinity(0, &all) }) //nolint:errcheck // the thread goes on as it can
}

// Enter calls f in the namespace that "ip netns" has under a name. The test's thread must
// be locked, as by Pin.
func Enter(t testing.TB, name string, f func()) {
	t.Helper()
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	fd, err := os.Open("/run/netns/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(self.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// Packets opens a packet socket at a device of the namespace. It does not block, and does not see
// what is sent through it.
func Packets(t testing.TB, dev string) int {
	t.Helper()
	nif, err := net.InterfaceByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	all := binary.LittleEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s) })
	if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: nif.Index}); err != nil {
		t.Fatal(err)
	}
	return s
}

// NoOffload makes a device compute checksums of what the kernel itself sends, and leave
// packets as they are: a packet socket would see them unfinished. It returns what the
// device does not let be switched off, which it may not have.
func NoOffload(dev string) (notes []string) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return []string{fmt.Sprintf("offloads of %s: %v", dev, err)}
	}
	defer unix.Close(s)
	for _, cmd := range []uint32{0x17, 0x1f, 0x24, 0x2c} { // ETHTOOL_STXCSUM, STSO, SGSO, SGRO
		value := struct{ cmd, data uint32 }{cmd, 0}
		var req struct {
			name [16]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(req.name[:], dev)
		req.data = unsafe.Pointer(&value)
		const siocEthtool = 0x8946
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(s), siocEthtool, uintptr(unsafe.Pointer(&req))); e != 0 {
			notes = append(notes, fmt.Sprintf("offload %#x of %s: %v", cmd, dev, e))
		}
	}
	return notes
}

// EmptyFlows empties the kernel's flow table, as conntrack -F does, by a netlink socket of
// the namespace.
func EmptyFlows(t testing.TB, s int) {
	t.Helper()
	m := make([]byte, 20)
	binary.LittleEndian.PutUint32(m, uint32(len(m)))
	binary.LittleEndian.PutUint16(m[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|2) // IPCTNL_MSG_CT_DELETE
	binary.LittleEndian.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m[16] = unix.AF_INET
	if err := unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	var buf [1 << 12]byte
	n, _, err := unix.Recvfrom(s, buf[:], 0)
	if err != nil || n < 20 {
		t.Fatalf("emptying the flow table: %d bytes, %v", n, err)
	}
	if e := int32(binary.LittleEndian.Uint32(buf[16:])); e != 0 {
		t.Fatalf("emptying the flow table: %v", unix.Errno(-e))
	}
}
