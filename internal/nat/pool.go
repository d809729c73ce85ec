// Package nat decides how flows are translated: which source gets which
// external address and port (RFC 2663 NAPT, masquerade).
//
// In the terms of RFC 4787 and RFC 5382: no port overloading (REQ-3, REQ-7);
// a port is preserved when it is free, otherwise chosen unpredictably within
// the pool and, where the pool allows, in the same class (0-1023, 1024-65535)
// and with the same parity. Each flow has a port of its own, so that mapping
// and filtering are address- and port-dependent.
package nat

import (
	"math/bits"

	"github.com/thurward/thurward/internal/packet"
)

// protos is the number of protocols with a port space of their own.
const protos = 3

// space returns the index of a protocol's port space, or -1.
func space(proto uint8) int {
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

// A Pool holds the external ports of one address: for TCP and UDP, and the
// identifiers for ICMP queries. It never hands one out twice.
type Pool struct {
	Addr   packet.Addr
	Lo, Hi uint16 // inclusive
	used   [protos][1024]uint64
	inUse  [protos]int
	Failed uint64 // times that no port was free
}

// NewPool returns a pool of the ports lo to hi.
func NewPool(addr packet.Addr, lo, hi uint16) *Pool { return &Pool{Addr: addr, Lo: lo, Hi: hi} }

// InUse returns how many ports of a protocol are taken.
func (p *Pool) InUse(proto uint8) int {
	if s := space(proto); s >= 0 {
		return p.inUse[s]
	}
	return 0
}

// Take returns a free port for a protocol: want itself when it is free,
// otherwise one that rnd, a random number, chooses.
func (p *Pool) Take(proto uint8, want uint16, rnd uint64) (port uint16, ok bool) {
	s := space(proto)
	if s < 0 {
		return 0, false
	}
	if want >= p.Lo && want <= p.Hi && p.free(s, want) {
		p.set(s, want)
		return want, true
	}
	lo, hi := uint32(p.Lo), uint32(p.Hi)
	// RFC 4787 REQ-3a: a port of the same class, if the pool has both.
	if want >= 1024 && hi >= 1024 {
		lo = max(lo, 1024)
	} else if want < 1024 && lo < 1024 {
		hi = min(hi, 1023)
	}
	if port, ok = p.search(s, lo, hi, want, rnd); ok {
		return port, true
	}
	if lo != uint32(p.Lo) || hi != uint32(p.Hi) {
		if port, ok = p.search(s, uint32(p.Lo), uint32(p.Hi), want, rnd); ok {
			return port, true
		}
	}
	p.Failed++
	return 0, false
}

const evenPorts = 0x5555555555555555

// search looks for a free port in [lo, hi], beginning at a random one: first
// for one of the parity of want (RFC 4787 REQ-4), then for any. Each round
// looks at every word of the bitmap once.
func (p *Pool) search(s int, lo, hi uint32, want uint16, rnd uint64) (uint16, bool) {
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
			free := ^p.used[s][w] & mask & skip
			if w == first {
				free &= ^uint64(0) << (lo % 64)
			}
			if w == last {
				free &= ^uint64(0) >> (63 - hi%64)
			}
			if free != 0 {
				port := uint16(w*64 + uint32(bits.TrailingZeros64(free)))
				p.set(s, port)
				return port, true
			}
			skip = ^uint64(0)
			if w++; w > last {
				w = first
			}
		}
	}
	return 0, false
}

func (p *Pool) free(s int, port uint16) bool { return p.used[s][port/64]>>(port%64)&1 == 0 }

func (p *Pool) set(s int, port uint16) {
	p.used[s][port/64] |= 1 << (port % 64)
	p.inUse[s]++
}

// Give returns a port to the pool.
func (p *Pool) Give(proto uint8, port uint16) {
	s := space(proto)
	if s < 0 || p.free(s, port) {
		return
	}
	p.used[s][port/64] &^= 1 << (port % 64)
	p.inUse[s]--
}
