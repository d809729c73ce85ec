package dot

import "sync/atomic"

// A Ring is a FIFO of bytes between two goroutines, one of which writes and one of
// which reads. Its methods never block.
type Ring struct {
	buf []byte        // its length is a power of two
	in  atomic.Uint64 // bytes ever written; changed by the writer
	_   [56]byte      // no false sharing
	out atomic.Uint64 // bytes ever read; changed by the reader
}

func newRing(size int) *Ring { return &Ring{buf: make([]byte, size)} }

// Len returns how many bytes can be read, Room how many can be written. By the time
// they return it may be more.
func (r *Ring) Len() int { return int(r.in.Load() - r.out.Load()) }

// Room: see Len.
func (r *Ring) Room() int { return len(r.buf) - r.Len() }

// Space returns the contiguous memory for the next bytes to write. Commit makes the
// first n of them readable.
func (r *Ring) Space() []byte {
	at := int(r.in.Load()) & (len(r.buf) - 1)
	return r.buf[at:min(len(r.buf), at+r.Room())]
}

// Commit: see Space.
func (r *Ring) Commit(n int) { r.in.Store(r.in.Load() + uint64(n)) }

// Peek returns the next contiguous bytes to read. Discard removes the first n.
func (r *Ring) Peek() []byte {
	n := r.Len()
	at := int(r.out.Load()) & (len(r.buf) - 1)
	return r.buf[at:min(len(r.buf), at+n)]
}

// Discard: see Peek.
func (r *Ring) Discard(n int) { r.out.Store(r.out.Load() + uint64(n)) }

// Write writes as much of b as fits and returns the number of bytes.
func (r *Ring) Write(b []byte) int {
	n := 0
	for range 2 { // up to the end of the buffer, and from its beginning
		k := copy(r.Space(), b[n:])
		r.Commit(k)
		n += k
	}
	return n
}

// Read reads up to len(b) bytes and returns their number.
func (r *Ring) Read(b []byte) int {
	n := 0
	for range 2 {
		k := copy(b[n:], r.Peek())
		r.Discard(k)
		n += k
	}
	return n
}

// reset empties the ring. Nobody may use the other end meanwhile.
func (r *Ring) reset() {
	r.in.Store(0)
	r.out.Store(0)
}
