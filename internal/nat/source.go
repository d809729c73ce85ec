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
}

type entry struct {
	addr, mask packet.Addr
	pool       int16
}

// NewSource reads the SNAT entries of a policy for flows to the WAN. Entries
// with the same external address share one pool, whose range is the widest of
// theirs. The key is secret and random.
func NewSource(p *segment.Policy, key uint64) (*Source, error) {
	s := &Source{}
	ranges := map[packet.Addr][2]uint16{}
	var external []packet.Addr
	for i := range p.SNAT {
		n := &p.SNAT[i]
		if int(n.Interface) >= len(p.Interfaces) || p.Interfaces[n.Interface].Role != segment.WAN {
			return nil, errors.New("nat: an snat entry is not for the WAN interface")
		}
		if n.PortLo == 0 || n.PortHi < n.PortLo {
			return nil, errors.New("nat: the ports of an snat entry are not a range from 1 to 65535")
		}
		ext := n.External
		if ext == (segment.Addr{}) {
			ext = p.Interfaces[n.Interface].Address
		}
		addr, ok := packet.AddrFrom16(ext)
		if !ok {
			return nil, errors.New("nat: the external address of an snat entry is not IPv4")
		}
		r, known := ranges[addr]
		if !known {
			external = append(external, addr)
			r = [2]uint16{n.PortLo, n.PortHi}
		}
		ranges[addr] = [2]uint16{min(r[0], n.PortLo), max(r[1], n.PortHi)}
		e := entry{pool: int16(slices.Index(external, addr))}
		if n.SourceMask != (segment.Addr{}) {
			a, ok := packet.AddrFrom16(n.Source)
			if !ok {
				return nil, errors.New("nat: the source of an snat entry is not IPv4")
			}
			e.addr, e.mask = a, packet.Mask(n.SourceMask)
		}
		s.entries = append(s.entries, e)
	}
	for _, a := range external {
		s.pools = append(s.pools, NewPool(a, ranges[a][0], ranges[a][1], key))
	}
	return s, nil
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
