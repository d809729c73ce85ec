package dnsproxy

import "github.com/thurward/thurward/internal/shared/packet"

// Sent returns the query that was sent from port of the WAN address and is pending,
// with its destination. msg is valid until the next call of a method. An ICMP error
// that quotes it is genuine: its identifier and case are known only on its path.
func (p *Proxy) Sent(port uint16) (to packet.Addr, toPort uint16, msg []byte, ok bool) {
	i := p.byPort[port]
	if i == 0 {
		return 0, 0, nil, false
	}
	w := &p.queries[i-1]
	u := &p.up[w.up]
	return u.addr, u.port, p.encodeQuery(w), true
}

// Unreachable reports an ICMP error about the query that was sent from port. It
// counts as a try without a response, and the query is sent to the next upstream at
// once. It is a soft error (RFC 1122 section 4.2.3.9): if all upstreams are
// unreachable, the query waits for its timeout, since they may be back soon.
func (p *Proxy) Unreachable(port uint16, now int64) {
	i := p.byPort[port]
	if i == 0 {
		return
	}
	w := &p.queries[i-1]
	if w.refused>>w.up&1 != 0 {
		return // already handled
	}
	p.c.Unreachable++
	p.noteFailure(w.up, now)
	p.upstreamRefused(i, now)
}

// upstreamRefused continues with a query whose upstream is unreachable: with the next
// that is not, or after the timeout of the try.
func (p *Proxy) upstreamRefused(i uint16, now int64) {
	w := &p.queries[i-1]
	w.refused |= 1 << w.up
	if w.probe {
		p.release(i)
		return
	}
	if to, ok := p.nextNotRefused(w); ok && w.tries < maxTries {
		p.switchUpstream(w, to)
		p.try(i, now)
	}
}

// nextNotRefused returns the next upstream that is not unreachable for a query: one
// that is up, or else one that is down.
func (p *Proxy) nextNotRefused(w *pending) (up uint8, ok bool) {
	n := len(p.up)
	for _, down := range [...]bool{false, true} {
		for k := 1; k < n; k++ {
			if j := (int(w.up) + k) % n; w.refused>>j&1 == 0 && p.up[j].down() == down && p.usable(j) {
				return uint8(j), true
			}
		}
	}
	return 0, false
}
