package nat

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A Guess is what is known of the mapping of a flow before it begins. It is made in steps, so
// that each finds in the cache what the one before has had prefetched, and none is done twice:
// Aim, Foretell and, if need be, Draw, when packets before it are handled; then Take.
//
// A guess changes nothing, and is never wrong unnoticed. While no mapping ends, slots and ports
// that are taken stay so. Then the endpoint's slot is where it was found if it is still free, or
// has the endpoint now; and the port that was found is the one that Map would find if it is
// still free. Once a mapping has ended, in this space, the guess is no good.
type Guess struct {
	Mapping        // Port is 0 until it is foretold
	Fresh   bool   // taken, and no flow had the port before
	aimed   bool   // and not foretold since
	from    uint64 // the internal endpoint, and the protocol; 0: none
	in      *space
	lo, hi  uint16 // the entry's ports
	slot    uint32 // of the internal endpoint; until it is foretold, where the search begins
	freed   uint32 // the space's, when it was foretold
}

// endpoint returns an internal endpoint with its protocol as a number, which is not 0 for any of
// Protocols.
func endpoint(proto uint8, addr packet.Addr, port uint16) uint64 {
	return uint64(addr)<<32 | uint64(port)<<16 | uint64(proto)
}

// Aim begins a guess for a flow of an internal endpoint, and returns the cache line of the slot
// where Foretell will look first, as an address, which is no reference. ok is false where no pool
// is asked, or a static mapping perhaps.
func (n *NAT) Aim(g *Guess, proto uint8, addr packet.Addr, port uint16) (slot uintptr, ok bool) {
	g.from, g.Port, g.Fresh, g.aimed = 0, 0, false, false
	e := n.source.find(addr)
	sp := spaceOf(proto)
	if e == nil || sp < 0 || n.static.serves(sp, port) {
		return 0, false
	}
	v := n.source.member(e, addr)
	q := n.pools[v.pool]
	s := q.space[sp]
	g.from, g.aimed = endpoint(proto, addr, port), true
	g.Addr, g.Pool, g.lo, g.hi, g.in = q.Addr, v.pool, v.lo, v.hi, s
	g.slot = s.home(addr, port, q.key) & uint32(len(s.index)-1)
	return uintptr(unsafe.Pointer(&s.index[g.slot])), true
}

// Foretell continues the guess for an internal endpoint, or makes it, as far as it needs no
// random number: the Port of the endpoint's mapping, or its own port if that is free. A Port of
// 0 is for Draw to find. It reports false as Aim does.
func (n *NAT) Foretell(g *Guess, proto uint8, addr packet.Addr, port uint16) bool {
	if !g.aimed || g.from != endpoint(proto, addr, port) {
		if _, ok := n.Aim(g, proto, addr, port); !ok {
			return false
		}
	}
	g.aimed = false // a search that begins at the slot that was found might begin behind a gap
	s := g.in
	g.slot = s.pool.probe(s, g.slot, addr, port)
	if e := s.index[g.slot]; e != 0 {
		g.Port = e
	} else if port >= g.lo && port <= g.hi && s.free(port) {
		g.Port = port
	}
	g.freed = s.freed
	return true
}

// Draw has a guess find the port that the random number rnd selects. It reports false where
// that takes a search.
func (n *NAT) Draw(g *Guess, rnd uint64) (ok bool) {
	s := g.in
	want := uint16(g.from >> 16)
	lo, hi := classOf(g.lo, g.hi, want)
	g.Port, ok = draw(&s.used, lo, hi, want, rnd)
	return ok
}

// Line returns the address of the cache line of the mapping that a guess has found. It is no
// reference.
func (n *NAT) Line(g *Guess) uintptr {
	s := g.in
	return uintptr(unsafe.Pointer(&s.byExt[g.Port-s.pool.Lo]))
}

// Take makes a guess true, for one more flow of an internal endpoint, and spends it: it does what
// Map does with the same random number. It reports false, and changes nothing, if the guess is for another
// endpoint, is no good any more, or Map would not return Mapped.
func (n *NAT) Take(g *Guess, proto uint8, addr packet.Addr, port uint16) bool {
	if g.from != endpoint(proto, addr, port) || g.Port == 0 {
		return false
	}
	s := g.in
	if g.freed != s.freed {
		return false
	}
	q := s.pool
	if e := s.index[g.slot]; e != 0 {
		m := &s.byExt[e-q.Lo]
		if m.addr != addr || m.port != port {
			return false
		}
		m.refs++
		g.Port, g.from = e, 0
		return true
	}
	a, b := s.shares.counts(addr, q.key)
	if !s.free(g.Port) || int(min(*a, *b)) >= q.share(s, g.lo, g.hi) {
		return false
	}
	*a++
	*b++
	q.set(s, g.slot, g.Port, addr, port)
	g.Fresh, g.from = true, 0
	return true
}
