package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An upstream is a name server to which queries are forwarded. The first of the
// policy that is up is used. One that has not responded three times in a row is
// considered down: the next is used then, and queries are sent to this one too once
// a second, as probes, until it responds.
type upstream struct {
	addr     packet.Addr
	port     uint16
	tls      bool  // it is used over TLS only
	failures uint8 // tries without a response, in a row
	probed   int64
	answered int64 // time of the last response
}

const (
	downAfter  = 3
	probeEvery = second
	// tcpAfter is how many messages that do not match a query are considered an
	// attack on it. It is retried over TCP then.
	tcpAfter = 8
)

func (u *upstream) down() bool { return u.failures >= downAfter }

// firstUpstream returns the upstream for a new query. If all are down, it is the one
// that responded last: queries for names whose servers do not respond can make the
// best upstream seem down.
func (p *Proxy) firstUpstream() uint8 {
	best := -1
	for i := range p.up {
		if !p.usable(i) {
			continue
		}
		if !p.up[i].down() {
			return uint8(i)
		}
		if best < 0 || p.up[i].answered > p.up[best].answered {
			best = i
		}
	}
	return uint8(max(best, 0))
}

// nextUpstream returns the upstream to try after i: the next that is up, or the next.
func (p *Proxy) nextUpstream(i uint8) uint8 {
	n := len(p.up)
	for _, down := range [...]bool{false, true} {
		for k := 1; k <= n; k++ {
			if j := (int(i) + k) % n; p.up[j].down() == down && p.usable(j) {
				return uint8(j)
			}
		}
	}
	return i
}

// probe sends query i, which goes to another upstream, to those that are down as well.
func (p *Proxy) probe(i uint16, now int64) {
	w := &p.queries[i-1]
	for j := range p.up {
		u := &p.up[j]
		if uint8(j) == w.up || !u.down() || now-u.probed < probeEvery || !p.usable(j) {
			continue
		}
		u.probed = now
		if p.probes >= maxProbes*len(p.up) {
			return
		}
		x := p.alloc()
		if x == nil {
			return
		}
		p.probes++
		x.name, x.nameLen, x.qtype, x.qclass, x.flags = w.name, w.nameLen, w.qtype, w.qclass, w.flags
		x.start, x.up, x.probe = now, uint8(j), true
		p.try(p.active.last, now)
	}
}

// try sends query i to its upstream, over UDP or TLS.
func (p *Proxy) try(i uint16, now int64) {
	w := &p.queries[i-1]
	if !w.probe && !p.usable(int(w.up)) { // an upstream with TLS is up again
		p.switchUpstream(w, p.nextUpstream(w.up))
	}
	if p.up[w.up].tls {
		p.tryTLS(i, now)
		return
	}
	t := p.cfg.Transport
	if w.port == 0 {
		port, ok := t.AllocPort()
		if !ok || p.byPort[port] != 0 {
			if ok {
				t.FreePort(port)
			}
			p.fail(i, rcodeServFail, verdict.DNSOverload, now)
			return
		}
		w.port = port
		p.byPort[port] = i
		r := t.Random()
		w.ourID, w.overTLS = uint16(r>>48), 0
		p.randomizeCase(w)
	}
	if w.tries++; w.tries > 1 {
		p.c.Retries++
	}
	w.due = now + tryTimeout
	p.c.Asked++
	t.SendUDP(p.up[w.up].addr, p.up[w.up].port, w.port, p.encodeQuery(w))
}

// randomizeCase chooses the case of the name of a query.
func (p *Proxy) randomizeCase(w *pending) {
	for k := 0; k < len(w.caseBits); k += 8 {
		binary.LittleEndian.PutUint64(w.caseBits[k:], p.cfg.Transport.Random())
	}
}

// switchUpstream prepares a query to be sent to another upstream.
func (p *Proxy) switchUpstream(w *pending, to uint8) {
	p.closePort(w)
	w.up, w.noEDNS, w.tls = to, false, false
}

// tryTCP sends query i, which was sent over UDP and is no probe, to its upstream over
// TCP; or to another upstream if that one may not be used any more. It fails the
// query if there is no room.
func (p *Proxy) tryTCP(i uint16, now int64) {
	w := &p.queries[i-1]
	if !p.usable(int(w.up)) {
		p.try(i, now)
		return
	}
	if p.tcp >= maxTCP && !p.preemptTCP(w.client.Addr, now) {
		p.fail(i, rcodeServFail, verdict.DNSOverload, now)
		return
	}
	p.closePort(w)
	w.tcp = true
	p.tcp++
	w.tries++
	w.due = w.start + queryTimeout
	p.c.Asked++
	p.c.Retries++
	p.c.OverTCP++
	if !p.cfg.Transport.SendTCP(int(w.up), p.up[w.up].addr, p.up[w.up].port, p.tag(i), p.encodeQuery(w)) {
		p.endTCP(w)
		p.fail(i, rcodeServFail, verdict.DNSOverload, now) // not counted as a failure of the upstream
	}
}

// Due returns the time at which Tick must be called, or false if no query is pending.
func (p *Proxy) Due() (int64, bool) {
	at, any := int64(0), false
	for i := p.active.first; i != 0; i = p.queries[i-1].next {
		if d := p.queries[i-1].due; !any || d < at {
			at, any = d, true
		}
	}
	return at, any
}

// Tick handles the timeouts of pending queries.
func (p *Proxy) Tick(now int64) {
	for i := p.active.first; i != 0; {
		w := &p.queries[i-1]
		next := w.next
		if now >= w.due {
			p.tryFailed(i, now)
		}
		i = next
	}
}

// noteFailure counts a try without a response.
func (p *Proxy) noteFailure(up uint8, now int64) {
	if u := &p.up[up]; u.failures < 255 {
		u.failures++
		if u.failures == downAfter {
			u.probed = now
		}
	}
}

// tryFailed continues with a query whose try has failed: with another, or not at all.
func (p *Proxy) tryFailed(i uint16, now int64) {
	w := &p.queries[i-1]
	if w.refused>>w.up&1 == 0 {
		p.noteFailure(w.up, now)
	}
	w.refused = 0
	if w.probe {
		p.release(i)
		return
	}
	if now-w.start >= queryTimeout || w.tcp || w.tries >= maxTries {
		p.fail(i, rcodeServFail, verdict.DNSTimeout, now)
		return
	}
	if to := p.nextUpstream(w.up); to != w.up {
		// Another upstream gets another port and identifier. The same one gets
		// the same, so that a late response still matches.
		p.switchUpstream(w, to)
	} else if w.tls {
		w.due = w.start + queryTimeout // TCP retransmits
		return
	}
	p.try(i, now)
}

// TCPFailed reports that a query over TCP has failed.
func (p *Proxy) TCPFailed(tag uint32, now int64) {
	if i := p.byTag(tag); i != 0 {
		p.endTCP(&p.queries[i-1])
		p.tryFailed(i, now)
	}
}

// byTag returns the query with this tag (see tag) if it is pending over TCP, or 0.
func (p *Proxy) byTag(tag uint32) uint16 {
	i := uint16(tag)
	if i == 0 || int(i) > len(p.queries) {
		return 0
	}
	if w := &p.queries[i-1]; !w.tcp || w.gen != uint16(tag>>16) {
		return 0
	}
	return i
}
