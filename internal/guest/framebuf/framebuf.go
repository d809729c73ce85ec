// Package framebuf has the packet buffers that network devices and the data plane exchange
// by number, without copying.
//
// A buffer has one owner at a time: the pool, a port (posted for reception or queued for
// transmission), or the data plane. The owner passes it on or puts it back. Nothing here is
// safe for concurrent use: only the goroutine that polls uses it.
package framebuf

import "unsafe"

// Size is the length of every buffer in bytes. It has room for a frame of the largest
// supported MTU (1500) with its Ethernet and virtio headers, a VLAN tag, and an ICMP error
// built in place. It is an odd number of cache lines: with 2048 bytes the headers of all
// frames would share two of the 64 sets of a first-level cache, and a batch would not fit.
const Size = 1984

// Headroom is where a received or built Ethernet frame starts in its buffer:
// the 12 bytes before it carry the virtio-net header (virtio 1.2, 5.1.6), so
// that header and packet headers share the first cache line.
const Headroom = 12

// MaxLen is the longest Ethernet frame a buffer holds, in bytes.
const MaxLen = Size - Headroom

// A Frame is one Ethernet frame, without FCS, in a buffer of a Pool, at Headroom; or, with
// a Len of 0, a large frame in several (see Large).
type Frame struct {
	Buf uint32 // number of the buffer in its pool
	Len uint32 // length of the frame in bytes, at most MaxLen
}

// A Pool is a fixed set of buffers in one contiguous stretch of memory.
type Pool struct {
	mem  []byte
	phys uint64
	free []uint32 // stack of free buffer numbers: the hottest is reused first

	large []Large // by first buffer
	next  []part  // by buffer: the one after it in its chain
}

// NewPool makes a pool of len(mem)/Size buffers over mem, whose bus address is phys (0
// where there are no devices, as in tests).
func NewPool(mem []byte, phys uint64) *Pool {
	n := len(mem) / Size
	p := &Pool{mem: mem[: n*Size : n*Size], phys: phys, free: make([]uint32, n), large: make([]Large, n), next: make([]part, n)}
	for i := range p.free {
		p.free[i] = uint32(n - 1 - i)
	}
	return p
}

// Cap returns the number of buffers, free or not.
func (p *Pool) Cap() int { return cap(p.free) }

// Free returns the number of free buffers.
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

// Put gives a buffer back. The caller must own it. An invalid number is ignored, and so is
// a buffer when all are free.
func (p *Pool) Put(buf uint32) {
	n := len(p.free)
	if n == cap(p.free) || buf >= uint32(cap(p.free)) {
		return
	}
	p.free = p.free[:n+1]
	p.free[n] = buf
}

// Buffer returns the whole buffer, Size bytes.
func (p *Pool) Buffer(buf uint32) []byte {
	o := int(buf) * Size
	return p.mem[o : o+Size : o+Size]
}

// Bytes returns the frame's bytes, from the Ethernet header to its last byte.
func (p *Pool) Bytes(f Frame) []byte {
	return p.place(f.Buf)[:f.Len]
}

// Head is the number of bytes that Pool.Head returns: more than the headers of most frames.
const Head = 64

// Head returns the first Head bytes at the frame's place in its buffer. The frame may be
// shorter; the bytes after it are then undefined.
func (p *Pool) Head(f Frame) *[Head]byte {
	return (*[Head]byte)(p.place(f.Buf)[:])
}

// place returns the place of the frame in a buffer. Every packet needs it several times; it
// is cheaper than slicing mem.
func (p *Pool) place(buf uint32) *[MaxLen]byte {
	if buf >= uint32(cap(p.free)) {
		panic("frame: a buffer that is not in the pool")
	}
	return (*[MaxLen]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(p.mem)), uintptr(buf)*Size+Headroom))
}

// Line returns the address of the cache line at offset off of a buffer, for prefetch.Read.
// It is not checked, and is not a reference.
func (p *Pool) Line(buf uint32, off int) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p.mem))) + uintptr(buf)*Size + uintptr(off)
}

// Phys returns the bus address of the buffer's first byte.
func (p *Pool) Phys(buf uint32) uint64 { return p.phys + uint64(buf)*Size }
