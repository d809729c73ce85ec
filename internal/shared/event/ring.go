package event

import (
	"sync/atomic"
	"unsafe"
)

// A Ring passes records from the packet path (one producer) to the goroutine that renders
// them (one consumer). When it is full the newest record is dropped and counted: the packet
// path never waits.
type Ring struct {
	buf   []Record
	mask  uint64
	names []byte // of the records that have one, each contiguous, in order
	_     [32]byte
	head  atomic.Uint64 // written by the producer
	lost  atomic.Uint64
	next  uint64 // producer: head, and the records that are stored but not published
	name  uint64 // producer: place of the next name; increases freely
	_     [32]byte
	tail  atomic.Uint64 // written by the consumer
	freed atomic.Uint64 // names before this are no longer needed
	taken uint64        // consumer: place of the next name
}

// MaxName is the length of the longest name of a record in bytes.
const MaxName = 255

// nameBytes is the room for names in bytes: 64 for one record in eight.
func nameBytes(records int) int { return max(records*8, 4*(MaxName+1)) }

// NewRing makes a ring for at least n records, rounded up to a power of two.
func NewRing(n int) *Ring {
	c := 1
	for c < n {
		c <<= 1
	}
	return &Ring{buf: make([]Record, c), mask: uint64(c - 1), names: make([]byte, nameBytes(c))}
}

// Put stores and publishes a copy of r without a name. When the ring is full it counts the
// record as lost and returns false.
func (q *Ring) Put(r *Record) bool {
	h := q.next
	if h-q.tail.Load() >= uint64(len(q.buf)) {
		q.lost.Add(1)
		return false
	}
	d := &q.buf[h&q.mask]
	*d = *r
	d.NameLen = 0
	q.publish(h + 1)
	return true
}

// publish lets the consumer see all records before next. A store that other processors are to
// see in order waits for all stores before it.
func (q *Ring) publish(next uint64) {
	q.next = next
	q.head.Store(next)
}

// Slot returns the place of the next record, cleared, for the producer to fill in, which is
// cheaper than Put; it is stored by Commit. When the ring is full Slot counts the record as
// lost and returns nil.
func (q *Ring) Slot() *Record {
	h := q.next
	if h-q.tail.Load() >= uint64(len(q.buf)) {
		q.lost.Add(1)
		return nil
	}
	d := &q.buf[h&q.mask]
	*d = Record{}
	return d
}

// Commit stores the record that Slot has returned. The consumer sees it after Publish, or after
// the next record that is put.
func (q *Ring) Commit() { q.next++ }

// Publish publishes what Commit has stored: the producer calls it once for a batch.
func (q *Ring) Publish() {
	if q.next != q.head.Load() {
		q.publish(q.next)
	}
}

// PutNamed stores and publishes a copy of r with the first MaxName bytes of a name. When there is no room
// for both it counts the record as lost and returns false.
func (q *Ring) PutNamed(r *Record, name string) bool {
	if len(name) == 0 {
		return q.Put(r)
	}
	name = name[:min(len(name), MaxName)]
	h := q.next
	at := place(q.name, uint64(len(name)), uint64(len(q.names)))
	if h-q.tail.Load() >= uint64(len(q.buf)) || at+uint64(len(name))-q.freed.Load() > uint64(len(q.names)) {
		q.lost.Add(1)
		return false
	}
	copy(q.names[at%uint64(len(q.names)):], name)
	q.name = at + uint64(len(name))
	d := &q.buf[h&q.mask]
	*d = *r
	d.NameLen = uint8(len(name))
	q.publish(h + 1)
	return true
}

// place returns the place of a name of n bytes, not before at: at itself, or the beginning
// of the area when the name would not fit before its end.
func place(at, n, area uint64) uint64 {
	if rest := area - at%area; rest < n {
		return at + rest
	}
	return at
}

// Next returns the place of the record that is stored after n more, to be prefetched. It is
// not a reference.
func (q *Ring) Next(n int) uintptr {
	return uintptr(unsafe.Pointer(&q.buf[(q.next+uint64(n))&q.mask]))
}

// Get moves the oldest record to r, without its name, and reports whether there was one.
func (q *Ring) Get(r *Record) bool {
	_, ok := q.GetNamed(r, nil)
	r.NameLen = 0
	return ok
}

// GetNamed moves the oldest record to r, appends its name to name, and reports whether
// there was one.
func (q *Ring) GetNamed(r *Record, name []byte) ([]byte, bool) {
	t := q.tail.Load()
	if t == q.head.Load() {
		return name, false
	}
	*r = q.buf[t&q.mask]
	if n := uint64(r.NameLen); n > 0 {
		at := place(q.taken, n, uint64(len(q.names)))
		name = append(name, q.names[at%uint64(len(q.names)):][:n]...)
		q.taken = at + n
		q.freed.Store(q.taken)
	}
	q.tail.Store(t + 1)
	return name, true
}

// oldest returns the time of the oldest record. Only the consumer may call it.
func (q *Ring) oldest() (at int64, ok bool) {
	t := q.tail.Load()
	if t == q.head.Load() {
		return 0, false
	}
	return q.buf[t&q.mask].Time, true
}

// Len returns the number of published records in the ring.
func (q *Ring) Len() int { return int(q.head.Load() - q.tail.Load()) }

// Cap returns the capacity of the ring in records.
func (q *Ring) Cap() int { return len(q.buf) }

// Lost returns the number of records dropped because the ring was full.
func (q *Ring) Lost() uint64 { return q.lost.Load() }

// RingBytes returns the memory of a ring for n records, a power of two, in bytes.
func RingBytes(n int) int { return n*RecordSize + nameBytes(n) }

// PutText is PutNamed with a name in bytes, which it does not retain.
func (q *Ring) PutText(r *Record, name []byte) bool {
	return q.PutNamed(r, unsafe.String(unsafe.SliceData(name), len(name)))
}
