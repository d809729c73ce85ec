package nat

import (
	"errors"
	"slices"

	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
)

// Source is the source translation of a policy.
type Source struct {
	entries []entry
	pools   []*Pool
	own     Own
}

type entry struct {
	addr, mask packet.Addr
	pool       int16
}

// NewSource reads the SNAT entries of a policy for flows to the WAN. Entries
// with the same external address share one pool, whose range is the widest of
// theirs. The key is secret and random.
func NewSource(p *segment.Policy, key uint64) (*Source, error) {
	plans, entries, err := plan(p)
	if err != nil {
		return nil, err
	}
	s := &Source{entries: entries}
	for _, v := range plans {
		s.pools = append(s.pools, NewPool(v.addr, v.lo, v.hi, key))
	}
	s.own.init(p, s.pools)
	return s, nil
}

// Bytes returns the memory that the pools of a policy take.
func Bytes(p *segment.Policy) int {
	plans, _, _ := plan(p)
	n := 0
	for _, v := range plans {
		n += poolBytes(v.lo, v.hi)
	}
	return n
}

// planned is a pool to be made.
type planned struct {
	addr   packet.Addr
	lo, hi uint16
}

// plan returns the pools that a policy needs, and which sources use which.
func plan(p *segment.Policy) (pools []planned, entries []entry, err error) {
	for i := range p.SNAT {
		n := &p.SNAT[i]
		if int(n.Interface) >= len(p.Interfaces) || p.Interfaces[n.Interface].Role != segment.WAN {
			return nil, nil, errors.New("nat: an snat entry is not for the WAN interface")
		}
		if n.PortLo == 0 || n.PortHi < n.PortLo {
			return nil, nil, errors.New("nat: the ports of an snat entry are not a range from 1 to 65535")
		}
		ext := n.External
		if ext == (segment.Addr{}) {
			ext = p.Interfaces[n.Interface].Address
		}
		addr, ok := packet.AddrFrom16(ext)
		if !ok {
			return nil, nil, errors.New("nat: the external address of an snat entry is not IPv4")
		}
		at := slices.IndexFunc(pools, func(v planned) bool { return v.addr == addr })
		if at < 0 {
			at = len(pools)
			pools = append(pools, planned{addr, n.PortLo, n.PortHi})
		}
		v := &pools[at]
		v.lo, v.hi = min(v.lo, n.PortLo), max(v.hi, n.PortHi)
		e := entry{pool: int16(at)}
		if n.SourceMask != (segment.Addr{}) {
			a, ok := packet.AddrFrom16(n.Source)
			if !ok {
				return nil, nil, errors.New("nat: the source of an snat entry is not IPv4")
			}
			e.addr, e.mask = a, packet.Mask(n.SourceMask)
		}
		entries = append(entries, e)
	}
	return pools, entries, nil
}

// Own returns the firewall's own ports.
func (s *Source) Own() *Own { return &s.own }

// Pools returns the port pools.
func (s *Source) Pools() []*Pool { return s.pools }

// Find returns the number of the pool for flows from src, or -1 when they are
// not translated. The first entry that covers src decides.
func (s *Source) Find(src packet.Addr) int16 {
	for i := range s.entries {
		if e := &s.entries[i]; src&e.mask == e.addr {
			return e.pool
		}
	}
	return -1
}
