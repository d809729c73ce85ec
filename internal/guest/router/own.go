package router

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Own addresses: those of the interfaces, and on the WAN also those of translation. The
// firewall answers ARP requests for them, announces and defends them, handles packets to
// them as addressed to itself (or to the target of a DNAT entry), and drops packets from
// them as martian.

// ownAddresses makes the external addresses of a policy own addresses of the WAN port, and
// allocates the state of own addresses.
func (e *Engine) ownAddresses(p *ruleset.Policy) {
	for _, q := range e.nat.Pools() {
		e.addOwn(e.outside, q.Addr)
	}
	for i := range p.DNAT {
		if a, ok := packet.AddrFrom16(p.DNAT[i].External); ok {
			e.addOwn(e.outside, a)
		}
	}
	for i := range e.port {
		q := &e.port[i]
		q.defend = make([]int64, 1+len(q.further))
		e.special.add(q.addr)
		for _, a := range q.further {
			e.special.add(a)
		}
		e.special.add(q.net)
		e.special.add(q.net | ^q.mask)
	}
}

// An addrSet has some addresses, and others: one bit stands for all with the same last
// octet. It spares most packets a search.
type addrSet [4]uint64

func (s *addrSet) add(a packet.Addr) { s[a>>6&3] |= 1 << (a & 63) }

// mayHave is false for an address that is not in the set.
func (s *addrSet) mayHave(a packet.Addr) bool { return s[a>>6&3]>>(a&63)&1 != 0 }

// addOwn adds an own address to port p. All are added before the first packet.
func (e *Engine) addOwn(p *port, a packet.Addr) {
	if a == p.addr || a == 0 {
		return
	}
	if at, ok := slices.BinarySearch(p.further, a); !ok {
		p.further = slices.Insert(p.further, at, a)
	}
}

// own reports whether an address is one of port p's own.
func (p *port) own(a packet.Addr) bool { return p.index(a) >= 0 }

// index returns the index of an own address of port p, 0 for the interface's, or -1.
func (p *port) index(a packet.Addr) int {
	if a == p.addr {
		return 0
	}
	if len(p.further) == 0 {
		return -1
	}
	if at, ok := slices.BinarySearch(p.further, a); ok {
		return 1 + at
	}
	return -1
}

// ownAddr reports whether an address is an own address of any port.
func (e *Engine) ownAddr(a packet.Addr) bool { return e.special.mayHave(a) && e.isOwn(a) }

func (e *Engine) isOwn(a packet.Addr) bool {
	for i := range e.port {
		if e.port[i].own(a) {
			return true
		}
	}
	return false
}

// route returns the port to an address: the one whose network contains it, else the WAN.
func (e *Engine) route(a packet.Addr) *port {
	if p := e.inside; a&p.mask == p.net {
		return p
	}
	return e.outside
}
