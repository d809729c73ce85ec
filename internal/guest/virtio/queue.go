package virtio

import (
	"errors"
	"strconv"
	"sync/atomic"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/prefetch"
)

// Features of every device (virtio 1.2, 6).
const (
	featEventIdx = 1 << 29
	featVersion1 = 1 << 32
)

// Descriptor and ring flags (virtio 1.2, 2.7.5, 2.7.6, 2.7.8).
const (
	descNext         = 1 // another descriptor of the request follows
	descWrite        = 2 // the device writes the buffer
	availNoInterrupt = 1
	usedNoNotify     = 1
)

// desc is a descriptor: address and length of a buffer, as the device sees it.
type desc struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

// usedElem is an entry of the used ring.
type usedElem struct{ id, len uint32 }

// maxQueue is the largest queue size. An index masked to it needs no bounds check in arrays
// of this length.
const maxQueue = 1024

// noBuf marks a descriptor that the device does not own.
const noBuf = ^uint32(0)

// chained marks the buffer of a descriptor that others of its request follow.
const chained = 1 << 31

// more is a descriptor of a request after the first one, and its buffer.
type more struct {
	buf uint32
	id  uint16
	ok  bool // there is one
}

// usedLines is how many cache lines of the used ring are prefetched at a time: 256 entries.
const usedLines = 32

// A queue is one split virtqueue. A request is one descriptor, except for large frames
// that are sent: see postNext. Only one goroutine may use it.
type queue struct {
	desc  []desc
	avail []uint16 // the avail ring's entries
	used  []usedElem

	availHead  *uint32 // flags | idx<<16, written by the driver
	usedHead   *uint32 // flags | idx<<16, written by the device
	usedEvent  *uint16 // at which used index to interrupt (driver writes)
	availEvent *uint16 // at which avail index to notify (device writes)

	mask      uint16
	availIdx  uint16 // avail index as published to the device
	next      uint16 // next avail index: the driver is ahead of availIdx within a batch
	usedIdx   uint16 // next used entry to read
	eventIdx  bool
	noIRQ     uint32 // availNoInterrupt when interrupts are off (without EVENT_IDX)
	size      uint16
	number    uint32
	stopped   string
	buf       [maxQueue]uint32 // by descriptor: the buffer that the device owns, or noBuf; only of a request's first
	rest      [maxQueue]more   // by descriptor: what follows in its request
	free      [maxQueue]uint16 // stack of descriptors that the driver owns
	nfree     int
	badIndex  uint64 // used index out of range
	badID     uint64 // descriptor number out of range, or not the device's
	badLength uint64
	notifies  uint64
	phys      uint64 // where the device sees the queue
	looked    uint16 // the device's used index at the last Kick
}

// A DMA is memory that devices can access: as the program sees it, and its bus address.
type DMA struct {
	Mem  []byte
	Phys uint64
}

// An Alloc returns n bytes of zeroed, physically contiguous, page-aligned
// memory.
type Alloc func(n int) (DMA, error)

// ringBytes is the memory of a queue: descriptors, avail ring with
// used_event, used ring with avail_event, each on a cache line of its own.
func ringBytes(n int) (avail, used, size int) {
	avail = 16 * n
	used = (avail + 4 + 2*n + 2 + 63) &^ 63
	return avail, used, (used + 4 + 8*n + 2 + 63) &^ 63
}

// newQueue lays a queue of size n (a power of two) out in fresh memory.
func newQueue(number uint32, n uint16, eventIdx bool, alloc Alloc) (*queue, DMA, error) {
	availOff, usedOff, size := ringBytes(int(n))
	d, err := alloc(size)
	if err != nil {
		return nil, DMA{}, errors.New("virtio: no memory for a queue of " + strconv.Itoa(int(n)) + ": " + err.Error())
	}
	q := &queue{mask: n - 1, size: n, number: number, eventIdx: eventIdx, nfree: int(n), phys: d.Phys}
	m := d.Mem
	q.desc = unsafe.Slice((*desc)(unsafe.Pointer(&m[0])), n)
	q.availHead = (*uint32)(unsafe.Pointer(&m[availOff]))
	q.avail = unsafe.Slice((*uint16)(unsafe.Pointer(&m[availOff+4])), n)
	q.usedEvent = (*uint16)(unsafe.Pointer(&m[availOff+4+2*int(n)]))
	q.usedHead = (*uint32)(unsafe.Pointer(&m[usedOff]))
	q.used = unsafe.Slice((*usedElem)(unsafe.Pointer(&m[usedOff+4])), n)
	q.availEvent = (*uint16)(unsafe.Pointer(&m[usedOff+4+8*int(n)]))
	for i := range q.free[:n] {
		q.free[i] = n - 1 - uint16(i)
	}
	for i := range q.buf {
		q.buf[i] = noBuf
	}
	q.suppress()
	return q, d, nil
}

// setupQueue makes a queue and enables it in the device.
func setupQueue(t Transport, number uint32, n uint16, eventIdx bool, alloc Alloc) (*queue, error) {
	m, enabled := t.Queue(number)
	if enabled {
		return nil, errors.New("virtio: queue " + strconv.Itoa(int(number)) + " is in use already")
	}
	if m < uint32(n) {
		if m == 0 || m&(m-1) != 0 {
			return nil, errors.New("virtio: queue " + strconv.Itoa(int(number)) + " has no usable size (" + strconv.Itoa(int(m)) + ")")
		}
		n = uint16(m)
	}
	q, d, err := newQueue(number, n, eventIdx, alloc)
	if err != nil {
		return nil, err
	}
	availOff, usedOff, _ := ringBytes(int(n))
	if err := t.Enable(n, d.Phys, d.Phys+uint64(availOff), d.Phys+uint64(usedOff)); err != nil {
		return nil, err
	}
	return q, nil
}

// post makes n bytes at addr, which belong to buffer number buf, available to the device.
// There must be a free descriptor (room). The device sees it after publish, once for a
// batch. post and take are small enough to be inlined.
func (q *queue) post(addr uint64, n uint32, flags uint16, buf uint32) {
	q.nfree--
	id := q.free[q.nfree&(maxQueue-1)]
	d := &q.desc[id]
	d.addr, d.len, d.flags = addr, n, flags
	q.avail[q.next&q.mask] = id
	q.next++
	q.buf[id&(maxQueue-1)] = buf
}

// postNext is post for the rest of a request: n bytes at addr follow those of descriptor
// id, which was returned by postFirst or postNext. It returns the new descriptor.
func (q *queue) postNext(id uint16, addr uint64, n uint32, buf uint32) uint16 {
	q.nfree--
	next := q.free[q.nfree&(maxQueue-1)]
	d := &q.desc[next]
	d.addr, d.len, d.flags = addr, n, 0
	before := &q.desc[id&q.mask]
	before.next, before.flags = next, descNext
	q.rest[id&(maxQueue-1)] = more{buf, next, true}
	q.rest[next&(maxQueue-1)] = more{}
	return next
}

// postFirst is post for a request that postNext continues. It returns the descriptor.
func (q *queue) postFirst(addr uint64, n uint32, buf uint32) uint16 {
	id := q.free[(q.nfree-1)&(maxQueue-1)] // that post will take
	q.post(addr, n, 0, buf|chained)
	q.rest[id&(maxQueue-1)] = more{}
	return id
}

// takeRest returns the next buffer of the request whose descriptor id was taken, and its
// descriptor, which are the driver's again; ok is false after the last one. What the device
// may have written to the descriptors is not read.
func (q *queue) takeRest(id uint16) (buf uint32, next uint16, ok bool) {
	m := q.rest[id&(maxQueue-1)]
	if m.ok {
		q.free[q.nfree&(maxQueue-1)] = m.id
		q.nfree++
	}
	return m.buf, m.id, m.ok
}

// room returns how many buffers can be posted.
func (q *queue) room() int { return q.nfree }

// publish makes the posted buffers visible and reports whether the device
// wants to be notified.
//
// The descriptors and ring entries are written before the index: stores are not reordered
// on x86, and the atomic store keeps the compiler from doing so. A full barrier must lie
// between writing the index and reading avail_event or the flags; otherwise driver and
// device could miss each other's write and wait for ever.
func (q *queue) publish() bool {
	if q.next == q.availIdx {
		return false
	}
	old := q.availIdx
	q.availIdx = q.next
	atomic.StoreUint32(q.availHead, uint32(q.next)<<16|q.noIRQ)
	fence()
	if q.eventIdx {
		ev := *q.availEvent
		if q.next-ev-1 >= q.next-old {
			return false
		}
	} else if atomic.LoadUint32(q.usedHead)&usedNoNotify != 0 {
		return false
	}
	q.notifies++
	return true
}

// pending returns the number of used entries that are not taken yet. An index ahead by more
// than the device has buffers stops the queue.
func (q *queue) pending() int {
	n := uint16(atomic.LoadUint32(q.usedHead)>>16) - q.usedIdx
	if n == 0 || q.stopped != "" {
		return 0
	}
	if int(n) > int(q.size)-q.nfree {
		q.badIndex++
		q.stop("the device's used index is ahead of what it was given")
		return 0
	}
	return int(n)
}

// fetch prefetches the next k used entries, so that their cache misses overlap: the device
// has written them on another processor.
func (q *queue) fetch(k int) {
	var l [usedLines]uintptr
	prefetch.Read(l[:q.lines(k, &l)])
}

// lines sets l to the cache lines of the next k used entries, and returns their number.
func (q *queue) lines(k int, l *[usedLines]uintptr) (m int) {
	for i := 0; i < k && m < len(l); i += 8 {
		l[m] = uintptr(unsafe.Pointer(&q.used[(q.usedIdx+uint16(i))&q.mask]))
		m++
	}
	return m
}

// take returns the buffer of the next used entry, which is the driver's again, and its
// length in bytes. It is called at most pending times. buf is noBuf when the entry is
// invalid: the caller calls badUsed.
func (q *queue) take() (buf, n uint32) {
	e := q.used[q.usedIdx&q.mask]
	id := e.id & (maxQueue - 1)
	buf = q.buf[id]
	if buf == noBuf || id != e.id {
		return noBuf, 0
	}
	q.usedIdx++
	q.buf[id] = noBuf
	q.free[q.nfree&(maxQueue-1)] = uint16(id)
	q.nfree++
	return buf, e.len
}

// takeSent is take for a request of more than one descriptor: it returns the first one too,
// for takeRest.
func (q *queue) takeSent() (buf uint32, id uint16) {
	e := q.used[q.usedIdx&q.mask]
	id = uint16(e.id & (maxQueue - 1))
	buf = q.buf[id]
	if buf == noBuf || uint32(id) != e.id {
		return noBuf, 0
	}
	q.usedIdx++
	q.buf[id] = noBuf
	q.free[q.nfree&(maxQueue-1)] = id
	q.nfree++
	return buf, id
}

// badUsed stops the queue because of an invalid used entry.
func (q *queue) badUsed() {
	q.badID++
	q.stop("the device returned a descriptor that it does not have")
}

// idle reports whether the device owns buffers and has returned none since the last call.
func (q *queue) idle() bool {
	head := uint16(atomic.LoadUint32(q.usedHead) >> 16)
	same := head == q.looked
	q.looked = head
	return same && head != q.availIdx
}

// kick notifies the device if the queue is idle, and reports whether it is.
func (q *queue) kick(t Transport) bool {
	if !q.idle() {
		return false
	}
	t.Notify(q.number)
	return true
}

func (q *queue) stop(why string) {
	if q.stopped == "" {
		q.stopped = "queue " + strconv.Itoa(int(q.number)) + ": " + why
	}
}

// suppress asks the device not to interrupt. With EVENT_IDX, used_event is set to an index
// that the device has just passed.
func (q *queue) suppress() {
	if q.eventIdx {
		*q.usedEvent = q.usedIdx - 1
		return
	}
	q.noIRQ = availNoInterrupt
	atomic.StoreUint32(q.availHead, uint32(q.availIdx)<<16|q.noIRQ)
}

// arm asks for an interrupt at the next used entry. It reports whether there is one
// already, for which no interrupt may come.
func (q *queue) arm() bool {
	if q.eventIdx {
		*q.usedEvent = q.usedIdx
	} else {
		q.noIRQ = 0
		atomic.StoreUint32(q.availHead, uint32(q.availIdx)<<16)
	}
	fence() // see publish
	return q.pending() > 0
}
