package dnsproxy

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const (
	clientSlots  = 4096 // power of two
	clientWindow = 8
)

// A rateEntry counts the queries of one client in the current second, which began
// with the first of them.
type rateEntry struct {
	addr  packet.Addr
	n     uint32
	since int64
}

// rateOf returns the entry of an address. If there is none, it replaces the one whose
// second began first among those of the same hash.
func (p *Proxy) rateOf(a packet.Addr) *rateEntry {
	h := uint32(a) * 0x9e3779b1 >> 8
	var best *rateEntry
	for i := range uint32(clientWindow) {
		c := &p.rates[(h+i)%clientSlots]
		if c.addr == a {
			return c
		}
		if best == nil || c.since < best.since {
			best = c
		}
	}
	*best = rateEntry{addr: a, since: -second}
	return best
}

// withinRate counts a query of a client and reports whether it is within its rate.
func (p *Proxy) withinRate(c *rateEntry, now int64) bool {
	if now-c.since >= second {
		c.since, c.n = now, 0
	}
	if c.n >= p.rate {
		return false
	}
	c.n++
	return true
}

// admit allocates a query for a client. If all are in use, the oldest query of the
// client with the most is failed. If that would be the client itself, or it is at its
// limit, its own oldest query is failed, provided that it has waited for longer than
// a try; otherwise admit returns nil, in favour of the pending queries.
func (p *Proxy) admit(c *Client, now int64) *pending {
	mine := p.owners.count(c.Addr)
	out := uint16(0)
	switch full := p.n-p.probes >= p.clientRoom; {
	case mine >= maxPerClient, full && mine > 0 && mine+1 >= p.owners.most:
		if out = p.owners.oldest(c.Addr); now-p.queries[out-1].start < tryTimeout {
			return nil
		}
	case full:
		out = p.owners.oldestOfLargest()
	}
	if out != 0 {
		p.fail(out, rcodeServFail, verdict.DNSOverload, now)
	}
	w := p.alloc()
	if w == nil {
		return nil // unreachable: there is room
	}
	w.client = *c
	p.addOwned(p.active.last)
	return w
}

// preemptTCP fails a query over TCP in favour of another one of client a, by the same
// rule as admit. It returns false if there is none to fail.
func (p *Proxy) preemptTCP(a packet.Addr, now int64) bool {
	var under [maxTCP]uint16 // the oldest first
	n := 0
	for i := p.active.first; i != 0 && n < maxTCP; i = p.queries[i-1].next {
		if p.queries[i-1].tcp {
			under[n] = i
			n++
		}
	}
	count := func(a packet.Addr) (k int) {
		for _, i := range under[:n] {
			if p.queries[i-1].client.Addr == a {
				k++
			}
		}
		return k
	}
	mine, most, out := count(a), 0, uint16(0)
	for _, i := range under[:n] {
		if k := count(p.queries[i-1].client.Addr); k > most {
			most, out = k, i
		}
	}
	if mine > 0 && mine+1 >= most {
		for _, i := range under[:n] {
			if out = i; p.queries[i-1].client.Addr == a {
				break
			}
		}
		if now-p.queries[out-1].start < tryTimeout {
			return false
		}
	}
	p.fail(out, rcodeServFail, verdict.DNSOverload, now)
	return true
}

// bindsForAll reports whether the bindings of this client are for all clients: it is
// a resolver that queries on their behalf.
func (p *Proxy) bindsForAll(a packet.Addr) bool {
	for _, r := range p.resolvers {
		if r == a {
			return true
		}
	}
	return false
}

// sourceSets is the source addresses of the rules that accept each name pattern.
type sourceSets struct {
	first []uint32 // by pattern: index of its first source; one more for the end
	src   []packet.Net
	idBuf []uint32
}

func newSourceSets(p *ruleset.Policy) *sourceSets {
	u := &sourceSets{first: make([]uint32, len(p.Names)+1), idBuf: make([]uint32, 0, 64)}
	for n := range p.Names {
		u.first[n] = uint32(len(u.src))
		for i := range p.Matches {
			m := &p.Matches[i]
			if m.Name != uint32(n+1) || m.Action != ruleset.Accept {
				continue
			}
			s := packet.Net{} // all
			if m.SrcMask != (ruleset.Addr{}) {
				a, ok := packet.AddrFrom16(m.Src)
				if !ok {
					continue
				}
				s = packet.Net{Addr: a, Mask: packet.Mask(m.SrcMask)}
			}
			u.src = append(u.src, s)
		}
	}
	u.first[len(p.Names)] = uint32(len(u.src))
	return u
}

// allows reports whether a rule accepts traffic from client to a name with one of
// these patterns.
func (u *sourceSets) allows(client packet.Addr, ids []uint32) bool {
	for _, n := range ids {
		for _, s := range u.src[u.first[n]:u.first[n+1]] {
			if s.Has(client) {
				return true
			}
		}
	}
	return false
}
