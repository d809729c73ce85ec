// Package framebuf has the packet buffers that network devices and the data plane exchange
// by number, without copying.
//
// A buffer has one owner at a time: the pool, a port (posted for reception or queued for
// transmission), or the data plane. The owner passes it on or puts it back. Nothing here is
// safe for concurrent use: only the goroutine that polls uses it.
package framebuf

import "unsafe"

// Size is the length of a buffer in bytes, in pools for frames of the usual MTU. It has room
// for a frame of 1500 bytes with its Ethernet and virtio headers, a VLAN tag, and an ICMP
// error built in place. It is an odd number of cache lines: with 2048 bytes the headers of
// all frames would share two of the 64 sets of a first-level cache, and a batch would not
// fit.
//
// Buffers for longer frames are several of this size, one after the other, an odd number
// again (Span). Each has the number of its first: a place is found as in any other pool, and
// the numbers between are no buffers'.
const Size = 1984

// Headroom is where a received or built Ethernet frame starts in its buffer:
// the 12 bytes before it carry the virtio-net header (virtio 1.2, 5.1.6), so
// that header and packet headers share the first cache line.
const Headroom = 12

// MaxLen is the longest Ethernet frame that a buffer of Size bytes holds, in bytes.
const MaxLen = Size - Headroom

// maxSpan is the largest number of Size that a buffer has.
const maxSpan = 5

// Span returns how many times Size bytes a buffer has that holds frames of n bytes, at most
// those of the largest buffer.
func Span(n int) int {
	for k := 1; k < maxSpan; k += 2 {
		if n <= k*Size-Headroom {
			return k
		}
	}
	return maxSpan
}

// A Frame is one Ethernet frame, without FCS, in a buffer of a Pool, at Headroom; or, with
// a Len of 0, a large frame in several (see Large).
type Frame struct {
	Buf uint32 // number of the buffer in its pool
	Len uint32 // length of the frame in bytes, at most the pool's MaxLen
}

// A Pool is a fixed set of buffers in one contiguous stretch of memory.
type Pool struct {
	mem  []byte
	phys uint64
	free []uint32 // stack of free buffer numbers: the hottest is reused first
	size uint32   // of a buffer in bytes
	most uint32   // MaxLen
	end  uint32   // above all numbers

	large []Large // by first buffer
	next  []part  // by buffer: the one after it in its chain
	long  longs
}

// NewPool makes a pool of len(mem)/Size buffers over mem, whose bus address is phys (0
// where there are no devices, as in tests).
func NewPool(mem []byte, phys uint64) *Pool { return NewPoolOf(mem, phys, 1) }

// NewPoolOf is NewPool with buffers of span times Size bytes; see Span.
func NewPoolOf(mem []byte, phys uint64, span int) *Pool {
	n := len(mem) / (span * Size)
	end := n * span
	p := &Pool{mem: mem[: end*Size : end*Size], phys: phys, free: make([]uint32, n), size: uint32(span * Size),
		most: uint32(span*Size - Headroom), end: uint32(end), large: make([]Large, end), next: make([]part, end)}
	for i := range p.free {
		p.free[i] = uint32((n - 1 - i) * span)
	}
	return p
}

// Split divides the buffers of p, all of which must be free, among n pools over the same
// memory, one for each worker, which alone uses it. p is not used any more. A buffer may be put
// into another pool than the one that it was taken from: whoever owns it may.
func (p *Pool) Split(n int) []*Pool {
	if len(p.free) != cap(p.free) || len(p.long.free) != cap(p.long.free) || n < 1 {
		panic("frame: a pool that is in use is split")
	}
	pools := make([]*Pool, n)
	for i := range pools {
		q := *p
		q.free, q.long.free = share(p.free, i, n), share(p.long.free, i, n)
		pools[i] = &q
	}
	return pools
}

// share returns part i of n of a list of buffers, with room for all of them.
func share(all []uint32, i, n int) []uint32 {
	return append(make([]uint32, 0, cap(all)), all[i*len(all)/n:(i+1)*len(all)/n]...)
}

// Cap returns the number of buffers, free or not, without long ones.
func (p *Pool) Cap() int { return cap(p.free) }

// Numbers returns what all numbers of buffers are below.
func (p *Pool) Numbers() int { return int(p.end) }

// Size returns the length of every buffer in bytes.
func (p *Pool) Size() uint32 { return p.size }

// MaxLen returns the length of the longest Ethernet frame that a buffer holds, in bytes.
func (p *Pool) MaxLen() int { return int(p.most) }

// Free returns the number of free buffers, without long ones.
func (p *Pool) Free() int { return len(p.free) }

// Get takes a buffer from the pool. It reports false when none is left.
func (p *Pool) Get() (buf uint32, ok bool) {
	n := len(p.free)
	if n == 0 {
		return 0, false
	}
	buf = p.free[n-1]
	p.free = p.free[:n-1]
	return buf, true
}

// Take takes up to k buffers from the pool, the last of them first to be used. They are the
// caller's; the slice is the pool's, and valid until the next buffer is given back.
func (p *Pool) Take(k int) []uint32 {
	at := max(len(p.free)-k, 0)
	bufs := p.free[at:]
	p.free = p.free[:at]
	return bufs
}

// Room returns where the numbers of buffers that are given back may be written, for Give.
func (p *Pool) Room() []uint32 { return p.free[len(p.free):cap(p.free)] }

// Give gives back the first k buffers in Room, none of them long. The caller must own them.
func (p *Pool) Give(k int) { p.free = p.free[:len(p.free)+k] }

// Put gives a buffer back, long or not. The caller must own it. An invalid number is ignored,
// and so is a buffer when all are free.
func (p *Pool) Put(buf uint32) {
	n := len(p.free)
	if n == cap(p.free) || buf >= p.end {
		p.long.put(buf)
		return
	}
	p.free = p.free[:n+1]
	p.free[n] = buf
}

// Buffer returns the whole buffer. It is not for long ones: see Whole.
func (p *Pool) Buffer(buf uint32) []byte {
	return p.span(buf, 0, p.size)
}

// Bytes returns the frame's bytes, from the Ethernet header to its last byte, and none of a
// large frame.
func (p *Pool) Bytes(f Frame) []byte {
	if p.IsLong(f.Buf) {
		return nil
	}
	return p.first(f.Buf, f.Len)
}

// first returns the first n bytes of a frame in a buffer.
func (p *Pool) first(buf, n uint32) []byte {
	if n > p.most {
		panic("frame: longer than its buffer")
	}
	return p.span(buf, Headroom, n)
}

// span returns n bytes of a buffer from offset at on, of which the caller knows that the buffer
// has them. Every packet needs it several times; it is cheaper than slicing mem.
func (p *Pool) span(buf, at, n uint32) []byte {
	const all = 1 << 16 // more than any buffer has, so that the compiler needs no check of its own
	n &= all - 1
	return (*[all]byte)(p.at(buf, at))[:n:n]
}

// at returns the place of an offset in a buffer.
func (p *Pool) at(buf, at uint32) unsafe.Pointer {
	if buf >= p.end {
		panic("frame: a buffer that is not in the pool")
	}
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(p.mem)), uintptr(buf)*Size+uintptr(at))
}

// Start returns the first Headroom bytes of a buffer, which precede the frame. It is not for
// long ones.
func (p *Pool) Start(buf uint32) *[Headroom]byte { return (*[Headroom]byte)(p.at(buf, 0)) }

// Head is the number of bytes that Pool.Head returns: more than the headers of most frames.
const Head = 64

// Head returns the first Head bytes at the frame's place in its buffer. The frame may be
// shorter; the bytes after it are then undefined.
func (p *Pool) Head(f Frame) *[Head]byte {
	return (*[Head]byte)(p.at(f.Buf, Headroom))
}

// Line returns the address of the cache line at offset off of a buffer, for prefetch.Read.
// It is not checked, and is not a reference.
func (p *Pool) Line(buf uint32, off int) uintptr {
	if p.IsLong(buf) {
		return uintptr(unsafe.Pointer(unsafe.SliceData(p.long.mem))) + uintptr(buf-p.long.first)*LongSize + uintptr(off)
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(p.mem))) + uintptr(buf)*Size + uintptr(off)
}

// Phys returns the bus address of the buffer's first byte. It is not for long ones: see Bus.
func (p *Pool) Phys(buf uint32) uint64 { return p.phys + uint64(buf)*Size }
