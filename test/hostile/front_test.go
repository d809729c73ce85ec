package hostile

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The guest's memory, for the guest and for its monitor, in bytes.
const (
	guestBase = 1 << 20
	userBase  = 1 << 40
	memSize   = 8 << 20
	bufBase   = 4 << 20 // buffers lie in the second half
)

// Requests of vhost-user that a monitor makes.
const (
	getFeatures     = 1
	setFeatures     = 2
	setOwner        = 3
	resetOwner      = 4
	setMemTable     = 5
	setVringNum     = 8
	setVringAddr    = 9
	setVringBase    = 10
	getVringBase    = 11
	setVringKick    = 12
	setVringCall    = 13
	setVringEnable  = 18
	getConfig       = 24
	featureVersion1 = 1 << 32
	featureProtocol = 1 << 30
)

// The rings of a vsock device, and flags of descriptors.
const (
	rx        = 0
	tx        = 1
	ringSize  = 64
	descNext  = 1
	descWrite = 2
)

// A queue is a ring as its driver sees it. Addresses are the guest's.
type queue struct {
	size              uint16
	desc, avail, used uint64
	kick, call        *os.File
	next              uint16 // next entry to offer
	waits             uint64 // the buffer that heard has given last
}

// A front is a monitor and its guest's driver in one. Its methods panic with what
// went wrong.
type front struct {
	c   *net.UnixConn
	fd  int
	mem []byte
	q   [2]queue
	at  int // next free byte of buffers
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// newFront begins a session: the guest's memory is shared, its rings lie beside
// each other, and nothing runs yet.
func newFront(c *net.UnixConn) *front {
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	check(err)
	check(unix.Ftruncate(fd, memSize))
	mem, err := unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	check(err)
	f := &front{c: c, fd: fd, mem: mem, at: bufBase}
	for i := range uint64(2) {
		base := guestBase + 0x100000*(i+1)
		f.q[i] = queue{size: ringSize, desc: base, avail: base + 0x80000, used: base + 0xc0000}
	}
	return f
}

func words(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

func request(r uint32, payload []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, r)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	return append(b, payload...)
}

func (f *front) send(r uint32, payload []byte, fds ...int) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := f.c.WriteMsgUnix(request(r, payload), oob, nil)
	check(err)
}

// answer reads the answer to a request.
func (f *front) answer(limit time.Duration) []byte {
	check(f.c.SetReadDeadline(time.Now().Add(limit)))
	var h [12]byte
	_, err := io.ReadFull(f.c, h[:])
	check(err)
	n := binary.LittleEndian.Uint32(h[8:])
	if n > 1<<16 {
		panic(fmt.Errorf("an answer of %d bytes", n))
	}
	b := make([]byte, n)
	_, err = io.ReadFull(f.c, b)
	check(err)
	return b
}

func (f *front) ask(r uint32, payload []byte) []byte {
	f.send(r, payload)
	return f.answer(5 * time.Second)
}

// refused waits for the device to end the session.
func (f *front) refused() {
	check(f.c.SetReadDeadline(time.Now().Add(5 * time.Second)))
	if n, err := f.c.Read(make([]byte, 64)); err == nil || os.IsTimeout(err) {
		panic(fmt.Errorf("the session was not ended: %d bytes, %v", n, err))
	}
}

func eventfd() *os.File {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	check(err)
	return os.NewFile(uintptr(fd), "event")
}

// raw returns a file's descriptor without making it blocking.
func raw(f *os.File) (fd int) {
	c, err := f.SyscallConn()
	check(err)
	check(c.Control(func(p uintptr) { fd = int(p) }))
	return fd
}

func user(a uint64) uint64 { return a - guestBase + userBase }

// share says where the guest's memory is.
func (f *front) share() {
	f.send(setFeatures, words(featureVersion1|featureProtocol))
	f.send(setMemTable, append(words(1), words(guestBase, memSize, userBase, 0)...), f.fd)
}

// begin says all of one ring.
func (f *front) begin(i int) {
	q := &f.q[i]
	q.kick, q.call = eventfd(), eventfd()
	n := uint64(i)
	f.send(setVringNum, words(n|uint64(q.size)<<32))
	f.send(setVringBase, words(n))
	f.send(setVringAddr, words(n, user(q.desc), user(q.used), user(q.avail), 0))
	f.send(setVringKick, words(n), raw(q.kick))
	f.send(setVringCall, words(n), raw(q.call))
	f.send(setVringEnable, words(n|1<<32))
}

// start brings up both rings as QEMU does, and waits until that is done.
func (f *front) start() {
	f.share()
	f.begin(rx)
	f.begin(tx)
	f.ask(getFeatures, nil)
}

func (f *front) memory(a uint64) []byte { return f.mem[a-guestBase:] }

// room returns n bytes of memory that nothing else uses, and their address.
func (f *front) room(n int) ([]byte, uint64) {
	if f.at+n > memSize {
		f.at = bufBase
	}
	b, a := f.mem[f.at:f.at+n], uint64(guestBase+f.at)
	f.at += (n + 15) &^ 15
	return b, a
}

// describe writes descriptor d of ring i.
func (f *front) describe(i, d int, addr uint64, n uint32, flags, next uint16) {
	b := f.memory(f.q[i].desc)[16*d:]
	binary.LittleEndian.PutUint64(b, addr)
	binary.LittleEndian.PutUint32(b[8:], n)
	binary.LittleEndian.PutUint16(b[12:], flags)
	binary.LittleEndian.PutUint16(b[14:], next)
}

// offer makes the chain at head available.
func (f *front) offer(i int, head uint16) {
	q := &f.q[i]
	binary.LittleEndian.PutUint16(f.memory(q.avail)[4+2*(int(q.next)%int(q.size)):], head)
	q.next++
	f.setAvail(i, q.next)
	f.kick(i)
}

func (f *front) setAvail(i int, v uint16) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&f.memory(f.q[i].avail)[0])), uint32(v)<<16)
}

func (f *front) kick(i int) {
	_, err := f.q[i].kick.Write(words(1))
	check(err)
}

func (f *front) usedIndex(i int) uint16 {
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&f.memory(f.q[i].used)[0]))) >> 16)
}

// taken waits until the device has given everything of a ring back.
func (f *front) taken(i int) {
	for end := time.Now().Add(5 * time.Second); f.usedIndex(i) != f.q[i].next; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			panic(fmt.Errorf("ring %d: the device has given back %d of %d", i, f.usedIndex(i), f.q[i].next))
		}
	}
}

// back is what QEMU does when the machine is reset: it takes the rings back, and
// waits for that without a limit.
func (f *front) back() {
	defer func() { recover() }() //nolint:errcheck // the session may have ended
	for i := range uint64(2) {
		f.send(getVringBase, words(i))
		f.answer(time.Hour)
	}
}

// Packets of vsock (virtio 1.2, 5.10.6).
const (
	opRequest  = 1
	opResponse = 2
	opRST      = 3
	opShutdown = 4
	opRW       = 5
	opCredit   = 6
	opAsk      = 7
	packetLen  = 44
	cid        = 3
)

// A packet is one of the guest's; its zero parts are honest.
type packet struct {
	src, dst         uint64
	srcPort, dstPort uint32
	op, typ          uint16
	flags            uint32
	alloc, fwd       uint32
	len              uint32 // 0: that of data
	data             []byte
}

func (p packet) bytes() []byte {
	le := binary.LittleEndian
	def := func(v *uint64, d uint64) {
		if *v == 0 {
			*v = d
		}
	}
	def(&p.src, cid)
	def(&p.dst, 2)
	if p.dstPort == 0 {
		p.dstPort = 9000
	}
	if p.srcPort == 0 {
		p.srcPort = 1
	}
	if p.typ == 0 {
		p.typ = 1
	}
	if p.len == 0 {
		p.len = uint32(len(p.data))
	}
	if p.alloc == 0 {
		p.alloc = 1 << 16
	}
	b := le.AppendUint64(le.AppendUint64(nil, p.src), p.dst)
	for _, v := range []uint32{p.srcPort, p.dstPort, p.len, uint32(p.typ) | uint32(p.op)<<16, p.flags, p.alloc, p.fwd} {
		b = le.AppendUint32(b, v)
	}
	return append(b, p.data...)
}

// say sends a packet in one buffer and waits until it is taken.
func (f *front) say(p packet) {
	c := p.bytes()
	b, a := f.room(len(c))
	copy(b, c)
	d := int(f.q[tx].next % f.q[tx].size)
	f.describe(tx, d, a, uint32(len(c)), 0, 0)
	f.offer(tx, uint16(d))
	f.taken(tx)
}

// hear gives a buffer and returns the operation, the guest's port and the data of
// the packet that comes into it.
func (f *front) hear() (op uint16, port uint32, data []byte) {
	b, a := f.room(4096)
	d := f.q[rx].next % f.q[rx].size
	f.describe(rx, int(d), a, 4096, descWrite, 0)
	f.offer(rx, d)
	f.taken(rx)
	le := binary.LittleEndian
	return le.Uint16(b[30:]), le.Uint32(b[20:]), b[packetLen : packetLen+min(le.Uint32(b[24:]), 4096-packetLen)]
}

// connect opens a connection from a port to the receiver; false: it is refused.
func (f *front) connect(port uint32) bool {
	f.say(packet{srcPort: port, op: opRequest})
	for {
		if op, p, _ := f.hear(); p == port {
			return op == opResponse
		}
	}
}

// tell sends lines on a connection.
func (f *front) tell(port uint32, lines ...string) {
	for _, l := range lines {
		f.say(packet{srcPort: port, op: opRW, data: []byte(l + "\n")})
	}
}

// heard is hear without waiting: false while nothing has come.
func (f *front) heard() (op uint16, ok bool) {
	if f.usedIndex(rx) != f.q[rx].next {
		return 0, false
	}
	if q := &f.q[rx]; q.waits != 0 {
		op = uint16(f.memory(q.waits)[30])
	}
	_, a := f.room(4096)
	f.q[rx].waits = a
	d := f.q[rx].next % f.q[rx].size
	f.describe(rx, int(d), a, 4096, descWrite, 0)
	f.offer(rx, d)
	return op, op != 0
}
