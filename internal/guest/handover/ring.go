// Package handover passes packets from one worker to another, and what workers tell each
// other: a ring with one producer and one consumer for each ordered pair of workers.
package handover

import (
	"sync/atomic"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A Kind is what an Item is. Zero is invalid.
type Kind uint8

// The kinds.
const (
	_         Kind = iota
	Frame          // received by Port, and not looked at by anybody
	Piece          // a fragment of a datagram that is complete: the next one follows
	Buffer         // a free buffer, in return for one that came with a frame
	Ask            // a neighbour's link-layer address is wanted on Port
	Neighbour      // the link-layer address of Addr on Port is MAC, until At
	Lost           // the neighbour Addr on Port does not answer any more
	Relieve        // Frame, for whose source Addr the flow Flow is to give way; then it comes back
	Relieved       // Frame come back; with a Flow of 1 none gives way
	Borrow         // Frame, for which a port is wanted; then it comes back, behind Ports
	Ports          // external ports that are the receiver's from now on
)

// Carries reports whether a frame crosses with an item of the kind.
func (k Kind) Carries() bool {
	return k == Frame || k == Piece || k == Relieve || k == Relieved || k == Borrow
}

// An Item is what crosses. With a frame goes the ownership of its buffers.
type Item struct {
	Frame framebuf.Frame
	At    int64 // monotonic nanoseconds
	Addr  packet.Addr
	Flow  uint32
	Kind  Kind
	Port  uint8
	MAC   [6]byte
}

// A Ring is a bounded queue from one worker, which alone calls Put, Room and Publish, to
// another, which alone calls Take and Len. Neither ever waits.
type Ring struct {
	item []Item
	mask uint64
	_    [32]byte

	// The producer's.
	put  uint64 // items put, published or not
	free uint64 // how far the consumer was when last asked
	_    [48]byte
	head atomic.Uint64 // items published
	_    [56]byte

	// The consumer's.
	seen uint64 // items published when last asked
	_    [56]byte
	tail atomic.Uint64 // items taken
	_    [56]byte
}

// New makes a ring for n items, a power of two.
func New(n int) *Ring {
	if n <= 0 || n&(n-1) != 0 {
		panic("handover: the size of a ring is not a power of two")
	}
	return &Ring{item: make([]Item, n), mask: uint64(n - 1)}
}

// Bytes returns the memory of a ring for n items in bytes.
func Bytes(n int) int { return n * int(unsafe.Sizeof(Item{})) }

// Room reports whether n more items may be put.
func (r *Ring) Room(n int) bool {
	if r.put+uint64(n)-r.free <= uint64(len(r.item)) {
		return true
	}
	r.free = r.tail.Load()
	return r.put+uint64(n)-r.free <= uint64(len(r.item))
}

// Put appends an item, which the consumer sees after Publish. It reports false, and has
// done nothing, when the ring is full.
func (r *Ring) Put(i *Item) bool {
	if !r.Room(1) {
		return false
	}
	r.item[r.put&r.mask] = *i
	r.put++
	return true
}

// Publish shows the consumer all items that were put, and reports whether any is new.
func (r *Ring) Publish() bool {
	if r.head.Load() == r.put {
		return false
	}
	r.head.Store(r.put)
	return true
}

// Take moves up to len(dst) items to dst, in order, and returns their number.
func (r *Ring) Take(dst []Item) int {
	t := r.tail.Load()
	if r.seen == t {
		if r.seen = r.head.Load(); r.seen == t {
			return 0
		}
	}
	n := min(len(dst), int(r.seen-t))
	at := int(t & r.mask)
	k := copy(dst[:n], r.item[at:])
	copy(dst[k:n], r.item)
	r.tail.Store(t + uint64(n))
	return n
}

// Empty reports whether no item is published and not taken.
func (r *Ring) Empty() bool { return r.head.Load() == r.tail.Load() }
