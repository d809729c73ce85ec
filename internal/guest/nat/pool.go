package nat

import (
	"math/bits"
	"unsafe"

	"github.com/thurward/thurward/internal/shared/packet"
)

// protos is the number of protocols with a port space of their own.
const protos = 3

// spaceOf returns the index of a protocol's port space, or -1.
func spaceOf(proto uint8) int {
	switch proto {
	case packet.TCP:
		return 0
	case packet.UDP:
		return 1
	case packet.ICMP:
		return 2
	}
	return -1
}

// A Pool holds the external ports of one address: for TCP and UDP, and the identifiers for
// ICMP queries. It never maps two endpoints to one port.
type Pool struct {
	Addr   packet.Addr
	Lo, Hi uint16 // inclusive; Lo is at least 1
	Failed uint64 // times that no port was free, or the host had its share
	key    uint64
	space  [protos]*space
}

// Protocols are the protocols with a port space, of identifiers for ICMP.
var Protocols = [protos]uint8{packet.TCP, packet.UDP, packet.ICMP}

// NewPool returns a pool of the ports lo to hi, which must be from 1 to 65535
// and in order. The key is secret and random.
func NewPool(addr packet.Addr, lo, hi uint16, key uint64) *Pool {
	return newPool(addr, lo, hi, key, nil)
}

// An Alloc returns memory aligned to 64 bytes, which is zeroed if that is asked for.
type Alloc func(bytes int, zeroed bool) []byte

// newPool is NewPool with its mappings in memory of alloc, in one piece: they are read at
// random, and in large pages that costs less.
func newPool(addr packet.Addr, lo, hi uint16, key uint64, alloc Alloc) *Pool {
	p := &Pool{Addr: addr, Lo: lo, Hi: hi, key: key}
	n := int(hi) - int(lo) + 1
	if alloc == nil {
		alloc = func(n int, _ bool) []byte { return make([]byte, n) }
	}
	mem := alloc(protos*spaceBytes(n), true)
	for i := range p.space {
		p.space[i] = spaceIn(mem[i*spaceBytes(n):][:spaceBytes(n)], n)
		p.space[i].pool = p
	}
	return p
}

// poolBytes is the memory of a pool for the ports lo to hi in bytes.
func poolBytes(lo, hi uint16) int {
	n := int(hi) - int(lo) + 1
	return protos * (int(unsafe.Sizeof(space{})) + spaceBytes(n))
}

// InUse returns how many ports of a protocol are taken.
func (p *Pool) InUse(proto uint8) int {
	if s := spaceOf(proto); s >= 0 {
		return p.space[s].inUse
	}
	return 0
}

// HighWater returns the highest number of ports of a protocol that were taken at once.
func (p *Pool) HighWater(proto uint8) int {
	if s := spaceOf(proto); s >= 0 {
		return p.space[s].highWater
	}
	return 0
}

// Size returns the number of ports of a protocol that are available to mappings: static
// mappings are not counted.
func (p *Pool) Size(proto uint8) int {
	if s := spaceOf(proto); s >= 0 {
		return len(p.space[s].byExt) - p.space[s].reserved
	}
	return 0
}

// reserve takes the ports lo to hi of a space out of the pool.
func (p *Pool) reserve(n int, lo, hi uint16) {
	s := p.space[n]
	for port := uint32(max(lo, p.Lo)); port <= uint32(min(hi, p.Hi)); port++ {
		if s.free(uint16(port)) {
			s.used[port/64] |= 1 << (port % 64)
			s.reserved++
		}
	}
}

// Take returns the external port of an internal endpoint for one more flow: the port of its
// mapping, else a free one, preferably want itself, otherwise one selected by the random
// number rnd. It reports false when there is none, or the endpoint's host has its share.
func (p *Pool) Take(proto uint8, addr packet.Addr, want uint16, rnd uint64) (port uint16, ok bool) {
	return p.take(proto, addr, want, p.Lo, p.Hi, rnd)
}

// take is Take with a port between from and to.
func (p *Pool) take(proto uint8, addr packet.Addr, want, from, to uint16, rnd uint64) (port uint16, ok bool) {
	n := spaceOf(proto)
	if n < 0 {
		return 0, false
	}
	s := p.space[n]
	at := p.find(s, addr, want)
	if e := s.index[at]; e != 0 {
		s.byExt[e-p.Lo].refs++
		return e, true
	}
	if p.mayTake(s, addr, from, to) {
		port, ok = choose(s, want, from, to, rnd)
	}
	if !ok {
		p.Failed++
		return 0, false
	}
	s.shares.add(addr, p.key, 1)
	p.set(s, at, port, addr, want)
	return port, true
}

// set adds a new mapping of an internal endpoint, with one flow.
func (p *Pool) set(s *space, at uint32, port uint16, addr packet.Addr, want uint16) {
	s.used[port/64] |= 1 << (port % 64)
	s.inUse++
	if s.inUse > s.highWater {
		s.highWater = s.inUse
	}
	s.index[at] = port
	m := &s.byExt[port-p.Lo]
	m.addr, m.port, m.refs, m.flow = addr, want, 1, 0
}

// choose returns a free port from first to last for an endpoint with the internal port
// want.
func choose(s *space, want, first, last uint16, rnd uint64) (port uint16, ok bool) {
	if s.inUse+s.reserved == len(s.byExt) {
		return 0, false
	}
	if want >= first && want <= last && s.free(want) {
		return want, true
	}
	lo, hi := classOf(first, last, want)
	if port, ok = draw(&s.used, lo, hi, want, rnd); ok {
		return port, true
	}
	if port, ok = search(&s.used, lo, hi, want, rnd); !ok {
		port, ok = search(&s.used, uint32(first), uint32(last), want, rnd)
	}
	return port, ok
}

// classOf returns those of the ports from first to last that are of the class of want, or all
// of them if none is.
func classOf(first, last, want uint16) (lo, hi uint32) {
	lo, hi = uint32(first), uint32(last)
	if want >= 1024 && hi >= 1024 {
		lo = max(lo, 1024)
	} else if lo < 1024 {
		hi = min(hi, 1023)
	}
	return lo, hi
}

// draws is how many words of the bitmap draw looks at. A random number has 21 bits for each.
const draws = 3

// draw looks for a free port of the parity of want near some random ones in [lo, hi]. Ports
// that are preserved lie close together: search, which goes on from one place, would look at
// hundreds of words there, and give out the port behind them again and again.
func draw(used *[1024]uint64, lo, hi uint32, want uint16, rnd uint64) (uint16, bool) {
	n := uint64(hi - lo + 1)
	parity := uint64(evenPorts) << (want & 1)
	for range draws {
		at := lo + uint32(rnd&(1<<21-1)*n>>21)
		rnd >>= 21
		w := at / 64
		free := ^used[w%1024] & parity
		if w == lo/64 {
			free &= ^uint64(0) << (lo % 64)
		}
		if w == hi/64 {
			free &= ^uint64(0) >> (63 - hi%64)
		}
		if free != 0 {
			// The first from at on, and round again.
			return uint16(w*64 + (at+uint32(bits.TrailingZeros64(bits.RotateLeft64(free, -int(at%64)))))%64), true
		}
	}
	return 0, false
}

const evenPorts = 0x5555555555555555

// search returns a free port in [lo, hi], beginning at a random one: first of the parity of
// want (RFC 4787 REQ-4), then any. used is the bitmap of taken ports, of which each round
// reads every word once.
func search(used *[1024]uint64, lo, hi uint32, want uint16, rnd uint64) (uint16, bool) {
	n := hi - lo + 1
	start := lo + uint32(rnd>>32)%n
	parity := uint64(evenPorts)
	if want&1 != 0 {
		parity = ^parity
	}
	for _, mask := range [...]uint64{parity, ^uint64(0)} {
		first, last := lo/64, hi/64
		w := start / 64
		skip := ^uint64(0) << (start % 64) // in the first word, from start on
		for range last - first + 2 {
			free := ^used[w%1024] & mask & skip
			if w == first {
				free &= ^uint64(0) << (lo % 64)
			}
			if w == last {
				free &= ^uint64(0) >> (63 - hi%64)
			}
			if free != 0 {
				return uint16(w*64 + uint32(bits.TrailingZeros64(free))), true
			}
			skip = ^uint64(0)
			if w++; w > last {
				w = first
			}
		}
	}
	return 0, false
}

func (s *space) free(port uint16) bool { return s.used[port/64]>>(port%64)&1 == 0 }

// Give ends one flow's use of a port; the last one frees it.
func (p *Pool) Give(proto uint8, port uint16) {
	n := spaceOf(proto)
	if n < 0 || port < p.Lo || port > p.Hi {
		return
	}
	s := p.space[n]
	m := &s.byExt[port-p.Lo]
	if m.refs == 0 {
		return
	}
	if m.refs--; m.refs > 0 {
		return
	}
	if m.addr == p.Addr {
		s.own--
	} else {
		s.shares.add(m.addr, p.key, ^uint16(0))
	}
	p.unindex(s, p.find(s, m.addr, m.port))
	s.used[port/64] &^= 1 << (port % 64)
	s.inUse--
	s.freed++
}
