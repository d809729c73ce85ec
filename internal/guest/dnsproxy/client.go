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

// A client is what is known of who asks: how often within a second that began
// with its first query.
type client struct {
	addr  packet.Addr
	n     uint32
	since int64
}

// client returns the entry of an address. The one whose second began first
// gives way.
func (p *Proxy) client(a packet.Addr) *client {
	h := uint32(a) * 0x9e3779b1 >> 8
	var best *client
	for i := range uint32(clientWindow) {
		c := &p.clients[(h+i)%clientSlots]
		if c.addr == a {
			return c
		}
		if best == nil || c.since < best.since {
			best = c
		}
	}
	*best = client{addr: a, since: -second}
	return best
}

// within counts a query of a client and reports whether it is within its rate.
func (p *Proxy) within(c *client, now int64) bool {
	if now-c.since >= second {
		c.since, c.n = now, 0
	}
	if c.n >= p.rate {
		return false
	}
	c.n++
	return true
}

// admit makes room for a query of a client and returns its place. Where all are
// taken, the client that has the most gives up its oldest query. One that would
// have as many itself, or has its share, gives up its own oldest if that has
// waited for a try in vain; otherwise it gets no place (nil), since what is under
// way is worth more than what comes.
func (p *Proxy) admit(c *Client, now int64) *pending {
	mine := p.holders.count(c.Addr)
	out := uint16(0)
	switch full := p.n-p.probes >= p.room; {
	case mine >= maxPerClient, full && mine > 0 && mine+1 >= p.holders.most:
		if out = p.holders.oldest(c.Addr); now-p.q[out-1].start < tryFor {
			return nil
		}
	case full:
		out = p.holders.largest()
	}
	if out != 0 {
		p.end(out, rcodeServFail, verdict.DNSOverload, now)
	}
	w := p.take()
	if w == nil {
		return nil // cannot be: there is room
	}
	w.client = *c
	p.hold(p.under.last)
	return w
}

// giveUpTCP ends a query that is under way over TCP, for the sake of another one
// of a client, by the same rule as admit.
func (p *Proxy) giveUpTCP(a packet.Addr, now int64) bool {
	var under [maxTCP]uint16 // the oldest first
	n := 0
	for i := p.under.first; i != 0 && n < maxTCP; i = p.q[i-1].next {
		if p.q[i-1].tcp {
			under[n] = i
			n++
		}
	}
	count := func(a packet.Addr) (k int) {
		for _, i := range under[:n] {
			if p.q[i-1].client.Addr == a {
				k++
			}
		}
		return k
	}
	mine, most, out := count(a), 0, uint16(0)
	for _, i := range under[:n] {
		if k := count(p.q[i-1].client.Addr); k > most {
			most, out = k, i
		}
	}
	if mine > 0 && mine+1 >= most {
		for _, i := range under[:n] {
			if out = i; p.q[i-1].client.Addr == a {
				break
			}
		}
		if now-p.q[out-1].start < tryFor {
			return false
		}
	}
	p.end(out, rcodeServFail, verdict.DNSOverload, now)
	return true
}

// everyone reports whether what this client learns all may use: it asks on
// their behalf.
func (p *Proxy) everyone(a packet.Addr) bool {
	for _, r := range p.resolvers {
		if r == a {
			return true
		}
	}
	return false
}

// uses says which sources rules let use which patterns of names.
type uses struct {
	first []uint32 // by pattern, into src; one more for the end
	src   []source
	ids   []uint32
}

type source struct{ addr, mask packet.Addr }

func newUses(p *ruleset.Policy) *uses {
	u := &uses{first: make([]uint32, len(p.Names)+1), ids: make([]uint32, 0, 64)}
	for n := range p.Names {
		u.first[n] = uint32(len(u.src))
		for i := range p.Matches {
			m := &p.Matches[i]
			if m.Name != uint32(n+1) || m.Action != ruleset.Accept {
				continue
			}
			s := source{}
			if m.SrcMask != (ruleset.Addr{}) {
				a, ok := packet.AddrFrom16(m.Src)
				if !ok {
					continue
				}
				s = source{a, packet.Mask(m.SrcMask)}
			}
			u.src = append(u.src, s)
		}
	}
	u.first[len(p.Names)] = uint32(len(u.src))
	return u
}

// allows reports whether a rule could let client use a name with these
// patterns.
func (u *uses) allows(client packet.Addr, ids []uint32) bool {
	for _, n := range ids {
		for _, s := range u.src[u.first[n]:u.first[n+1]] {
			if client&s.mask == s.addr {
				return true
			}
		}
	}
	return false
}
