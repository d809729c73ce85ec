package nat

import (
	"errors"

	"github.com/thurward/thurward/internal/packet"
	"github.com/thurward/thurward/internal/segment"
)

// Source is the source translation of a policy.
type Source struct {
	entries []entry
	pools   []*Pool
}

type entry struct {
	addr, mask packet.Addr
	pool       int16
}

// NewSource reads the SNAT entries of a policy. Entries with the same external
// address share one pool, whose range is the widest of theirs.
func NewSource(p *segment.Policy) (*Source, error) {
	s := &Source{}
	for i := range p.SNAT {
		n := &p.SNAT[i]
		ext := n.External
		if ext == (segment.Addr{}) {
			ext = p.Interfaces[n.Interface].Address
		}
		addr, ok := packet.AddrFrom16(ext)
		if !ok {
			return nil, errors.New("nat: the external address of an snat entry is not IPv4")
		}
		e := entry{pool: s.pool(addr, n.PortLo, n.PortHi)}
		if n.SourceMask != (segment.Addr{}) {
			a, ok := packet.AddrFrom16(n.Source)
			if !ok {
				return nil, errors.New("nat: the source of an snat entry is not IPv4")
			}
			e.addr, e.mask = a, packet.Mask(n.SourceMask)
		}
		s.entries = append(s.entries, e)
	}
	return s, nil
}

func (s *Source) pool(addr packet.Addr, lo, hi uint16) int16 {
	for i, p := range s.pools {
		if p.Addr == addr {
			p.Lo, p.Hi = min(p.Lo, lo), max(p.Hi, hi)
			return int16(i)
		}
	}
	s.pools = append(s.pools, NewPool(addr, lo, hi))
	return int16(len(s.pools) - 1)
}

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

// External reports whether addr is one that sources are translated to.
func (s *Source) External(addr packet.Addr) bool {
	for _, p := range s.pools {
		if p.Addr == addr {
			return true
		}
	}
	return false
}
