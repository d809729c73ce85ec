package nat

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A mapping is an internal endpoint and its external port. All flows of the endpoint share
// it, whatever their destination (RFC 4787 REQ-1).
type mapping struct {
	addr packet.Addr
	port uint16
	refs uint32 // flows; 0: the external port is free
	flow uint32 // the latest, plus one; 0: none
}

// space is the ports of one protocol: the mappings by external port, and an index by
// internal endpoint. The index is a hash table with linear probing, at most half full; it
// holds external ports, 0 for a free slot.
type space struct {
	pool      *Pool
	used      [1024]uint64
	byExt     []mapping // from the pool's first port on
	index     []uint16
	shift     uint8
	inUse     int
	freed     uint32 // how often a mapping has ended: see Guess
	highWater int
	reserved  int // taken, but of static mappings
	own       int // used by the firewall itself
	kept      int // reserved for the firewall itself
	hand      int // where lone continues
	guests    int // ports whose home is another part
	lends     int // where Lend continues, a word of used
	gives     int // where GoHome does
	shares    shares
}

// indexBits returns the binary logarithm of the number of slots.
func indexBits(ports int) uint8 { return uint8(bits.Len(uint(2*ports - 1))) }

// spaceBytes returns the memory of the mappings and the index of so many ports in bytes.
func spaceBytes(ports int) int { return ports*int(unsafe.Sizeof(mapping{})) + 2<<indexBits(ports) }

func newSpace(ports int) *space { return spaceIn(make([]byte, spaceBytes(ports)), ports) }

// spaceIn makes a space in memory that is zeroed. Neither mappings nor the index contain
// pointers.
func spaceIn(mem []byte, ports int) *space {
	n := indexBits(ports)
	at := ports * int(unsafe.Sizeof(mapping{}))
	_ = mem[spaceBytes(ports)-1]
	return &space{
		byExt: unsafe.Slice((*mapping)(unsafe.Pointer(&mem[0])), ports),
		index: unsafe.Slice((*uint16)(unsafe.Pointer(&mem[at])), 1<<n), shift: 64 - n,
	}
}

// home returns the slot where the search for an endpoint begins. The key keeps hosts from
// choosing ports that all have the same home.
func (s *space) home(addr packet.Addr, port uint16, key uint64) uint32 {
	h := (uint64(addr)<<16 | uint64(port)) ^ key
	hi, lo := bits.Mul64(h, key|1)
	return uint32((hi ^ lo) * 0x9e3779b97f4a7c15 >> s.shift)
}

// find returns the slot of an endpoint's mapping, or the free slot where it would be.
func (p *Pool) find(s *space, addr packet.Addr, port uint16) uint32 {
	return p.probe(s, s.home(addr, port, p.key), addr, port)
}

// probe is find from an endpoint's home on.
func (p *Pool) probe(s *space, i uint32, addr packet.Addr, port uint16) uint32 {
	mask := uint32(len(s.index) - 1)
	for range s.index {
		e := s.index[i&mask]
		if e == 0 {
			break
		}
		if m := &s.byExt[e-p.Lo]; m.addr == addr && m.port == port {
			break
		}
		i++
	}
	return i & mask
}

// unindex empties slot i and moves up the entries after it that would no longer be found
// (Knuth, volume 3, section 6.4, algorithm R).
func (p *Pool) unindex(s *space, i uint32) {
	mask := uint32(len(s.index) - 1)
	j := i
	for range s.index {
		s.index[i] = 0
		for range s.index {
			j = (j + 1) & mask
			e := s.index[j]
			if e == 0 {
				return
			}
			m := &s.byExt[e-p.Lo]
			// An entry may move to i unless its home lies after i.
			if h := s.home(m.addr, m.port, p.key) & mask; (j-h)&mask >= (j-i)&mask {
				break
			}
		}
		s.index[i] = s.index[j]
		i = j
	}
}

func (p *Pool) lone(proto uint8) (flow uint32, share int, ok bool) {
	n := spaceOf(proto)
	if n < 0 {
		return 0, 0, false
	}
	s := p.space[n]
	if s.hand++; s.hand >= len(s.byExt) {
		s.hand = 0
	}
	m := &s.byExt[s.hand]
	if m.refs != 1 || m.flow == 0 {
		return 0, 0, false
	}
	return m.flow - 1, s.shares.of(m.addr, p.key), true
}
