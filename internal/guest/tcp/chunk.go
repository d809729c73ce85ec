package tcp

const chunkSize = 2048

// chunks is memory that connections of one kind share.
type chunks struct {
	mem  [][chunkSize]byte
	next []uint16 // 1 + index
	free uint16
	left int // how many are free
}

func (p *chunks) init(n int) {
	p.mem, p.next, p.left = make([][chunkSize]byte, n), make([]uint16, n), n
	for i := n; i > 0; i-- {
		p.next[i-1] = p.free
		p.free = uint16(i)
	}
}

// get takes a chunk; 0: there is none.
func (p *chunks) get() uint16 {
	c := p.free
	if c != 0 {
		p.free = p.next[c-1]
		p.next[c-1] = 0
		p.left--
	}
	return c
}

// give puts a chunk back.
func (p *chunks) give(c uint16) {
	p.next[c-1] = p.free
	p.free = c
	p.left++
}

// A queue is a run of bytes in chunks.
type queue struct {
	head, tail uint16 // 1 + index
	off        int    // where it begins in the first
	n          int
}

// held returns how many chunks a queue has.
func (q *queue) held() int {
	if q.head == 0 {
		return 0
	}
	return (q.off + q.n + chunkSize - 1) / chunkSize
}

// more returns how many more chunks it needs for n more bytes.
func (q *queue) more(n int) int {
	if q.head == 0 {
		return (n + chunkSize - 1) / chunkSize
	}
	return (q.off+q.n+n+chunkSize-1)/chunkSize - q.held()
}

// put appends b, or reports that there is no memory. What fitted stays.
func (p *chunks) put(q *queue, b []byte) bool {
	for len(b) > 0 {
		at := (q.off + q.n) % chunkSize
		if q.tail == 0 || at == 0 && q.n > 0 {
			c := p.get()
			if c == 0 {
				return false
			}
			if q.tail == 0 {
				q.head, q.off, at = c, 0, 0
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

// copy reads from offset off of the queue.
func (p *chunks) copy(dst []byte, q *queue, off int) int {
	n := 0
	at := q.off + off
	c := q.head
	for ; at >= chunkSize && c != 0; at -= chunkSize {
		c = p.next[c-1]
	}
	for left := q.n - off; c != 0 && left > 0 && n < len(dst); c = p.next[c-1] {
		k := copy(dst[n:], p.mem[c-1][at:min(chunkSize, at+left)])
		n += k
		left -= k
		at = 0
	}
	return n
}

// take removes n bytes from the front.
func (p *chunks) take(q *queue, n int) {
	n = min(n, q.n)
	q.n -= n
	q.off += n
	for q.off >= chunkSize && q.head != q.tail {
		c := q.head
		q.head = p.next[c-1]
		p.give(c)
		q.off -= chunkSize
	}
	if q.n == 0 {
		p.release(q)
	}
}

// release gives all of a queue's chunks back.
func (p *chunks) release(q *queue) {
	for c := q.head; c != 0; {
		next := p.next[c-1]
		p.give(c)
		c = next
	}
	*q = queue{}
}
