package dnsproxy

import "github.com/thurward/thurward/internal/shared/packet"

// Sent returns what went from port of the WAN address to an upstream and waits
// for its answer; msg is valid until the next call of a method. Whoever has an
// error about it compares it: it holds what only those on its way know.
func (p *Proxy) Sent(port uint16) (to packet.Addr, toPort uint16, msg []byte, ok bool) {
	i := p.byPort[port]
	if i == 0 {
		return 0, 0, nil, false
	}
	w := &p.q[i-1]
	u := &p.up[w.up]
	return u.addr, u.port, p.question(w), true
}

// Unreachable says that the network, or the upstream's host, has refused what
// went from port. That counts as a try without an answer, and the next upstream
// is asked at once. It is a soft error (RFC 1122 section 4.2.3.9): when all have
// refused, the query waits as if nobody had, since what is unreachable now may
// be back in a moment.
func (p *Proxy) Unreachable(port uint16, now int64) {
	i := p.byPort[port]
	if i == 0 {
		return
	}
	w := &p.q[i-1]
	if w.refused>>w.up&1 != 0 {
		return // it has said so
	}
	p.c.Unreachable++
	p.failed(w.up, now)
	p.refused(i, now)
}

// refused goes on with a query that its upstream cannot be asked: the next that
// has not refused it is asked, or nobody until the try is over.
func (p *Proxy) refused(i uint16, now int64) {
	w := &p.q[i-1]
	w.refused |= 1 << w.up
	if w.probe {
		p.drop(i)
		return
	}
	if to, ok := p.notRefused(w); ok && w.tries < maxTries {
		p.leave(w, to)
		p.try(i, now)
	}
}

// notRefused returns the next upstream that has not refused a query: one that
// works, or else one that is down.
func (p *Proxy) notRefused(w *pending) (up uint8, ok bool) {
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
