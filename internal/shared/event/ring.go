package event

import (
	"sync/atomic"
	"unsafe"
)

// A Ring hands records from the packet path (one producer) to the goroutine
// that renders them (one consumer). When it is full the newest record is
// dropped and counted: the path never waits.
type Ring struct {
	buf   []Record
	mask  uint64
	names []byte // of the records that have one, each in one piece, in order
	_     [32]byte
	head  atomic.Uint64 // written by the producer
	lost  atomic.Uint64
	name  uint64 // producer: where the next name goes; runs freely
	_     [40]byte
	tail  atomic.Uint64 // written by the consumer
	freed atomic.Uint64 // names before this are no longer needed
	taken uint64        // consumer: where the next name lies
}

// MaxName is the longest name that a record can have, in bytes.
const MaxName = 255

// nameBytes is the room for names: for one record in eight, of 64 bytes on
// average.
func nameBytes(records int) int { return max(records*8, 4*(MaxName+1)) }

// NewRing makes a ring for at least n records.
func NewRing(n int) *Ring {
	c := 1
	for c < n {
		c <<= 1
	}
	return &Ring{buf: make([]Record, c), mask: uint64(c - 1), names: make([]byte, nameBytes(c))}
}

// Put stores a copy of r without a name, or counts it as lost when the ring is
// full.
func (q *Ring) Put(r *Record) bool {
	h := q.head.Load()
	if h-q.tail.Load() >= uint64(len(q.buf)) {
		q.lost.Add(1)
		return false
	}
	d := &q.buf[h&q.mask]
	*d = *r
	d.NameLen = 0
	q.head.Store(h + 1)
	return true
}

// PutNamed stores a copy of r with a name, of which MaxName bytes are kept. It
// counts the record as lost when there is no room for either.
func (q *Ring) PutNamed(r *Record, name string) bool {
	if len(name) == 0 {
		return q.Put(r)
	}
	name = name[:min(len(name), MaxName)]
	h := q.head.Load()
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
	q.head.Store(h + 1)
	return true
}

// place returns where a name of n bytes goes that may begin at: there, or at
// the beginning of the area when it would not fit before the end.
func place(at, n, area uint64) uint64 {
	if rest := area - at%area; rest < n {
		return at + rest
	}
	return at
}

// Get takes the oldest record into r, without its name, and reports whether
// there was one.
func (q *Ring) Get(r *Record) bool {
	_, ok := q.GetNamed(r, nil)
	r.NameLen = 0
	return ok
}

// GetNamed takes the oldest record into r, appends its name to name, and
// reports whether there was a record.
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

// Len returns the number of records waiting.
func (q *Ring) Len() int { return int(q.head.Load() - q.tail.Load()) }

// Cap returns the number of records that the ring holds at most.
func (q *Ring) Cap() int { return len(q.buf) }

// Lost returns how many records were dropped because the ring was full.
func (q *Ring) Lost() uint64 { return q.lost.Load() }

// RingBytes returns the memory of a ring for n records, a power of two.
func RingBytes(n int) int { return n*RecordSize + nameBytes(n) }

// PutText is PutNamed with a name whose bytes the caller keeps.
func (q *Ring) PutText(r *Record, name []byte) bool {
	return q.PutNamed(r, unsafe.String(unsafe.SliceData(name), len(name)))
}
