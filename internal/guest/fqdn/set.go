// Package fqdn stores which client has resolved which name to which address, and
// until when: the name set.
//
//	set.go      bindings, and how they are added
//	find.go     lookups
//	list.go     lists by age: eviction of the oldest, expiry
//	share.go    each client's share of the set, and which binding is evicted
//	name.go     the names, each stored once
//	pattern.go  the name patterns of a policy
//
// Names are in wire form, without compression and in lower case (RFC 1035 section
// 3.1): labels prefixed with their lengths, ending with the root's 0. A dot inside
// a label therefore separates nothing.
//
// A Set has a fixed size and contains no pointers. Lookups do not allocate, and
// their cost is bounded by PerAddress. One goroutine changes a Set. Others may look names up
// while none of its methods that change it (Bind, Sweep, Pass) runs: see Config.Changing.
package fqdn

import (
	"math"
	"math/bits"
	"sync"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Everyone as the client of a binding means that all clients may use it.
const Everyone packet.Addr = 0

// PerAddress is the maximum number of names of one client for one address; beyond it
// the oldest is evicted.
const PerAddress = 64

const (
	second = int64(1e9)
	// shortestLife is the minimum lifetime of a binding. A record with a TTL of 0 may
	// only be used for the transaction in progress (RFC 1035 section 3.2.1): the
	// connection for which it was resolved must still be accepted.
	shortestLife = second
	// longestLife caps TTLs at a week (RFC 8767 section 4).
	longestLife = 7 * 24 * 3600 * second
)

// A Config configures a Set.
type Config struct {
	Capacity     int   // maximum number of bindings; at least 1
	Floor, Grace int64 // see Lifetime; nanoseconds
	Patterns     *Patterns
	Secret       [2]uint64                           // keys the hashes
	Alloc        func(bytes int, zeroed bool) []byte // nil: the Go heap
	Changing     sync.Locker                         // locked during each change, where several workers look names up; nil: one does
}

// Counters of a Set.
type Counters struct {
	Inserted  uint64 // bindings added
	Refreshed uint64 // bindings whose lifetime was extended by another response
	Expired   uint64
	// Evicted before they expired, by reason: the set was full, the memory for
	// names was full, a client had PerAddress names for one address.
	EvictedFull, EvictedText, EvictedAddress uint64
}

// A binding is the fact that client has resolved a name to addr. References to
// bindings are 1 + index, 0 is none.
type binding struct {
	client, addr packet.Addr
	name         uint32
	share        uint32 // in whose list it is; 0: in that of expired bindings
	expires      int64
	learned      int64
	lookup       uint64
	age          link // in that list, by age
	byPair       link // bindings with the same hash of client and address
	byAddr       link // with the same hash of the address
	byName       link // with the same name
}

type link struct{ prev, next uint32 }

// A Set is a set of bindings.
type Set struct {
	cfg      Config
	c        Counters
	b        []binding
	free     uint32
	expired  list
	shares   shares
	pairs    []uint32 // heads of the chains by pair
	addrs    []uint32
	mask     uint32
	names    names
	everyone int // number of bindings of Everyone
	sweepAt  uint32
	away     int64 // see Pass
}

// Pass makes every binding older by d nanoseconds: time that the clock by which the set is
// asked did not count, because the machine stood still. Bindings made from now on are not
// affected. A negative d does nothing: no binding becomes younger.
func (s *Set) Pass(d int64) {
	s.begin()
	defer s.end()
	if d > 0 && s.away <= math.MaxInt64/4 {
		s.away += min(d, 2*longestLife+s.cfg.Floor+s.cfg.Grace) // nothing lives longer
	}
}

// powerOfTwo returns the smallest power of two that is at least n.
func powerOfTwo(n int) int { return 1 << bits.Len(uint(max(n, 1)-1)) }

// Bytes returns the memory of a set of n bindings, in bytes.
func Bytes(n int) int {
	n = max(n, 1)
	return n*int(unsafe.Sizeof(binding{})+unsafe.Sizeof(share{})+4*numClasses) + 3*4*powerOfTwo(n) + namesBytes(n)
}

// New returns an empty set.
func New(c Config) *Set {
	c.Capacity = max(c.Capacity, 1)
	if c.Alloc == nil {
		c.Alloc = func(n int, _ bool) []byte { return make([]byte, n) }
	}
	if c.Patterns == nil {
		c.Patterns = &Patterns{}
	}
	n, h := c.Capacity, powerOfTwo(c.Capacity)
	s := &Set{cfg: c, b: carve[binding](c.Alloc, n), mask: uint32(h - 1)}
	s.pairs, s.addrs = carve[uint32](c.Alloc, h), carve[uint32](c.Alloc, h)
	s.names.init(n, c.Alloc)
	s.shares.init(n, c.Alloc)
	for i := n; i > 0; i-- {
		s.b[i-1].byPair.next = s.free
		s.free = uint32(i)
	}
	return s
}

// carve allocates n zero values of T, which must contain no pointers, by alloc.
func carve[T any](alloc func(int, bool) []byte, n int) []T {
	var t T
	b := alloc(n*int(unsafe.Sizeof(t)), true)
	_ = b[n*int(unsafe.Sizeof(t))-1]
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// begin and end are around each change.
func (s *Set) begin() {
	if s.cfg.Changing != nil {
		s.cfg.Changing.Lock()
	}
}

func (s *Set) end() {
	if s.cfg.Changing != nil {
		s.cfg.Changing.Unlock()
	}
}

// Counters returns the set's counters. They keep changing.
func (s *Set) Counters() *Counters { return &s.c }

// Len returns the number of bindings that Sweep has not found expired.
func (s *Set) Len() int { return s.shares.n[outsidePolicy] + s.shares.n[inPolicy] }

// Cap returns the capacity in bindings.
func (s *Set) Cap() int { return len(s.b) }

// mix is a keyed hash: two rounds of multiply and fold.
func (s *Set) mix(a uint64) uint64 {
	hi, lo := bits.Mul64(a^s.cfg.Secret[0], s.cfg.Secret[1]|1)
	hi, lo = bits.Mul64(hi^lo^s.cfg.Secret[1], 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func (s *Set) pairHead(client, addr packet.Addr) uint32 {
	return uint32(s.mix(uint64(client)<<32|uint64(addr))) & s.mask
}

func (s *Set) addrHead(addr packet.Addr) uint32 { return uint32(s.mix(uint64(addr))>>32) & s.mask }

// Lifetime returns the lifetime of a binding in nanoseconds: the TTL, in seconds, at
// least floor, plus grace, both in nanoseconds.
func Lifetime(ttl uint32, floor, grace int64) int64 {
	if ttl>>31 != 0 {
		ttl = 0 // RFC 2181 section 8
	}
	return max(min(int64(ttl)*second, longestLife), floor, shortestLife) + grace
}

// Bind adds the binding of name to addr for client at time now, with the TTL of the
// record in seconds. lookup is the number of the query, for events. A TTL with its
// top bit set counts as 0 (RFC 2181 section 8). If the binding exists, it expires at
// the later of the two times. Bind returns false, and does nothing, if name is not
// Valid.
func (s *Set) Bind(client packet.Addr, name []byte, addr packet.Addr, ttl uint32, now int64, lookup uint64) bool {
	if !Valid(name) {
		return false
	}
	s.begin()
	defer s.end()
	now += s.away
	life := Lifetime(ttl, s.cfg.Floor, s.cfg.Grace)
	h := s.hashName(name)
	n := s.findName(name, h)
	count, oldest := 0, uint32(0)
	for i := s.pairs[s.pairHead(client, addr)]; i != 0; i = s.b[i-1].byPair.next {
		b := &s.b[i-1]
		if b.client != client || b.addr != addr {
			continue
		}
		if b.name == n && n != 0 {
			b.expires, b.learned, b.lookup = max(b.expires, now+life), now, lookup
			s.removeFromList(i)
			s.addToShare(i)
			s.c.Refreshed++
			return true
		}
		count++
		if oldest == 0 || b.learned <= s.b[oldest-1].learned {
			oldest = i
		}
	}
	if count >= PerAddress {
		s.evict(oldest, &s.c.EvictedAddress)
		n = s.findName(name, h) // the name may have been freed with it
	}
	if n == 0 {
		n = s.addName(client, name, h, now-s.away) // Text is given times that the clock counted
	}
	s.names.rec[n-1].refs++ // so that no eviction frees it
	if s.free == 0 {
		s.evict(s.victim(client, s.names.rec[n-1].class(), len(name)), &s.c.EvictedFull)
	}
	i := s.free
	b := &s.b[i-1]
	s.free = b.byPair.next
	*b = binding{client: client, addr: addr, name: n, expires: now + life, learned: now, lookup: lookup}
	s.chain(&s.pairs[s.pairHead(client, addr)], i, byPair)
	s.chain(&s.addrs[s.addrHead(addr)], i, byAddr)
	s.chain(&s.names.rec[n-1].first, i, byName)
	s.addToShare(i)
	if client == Everyone {
		s.everyone++
	}
	s.c.Inserted++
	return true
}

// The hash chains that a binding is in.
const (
	byPair = iota
	byAddr
	byName
)

func (b *binding) link(c int) *link {
	switch c {
	case byPair:
		return &b.byPair
	case byAddr:
		return &b.byAddr
	}
	return &b.byName
}

// chain inserts binding i at the head of a chain.
func (s *Set) chain(head *uint32, i uint32, c int) {
	l := s.b[i-1].link(c)
	l.prev, l.next = 0, *head
	if *head != 0 {
		s.b[*head-1].link(c).prev = i
	}
	*head = i
}

func (s *Set) unchain(head *uint32, i uint32, c int) {
	l := s.b[i-1].link(c)
	if l.prev == 0 {
		*head = l.next
	} else {
		s.b[l.prev-1].link(c).next = l.next
	}
	if l.next != 0 {
		s.b[l.next-1].link(c).prev = l.prev
	}
}

// remove frees binding i.
func (s *Set) remove(i uint32) {
	b := &s.b[i-1]
	s.removeFromList(i)
	s.unchain(&s.pairs[s.pairHead(b.client, b.addr)], i, byPair)
	s.unchain(&s.addrs[s.addrHead(b.addr)], i, byAddr)
	s.unchain(&s.names.rec[b.name-1].first, i, byName)
	if b.client == Everyone {
		s.everyone--
	}
	s.dropName(b.name)
	*b = binding{}
	b.byPair.next = s.free
	s.free = i
}
