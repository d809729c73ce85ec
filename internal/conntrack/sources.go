package conntrack

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/packet"
)

// Sources bounds what one source takes of a flow table: how many flows it has
// at once, and how many it begins in a second. It is a table of fixed size with
// a bounded search, so that a flood from any number of sources costs neither
// memory nor time.
type Sources struct {
	slots []origin
	mask  uint64
	key   uint64
	limit uint32 // flows at once; 0: any number
	every int64  // nanoseconds for one new flow; 0: no time
	// Untracked counts flows of sources for which there was no slot: they were
	// let in, as the table itself still bounds them.
	Untracked uint64
}

// An origin is one source: 16 bytes. It may be forgotten when it has no flows
// and its due time has passed.
type origin struct {
	addr  packet.Addr
	flows uint32
	due   int64 // when a source that begins flows evenly would begin the next one
}

// originWays is how many slots an address may be in: one bucket of each of its
// two hashes.
const originWays = 8

// NewSources makes limits for a table of n flows: how many flows a source may
// have, and how many it may begin in a second; 0 is no limit. Without any limit
// it returns nil, which admits everything. A nil alloc means the Go heap.
func NewSources(n int, flows, rate uint32, key uint64, alloc Alloc) *Sources {
	if flows == 0 && rate == 0 {
		return nil
	}
	if alloc == nil {
		alloc = func(n int, _ bool) []byte { return make([]byte, n) }
	}
	s := &Sources{limit: flows, key: mix(key) | 1}
	if rate != 0 {
		s.every = 1e9 / int64(rate)
	}
	b := originBuckets(n)
	s.slots = carve[origin](alloc, b*originWays, true)
	s.mask = uint64(b - 1)
	return s
}

// SourcesBytes returns the memory that limits for a table of n flows take.
func SourcesBytes(n int, flows, rate uint32) int {
	if flows == 0 && rate == 0 {
		return 0
	}
	return originBuckets(n) * originWays * int(unsafe.Sizeof(origin{}))
}

// originBuckets: no more than n sources have flows; their slots are at most
// half full.
func originBuckets(n int) int {
	b := 1
	for b*originWays < 2*n {
		b <<= 1
	}
	return b
}

// Admit reports whether a source may begin a flow now, and notes that it does.
// A second's worth may begin at once.
func (s *Sources) Admit(a packet.Addr, now int64) bool {
	if s == nil {
		return true
	}
	o := s.find(a, now, true)
	if o == nil {
		s.Untracked++
		return true
	}
	if s.limit != 0 && o.flows >= s.limit {
		return false
	}
	if s.every != 0 {
		due := max(o.due, now)
		if due-now > 1e9-s.every {
			return false
		}
		o.due = due + s.every
	}
	o.flows++
	return true
}

// Release notes that a source has a flow less.
func (s *Sources) Release(a packet.Addr) {
	if s == nil {
		return
	}
	if o := s.find(a, 0, false); o != nil && o.flows > 0 {
		o.flows--
	}
}

// Keep notes that a source has a flow that Release was told of too early.
func (s *Sources) Keep(a packet.Addr, now int64) {
	if s == nil {
		return
	}
	if o := s.find(a, now, true); o != nil {
		o.flows++
	}
}

// Flows returns how many flows a source has.
func (s *Sources) Flows(a packet.Addr) uint32 {
	if s != nil {
		if o := s.find(a, 0, false); o != nil {
			return o.flows
		}
	}
	return 0
}

// find returns the slot of an address, or nil. With take it gives it one, if
// need be that of a source that may be forgotten.
func (s *Sources) find(a packet.Addr, now int64, take bool) *origin {
	hi, lo := bits.Mul64((uint64(a)+1)*0x9e3779b97f4a7c15^s.key, s.key)
	h := hi ^ lo
	var free *origin
	most := 0
	for _, b := range [...]uint64{h & s.mask, h >> 32 & s.mask} {
		bucket := s.slots[b*originWays:][:originWays]
		room, last := 0, 0
		for i := range bucket {
			o := &bucket[i]
			if o.addr == a {
				return o
			}
			if o.flows == 0 && (o.addr == 0 || o.due <= now) {
				room++
				last = i
			}
		}
		if room > most { // the emptier bucket, so that none runs over
			most, free = room, &bucket[last]
		}
	}
	if !take || free == nil {
		return nil
	}
	*free = origin{addr: a}
	return free
}
