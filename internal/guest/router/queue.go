package router

import "github.com/thurward/thurward/internal/guest/framebuf"

// A node is the place of a frame in a list, by the number of its buffer. A
// frame is in one list at most: of those that wait for a neighbour, or of the
// fragments of a datagram.
type node struct {
	next framebuf.Frame
	piece
}

// A queue is a list of frames in order.
type queue struct {
	first, last framebuf.Frame
	n           uint16
}

func (e *Engine) push(q *queue, fr framebuf.Frame) {
	if q.n == 0 {
		q.first = fr
	} else {
		e.nodes[q.last.Buf].next = fr
	}
	q.last = fr
	q.n++
}

// pop takes the first frame off a queue that has one.
func (e *Engine) pop(q *queue) framebuf.Frame {
	fr := q.first
	q.first = e.nodes[fr.Buf].next
	q.n--
	return fr
}
