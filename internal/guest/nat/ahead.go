package nat

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

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
