package policy

import (
	"encoding/binary"
	"net/netip"
)

// An entryIndex finds the first of many DNAT entries to which a packet of another could
// belong, as comparing with each of them would, in a time that depends on the lengths of
// addresses and ports only.
//
// Sources are prefixes, and a range of ports is at most 30 of them: of two prefixes that
// have something in common one is within the other. So there is a tree over the bits of
// addresses, and at each of its nodes a tree over those of ports, with the entries that have
// just this network. At every eighth bit there is another one with all entries at and below
// the node. An entry's network is compared with those that contain it, on the way from the
// root, and with those within it, of which the nodes of at most seven further bits give all.
type entryIndex struct {
	roots map[entryKind]int32
	addrs []addrNode
	ports []portNode
}

// An entryKind is what two entries that share anything have in common.
type entryKind struct {
	wan   netip.Addr
	proto Protocol
}

// none is no entry, beyond all numbers of entries.
const none = 1<<31 - 1

// An addrNode stands for a network. A child is 0 where there is none.
type addrNode struct {
	child [2]int32
	own   int32 // tree of ports of the entries for just this network; 0: none
	all   int32 // that of all entries in it, at every eighth bit; 0 elsewhere
}

// A portNode stands for a range of ports that is a prefix.
type portNode struct {
	child [2]int32
	own   int32 // first entry that has just this range
	all   int32 // first entry that has ranges in it
}

const portBits = 16

func (x *entryIndex) newAddr() int32 {
	x.addrs = append(x.addrs, addrNode{})
	return int32(len(x.addrs) - 1)
}

func (x *entryIndex) newPort() int32 {
	x.ports = append(x.ports, portNode{own: none, all: none})
	return int32(len(x.ports) - 1)
}

// add adds an entry with its number, which is higher than those before.
func (x *entryIndex) add(d *DNAT, number int) {
	if x.roots == nil {
		x.roots = map[entryKind]int32{}
		x.newAddr() // 0 is none
		x.newPort()
	}
	for _, proto := range d.Protocols {
		kind := entryKind{d.WAN, proto}
		root, ok := x.roots[kind]
		if !ok {
			root = x.newAddr()
			x.roots[kind] = root
		}
		for _, p := range anywhere(d.From) {
			x.addPrefix(root, p, d.Ports, int32(number))
		}
	}
}

func (x *entryIndex) addPrefix(at int32, p netip.Prefix, r PortRange, number int32) {
	bits, n := addressBits(p)
	for depth := 0; ; depth++ {
		if depth%8 == 0 && depth < 32 {
			if x.addrs[at].all == 0 {
				x.addrs[at].all = x.newPort()
			}
			x.addPorts(x.addrs[at].all, 0, 1<<portBits-1, r, number)
		}
		if depth == n {
			break
		}
		b := bits >> (31 - depth) & 1
		if x.addrs[at].child[b] == 0 {
			child := x.newAddr()
			x.addrs[at].child[b] = child
		}
		at = x.addrs[at].child[b]
	}
	if x.addrs[at].own == 0 {
		x.addrs[at].own = x.newPort()
	}
	x.addPorts(x.addrs[at].own, 0, 1<<portBits-1, r, number)
}

// addPorts adds the part of a range that is in a node, which stands for lo to hi.
func (x *entryIndex) addPorts(at int32, lo, hi int, r PortRange, number int32) {
	x.ports[at].all = min(x.ports[at].all, number)
	if r.Lo <= lo && hi <= r.Hi {
		x.ports[at].own = min(x.ports[at].own, number)
		return
	}
	mid := (lo + hi) / 2
	for side, half := range [2]PortRange{{lo, mid}, {mid + 1, hi}} {
		if r.Lo > half.Hi || half.Lo > r.Hi {
			continue
		}
		if x.ports[at].child[side] == 0 {
			child := x.newPort()
			x.ports[at].child[side] = child
		}
		x.addPorts(x.ports[at].child[side], half.Lo, half.Hi, r, number)
	}
}

// first returns the number of the first entry that d shares packets with, or false.
func (x *entryIndex) first(d *DNAT) (int, bool) {
	found := int32(none)
	for _, proto := range d.Protocols {
		root, ok := x.roots[entryKind{d.WAN, proto}]
		if !ok {
			continue
		}
		for _, p := range anywhere(d.From) {
			found = min(found, x.firstPrefix(root, p, d.Ports))
		}
	}
	return int(found), found != none
}

func (x *entryIndex) firstPrefix(at int32, p netip.Prefix, r PortRange) int32 {
	bits, n := addressBits(p)
	found := int32(none)
	for depth := range n {
		found = min(found, x.firstPorts(x.addrs[at].own, 0, 1<<portBits-1, r))
		if at = x.addrs[at].child[bits>>(31-depth)&1]; at == 0 {
			return found
		}
	}
	return min(found, x.within(at, r))
}

// within returns the first entry at or below a node that has a port of a range.
func (x *entryIndex) within(at int32, r PortRange) int32 {
	n := &x.addrs[at]
	if n.all != 0 {
		return x.firstPorts(n.all, 0, 1<<portBits-1, r)
	}
	found := x.firstPorts(n.own, 0, 1<<portBits-1, r)
	for _, child := range n.child {
		if child != 0 {
			found = min(found, x.within(child, r))
		}
	}
	return found
}

// firstPorts returns the first entry of a tree that has a port of a range.
func (x *entryIndex) firstPorts(at int32, lo, hi int, r PortRange) int32 {
	if at == 0 || r.Lo > hi || lo > r.Hi {
		return none
	}
	n := &x.ports[at]
	if r.Lo <= lo && hi <= r.Hi {
		return n.all
	}
	mid := (lo + hi) / 2
	return min(n.own, x.firstPorts(n.child[0], lo, mid, r), x.firstPorts(n.child[1], mid+1, hi, r))
}

// addressBits returns a network's bits and how many of them count.
func addressBits(p netip.Prefix) (uint32, int) {
	a := p.Addr().As4()
	return binary.BigEndian.Uint32(a[:]), p.Bits()
}
