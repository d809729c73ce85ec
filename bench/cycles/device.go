package main

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/virtio"
)

// dmaBase is the bus address of an arena's first byte.
const dmaBase = 1 << 32

// An arena is the memory that the driver and both devices share.
type arena struct {
	mem  []byte
	used int
}

// alloc is a virtio.Alloc.
func (a *arena) alloc(n int) (virtio.DMA, error) {
	at := (a.used + 4095) &^ 4095
	if at+n > len(a.mem) {
		return virtio.DMA{}, errors.New("the devices' memory is too small")
	}
	a.used = at + n
	return virtio.DMA{Mem: a.mem[at : at+n : at+n], Phys: dmaBase + uint64(at)}, nil
}

// at returns the memory from a bus address on.
func (a *arena) at(bus uint64) []byte { return a.mem[bus-dmaBase:] }

// A ring is the device's side of a queue.
type ring struct {
	num               uint16
	desc, avail, used []byte
	seen, idx         uint16 // next entries to take, and to write
}

// A device is a network device of virtio in this thread, without offloads. What it does is
// not measured.
type device struct {
	a        *arena
	mac      [6]byte
	status   uint32
	selected uint32
	q        [2]ring
	sent     int                // frames that the driver has sent
	took     func(frame []byte) // is told of each
}

const (
	rx = 0
	tx = 1

	queueSize = 256

	featMAC      = 1 << 5
	featMRGRxBuf = 1 << 15
	featEventIdx = 1 << 29
	featVersion1 = 1 << 32
)

// A device is a virtio.Transport.
func (*device) Check(uint32) error      { return nil }
func (d *device) Status() uint32        { return d.status }
func (d *device) SetStatus(s uint32)    { d.status = s }
func (*device) Features() uint64        { return featMAC | featMRGRxBuf | featEventIdx | featVersion1 }
func (*device) SetFeatures(uint64)      {}
func (*device) Notify(uint32)           {}
func (*device) Interrupt() bool         { return false }
func (d *device) Config8(o uint32) byte { return d.mac[o] }
func (*device) Config16(uint32) uint16  { return 0 }
func (*device) Config32(uint32) uint32  { return 0 }

func (d *device) Queue(q uint32) (uint32, bool) {
	d.selected = q
	return queueSize, d.q[q].num != 0
}

func (d *device) Enable(n uint16, desc, avail, used uint64) error {
	d.q[d.selected] = ring{num: n, desc: d.a.at(desc), avail: d.a.at(avail), used: d.a.at(used)}
	return nil
}

// next takes a buffer that the driver has posted.
func (d *device) next(q *ring) (id uint16, b []byte, ok bool) {
	if q.seen == uint16(atomic.LoadUint32(word(q.avail))>>16) {
		return 0, nil, false
	}
	id = binary.LittleEndian.Uint16(q.avail[4+2*int(q.seen&(q.num-1)):])
	q.seen++
	e := q.desc[16*int(id):]
	n := binary.LittleEndian.Uint32(e[8:])
	return id, d.a.at(binary.LittleEndian.Uint64(e))[:n:n], true
}

// done gives a buffer back, with n bytes written.
func (q *ring) done(id uint16, n int) {
	e := q.used[4+8*int(q.idx&(q.num-1)):]
	binary.LittleEndian.PutUint32(e, uint32(id))
	binary.LittleEndian.PutUint32(e[4:], uint32(n))
	q.idx++
	atomic.StoreUint32(word(q.used), uint32(q.idx)<<16)
}

// word returns a ring's flags and index.
func word(b []byte) *uint32 { return (*uint32)(unsafe.Pointer(&b[0])) }

// header is the length of a frame's virtio header in bytes.
const header = 12

// deliver has the driver receive a frame. It reports false when there is no buffer for it.
func (d *device) deliver(f []byte) bool {
	q := &d.q[rx]
	id, b, ok := d.next(q)
	if !ok {
		return false
	}
	clear(b[:header])
	b[10] = 1 // num_buffers
	copy(b[header:], f)
	q.done(id, header+len(f))
	return true
}

// drain takes what the driver has sent.
func (d *device) drain() {
	q := &d.q[tx]
	for {
		id, b, ok := d.next(q)
		if !ok {
			return
		}
		d.took(b[header:])
		q.done(id, 0)
		d.sent++
	}
}
