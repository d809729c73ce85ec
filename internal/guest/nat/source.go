package nat

import (
	"cmp"
	"errors"
	"math/bits"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// source is a policy's source translation.
type source struct {
	entries []entry
	members []member
	pairs   []pair // servers, sorted by address
	key     uint64
}

// An entry translates a source network to the external addresses of its members. Entries of
// the policy with the same source are merged.
type entry struct {
	packet.Net
	first, n uint32
	only     member // the first
}

// A member is one external address of an entry, and its ports.
type member struct {
	pool   int16
	lo, hi uint16
}

// A pair is a server with a static mapping to an external address of its own entry: its
// other flows use that address as well (paired pooling).
type pair struct {
	addr packet.Addr
	m    member
}

// planned is a pool to be created.
type planned struct {
	addr   packet.Addr
	lo, hi uint16
}

// plan reads the SNAT entries of a policy and returns the pools that they need.
// Entries with the same external address share its pool.
func (s *source) plan(p *ruleset.Policy, key uint64) (pools []planned, err error) {
	s.key = key
	type group struct {
		entry
		members []member
	}
	var groups []group
	for i := range p.SNAT {
		n := &p.SNAT[i]
		if int(n.Interface) >= len(p.Interfaces) || p.Interfaces[n.Interface].Role != ruleset.WAN {
			return nil, errors.New("nat: an snat entry is not for the WAN interface")
		}
		if n.PortLo == 0 || n.PortHi < n.PortLo {
			return nil, errors.New("nat: the ports of an snat entry are not a range from 1 to 65535")
		}
		ext := n.External
		if ext == (ruleset.Addr{}) {
			ext = p.Interfaces[n.Interface].Address
		}
		addr, ok := packet.AddrFrom16(ext)
		if !ok {
			return nil, errors.New("nat: the external address of an snat entry is not IPv4")
		}
		var e entry
		if n.SourceMask != (ruleset.Addr{}) {
			a, ok := packet.AddrFrom16(n.Source)
			if !ok {
				return nil, errors.New("nat: the source of an snat entry is not IPv4")
			}
			e.Net = packet.Net{Addr: a, Mask: packet.Mask(n.SourceMask)}
		}
		at := slices.IndexFunc(pools, func(v planned) bool { return v.addr == addr })
		if at < 0 {
			at = len(pools)
			pools = append(pools, planned{addr, n.PortLo, n.PortHi})
		}
		v := &pools[at]
		v.lo, v.hi = min(v.lo, n.PortLo), max(v.hi, n.PortHi)
		g := slices.IndexFunc(groups, func(g group) bool { return g.Net == e.Net })
		if g < 0 {
			g = len(groups)
			groups = append(groups, group{entry: e})
		}
		m := member{int16(at), n.PortLo, n.PortHi}
		if !slices.ContainsFunc(groups[g].members, func(o member) bool { return o.pool == m.pool }) {
			groups[g].members = append(groups[g].members, m)
		}
	}
	if len(pools) > maxPools {
		return nil, errors.New("nat: more than 256 external addresses")
	}
	for _, g := range groups {
		g.first, g.n, g.only = uint32(len(s.members)), uint32(len(g.members)), g.members[0]
		s.members = append(s.members, g.members...)
		s.entries = append(s.entries, g.entry)
	}
	return pools, nil
}

const maxPools = 256

// pair records the servers with a static mapping to an address of their entry.
func (s *source) pair(pools []*Pool, servers []server) {
	for i := range servers {
		v := &servers[i]
		e := s.find(v.to)
		if e == nil {
			continue
		}
		for _, m := range s.members[e.first : e.first+e.n] {
			if pools[m.pool].Addr == v.external {
				s.pairs = append(s.pairs, pair{v.to, m})
			}
		}
	}
	// A lookup finds a server's first pair, which is that of its first entry.
	slices.SortStableFunc(s.pairs, func(a, b pair) int { return cmp.Compare(a.addr, b.addr) })
}

// find returns the first entry that covers src, or nil.
func (s *source) find(src packet.Addr) *entry {
	for i := range s.entries {
		if e := &s.entries[i]; e.Has(src) {
			return e
		}
	}
	return nil
}

// member returns the external address of a host: always the same one (paired pooling, RFC
// 4787 REQ-2), so that a peer sees one address in all its flows. Because of the key hosts
// cannot choose it.
func (s *source) member(e *entry, addr packet.Addr) member {
	if e.n == 1 {
		return e.only
	}
	return s.paired(e, addr)
}

// paired is member where there are several.
func (s *source) paired(e *entry, addr packet.Addr) member {
	if i, ok := slices.BinarySearchFunc(s.pairs, addr, func(p pair, a packet.Addr) int { return cmp.Compare(p.addr, a) }); ok {
		return s.pairs[i].m
	}
	hi, lo := bits.Mul64((uint64(addr)^s.key)*0x9e3779b97f4a7c15, s.key|1)
	n, _ := bits.Mul64(hi^lo, uint64(e.n))
	return s.members[e.first+uint32(n)]
}
