package virtio

import (
	"encoding/binary"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/prefetch"
)

// What a queue does for a frame, many at a time: the functions here are queue.post and
// queue.take for the frames that are most of the traffic, with the queue's state in variables
// of theirs. They stop at the first frame of another kind and leave it, unchanged, to those.

// ordinary moves received frames to dst while each lies in one ordinary buffer, as long as a
// frame can be, with a header that says nothing. It returns their number and their length.
// dst has room for as many as are pending at most.
func (n *Net) ordinary(dst []framebuf.Frame) (k int, bytes uint64) {
	q, pool, used := n.rx, n.pool, n.rx.used
	idx, nfree := q.usedIdx, q.nfree
	const least = netHeader + minFrame
	span, one := n.room-least, uint16(0)
	if n.feat&featMRGRxBuf != 0 {
		one = 0xffff
	}
	if len(used) == 0 {
		return 0, 0 // which tells the compiler that no index lies outside
	}
	for ; k < len(dst); k++ {
		e := used[int(idx)&(len(used)-1)] // read once: the device may write it again
		b := q.buf[e.id&(maxQueue-1)]
		if e.id >= maxQueue || pool.IsLong(b) || e.len-least > span {
			break // b is noBuf, too
		}
		h := pool.Start(b)
		if binary.LittleEndian.Uint16(h[hdrFlags:])&(needsCsum|0xff<<8)|(binary.LittleEndian.Uint16(h[hdrBuffers:])^1)&one != 0 {
			break
		}
		q.buf[e.id&(maxQueue-1)] = noBuf
		q.free[nfree&(maxQueue-1)] = uint16(e.id)
		idx++
		nfree++
		dst[k] = framebuf.Frame{Buf: b, Len: e.len - netHeader}
		bytes += uint64(e.len - netHeader)
	}
	q.usedIdx, q.nfree = idx, nfree
	return k, bytes
}

// postEmpty posts buffers for reception, the last of bufs first: n bytes from base on in the
// first buffer, and as far from the others. There must be room for all of them.
func (q *queue) postEmpty(bufs []uint32, base uint64, n uint32) {
	ring, avail := q.desc, q.avail[:len(q.desc)]
	nfree, next := q.nfree, q.next
	if len(ring) == 0 {
		return
	}
	for i := len(bufs) - 1; i >= 0; i-- {
		nfree--
		id := q.free[nfree&(maxQueue-1)]
		ring[int(id)&(len(ring)-1)] = desc{base + uint64(bufs[i])*framebuf.Size, n, descWrite, 0}
		avail[int(next)&(len(ring)-1)] = id
		next++
		q.buf[id&(maxQueue-1)] = bufs[i]
	}
	q.nfree, q.next = nfree, next
}

// postOrdinary posts the frames of src that precede the first large or empty one, as many as
// there is room for, and returns their number and their length.
func (n *Net) postOrdinary(src []framebuf.Frame) (k int, bytes uint64) {
	q, pool := n.tx, n.pool
	ring, avail := q.desc, q.avail[:len(q.desc)]
	nfree, next := q.nfree, q.next
	if len(ring) == 0 {
		return 0, 0
	}
	const start = framebuf.Headroom - netHeader
	src = src[:min(len(src), nfree)]
	for ; k < len(src); k++ {
		f := src[k]
		if f.IsLarge() {
			break
		}
		*(*[netHeader]byte)(pool.Start(f.Buf)[start:]) = [netHeader]byte{}
		nfree--
		id := q.free[nfree&(maxQueue-1)]
		ring[int(id)&(len(ring)-1)] = desc{pool.Phys(f.Buf) + start, f.Len + netHeader, 0, 0}
		avail[int(next)&(len(ring)-1)] = id
		next++
		q.buf[id&(maxQueue-1)] = f.Buf
		bytes += uint64(f.Len)
	}
	q.nfree, q.next = nfree, next
	return k, bytes
}

// reclaimOrdinary takes back buffers that the device has sent, k at most, while each is a
// request of its own and no long one. It returns their number.
func (n *Net) reclaimOrdinary(k int) (done int) {
	q, pool, used := n.tx, n.pool, n.tx.used
	idx, nfree := q.usedIdx, q.nfree
	bufs := pool.Room()
	bufs = bufs[:min(len(bufs), k)]
	if len(used) == 0 {
		return 0
	}
	for ; done < len(bufs); done++ {
		id := used[int(idx)&(len(used)-1)].id
		b := q.buf[id&(maxQueue-1)]
		if id >= maxQueue || pool.IsLong(b) {
			break // b is noBuf, or chained, too
		}
		q.buf[id&(maxQueue-1)] = noBuf
		q.free[nfree&(maxQueue-1)] = uint16(id)
		idx++
		nfree++
		bufs[done] = b
	}
	q.usedIdx, q.nfree = idx, nfree
	pool.Give(done)
	return done
}

// fetch prefetches the used entries, the first two cache lines and the descriptors of the next
// k frames: the device has written them on another processor (BenchmarkAcross).
func (n *Net) fetch(k int) {
	var l [2]prefetch.Lines
	k = min(k, prefetch.Max)
	n.rx.fetch(k)
	n.lines(k, &l)
	prefetch.ReadTwo(l[0][:k])
	prefetch.Write(l[1][:(k+3)/4])
}

// lines sets l to the addresses of the next k frames (at most prefetch.Max) and of one in
// four of their descriptors. What the device has written there ordinary and take will check.
func (n *Net) lines(k int, l *[2]prefetch.Lines) {
	q, used := n.rx, n.rx.used
	if len(used) == 0 {
		return
	}
	for i := range k {
		id := used[int(q.usedIdx+uint16(i))&(len(used)-1)].id
		l[0][i&(prefetch.Max-1)] = n.pool.Line(q.buf[id&(maxQueue-1)], 0)
	}
	for i := 0; i < k; i += 4 { // descriptors are mostly used in sequence, and four share a line
		id := q.used[(q.usedIdx+uint16(i))&q.mask].id
		l[1][i/4&(prefetch.Max-1)] = uintptr(unsafe.Pointer(&q.desc[uint16(id)&q.mask])) // it will be posted again
	}
}
