// Package fqdn knows which client has learned which name at which address, and
// until when: the name set.
//
//	set.go      bindings: what they are, how one is made
//	find.go     what a client knows of an address
//	list.go     age: oldest-first eviction, expiry
//	name.go     the names themselves, each kept once
//	pattern.go  which patterns of the policy a name has
//
// Names are in the form of DNS messages, without compression and in lower case
// (RFC 1035 section 3.1): labels with their lengths, up to the root's 0. So a
// dot inside a label is no border.
//
// A set is flat, without pointers and of fixed size. Looking up allocates
// nothing; its work is bounded by PerAddress. One goroutine uses it.
package fqdn

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Everyone, as a client, stands for all of them.
const Everyone packet.Addr = 0

// PerAddress is how many names one client may know at one address; the oldest
// gives way.
const PerAddress = 64

const (
	second = int64(1e9)
	// shortest is how long a binding lasts at least. A TTL of 0 says that the
	// answer is for the question at hand only (RFC 1035 section 3.2.1); the
	// connection for which it was asked must still come through.
	shortest = second
	// longest is how long a TTL is believed: a week (RFC 8767 section 4).
	longest = 7 * 24 * 3600 * second
)

// A Config says how a Set is to be.
type Config struct {
	Capacity     int   // bindings; at least 1
	Floor, Grace int64 // nanoseconds: the shortest life of a binding, and what is added to it
	Patterns     *Patterns
	Secret       [2]uint64                           // keys the hashes
	Alloc        func(bytes int, zeroed bool) []byte // nil: the Go heap
}

// Counters of a Set.
type Counters struct {
	Inserted  uint64 // new bindings
	Refreshed uint64 // learned again
	Expired   uint64
	// Evicted before their time, by reason: the set was full, there was no
	// room for the text of a name, a client knew too many names at one address.
	EvictedFull, EvictedText, EvictedAddress uint64
}

// A binding says that client knows addr by a name. Indexes are one more than
// the place, 0 is none.
type binding struct {
	client, addr packet.Addr
	name         uint32
	holder       uint32 // in whose list it is; 0: it has expired
	expires      int64
	learned      int64
	lookup       uint64
	age          link // in that list
	byBoth       link // bindings of the same hash of client and address
	byAddr       link // of the same hash of the address
	byName       link // of the same name
}

type link struct{ prev, next uint32 }

// A Set holds bindings.
type Set struct {
	cfg      Config
	c        Counters
	b        []binding
	free     uint32
	dead     list // have expired
	hold     holders
	both     []uint32 // heads of chains
	addrs    []uint32
	mask     uint32
	names    names
	everyone int // bindings of Everyone
	hand     uint32
}

// powerOfTwo returns the least power of two that is not below n.
func powerOfTwo(n int) int { return 1 << bits.Len(uint(max(n, 1)-1)) }

// Bytes returns the memory that a set of n bindings takes.
func Bytes(n int) int {
	n = max(n, 1)
	return n*int(unsafe.Sizeof(binding{})+unsafe.Sizeof(holder{})+4*numClasses) + 3*4*powerOfTwo(n) + namesBytes(n)
}

// New makes an empty set.
func New(c Config) *Set {
	c.Capacity = max(c.Capacity, 1)
	if c.Alloc == nil {
		c.Alloc = func(n int, _ bool) []byte { return make([]byte, n) }
	}
	if c.Patterns == nil {
		c.Patterns = &Patterns{}
	}
	n, h := c.Capacity, powerOfTwo(c.Capacity)
	s := &Set{cfg: c, b: carve[binding](c.Alloc, n), both: carve[uint32](c.Alloc, h), addrs: carve[uint32](c.Alloc, h), mask: uint32(h - 1)}
	s.names.init(n, c.Alloc)
	s.hold.init(n, c.Alloc)
	for i := n; i > 0; i-- {
		s.b[i-1].byBoth.next = s.free
		s.free = uint32(i)
	}
	return s
}

// carve returns n zero values of T, which holds no pointers, in memory of alloc.
func carve[T any](alloc func(int, bool) []byte, n int) []T {
	var t T
	b := alloc(n*int(unsafe.Sizeof(t)), true)
	_ = b[n*int(unsafe.Sizeof(t))-1]
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n)
}

// Counters returns the counters, which the set goes on changing.
func (s *Set) Counters() *Counters { return &s.c }

// Len returns how many bindings have not been seen to expire.
func (s *Set) Len() int { return s.hold.n[plain] + s.hold.n[ruled] }

// Cap returns how many bindings fit.
func (s *Set) Cap() int { return len(s.b) }

// mix is two rounds of multiply and fold with the set's key.
func (s *Set) mix(a uint64) uint64 {
	hi, lo := bits.Mul64(a^s.cfg.Secret[0], s.cfg.Secret[1]|1)
	hi, lo = bits.Mul64(hi^lo^s.cfg.Secret[1], 0x9e3779b97f4a7c15)
	return hi ^ lo
}

func (s *Set) bothOf(client, addr packet.Addr) uint32 {
	return uint32(s.mix(uint64(client)<<32|uint64(addr))) & s.mask
}

func (s *Set) addrOf(addr packet.Addr) uint32 { return uint32(s.mix(uint64(addr))>>32) & s.mask }

// Lifetime returns for how long a name is good that was learned with this TTL, in
// nanoseconds, as are floor and grace (Config).
func Lifetime(ttl uint32, floor, grace int64) int64 {
	if ttl>>31 != 0 {
		ttl = 0 // RFC 2181 section 8
	}
	return max(min(int64(ttl)*second, longest), floor, shortest) + grace
}

// Bind notes that client has learned at time now, by the query with the number
// lookup, that name has the address addr for ttl seconds. A TTL with its top
// bit set is 0 (RFC 2181 section 8). What was known already lives on until the
// later of both ends. It returns false, and does nothing, when name is not a
// name.
func (s *Set) Bind(client packet.Addr, name []byte, addr packet.Addr, ttl uint32, now int64, lookup uint64) bool {
	if !Valid(name) {
		return false
	}
	life := Lifetime(ttl, s.cfg.Floor, s.cfg.Grace)
	h := s.hashName(name)
	n := s.findName(name, h)
	count, oldest := 0, uint32(0)
	for i := s.both[s.bothOf(client, addr)]; i != 0; i = s.b[i-1].byBoth.next {
		b := &s.b[i-1]
		if b.client != client || b.addr != addr {
			continue
		}
		if b.name == n && n != 0 {
			b.expires, b.learned, b.lookup = max(b.expires, now+life), now, lookup
			s.unlist(i)
			s.enlist(i)
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
		n = s.findName(name, h) // it may have been the name's last
	}
	if n == 0 {
		n = s.addName(client, name, h, now)
	}
	s.names.rec[n-1].refs++ // so that no eviction takes it
	if s.free == 0 {
		s.evict(s.victim(client, s.names.rec[n-1].class(), len(name)), &s.c.EvictedFull)
	}
	i := s.free
	b := &s.b[i-1]
	s.free = b.byBoth.next
	*b = binding{client: client, addr: addr, name: n, expires: now + life, learned: now, lookup: lookup}
	s.chain(&s.both[s.bothOf(client, addr)], i, byBoth)
	s.chain(&s.addrs[s.addrOf(addr)], i, byAddr)
	s.chain(&s.names.rec[n-1].first, i, byName)
	s.enlist(i)
	if client == Everyone {
		s.everyone++
	}
	s.c.Inserted++
	return true
}

// The chains that a binding is in.
const (
	byBoth = iota
	byAddr
	byName
)

func (b *binding) link(c int) *link {
	switch c {
	case byBoth:
		return &b.byBoth
	case byAddr:
		return &b.byAddr
	}
	return &b.byName
}

// chain puts binding i in front of the chain that begins at head.
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

// remove forgets binding i.
func (s *Set) remove(i uint32) {
	b := &s.b[i-1]
	s.unlist(i)
	s.unchain(&s.both[s.bothOf(b.client, b.addr)], i, byBoth)
	s.unchain(&s.addrs[s.addrOf(b.addr)], i, byAddr)
	s.unchain(&s.names.rec[b.name-1].first, i, byName)
	if b.client == Everyone {
		s.everyone--
	}
	s.dropName(b.name)
	*b = binding{}
	b.byBoth.next = s.free
	s.free = i
}
