package nat

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Own allocates ports of the WAN interface's address for the firewall's own queries. They
// come from the same pool as those of hosts on the LAN, so that every answer belongs to one
// of both, and are unpredictable (RFC 6056, RFC 5452 section 9.2).
type Own struct {
	addr packet.Addr
	pool *Pool // of addr; nil: no source is translated to addr, and used has all ports taken
	used [ownProtos][1024]uint64
}

// ownProtos is how many of Protocols the firewall takes ports of: TCP and UDP.
const ownProtos = 2

// ownLo is the lowest port that the firewall uses itself.
const ownLo = 1024

func (o *Own) init(p *ruleset.Policy, pools []*Pool, part Part) {
	f := p.Interface(ruleset.WAN)
	if f == nil {
		return
	}
	o.addr, _ = packet.AddrFrom16(f.Address)
	for _, q := range pools {
		if q.Addr == o.addr {
			o.pool = q
			if part.K == 0 { // the firewall's own queries are part 0's
				q.keep()
			}
		}
	}
}

// Addr returns the address that the ports belong to.
func (o *Own) Addr() packet.Addr { return o.addr }

// Take returns a free port for TCP or UDP, which is not used otherwise until Give. The
// random number rnd selects it. It reports false when there is none.
func (o *Own) Take(proto uint8, rnd uint64) (port uint16, ok bool) {
	n := spaceOf(proto)
	if n < 0 || n >= len(o.used) {
		return 0, false
	}
	if o.pool != nil {
		return o.pool.takeOwn(n, rnd)
	}
	if port, ok = search(&o.used[n], ownLo, 65535, uint16(rnd), rnd); ok {
		o.used[n][port/64] |= 1 << (port % 64)
	}
	return port, ok
}

// Give frees a port that Take has returned.
func (o *Own) Give(proto uint8, port uint16) {
	n := spaceOf(proto)
	switch {
	case n < 0 || n >= len(o.used):
	case o.pool != nil:
		o.pool.Give(proto, port)
	default:
		o.used[n][port/64] &^= 1 << (port % 64)
	}
}

// takeOwn takes a port for the firewall: a mapping whose internal endpoint is the external
// endpoint itself, which no host on the LAN can have.
func (p *Pool) takeOwn(n int, rnd uint64) (port uint16, ok bool) {
	s := p.space[n]
	lo, hi := uint32(p.Lo), uint32(p.Hi)
	if hi >= ownLo {
		lo = max(lo, ownLo)
	}
	if port, ok = search(&s.used, lo, hi, uint16(rnd), rnd); !ok {
		p.Failed++
		return 0, false
	}
	at := p.find(s, p.Addr, port)
	s.own++
	p.set(s, at, port, p.Addr, port)
	return port, true
}
