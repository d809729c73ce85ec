package conntrack

import (
	"math/bits"
	"sync"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Sources limits what one source takes of a flow table, or of those of several workers
// together: its concurrent flows, and new flows per second. It is a table of fixed size with
// a bounded search, so that the number of sources affects neither memory nor time.
//
// Several workers share one, so that a source's flows are counted in one place, and exactly.
// Then each method takes a lock. Flows are numbered by the caller, differently in each
// worker.
type Sources struct {
	slots  []origin
	links  []link // by number of a flow; none without a limit of flows
	mask   uint64
	key    uint64
	limit  uint32      // flows at once; 0: any number
	every  int64       // nanoseconds per new flow; 0: no limit
	shared *sync.Mutex // nil: one worker uses it
	// Untracked counts flows of sources for which there was no slot: they were admitted,
	// since the flow table itself still bounds them.
	Untracked uint64
}

// A link is a flow's place in the ring of its source's flows, oldest first: numbers of
// flows plus one. Zero: in no ring.
type link struct{ prev, next uint32 }

// An origin is one source: 24 bytes. Its slot may be reused when it has no flows and its
// due time has passed.
type origin struct {
	addr  packet.Addr
	flows uint32
	head  uint32 // its oldest flow that is in the list, plus one; 0: none
	due   int64  // when the next flow would be due at an even rate
}

// originWays is how many slots an address may be in: two buckets, one for each of its two
// hashes.
const originWays = 8

// NewSources makes the limits for a table of n flows: concurrent flows of a source, and new
// flows per second; 0 is no limit. Without any limit it returns nil, which admits
// everything. A nil alloc means the Go heap.
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
	if flows != 0 {
		s.links = carve[link](alloc, n, true)
	}
	return s
}

// Share makes s fit for several workers, before the first uses it.
func (s *Sources) Share() {
	if s != nil {
		s.shared = new(sync.Mutex)
	}
}

func (s *Sources) lock() {
	if s.shared != nil {
		s.shared.Lock()
	}
}

func (s *Sources) unlock() {
	if s.shared != nil {
		s.shared.Unlock()
	}
}

// SourcesBytes returns the memory in bytes of the limits for a table of n flows.
func SourcesBytes(n int, flows, rate uint32) int {
	if flows == 0 && rate == 0 {
		return 0
	}
	b := originBuckets(n) * originWays * int(unsafe.Sizeof(origin{}))
	if flows != 0 {
		b += n * int(unsafe.Sizeof(link{}))
	}
	return b
}

// originBuckets returns the number of buckets. At most n sources have flows, so that at
// most half of the slots are taken.
func originBuckets(n int) int {
	b := 1
	for b*originWays < 2*n {
		b <<= 1
	}
	return b
}

// Admit reports whether a source may begin a flow now, and if so counts it. The burst is
// one second's worth.
func (s *Sources) Admit(a packet.Addr, now int64) bool {
	if s == nil {
		return true
	}
	s.lock()
	ok := s.admit(a, now)
	s.unlock()
	return ok
}

func (s *Sources) admit(a packet.Addr, now int64) bool {
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

// Release counts one flow of a source less.
func (s *Sources) Release(a packet.Addr) {
	if s == nil {
		return
	}
	s.lock()
	if o := s.find(a, 0, false); o != nil && o.flows > 0 {
		o.flows--
	}
	s.unlock()
}

// AtLimit reports whether a source has as many flows as it may have.
func (s *Sources) AtLimit(a packet.Addr) bool {
	return s != nil && s.limit != 0 && s.Flows(a) >= s.limit
}

// Begin records the number of the flow that Admit counted.
func (s *Sources) Begin(a packet.Addr, flow uint32) {
	if s == nil || int(flow) >= len(s.links) {
		return
	}
	s.lock()
	s.begin(a, flow)
	s.unlock()
}

func (s *Sources) begin(a packet.Addr, flow uint32) {
	o := s.find(a, 0, false)
	if o == nil || s.links[flow].prev != 0 {
		return
	}
	l := &s.links[flow]
	if o.head == 0 {
		o.head = flow + 1
		l.prev, l.next = o.head, o.head
		return
	}
	last := s.links[o.head-1].prev
	l.prev, l.next = last, o.head
	s.links[last-1].next, s.links[o.head-1].prev = flow+1, flow+1
}

// Oldest returns the oldest of a source's flows for which Settled has not been called.
func (s *Sources) Oldest(a packet.Addr) (flow uint32, ok bool) {
	if s == nil {
		return 0, false
	}
	s.lock()
	if o := s.find(a, 0, false); o != nil && o.head != 0 {
		flow, ok = o.head-1, true
	}
	s.unlock()
	return flow, ok
}

// Settled takes a flow out of the ring that Oldest searches. It still counts.
func (s *Sources) Settled(a packet.Addr, flow uint32) {
	if s == nil || int(flow) >= len(s.links) {
		return
	}
	s.lock()
	s.settled(a, flow)
	s.unlock()
}

func (s *Sources) settled(a packet.Addr, flow uint32) {
	l := s.links[flow]
	o := s.find(a, 0, false)
	if o == nil || l.prev == 0 {
		return
	}
	if l.next == flow+1 {
		o.head = 0
	} else {
		s.links[l.prev-1].next, s.links[l.next-1].prev = l.next, l.prev
		if o.head == flow+1 {
			o.head = l.next
		}
	}
	s.links[flow] = link{}
}

// End is Release for a flow that Begin has recorded.
func (s *Sources) End(a packet.Addr, flow uint32) {
	s.Settled(a, flow)
	s.Release(a)
}

// Keep undoes a Release.
func (s *Sources) Keep(a packet.Addr, now int64) {
	if s == nil {
		return
	}
	s.lock()
	if o := s.find(a, now, true); o != nil {
		o.flows++
	}
	s.unlock()
}

// Flows returns how many flows a source has.
func (s *Sources) Flows(a packet.Addr) uint32 {
	n := uint32(0)
	if s != nil {
		s.lock()
		if o := s.find(a, 0, false); o != nil {
			n = o.flows
		}
		s.unlock()
	}
	return n
}

// find returns the slot of an address, or nil. With take it assigns one, if need be that of
// a source whose slot may be reused.
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
		if room > most { // the emptier bucket, so that neither overflows
			most, free = room, &bucket[last]
		}
	}
	if !take || free == nil {
		return nil
	}
	*free = origin{addr: a}
	return free
}
