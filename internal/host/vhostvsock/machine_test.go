package vhostvsock

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/guest/virtio"
)

// A machine is a virtual machine without a CPU: registers of a vsock device
// for the image's own driver, and the monitor's side of vhost-user. What the
// driver writes into registers becomes messages.
type machine struct {
	t        testing.TB
	c        *net.UnixConn
	fd       int
	mem      []byte
	used     int
	features uint64
	driver   uint64
	status   uint32
	featSel  uint32
	drvSel   uint32
	sel      uint32
	q        [3]ringRegs
	served   chan error
	counts   Counters

	mu     sync.Mutex
	passed []byte // what has passed the tap
}

type ringRegs struct {
	num, ready        uint32
	desc, avail, used uint64
	kick, call        *os.File
}

const (
	guestBase = 1 << 20
	userBase  = 1 << 40
	memSize   = 4 << 20
	cid       = 5
)

func newMachine(t testing.TB, path string) *machine {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	m := &machine{t: t, c: ends[0], served: make(chan error, 1)}
	go func() {
		m.served <- Serve(ends[1], Config{CID: cid, Path: path, Tap: m.tap, Log: func(f string, a ...any) { t.Logf(f, a...) }}, &m.counts)
	}()
	if m.fd, err = unix.MemfdCreate("guest", unix.MFD_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(m.fd, memSize); err != nil {
		t.Fatal(err)
	}
	if m.mem, err = unix.Mmap(m.fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.end()
		unix.Munmap(m.mem)
		unix.Close(m.fd)
	})
	m.features = binary.LittleEndian.Uint64(m.ask(1, nil))
	return m
}

// tap keeps what passes the tap, of all connections.
func (m *machine) tap() func([]byte) {
	return func(b []byte) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.passed = append(m.passed, b...)
	}
}

func (m *machine) tapped() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passed
}

// end turns the machine off and waits for the device.
func (m *machine) end() {
	m.c.Close()
	for i := range m.q {
		for _, f := range []*os.File{m.q[i].kick, m.q[i].call} {
			if f != nil {
				f.Close()
			}
		}
	}
	select {
	case err := <-m.served:
		m.served <- err
	case <-time.After(5 * time.Second):
		m.t.Error("the device does not end with its machine")
	}
}

func (m *machine) send(request uint32, payload []byte, fds ...int) {
	b := binary.LittleEndian.AppendUint32(nil, request)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := m.c.WriteMsgUnix(append(b, payload...), oob, nil); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) ask(request uint32, payload []byte) []byte {
	m.send(request, payload)
	var h [12]byte
	m.c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.ReadFull(m.c, h[:]); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, binary.LittleEndian.Uint32(h[8:]))
	if _, err := io.ReadFull(m.c, b); err != nil {
		m.t.Fatal(err)
	}
	return b
}

func words(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

func (m *machine) event() (*os.File, int) {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		m.t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "event"), fd
}

// start sets the device's rings, as QEMU does at DRIVER_OK.
func (m *machine) start() {
	m.send(2, words(m.driver|1<<30))
	m.send(5, append(words(1), words(guestBase, memSize, userBase, 0)...), m.fd)
	for i := range uint64(2) {
		q := &m.q[i]
		user := func(a uint64) uint64 { return a - guestBase + userBase }
		m.send(8, words(i|uint64(q.num)<<32))
		m.send(10, words(i))
		m.send(9, words(i, user(q.desc), user(q.used), user(q.avail), 0))
		var fd int
		q.kick, fd = m.event()
		m.send(12, words(i), fd)
		q.call, fd = m.event()
		m.send(13, words(i), fd)
		m.send(18, words(i|1<<32))
	}
	m.ask(1, nil) // all of it has been done
}

// Read32 implements virtio.Registers.
func (m *machine) Read32(off uint32) uint32 {
	switch off {
	case 0:
		return 0x74726976
	case 4:
		return 2
	case 8:
		return 19
	case 0x10:
		return uint32(m.features >> (32 * m.featSel))
	case 0x34:
		return 128
	case 0x44:
		return m.q[m.sel].ready
	case 0x70:
		return m.status
	case 0x100:
		return uint32(binary.LittleEndian.Uint64(m.config()))
	}
	return 0
}

func (m *machine) config() []byte { return m.ask(24, append(words(8<<32), make([]byte, 12)...))[12:] }

func half(p *uint64, high bool, v uint32) {
	if high {
		*p |= uint64(v) << 32
	} else {
		*p = uint64(v)
	}
}

// Write32 implements virtio.Registers.
func (m *machine) Write32(off, v uint32) {
	q := &m.q[m.sel]
	switch off {
	case 0x14:
		m.featSel = v & 1
	case 0x20:
		m.driver |= uint64(v) << (32 * m.drvSel)
	case 0x24:
		m.drvSel = v & 1
	case 0x30:
		m.sel = v % 3
	case 0x38:
		q.num = v
	case 0x44:
		q.ready = v
	case 0x50:
		if v < 2 && m.q[v].kick != nil {
			m.q[v].kick.Write(words(1))
		}
	case 0x70:
		if m.status = v; v == 15 {
			m.start()
		}
	case 0x80, 0x84:
		half(&q.desc, off&4 != 0, v)
	case 0x90, 0x94:
		half(&q.avail, off&4 != 0, v)
	case 0xa0, 0xa4:
		half(&q.used, off&4 != 0, v)
	}
}

// Read8 implements virtio.Registers.
func (m *machine) Read8(uint32) uint8 { return 0 }

// Read16 implements virtio.Registers.
func (m *machine) Read16(uint32) uint16 { return 0 }

func (m *machine) alloc(n int) (virtio.DMA, error) {
	m.used = (m.used + 4095) &^ 4095
	if m.used+n > memSize/2 { // the other half is for tests
		return virtio.DMA{}, errors.New("out of memory")
	}
	d := virtio.DMA{Mem: m.mem[m.used : m.used+n], Phys: guestBase + uint64(m.used)}
	m.used += n
	return d, nil
}

// open starts the image's driver.
func (m *machine) open() *virtio.Vsock {
	m.t.Helper()
	v, err := virtio.OpenVsock(virtio.NewMMIO(m), m.alloc, 6000)
	if err != nil {
		m.t.Fatal(err)
	}
	if v.CID() != cid {
		m.t.Fatalf("the guest's CID is %d", v.CID())
	}
	return v
}
