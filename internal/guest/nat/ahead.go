package nat

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Ahead returns what Foretell and Map will read for a flow of an internal endpoint, as addresses
// of cache lines for prefetch.Read, which are no references: the slot of its mapping, and the
// mapping of the port that is its own. ok is false where no pool is asked.
func (n *NAT) Ahead(proto uint8, addr packet.Addr, port uint16) (slot, own uintptr, ok bool) {
	e := n.source.find(addr)
	sp := spaceOf(proto)
	if e == nil || sp < 0 {
		return 0, 0, false
	}
	q := n.pools[n.source.member(e, addr).pool]
	s := q.space[sp]
	slot = uintptr(unsafe.Pointer(&s.index[s.home(addr, port, q.key)&uint32(len(s.index)-1)]))
	own = slot
	if port >= q.Lo && port <= q.Hi {
		own = uintptr(unsafe.Pointer(&s.byExt[port-q.Lo]))
	}
	return slot, own, true
}

// Foretell returns what Map will return for the same arguments unless something changes before,
// and the address of the mapping's cache line, which is no reference. It changes nothing. ok is
// false where no pool is asked, or no port found at once.
func (n *NAT) Foretell(proto uint8, addr packet.Addr, port uint16, rnd uint64) (m Mapping, at uintptr, ok bool) {
	e := n.source.find(addr)
	sp := spaceOf(proto)
	if e == nil || sp < 0 {
		return m, 0, false
	}
	if m.Addr, m.Port, ok = n.static.outside(proto, addr, port); ok {
		m.Pool = NoPool
		return m, 0, true
	}
	v := n.source.member(e, addr)
	q := n.pools[v.pool]
	s := q.space[sp]
	ext := s.index[q.find(s, addr, port)]
	if ext == 0 {
		if ext, ok = choose(s, port, v.lo, v.hi, rnd); !ok {
			return Mapping{}, 0, false
		}
	}
	return Mapping{q.Addr, ext, v.pool}, uintptr(unsafe.Pointer(&s.byExt[ext-q.Lo])), true
}

// AheadOfGive returns what Give will change for the last flow of a mapping, as Ahead does: the
// slot where the internal endpoint's search begins, and the mapping.
func (n *NAT) AheadOfGive(pool int16, proto uint8, port uint16, addr packet.Addr, own uint16) (slot, mapping uintptr, ok bool) {
	sp := spaceOf(proto)
	if uint(pool) >= uint(len(n.pools)) || sp < 0 {
		return 0, 0, false
	}
	q := n.pools[pool]
	if port < q.Lo || port > q.Hi {
		return 0, 0, false
	}
	s := q.space[sp]
	return uintptr(unsafe.Pointer(&s.index[s.home(addr, own, q.key)&uint32(len(s.index)-1)])), uintptr(unsafe.Pointer(&s.byExt[port-q.Lo])), true
}
