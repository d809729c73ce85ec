package nat

// Several workers divide the flows among them. Each has a NAT of its own, a part: the policy
// is the same in all, and each external port is in the pool of one of them.
//
// A port belongs to part port/2 modulo the number of parts, whether it is an external one
// or the internal one of an endpoint that gets an external one. So an endpoint's own port
// is always among those of its part, and is preserved where it would be without parts; and
// every part has even and odd ports, below 1024 and above (RFC 4787 REQ-3a, REQ-4).

// MaxParts is the largest number of parts.
const MaxParts = 8

// A Part is one of N parts, from 0. N is a power of two up to MaxParts; with 0 or 1 the part
// is the whole.
type Part struct{ K, N int }

// partOf returns the part of a port.
func partOf(port uint16, mask uint16) int { return int(port >> 1 & mask) }

// leastPart is how many ports each part of a pool must have at least, on average. A pool
// that is smaller belongs to part 0 as a whole, with all endpoints that it serves: a few
// ports divided by chance would be none for some hosts.
const leastPart = 256

// valid reports whether p is a part.
func (p Part) valid() bool {
	return p.N <= 1 && p.K == 0 || p.N <= MaxParts && p.N&(p.N-1) == 0 && uint(p.K) < uint(p.N)
}

// divisible reports whether a pool with entries of these ranges of ports is divided into n
// parts.
func divisible(ranges []member, pool int16, n int) bool {
	for _, m := range ranges {
		if m.pool == pool && int(m.hi)-int(m.lo)+1 < n*leastPart {
			return false
		}
	}
	return true
}

// confine takes the ports of other parts out of the pool.
func (p *Pool) confine(part Part) {
	for n := range p.space {
		for port := uint32(p.Lo); port <= uint32(p.Hi); port++ {
			if partOf(uint16(port), uint16(part.N-1)) != part.K {
				p.reserve(n, uint16(port), uint16(port))
			}
		}
	}
}
