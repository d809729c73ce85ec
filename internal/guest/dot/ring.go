package dot

import "sync/atomic"

// A Ring carries bytes from one goroutine to one other. Neither ever waits: who
// writes gets told how much fits, who reads how much there is.
type Ring struct {
	buf []byte        // its length is a power of two
	in  atomic.Uint64 // bytes that were ever written; the writer's
	_   [56]byte      // the two ends do not share a cache line
	out atomic.Uint64 // bytes that were ever read; the reader's
}

func newRing(size int) *Ring { return &Ring{buf: make([]byte, size)} }

// Len returns how many bytes there are, Room how many fit. For the end that
// asks, the truth is at least as good.
func (r *Ring) Len() int { return int(r.in.Load() - r.out.Load()) }

// Room: see Len.
func (r *Ring) Room() int { return len(r.buf) - r.Len() }

// Space returns memory in which the writer may put the next bytes, as long as
// there is some without a break; Wrote says how many it has put there.
func (r *Ring) Space() []byte {
	at := int(r.in.Load()) & (len(r.buf) - 1)
	return r.buf[at:min(len(r.buf), at+r.Room())]
}

// Wrote: see Space.
func (r *Ring) Commit(n int) { r.in.Store(r.in.Load() + uint64(n)) }

// Peek returns the next bytes for the reader, as far as they lie together; Took
// says how many of them it has taken.
func (r *Ring) Peek() []byte {
	n := r.Len()
	at := int(r.out.Load()) & (len(r.buf) - 1)
	return r.buf[at:min(len(r.buf), at+n)]
}

// Took: see Peek.
func (r *Ring) Discard(n int) { r.out.Store(r.out.Load() + uint64(n)) }

// Write puts as much of b into the ring as fits and returns how much that was.
func (r *Ring) Write(b []byte) int {
	n := 0
	for range 2 { // up to the end of the memory, and from its beginning
		k := copy(r.Space(), b[n:])
		r.Commit(k)
		n += k
	}
	return n
}

// Read takes up to len(b) bytes and returns their number.
func (r *Ring) Read(b []byte) int {
	n := 0
	for range 2 {
		k := copy(b[n:], r.Peek())
		r.Discard(k)
		n += k
	}
	return n
}

// reset empties the ring, while nobody uses the other end.
func (r *Ring) reset() {
	r.in.Store(0)
	r.out.Store(0)
}
