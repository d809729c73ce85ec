package virtio

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// A fakeNet is a device in memory: a network device, or what id says. It keeps Firecracker's rules: the
// status moves by one bit at a time in one order, queues are set up only
// between FEATURES_OK and DRIVER_OK, ISR is acknowledged only when running.
// A violation is noted in broken.
type fakeNet struct {
	mem      []byte // what the driver allocated; its address for the device is its offset
	used     int
	span     int // of the buffers of its pool; 0: 1
	offered  uint64
	accepted uint64
	status   uint32
	featSel  uint32
	drvSel   uint32
	qSel     uint32
	qMax     uint32
	qMissing uint32 // a queue that there is not although it should be; 0: none
	qSmall   uint32 // a queue for one descriptor; 0: none
	q        [fakeQueues]fakeQueue
	isr      uint32
	notified [fakeQueues]int
	id       uint32
	queues   uint32
	cid      uint64
	mac      [6]byte
	mtu      uint16
	link     uint16
	broken   []string
	refuse   bool   // FEATURES_OK
	stuck    bool   // a reset does not end
	pairs    uint16 // of queues, as it says; with VIRTIO_NET_F_MQ
	commands func() // called when the control queue is notified; nil: it has none
	resets   int
}

// fakeQueues is how many queues a device may have.
const fakeQueues = 2*MaxPairs + 1

type fakeQueue struct {
	num               uint32
	ready             uint32
	desc, avail, used uint64
	seen, idx         uint16 // next avail entry to take, used entries written
}

// memBase is above 4 GiB, so that both halves of an address count.
const memBase = 0x5_0001_0000

func newFake(features uint64) *fakeNet {
	w := make([]uint64, 1<<18)
	return &fakeNet{mem: unsafe.Slice((*byte)(unsafe.Pointer(&w[0])), 8*len(w)), offered: features | featVersion1, qMax: 1024, id: netID, queues: 2,
		mac: [6]byte{2, 3, 5, 7, 11, 13}, mtu: 1400, link: 1}
}

func (d *fakeNet) alloc(n int) (DMA, error) {
	d.used = (d.used + 4095) &^ 4095
	if d.used+n > len(d.mem) {
		return DMA{}, errors.New("out of memory")
	}
	m := DMA{Mem: d.mem[d.used : d.used+n], Phys: memBase + uint64(d.used)}
	d.used += n
	return m, nil
}

func (d *fakeNet) pool(n int) *framebuf.Pool {
	span := max(d.span, 1)
	m, err := d.alloc(n * span * framebuf.Size)
	if err != nil {
		panic(err)
	}
	return framebuf.NewPoolOf(m.Mem, m.Phys, span)
}

func (d *fakeNet) bad(s string) { d.broken = append(d.broken, s) }

func (d *fakeNet) Read32(off uint32) uint32 {
	switch off {
	case regMagic:
		return magic
	case regVersion:
		return 2
	case regDeviceID:
		return d.id
	case regFeatures:
		return uint32(d.offered >> (32 * d.featSel))
	case regQueueMax:
		switch d.qSel {
		case 0:
		case d.qMissing:
			return 0
		case d.qSmall:
			return 1
		}
		return d.qMax
	case regQueueReady:
		return d.q[d.qSel].ready
	case regISR:
		return d.isr
	case regStatus:
		return d.status
	case regConfig + cfgCID:
		return uint32(d.cid)
	case regConfig + cfgCID + 4:
		return uint32(d.cid >> 32)
	}
	d.bad("read of an unknown register")
	return 0
}

func (d *fakeNet) Write32(off, v uint32) {
	setup := d.status == 11
	q := &d.q[d.qSel]
	half := func(p *uint64, hi bool) {
		if !setup {
			d.bad("queue set up outside FEATURES_OK..DRIVER_OK")
		}
		if hi {
			*p |= uint64(v) << 32
		} else {
			*p = uint64(v)
		}
	}
	switch off {
	case regFeatSel:
		d.featSel = v & 1
	case regDriverSel:
		d.drvSel = v & 1
	case regDriver:
		if d.status != 3 {
			d.bad("features written outside DRIVER")
		}
		d.accepted |= uint64(v) << (32 * d.drvSel)
	case regQueueSel:
		if v >= d.queues {
			d.bad("queue selected that there is not")
		}
		d.qSel = v % d.queues
	case regQueueNum:
		half(new(uint64), false)
		q.num = v
	case regQueueReady:
		half(new(uint64), false)
		q.ready = v
	case regDesc, regDesc + 4:
		half(&q.desc, off&4 != 0)
	case regAvail, regAvail + 4:
		half(&q.avail, off&4 != 0)
	case regUsed, regUsed + 4:
		half(&q.used, off&4 != 0)
	case regNotify:
		if d.status&statusDriverOK == 0 {
			d.bad("notified before DRIVER_OK")
		}
		d.notified[v%d.queues]++
		if d.commands != nil && v == d.queues-1 {
			d.commands()
		}
	case regISRAck:
		if d.status&statusDriverOK == 0 {
			d.bad("ISR acknowledged before DRIVER_OK")
		}
		d.isr &^= v
	case regStatus:
		next := map[uint32]uint32{0: 1, 1: 3, 3: 11, 11: 15}
		switch {
		case v&statusFailed != 0:
			d.status = v
		case v == 0 && d.status == 0:
			d.bad("reset of a fresh device")
		case v == 0 && d.stuck:
		case v == 0:
			d.status, d.accepted, d.isr, d.q = 0, 0, 0, [fakeQueues]fakeQueue{}
			d.resets++
		case next[d.status] != v:
			d.bad("status out of order")
		case v == 11 && (d.refuse || d.accepted&^d.offered != 0):
		default:
			d.status = v
		}
	default:
		d.bad("write of an unknown register")
	}
}

func (d *fakeNet) Read8(off uint32) uint8 { return d.mac[off-cfgMAC-regConfig] }
func (d *fakeNet) Read16(off uint32) uint16 {
	switch off {
	case regConfig + cfgMTU:
		return d.mtu
	case regConfig + cfgStatus:
		return d.link
	case regConfig + cfgPairs:
		return d.pairs
	}
	d.bad("read of an unknown register")
	return 0
}

func (d *fakeNet) at(a uint64) []byte { return d.mem[a-memBase:] }
func (d *fakeNet) head(a uint64) *uint32 {
	return (*uint32)(unsafe.Pointer(&d.mem[a-memBase]))
}

// next takes a posted buffer of queue i.
func (d *fakeNet) next(i int) (id uint16, buf []byte, write, ok bool) {
	q := &d.q[i]
	if uint16(atomic.LoadUint32(d.head(q.avail))>>16) == q.seen {
		return 0, nil, false, false
	}
	id = binary.LittleEndian.Uint16(d.at(q.avail)[4+2*(uint32(q.seen)%q.num):])
	q.seen++
	e := d.at(q.desc)[16*uint64(id):]
	n := binary.LittleEndian.Uint32(e[8:])
	return id, d.at(binary.LittleEndian.Uint64(e))[:n:n], binary.LittleEndian.Uint16(e[12:])&descWrite != 0, true
}

// done returns a buffer as used; it reports whether an interrupt is due.
func (d *fakeNet) done(i int, id uint32, n uint32) bool {
	q := &d.q[i]
	e := d.at(q.used)[4+8*(uint32(q.idx)%q.num):]
	binary.LittleEndian.PutUint32(e, id)
	binary.LittleEndian.PutUint32(e[4:], n)
	q.idx++
	d.setUsed(i, q.idx)
	if d.accepted&featEventIdx != 0 {
		return q.idx-1 == binary.LittleEndian.Uint16(d.at(q.avail)[4+2*q.num:])
	}
	return *d.head(q.avail)&availNoInterrupt == 0
}

func (d *fakeNet) setUsed(i int, idx uint16) {
	atomic.StoreUint32(d.head(d.q[i].used), uint32(idx)<<16)
}

// wantNotify makes the device ask for a notification at the next buffer.
func (d *fakeNet) wantNotify(i int) {
	q := &d.q[i]
	binary.LittleEndian.PutUint16(d.at(q.used)[4+8*q.num:], q.seen)
}

// deliver receives one frame; false when the driver has posted no buffer.
func (d *fakeNet) deliver(f []byte) (irq, ok bool) { return d.deliverTo(0, f) }

// deliverTo is deliver to a queue.
func (d *fakeNet) deliverTo(i int, f []byte) (irq, ok bool) {
	id, b, write, ok := d.next(i)
	if !ok {
		return false, false
	}
	if !write {
		d.bad("receive buffer is not writable")
	}
	clear(b[:netHeader])
	b[hdrBuffers] = 1
	copy(b[netHeader:], f)
	return d.done(i, uint32(id), uint32(netHeader+len(f))), true
}

// sent returns the next frame that the driver transmits.
func (d *fakeNet) sent() ([]byte, bool) { return d.sentBy(1) }

// sentBy is sent by a queue.
func (d *fakeNet) sentBy(i int) ([]byte, bool) {
	id, b, write, ok := d.next(i)
	if !ok {
		return nil, false
	}
	if write {
		d.bad("transmit buffer is writable")
	}
	for _, c := range b[:netHeader] {
		if c != 0 {
			d.bad("transmit header is not zero")
		}
	}
	f := append([]byte(nil), b[netHeader:]...)
	d.done(i, uint32(id), 0)
	return f, true
}

const allNet = featMTU | featMAC | featMRGRxBuf | featStatus | featEventIdx

func open(t testing.TB, d *fakeNet, buffers int, opt NetOptions) (*Net, *framebuf.Pool) {
	t.Helper()
	p := d.pool(buffers)
	n, err := openNet(d, d.alloc, p, opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.broken) > 0 {
		t.Fatalf("the driver broke the device's rules: %v", d.broken)
	}
	return n, p
}

// openNet finds and starts a device.
func openNet(r Registers, alloc Alloc, pool *framebuf.Pool, opt NetOptions) (*Net, error) {
	d, err := FindNet(NewMMIO(r), Wanted{})
	if err != nil {
		return nil, err
	}
	return d.Open(alloc, pool, opt)
}
