package framebuf

// Links links frames into queues, by the number of their buffer, so that queueing a frame
// does not allocate. A frame is in one queue at most; all users of a pool may share one
// Links.
type Links []link

type link struct {
	next Frame
	tag  uint32
}

// NewLinks makes links for all buffers of a pool.
func NewLinks(p *Pool) Links { return make(Links, p.Numbers()) }

// A Queue is a list of frames in order. The zero value is an empty one. A copy of a queue
// is the same list: only one of the two may be used afterwards.
type Queue struct {
	first, last Frame
	n           uint16
}

// Len returns the number of frames in q.
func (q *Queue) Len() int { return int(q.n) }

// First returns the first frame of q, which must not be empty.
func (q *Queue) First() Frame { return q.first }

// Next returns the frame after f in its queue. After the last frame the result is
// undefined: callers count with Len. A frame taken out of a queue keeps its link until it
// is put into another.
func (l Links) Next(f Frame) Frame { return l[f.Buf].next }

// Tag returns the tag with which f was put into its queue.
func (l Links) Tag(f Frame) uint32 { return l[f.Buf].tag }

// Push appends f to q with a tag, whose meaning is the caller's.
func (l Links) Push(q *Queue, f Frame, tag uint32) {
	if q.n == 0 {
		q.first = f
	} else {
		l[q.last.Buf].next = f
	}
	l[f.Buf].tag = tag
	q.last = f
	q.n++
}

// Pop removes the first frame of q, which must not be empty, and returns it.
func (l Links) Pop(q *Queue) Frame {
	f := q.first
	q.first = l[f.Buf].next
	q.n--
	return f
}

// Insert inserts f before the frame with index i of q, from 0; i is at most Len. It visits
// i frames.
func (l Links) Insert(q *Queue, i int, f Frame, tag uint32) {
	switch {
	case i >= int(q.n):
		l.Push(q, f, tag)
		return
	case i <= 0:
		l[f.Buf].next = q.first
		q.first = f
	default:
		before := &l[l.at(q, i-1).Buf]
		l[f.Buf].next = before.next
		before.next = f
	}
	l[f.Buf].tag = tag
	q.n++
}

// Remove removes the frame with index i, which must be below Len, and returns it. It visits
// i frames.
func (l Links) Remove(q *Queue, i int) Frame {
	if i <= 0 {
		return l.Pop(q)
	}
	before := l.at(q, i-1)
	f := l[before.Buf].next
	l[before.Buf].next = l[f.Buf].next
	if i == int(q.n)-1 {
		q.last = before
	}
	q.n--
	return f
}

// at returns the frame with index i of q.
func (l Links) at(q *Queue, i int) Frame {
	f := q.first
	for range i {
		f = l[f.Buf].next
	}
	return f
}
