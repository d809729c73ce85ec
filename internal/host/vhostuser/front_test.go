package vhostuser

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the front end's memory lies, for the guest and for the monitor.
const (
	guestBase = 0x100000
	userBase  = 0x7f0000000000
	memSize   = 1 << 20
)

// A front is a monitor and a driver in one.
type front struct {
	t    testing.TB
	c    *net.UnixConn
	fd   int
	mem  []byte
	size uint16

	kick, call *os.File
	avail      uint16
	used       uint16
}

// pair returns both ends of a socket.
func pair(t testing.TB) (front, back *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var c [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		n, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		c[i] = n.(*net.UnixConn)
		t.Cleanup(func() { n.Close() })
	}
	return c[0], c[1]
}

func newFront(t testing.TB, c *net.UnixConn, size uint16) *front {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Ftruncate(fd, memSize); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return &front{t: t, c: c, fd: fd, mem: mem, size: size}
}

// Offsets of the ring's parts in the memory; buffers follow at bufBase.
const (
	descOff  = 0
	availOff = 0x8000
	usedOff  = 0x10000
	bufBase  = 0x20000
)

func (f *front) send(request uint32, payload []byte, fds ...int) {
	f.t.Helper()
	b := make([]byte, headerLen, headerLen+len(payload))
	binary.LittleEndian.PutUint32(b, request)
	binary.LittleEndian.PutUint32(b[4:], flagVersion)
	binary.LittleEndian.PutUint32(b[8:], uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := f.c.WriteMsgUnix(append(b, payload...), oob, nil); err != nil {
		f.t.Fatal(err)
	}
}

func u64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func pairOf(i, n uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, i), n)
}

func (f *front) ask(request uint32, payload []byte) []byte {
	f.t.Helper()
	f.send(request, payload)
	f.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	var h [headerLen]byte
	if _, err := io.ReadFull(f.c, h[:]); err != nil {
		f.t.Fatal(err)
	}
	if binary.LittleEndian.Uint32(h[:]) != request || binary.LittleEndian.Uint32(h[4:]) != flagVersion|flagReply {
		f.t.Fatalf("answer %x to request %d", h, request)
	}
	b := make([]byte, binary.LittleEndian.Uint32(h[8:]))
	if _, err := io.ReadFull(f.c, b); err != nil {
		f.t.Fatal(err)
	}
	return b
}

func memTable(size uint64) []byte {
	b := pairOf(1, 0)
	for _, v := range []uint64{guestBase, size, userBase, 0} {
		b = append(b, u64(v)...)
	}
	return b
}

func ringAddr(i uint32) []byte {
	b := pairOf(i, 0)
	for _, v := range []uint64{userBase + descOff, userBase + usedOff, userBase + availOff, 0} {
		b = append(b, u64(v)...)
	}
	return b
}

func eventfd(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "event")
	t.Cleanup(func() { f.Close() })
	return f
}

// raw returns the descriptor without making it blocking, as File.Fd would.
func raw(t testing.TB, f *os.File) (fd int) {
	t.Helper()
	c, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Control(func(p uintptr) { fd = int(p) }); err != nil {
		t.Fatal(err)
	}
	return fd
}

// start sends the messages of QEMU until ring i runs.
func (f *front) start(i uint32, features uint64) {
	f.t.Helper()
	f.kick, f.call = eventfd(f.t), eventfd(f.t)
	f.ask(reqGetFeatures, nil)
	p := f.ask(reqGetProtoFeatures, nil)
	f.send(reqSetProtoFeatures, u64(binary.LittleEndian.Uint64(p)&protoConfig))
	f.send(reqSetOwner, nil)
	f.send(reqSetVringCall, u64(uint64(i)), raw(f.t, f.call))
	f.send(reqSetVringErr, u64(uint64(i)|noFD))
	f.send(reqSetFeatures, u64(features|featProtocol))
	f.send(reqSetMemTable, memTable(memSize), f.fd)
	f.send(reqSetVringNum, pairOf(i, uint32(f.size)))
	f.send(reqSetVringBase, pairOf(i, 0))
	f.send(reqSetVringAddr, ringAddr(i))
	f.send(reqSetVringKick, u64(uint64(i)), raw(f.t, f.kick))
	f.send(reqSetVringEnable, pairOf(i, 1))
	f.send(reqSetVringCall, u64(uint64(i)), raw(f.t, f.call))
}

// describe writes descriptor i.
func (f *front) describe(i uint16, addr uint64, n uint32, flags, next uint16) {
	b := f.mem[descOff+16*int(i):]
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// offer makes the chain at head available.
func (f *front) offer(head uint16) {
	binary.LittleEndian.PutUint16(f.mem[availOff+4+2*int(f.avail%f.size):], head)
	f.avail++
	f.setAvail(f.avail)
}

func (f *front) setAvail(v uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&f.mem[availOff])), uint32(v)<<16)
}

func (f *front) ring() {
	f.t.Helper()
	if _, err := f.kick.Write(u64(1)); err != nil {
		f.t.Fatal(err)
	}
}

// await waits for the next used entry.
func (f *front) await() (id, n uint32) {
	f.t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&f.mem[usedOff])))>>16) != f.used {
			e := f.mem[usedOff+4+8*int(f.used%f.size):]
			f.used++
			return binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
		}
		time.Sleep(time.Millisecond)
	}
	f.t.Fatal("nothing came back")
	return 0, 0
}
