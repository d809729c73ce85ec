package nat

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/packet"
)

// No host can take a whole pool: a host gets a new port only while it has fewer than
// evenShare times the number of free ports, plus fewPorts (dynamic thresholds, Choudhury
// and Hahne 1998). A single host gets fifteen sixteenths of the pool, two get fifteen
// thirty-firsts each, and some ports always remain for hosts with few.
const (
	evenShare = 15
	fewPorts  = 16 // so that a small pool can be used completely
)

// One in ownPart of the ports of the WAN interface's address is reserved for the firewall's
// own queries.
const ownPart = 64

// shares counts mappings by internal address, in two rows of counters chosen by a keyed
// hash. The lower of an address's two counters is its count: too high if both are shared
// with other addresses, never too low.
type shares [2][1 << shareBits]uint16

const shareBits = 12

func cells(addr packet.Addr, key uint64) (uint64, uint64) {
	h := uint64(addr) ^ key // then the finaliser of SplitMix64
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return h % (1 << shareBits), h >> 32 % (1 << shareBits)
}

// counts returns both counters of an address.
func (s *shares) counts(addr packet.Addr, key uint64) (a, b *uint16) {
	x, y := cells(addr, key)
	return &s[0][x], &s[1][y]
}

func (s *shares) of(addr packet.Addr, key uint64) int {
	a, b := s.counts(addr, key)
	return int(min(*a, *b))
}

func (s *shares) add(addr packet.Addr, key uint64, n uint16) {
	a, b := s.counts(addr, key)
	*a += n
	*b += n
}

// share returns how many ports a host may have as long as the ports from first to last are as
// free as they are: one that has as many gets no more. It is 0 when none is free.
func (p *Pool) share(s *space, first, last uint16) int {
	free := len(s.byExt) - s.reserved - s.inUse - max(0, s.kept-s.own)
	if first > p.Lo || last < p.Hi {
		free = min(free, s.freeIn(first, last)) // the entry has a part of the pool
	}
	if free <= 0 {
		return 0
	}
	return evenShare*free + fewPorts
}

// mayTake reports whether a host may have one more of the ports from first to
// last.
func (p *Pool) mayTake(s *space, addr packet.Addr, first, last uint16) bool {
	return s.shares.of(addr, p.key) < p.share(s, first, last)
}

// freeIn counts the free ports from first to last.
func (s *space) freeIn(first, last uint16) (n int) {
	for w := int(first) / 64; w <= int(last)/64; w++ {
		n += bits.OnesCount64(^s.used[w] & between(w, first, last))
	}
	return n
}

// keep reserves ports for the firewall itself.
func (p *Pool) keep() {
	for _, s := range p.space[:ownProtos] {
		s.kept = len(s.byExt) / ownPart
	}
}

// Share returns how many mappings of a pool an internal address has.
func (n *NAT) Share(pool int16, proto uint8, addr packet.Addr) int {
	if s := spaceOf(proto); s >= 0 && uint(pool) < uint(len(n.pools)) {
		p := n.pools[pool]
		return p.space[s].shares.of(addr, p.key)
	}
	return 0
}
