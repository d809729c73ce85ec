package router

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Own addresses: those of the interfaces, and on the WAN side also those that
// translation uses. The firewall answers ARP for them, announces and defends
// them, takes what is sent to them as addressed to itself (or to whom a
// translation makes of it), and takes nobody else for their sender.

// ownAddresses makes the external addresses of a policy the WAN port's own, and
// room for what is kept of each own address.
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
		e.port[i].defend = make([]int64, 1+len(e.port[i].further))
	}
}

// addOwn makes an address one of port p's own. Addresses are added before the
// first packet.
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

// index returns the place of an own address among them, the interface's first,
// or -1.
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

// ownAddr reports whether an address is the firewall's own on any side.
func (e *Engine) ownAddr(a packet.Addr) bool {
	for i := range e.port {
		if e.port[i].own(a) {
			return true
		}
	}
	return false
}

// route returns the port through which an address is reached: that in whose network it
// is, else the WAN.
func (e *Engine) route(a packet.Addr) *port {
	for i := range e.port {
		if p := &e.port[i]; p != e.outside && a&p.mask == p.net {
			return p
		}
	}
	return e.outside
}
