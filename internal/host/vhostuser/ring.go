package vhostuser

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/thurward/thurward/internal/guest/prefetch"
)

// Descriptor and ring flags (virtio 1.2, 2.7.5 to 2.7.8).
const (
	descNext         = 1
	descWrite        = 2
	descIndirect     = 4
	availNoInterrupt = 1
	usedNoNotify     = 1
)

// MaxRing is the largest ring that virtio allows.
const MaxRing = 32768

type desc struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

type usedElem struct{ id, len uint32 }

// A Ring is a split virtqueue as the device sees it. One goroutine uses it, only
// between the Handler's Start and Stop, and within Mem.Guard if the process must
// survive that the monitor truncates the memory. Once the ring is to stop, methods
// that could be repeated for ever fail with os.ErrDeadlineExceeded.
type Ring struct {
	Index int // number of the queue
	Mem   *Memory
	tlb   *iotlb // nil: addresses are the guest's physical ones

	desc  []desc
	avail []uint16
	used  []usedElem

	availHead  *uint32 // flags | idx<<16, written by the guest
	usedHead   *uint32 // flags | idx<<16, written by the device
	usedEvent  *uint16 // used index at which the guest wants an interrupt
	availEvent *uint16 // available index at which the device wants a kick

	next      uint16 // next available entry to take
	known     uint16 // the guest's index at the last Pending
	usedIdx   uint16 // next used entry to write
	published uint16 // used index at the last Publish
	mask      uint16
	eventIdx  bool
	noKick    uint32 // usedNoNotify or 0

	kick, call *os.File
	signal     syscall.RawConn // call's
	fence      uint32
	over       atomic.Bool // the ring is to stop
	parts      [3]extent   // of descriptors, available and used ring
}

// A Chain is one request of the guest: buffers that the device reads, then buffers
// that it writes. They are in the guest's memory, which the guest may change at any
// time: what is checked must be copied before.
type Chain struct {
	Head  uint16
	Read  [][]byte
	Write [][]byte
}

// newRing makes a ring of n entries in shared memory. The addresses are the
// monitor's.
func newRing(mem *Memory, n uint32, descAddr, usedAddr, availAddr uint64, base uint16, eventIdx bool) (*Ring, error) {
	if n == 0 || n > MaxRing || n&(n-1) != 0 {
		return nil, fmt.Errorf("vhost-user: a ring of %d entries", n)
	}
	d, err1 := mem.user(descAddr, 16*int(n))
	a, err2 := mem.user(availAddr, 4+2*int(n)+2)
	u, err3 := mem.user(usedAddr, 4+8*int(n)+2)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if descAddr%16 != 0 || availAddr%4 != 0 || usedAddr%4 != 0 {
		return nil, errors.New("vhost-user: a ring is not aligned")
	}
	r := &Ring{Mem: mem, mask: uint16(n - 1), eventIdx: eventIdx, next: base, known: base}
	r.parts = [3]extent{mem.extent(descAddr, len(d)), mem.extent(availAddr, len(a)), mem.extent(usedAddr, len(u))}
	if err := r.apart(r); err != nil {
		return nil, err
	}
	r.desc = unsafe.Slice((*desc)(unsafe.Pointer(&d[0])), n)
	r.availHead = (*uint32)(unsafe.Pointer(&a[0]))
	r.avail = unsafe.Slice((*uint16)(unsafe.Pointer(&a[4])), n)
	r.usedEvent = (*uint16)(unsafe.Pointer(&a[4+2*int(n)]))
	r.usedHead = (*uint32)(unsafe.Pointer(&u[0]))
	r.used = unsafe.Slice((*usedElem)(unsafe.Pointer(&u[4])), n)
	r.availEvent = (*uint16)(unsafe.Pointer(&u[4+8*int(n)]))
	r.usedIdx = uint16(atomic.LoadUint32(r.usedHead) >> 16)
	r.published = r.usedIdx
	return r, nil
}

// apart returns an error if parts of two rings overlap: what the device writes would
// then be read as a request of the guest, without end. r and o may be the same ring.
func (r *Ring) apart(o *Ring) error {
	for i, a := range r.parts {
		for j, b := range o.parts {
			if (r != o || i != j) && a.overlaps(b) {
				return errors.New("vhost-user: rings overlap")
			}
		}
	}
	return nil
}

// end makes methods of the ring fail from now on, also a Wait that has begun.
func (r *Ring) end() {
	r.over.Store(true)
	r.kick.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // start has set one before
}

// stopped returns the error of Wait once the ring is to stop.
func (r *Ring) stopped() error {
	if r.over.Load() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// Size returns the number of entries.
func (r *Ring) Size() int { return len(r.desc) }

// Pending returns how many chains the guest has made available. More than the ring's
// size is an error: the guest violates the specification. If the ring is to stop the
// error is os.ErrDeadlineExceeded; otherwise a guest that always has a chain pending
// could prevent it.
func (r *Ring) Pending() (int, error) {
	if err := r.stopped(); err != nil {
		return 0, err
	}
	r.known = uint16(atomic.LoadUint32(r.availHead) >> 16)
	n := r.known - r.next
	if int(n) > len(r.desc) {
		return 0, fmt.Errorf("vhost-user: ring %d: the guest's index is %d ahead of a ring of %d",
			r.Index, n, len(r.desc))
	}
	return int(n), nil
}

// Prefetch prefetches the descriptors of the next k chains, and the first two cache
// lines of the first buffer of each, which the guest has written on another
// processor. k is at most the result of Pending.
func (r *Ring) Prefetch(k int) {
	var l prefetch.Lines
	k = min(k, len(l)/2)
	for i := range k {
		d := &r.desc[r.avail[(r.next+uint16(i))&r.mask]&r.mask] // Pop will check it
		l[i] = uintptr(unsafe.Pointer(d))
	}
	prefetch.Read(l[:k])
	n, write := 0, false
	for i := range k {
		d := r.desc[r.avail[(r.next+uint16(i))&r.mask]&r.mask]
		var b []byte
		var ok bool
		if r.tlb == nil {
			b, ok = r.Mem.Slice(d.addr, int(d.len))
		} else {
			b, ok = r.tlb.seen(r.Mem, d.addr, int(d.len))
		}
		if ok && len(b) > 0 {
			a := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
			l[n&(prefetch.Max-1)], l[(n+1)&(prefetch.Max-1)] = a, a+64
			n += 2
			write = d.flags&descWrite != 0 // the same for all: a device's queue has one direction
		}
	}
	if write {
		prefetch.Write(l[:n])
	} else {
		prefetch.Read(l[:n])
	}
}

// Pop takes the next chain into c, whose slices it reuses; ok is false if there is
// none. After an error the ring must not be used any more.
func (r *Ring) Pop(c *Chain) (ok bool, err error) {
	if err := r.stopped(); err != nil {
		return false, err
	}
	if r.next == r.known { // reading the guest's index costs a cache miss
		if n, err := r.Pending(); n == 0 || err != nil {
			return false, err
		}
	}
	c.Read, c.Write = c.Read[:0], c.Write[:0]
	c.Head = r.avail[r.next&r.mask]
	i := c.Head
	for range r.desc { // a chain visits no descriptor twice
		if int(i) >= len(r.desc) {
			return false, fmt.Errorf("vhost-user: ring %d: descriptor %d of %d", r.Index, i, len(r.desc))
		}
		d := r.desc[i] // a copy: the guest may change it meanwhile
		if d.flags&descIndirect != 0 {
			return false, fmt.Errorf("vhost-user: ring %d: an indirect descriptor, which was not negotiated", r.Index)
		}
		var b []byte
		plain := false
		if r.tlb == nil {
			b, plain = r.Mem.Slice(d.addr, int(d.len))
		}
		if !plain {
			if b, err = r.buffer(d.addr, int(d.len), d.flags&descWrite != 0); err != nil {
				return false, err
			}
		}
		switch {
		case d.flags&descWrite != 0:
			c.Write = append(c.Write, b)
		case len(c.Write) > 0:
			return false, fmt.Errorf("vhost-user: ring %d: a readable buffer behind a writable one", r.Index)
		default:
			c.Read = append(c.Read, b)
		}
		if d.flags&descNext == 0 {
			r.next++
			return true, nil
		}
		i = d.next
	}
	return false, fmt.Errorf("vhost-user: ring %d: a chain without end", r.Index)
}

// Push returns a chain to the guest; n is how many bytes the device has written to
// it. The guest sees it after the next Publish.
func (r *Ring) Push(head uint16, n int) {
	r.used[r.usedIdx&r.mask] = usedElem{uint32(head), uint32(n)}
	r.usedIdx++
}

// Publish makes pushed chains visible to the guest, and interrupts it if it wants an
// interrupt.
func (r *Ring) Publish() error {
	if r.usedIdx == r.published {
		return nil
	}
	old := r.published
	r.published = r.usedIdx
	// The store is a full barrier: the guest's wish is read after it.
	atomic.StoreUint32(r.usedHead, uint32(r.usedIdx)<<16|r.noKick)
	if r.eventIdx {
		if ev := *r.usedEvent; r.usedIdx-ev-1 >= r.usedIdx-old {
			return nil
		}
	} else if atomic.LoadUint32(r.availHead)&availNoInterrupt != 0 {
		return nil
	}
	return r.interrupt()
}

// interrupt adds 1 to the guest's eventfd. It does not wait: if the counter is full
// an interrupt is pending.
func (r *Ring) interrupt() error {
	if r.signal == nil {
		return nil
	}
	var failed error
	err := r.signal.Control(func(fd uintptr) { failed = addOne(int(fd)) })
	return errors.Join(err, failed)
}

// Kick makes a Wait return, as the guest's kick would.
func (r *Ring) Kick() error {
	c, err := r.kick.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = c.Control(func(fd uintptr) { failed = addOne(int(fd)) })
	return errors.Join(err, failed)
}

// addOne adds 1 to an eventfd if that does not block. The other side shares the
// descriptor's flags and may have made it blocking, so that it is polled first.
func addOne(fd int) error {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if n, err := unix.Poll(p, 0); n == 0 || err != nil {
		return nil
	}
	_, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	return err
}

// SuppressKicks tells the guest that kicks are not needed: the device polls.
func (r *Ring) SuppressKicks() {
	if r.eventIdx {
		*r.availEvent = r.next - 1
		return
	}
	r.noKick = usedNoNotify
	atomic.StoreUint32(r.usedHead, uint32(r.published)<<16|r.noKick)
}

// RequestKick asks for a kick at the next chain, and reports whether a chain is
// pending already; then no kick may come.
func (r *Ring) RequestKick() (bool, error) {
	if r.eventIdx {
		*r.availEvent = r.next
		atomic.AddUint32(&r.fence, 1) // full barrier: see Publish
	} else {
		r.noKick = 0
		atomic.StoreUint32(r.usedHead, uint32(r.published)<<16)
	}
	n, err := r.Pending()
	return n > 0, err
}

// Wait blocks until the guest kicks. If the ring is to stop it returns
// os.ErrDeadlineExceeded.
func (r *Ring) Wait() error {
	if err := r.stopped(); err != nil {
		return err
	}
	var b [8]byte
	_, err := r.kick.Read(b[:])
	return err
}
