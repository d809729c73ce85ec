package virtio

import (
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Offload of checksums and of TCP segmentation (virtio 1.2, 5.1.6.2 and 5.1.6.4; ADR 0039).
// A frame from the device may have an unfinished checksum: it is finished on arrival, so
// that nothing behind the driver sees one, except in large frames, whose payload is not
// touched. A large frame comes in as many buffers of the receive queue as it needs, and is
// sent as a request of as many descriptors.

// Burst is how many buffers Receive takes at most when there are large frames among
// them. An egress queue that HasRoom for so many takes all of them.
const Burst = 128

// minSegment is the smallest segment in bytes that a large frame may be cut into; Linux
// sends none with less. A smaller one would make many segments of few bytes.
const minSegment = 48

// leastQueue is how many descriptors large frames need: a device with less room drops them.
const leastQueue = 2 * framebuf.MaxParts

// offloads returns which offloads are wanted of those that a device offers. Large frames
// from the device need its buffers to be mergeable: a descriptor for 64 KB of each frame
// would need as much memory for a small one.
func offloads(offered uint64) (want uint64) {
	if offered&featCsum != 0 {
		want |= featCsum | featHostTSO
	}
	if offered&featGuestCsm != 0 {
		want |= featGuestCsm
		if offered&featMRGRxBuf != 0 {
			want |= featGuestTSO
		}
	}
	return want
}

// startOffloads checks that the queues have room for large frames, where these were
// negotiated.
func (n *Net) startOffloads() error {
	n.takes, n.sends = n.feat&featGuestTSO != 0, n.feat&featHostTSO != 0
	for _, q := range [...]struct {
		on bool
		q  *queue
	}{{n.takes, n.rx}, {n.sends, n.tx}} {
		if q.on && q.q.size < leastQueue {
			return errors.New("virtio: queue " + strconv.Itoa(int(q.q.number)) + " has " + strconv.Itoa(int(q.q.size)) +
				" entries, and large segments need " + strconv.Itoa(leastQueue) +
				" (give the device a longer one, or the boot argument thurward.offload=none)")
		}
	}
	return nil
}

// A chain is the buffers of a received frame, and how many of its bytes are in each.
type chain struct {
	buf, n [framebuf.MaxParts]uint32
	k      int
}

// offloaded handles a received frame whose header says more than that the frame lies in one
// buffer with all checksums complete: b is its first buffer, in which the device wrote ln
// bytes, and avail the number of used entries from b's on. It returns the frame, how many
// further entries it has taken, and the frame's length, which is 0 if the frame was dropped
// and counted, or the queue stopped.
func (n *Net) offloaded(b, ln uint32, avail int) (f framebuf.Frame, further int, total uint32) {
	c := chain{k: 1}
	c.buf[0], c.n[0] = b, ln-netHeader
	h := (*[netHeader]byte)(n.pool.Whole(b)[framebuf.Headroom-netHeader:])
	buffers := 1
	if n.feat&featMRGRxBuf != 0 {
		buffers = int(binary.LittleEndian.Uint16(h[hdrBuffers:]))
	}
	ok := buffers == 1
	if n.takes && buffers > 1 {
		further, ok = n.collect(&c, buffers, avail)
	}
	if ok {
		f, total = n.accept(h, &c)
	}
	if total == 0 {
		if n.rx.stopped == "" {
			n.c.RxMalformed++
		}
		for _, b := range c.buf[:c.k] {
			n.pool.Put(b)
		}
	} else if !f.IsLarge() && n.pool.IsLong(f.Buf) {
		f, total = n.shorten(f)
	}
	return f, further, total
}

// collect takes the further buffers of a frame that lies in so many. It returns how many it
// has taken, and false when there are too many for a frame; a device that has not used so
// many, or writes more than a buffer holds, is stopped.
func (n *Net) collect(c *chain, buffers, avail int) (further int, ok bool) {
	q := n.rx
	if buffers > avail {
		q.badLength++
		q.stop("the device says that a frame has more buffers than it used")
		return 0, false
	}
	for further = 0; further < buffers-1; further++ {
		b, ln := q.take()
		if b != noBuf && n.pool.IsLong(b) {
			n.long.posted--
		}
		switch {
		case b == noBuf:
			q.badUsed()
			return further, false
		case ln == 0 || ln > uint32(len(n.pool.Whole(b))):
			q.badLength++
			q.stop("the device says it wrote more or less than a buffer holds")
		case c.k < len(c.buf):
			c.buf[c.k], c.n[c.k] = b, ln
			c.k++
			continue
		}
		n.pool.Put(b)
		if q.stopped != "" {
			return further + 1, false
		}
	}
	return further, buffers <= len(c.buf)
}

// accept checks the header of the frame in c and returns the frame and its length, or a
// length of 0. An unfinished checksum of an ordinary frame is finished.
func (n *Net) accept(h *[netHeader]byte, c *chain) (f framebuf.Frame, total uint32) {
	for _, k := range c.n[:c.k] {
		total += k
	}
	start, offset := uint32(binary.LittleEndian.Uint16(h[hdrStart:])), uint32(binary.LittleEndian.Uint16(h[hdrOffset:]))
	// Without GUEST_CSUM no device sets it (those of Firecracker up to 1.8 do).
	partial := h[hdrFlags]&needsCsum != 0
	if partial && (n.feat&featGuestCsm == 0 || start+offset+2 > c.n[0]) || total < minFrame || total > framebuf.MaxTotal {
		return f, 0
	}
	switch h[hdrGSO] {
	case gsoNone:
		if c.k > 1 || int(total) > n.pool.MaxLen() {
			return f, 0 // longer than the MTU
		}
		f = framebuf.Frame{Buf: c.buf[0], Len: total}
		if partial {
			n.c.RxCompleted++
			packet.FinishChecksum(n.pool.Whole(f.Buf)[framebuf.Headroom:][:total], int(start), int(offset))
		}
	case gsoTCPv4:
		size := binary.LittleEndian.Uint16(h[hdrSize:])
		if !n.takes || !partial || offset != tcpChecksum || size < minSegment ||
			uint32(binary.LittleEndian.Uint16(h[hdrLen:])) > total {
			return f, 0
		}
		n.c.RxLarge++
		f = n.pool.Chain(c.buf[:c.k], c.n[:c.k], framebuf.Large{First: c.n[0], Size: size, Transport: uint16(start)})
	default:
		return f, 0
	}
	return f, total
}

// postAll posts the first frames of src, ordinary and large ones, as many as there is
// room for, and returns their number and their length.
func (n *Net) postAll(src []framebuf.Frame) (k int, bytes uint64) {
	for {
		m, total := n.postOrdinary(src[k:])
		k, bytes = k+m, bytes+total
		if k == len(src) || n.tx.room() == 0 {
			return k, bytes
		}
		f := src[k] // large, or empty
		if l := n.pool.Large(f); !n.sends || l.Parts == 0 {
			n.post(f)
		} else if n.tx.room() < int(l.Parts) {
			return k, bytes
		} else {
			bytes += uint64(l.Total)
			n.postLarge(f, l)
		}
		k++
	}
}

// post posts an ordinary frame for transmission.
func (n *Net) post(f framebuf.Frame) {
	const start = framebuf.Headroom - netHeader
	*(*[netHeader]byte)(n.pool.Start(f.Buf)[start:]) = [netHeader]byte{}
	n.tx.post(n.pool.Phys(f.Buf)+start, f.Len+netHeader, 0, f.Buf)
}

// postLarge posts a large frame.
func (n *Net) postLarge(f framebuf.Frame, l *framebuf.Large) {
	const start = framebuf.Headroom - netHeader
	h := (*[netHeader]byte)(n.pool.Whole(f.Buf)[start:])
	h[hdrFlags], h[hdrGSO] = needsCsum, gsoTCPv4
	binary.LittleEndian.PutUint16(h[hdrLen:], l.Headers)
	binary.LittleEndian.PutUint16(h[hdrSize:], l.Size)
	binary.LittleEndian.PutUint16(h[hdrStart:], l.Transport)
	binary.LittleEndian.PutUint16(h[hdrOffset:], tcpChecksum)
	binary.LittleEndian.PutUint16(h[hdrBuffers:], 0)
	n.c.TxLarge++
	addr, ln := n.pool.Bus(f.Buf)+start, l.First+netHeader
	if l.Parts == 1 {
		n.tx.post(addr, ln, 0, f.Buf)
	} else {
		id := n.tx.postFirst(addr, ln, f.Buf)
		buf := f.Buf
		for range l.Parts - 1 {
			buf, ln = n.pool.Next(buf)
			id = n.tx.postNext(id, n.pool.Bus(buf), ln, buf)
		}
	}
	n.pool.Sent(f)
}

// reclaimRest takes back the buffers after the first one of a request whose descriptor id
// was taken.
func (n *Net) reclaimRest(id uint16) {
	for {
		buf, next, ok := n.tx.takeRest(id)
		if !ok {
			return
		}
		n.pool.Put(buf)
		id = next
	}
}
