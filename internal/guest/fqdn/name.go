package fqdn

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// MaxName is the maximum length of a name in bytes (RFC 1035 section 2.3.4).
const MaxName = 255

// Valid reports whether b is exactly one name in wire form: labels of 1 to 63 bytes,
// without compression, ending with the root's 0, at most MaxName bytes in all.
func Valid(b []byte) bool {
	if len(b) > MaxName {
		return false
	}
	for i := 0; i < len(b); i += 1 + int(b[i]) {
		if b[i] == 0 {
			return i == len(b)-1
		}
		if b[i] > 63 {
			return false
		}
	}
	return false
}

// A record is a name that has bindings. Its text is in cells.
type record struct {
	hash    uint64
	learned int64
	next    uint32 // with the same hash, or the next free one
	cell    uint32 // first cell of the text
	refs    uint32 // number of bindings
	first   uint32 // first binding
	pattern [2]uint32
	len     uint8
	_       [7]byte
}

// inPolicy reports whether the policy has a pattern for the name.
func (r *record) inPolicy() bool { return r.pattern[0]|r.pattern[1] != 0 }

// A cell is a part of a name's text.
type cell struct {
	text [cellBytes]byte
	next uint32
}

const cellBytes = 28

// names stores each name once. References are 1 + index.
type names struct {
	rec       []record
	heads     []uint32
	cells     []cell
	free      uint32
	freeCells uint32
	nCells    int // number of free cells
}

// cellsFor returns the number of cells for the names of n bindings. Most names fit
// into one.
func cellsFor(n int) int { return n + n/2 + MaxName/cellBytes + 1 }

func namesBytes(n int) int {
	return (n+1)*int(unsafe.Sizeof(record{})) + 4*powerOfTwo(n) + cellsFor(n)*int(unsafe.Sizeof(cell{}))
}

func (t *names) init(n int, alloc func(int, bool) []byte) {
	t.rec = carve[record](alloc, n+1) // one more than bindings: a name is added before its binding is
	t.heads, t.cells = carve[uint32](alloc, powerOfTwo(n)), carve[cell](alloc, cellsFor(n))
	for i := len(t.rec); i > 0; i-- {
		t.rec[i-1].next = t.free
		t.free = uint32(i)
	}
	for i := len(t.cells); i > 0; i-- {
		t.cells[i-1].next = t.freeCells
		t.freeCells = uint32(i)
	}
	t.nCells = len(t.cells)
}

// hashName returns a keyed hash of a name.
func (s *Set) hashName(b []byte) uint64 {
	k := s.cfg.Secret[1] | 1
	h := s.cfg.Secret[0] ^ uint64(len(b))
	for len(b) >= 8 {
		hi, lo := bits.Mul64(h^binary.LittleEndian.Uint64(b), k)
		h = hi ^ lo ^ 0x9e3779b97f4a7c15
		b = b[8:]
	}
	var last uint64
	for i, c := range b {
		last |= uint64(c) << (8 * i)
	}
	hi, lo := bits.Mul64(h^last, k)
	return s.mix(hi ^ lo)
}

func (s *Set) head(hash uint64) *uint32 { return &s.names.heads[uint32(hash)&s.mask] }

// findName returns the reference of a name, or 0.
func (s *Set) findName(b []byte, hash uint64) uint32 {
	for i := *s.head(hash); i != 0; i = s.names.rec[i-1].next {
		if r := &s.names.rec[i-1]; r.hash == hash && s.equal(r, b) {
			return i
		}
	}
	return 0
}

func (s *Set) equal(r *record, b []byte) bool {
	if int(r.len) != len(b) {
		return false
	}
	for c := r.cell; len(b) > 0; c = s.names.cells[c-1].next {
		n := min(len(b), cellBytes)
		if string(s.names.cells[c-1].text[:n]) != string(b[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// addName stores a name that is not stored yet, for a binding of client. It evicts
// bindings while there is no room for the text.
func (s *Set) addName(client packet.Addr, b []byte, hash uint64, now int64) uint32 {
	t := &s.names
	pattern := s.cfg.Patterns.match(b)
	class := (&record{pattern: pattern}).class()
	for t.nCells < (len(b)+cellBytes-1)/cellBytes {
		// This terminates: without bindings there are cells for any name. A
		// record is always free: there is one more than bindings.
		s.evict(s.victim(client, class, len(b)), &s.c.EvictedText)
	}
	i := t.free
	r := &t.rec[i-1]
	t.free = r.next
	*r = record{hash: hash, learned: now, next: *s.head(hash), pattern: pattern, len: uint8(len(b))}
	*s.head(hash) = i
	at := &r.cell
	for len(b) > 0 {
		c := t.freeCells
		t.freeCells = t.cells[c-1].next
		t.nCells--
		*at = c
		b = b[copy(t.cells[c-1].text[:], b):]
		at = &t.cells[c-1].next
		*at = 0
	}
	return i
}

// dropName removes one reference to name n, and frees the name with the last.
func (s *Set) dropName(n uint32) {
	t := &s.names
	r := &t.rec[n-1]
	if r.refs--; r.refs > 0 {
		return
	}
	at := s.head(r.hash)
	for *at != n {
		at = &t.rec[*at-1].next
	}
	*at = r.next
	for c := r.cell; c != 0; {
		next := t.cells[c-1].next
		t.cells[c-1].next = t.freeCells
		t.freeCells = c
		t.nCells++
		c = next
	}
	*r = record{next: t.free}
	t.free = n
}

// A Name refers to a name of a set, as long as it has bindings. Zero is none.
type Name uint32

// Text writes the name to buf and returns it. It returns nil if the name was freed;
// at must be a time at which n referred to it, since another name may have its
// record now.
func (s *Set) Text(n Name, at int64, buf *[MaxName]byte) []byte {
	if n == 0 || int(n) > len(s.names.rec) {
		return nil
	}
	r := &s.names.rec[n-1]
	if r.refs == 0 || r.learned > at {
		return nil
	}
	k := 0
	for c := r.cell; c != 0; c = s.names.cells[c-1].next {
		k += copy(buf[k:r.len], s.names.cells[c-1].text[:])
	}
	return buf[:k]
}
