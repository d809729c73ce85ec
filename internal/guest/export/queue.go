package export

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/event"
)

// A queue has records, with their names, until they can be sent. It is a ring of bytes of
// fixed size; when it is full the oldest records are dropped.
type queue struct {
	buf        []byte
	head, tail uint64 // increase freely; tail is the oldest record
	lines      int    // number of lines of the queued records
	dropped    uint64 // number of lines of dropped records
}

// Bits of event.Record.Lines: the lines of a record.
const (
	lineEvent = 1 << iota
	lineSpan
)

func lineCount(flags uint8) int { return int(flags&1 + flags>>1&1) }

// newQueue makes a queue of n bytes, which must hold the largest record.
func newQueue(n int) *queue { return &queue{buf: make([]byte, max(n, event.RecordSize+event.MaxName))} }

// push adds a record. The length of name is r.NameLen.
func (q *queue) push(r *event.Record, name []byte) {
	r.NameLen = uint8(min(len(name), event.MaxName))
	need := uint64(event.RecordSize) + uint64(r.NameLen)
	for q.head-q.tail+need > uint64(len(q.buf)) {
		q.dropOldest()
	}
	q.write(q.head, recordBytes(r)[:])
	q.write(q.head+uint64(event.RecordSize), name[:r.NameLen])
	q.head += need
	q.lines += lineCount(r.Lines)
}

func (q *queue) dropOldest() {
	var r event.Record
	q.read(q.tail, recordBytes(&r)[:])
	q.tail += uint64(event.RecordSize) + uint64(r.NameLen)
	q.lines -= lineCount(r.Lines)
	q.dropped += uint64(lineCount(r.Lines))
}

// pop moves the oldest record to r, appends its name to name, and reports whether there was
// one.
func (q *queue) pop(r *event.Record, name []byte) ([]byte, bool) {
	if q.head == q.tail {
		return name, false
	}
	q.read(q.tail, recordBytes(r)[:])
	n := len(name)
	name = append(name, zeroName[:r.NameLen]...)
	q.read(q.tail+uint64(event.RecordSize), name[n:])
	q.tail += uint64(event.RecordSize) + uint64(r.NameLen)
	q.lines -= lineCount(r.Lines)
	return name, true
}

var zeroName [event.MaxName]byte

func (q *queue) bytes() int { return int(q.head - q.tail) }

// write and read copy to and from a place in the ring, and wrap around its end.
func (q *queue) write(at uint64, b []byte) {
	i := at % uint64(len(q.buf))
	n := copy(q.buf[i:], b)
	copy(q.buf, b[n:])
}

func (q *queue) read(at uint64, b []byte) {
	i := at % uint64(len(q.buf))
	n := copy(b, q.buf[i:])
	copy(b[n:], q.buf)
}

// recordBytes returns a record's memory, which contains no pointers.
func recordBytes(r *event.Record) *[event.RecordSize]byte {
	return (*[event.RecordSize]byte)(unsafe.Pointer(r))
}
