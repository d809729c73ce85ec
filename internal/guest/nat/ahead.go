package nat

import (
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Ahead returns what Map will read for a flow of an internal endpoint, as addresses of cache
// lines for prefetch.Read, which are no references, and the external address; ok is false
// where no pool is asked. It is a guess: that the endpoint has no mapping, and keeps its
// port.
func (n *NAT) Ahead(proto uint8, addr packet.Addr, port uint16) (lines [2]uintptr, ext packet.Addr, ok bool) {
	e := n.source.find(addr)
	sp := spaceOf(proto)
	if e == nil || sp < 0 {
		return lines, 0, false
	}
	q := n.pools[n.source.member(e, addr).pool]
	s := q.space[sp]
	lines[0] = uintptr(unsafe.Pointer(&s.index[s.home(addr, port, q.key)&uint32(len(s.index)-1)]))
	lines[1] = lines[0]
	if port >= q.Lo && port <= q.Hi {
		lines[1] = uintptr(unsafe.Pointer(&s.byExt[port-q.Lo]))
	}
	return lines, q.Addr, true
}
