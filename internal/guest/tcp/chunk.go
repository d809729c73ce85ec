package tcp

const chunkSize = 2048

// A pool is the buffer memory that the connections of one kind share.
type pool struct {
	mem      [][chunkSize]byte
	next     []uint16 // 1 + index
	freeList uint16
	nFree    int // number of free chunks
}

func (p *pool) init(n int) {
	p.mem, p.next, p.nFree = make([][chunkSize]byte, n), make([]uint16, n), n
	for i := n; i > 0; i-- {
		p.next[i-1] = p.freeList
		p.freeList = uint16(i)
	}
}

// alloc returns 1 + the index of a free chunk, or 0.
func (p *pool) alloc() uint16 {
	c := p.freeList
	if c != 0 {
		p.freeList = p.next[c-1]
		p.next[c-1] = 0
		p.nFree--
	}
	return c
}

// free returns a chunk to the pool.
func (p *pool) free(c uint16) {
	p.next[c-1] = p.freeList
	p.freeList = c
	p.nFree++
}

// A queue is a FIFO of bytes in a list of chunks.
type queue struct {
	head, tail uint16 // 1 + index
	off        int    // of the first byte in the first chunk
	n          int
}

// chunks returns the number of the queue's chunks.
func (q *queue) chunks() int {
	return (q.off + q.n + chunkSize - 1) / chunkSize
}

// moreChunks returns how many more chunks n more bytes need.
func (q *queue) moreChunks(n int) int {
	return (q.off+q.n+n+chunkSize-1)/chunkSize - q.chunks()
}

// append appends b to the queue. If memory runs out it returns false; the bytes
// that fit have been appended.
func (p *pool) append(q *queue, b []byte) bool {
	for len(b) > 0 {
		at := (q.off + q.n) % chunkSize
		if at == 0 { // the last chunk is full, or there is none
			c := p.alloc()
			if c == 0 {
				return false
			}
			if q.tail == 0 {
				q.head = c
			} else {
				p.next[q.tail-1] = c
			}
			q.tail = c
		}
		k := copy(p.mem[q.tail-1][at:], b)
		q.n += k
		b = b[k:]
	}
	return true
}

// peek copies bytes from offset off of the queue to dst and returns their number. off
// is at most the queue's length.
func (p *pool) peek(dst []byte, q *queue, off int) int {
	dst = dst[:min(len(dst), q.n-off)]
	c, at := q.head, q.off+off
	for ; at >= chunkSize; at -= chunkSize {
		c = p.next[c-1]
	}
	n := 0
	for n < len(dst) {
		n += copy(dst[n:], p.mem[c-1][at:])
		c, at = p.next[c-1], 0
	}
	return n
}

// discard removes up to n bytes from the front.
func (p *pool) discard(q *queue, n int) {
	n = min(n, q.n)
	q.n -= n
	q.off += n
	for q.off >= chunkSize {
		c := q.head
		q.head = p.next[c-1]
		p.free(c)
		q.off -= chunkSize
	}
	if q.n == 0 {
		p.release(q)
	}
}

// release empties a queue and frees its chunks.
func (p *pool) release(q *queue) {
	for c := q.head; c != 0; {
		next := p.next[c-1]
		p.free(c)
		c = next
	}
	*q = queue{}
}
