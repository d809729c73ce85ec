package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// An upstream is a name server that is asked. The first of the policy that
// works is taken. One that has not answered three times in a row is taken to be
// down: then the next one is asked, and this one beside it once a second, so
// that it is back as soon as it answers.
type upstream struct {
	addr     packet.Addr
	port     uint16
	tls      bool  // it is asked over TLS, and never otherwise
	failed   uint8 // times in a row
	probed   int64
	answered int64 // when it did last
}

const (
	downAfter  = 3
	probeEvery = second
	// tcpAfter is how many responses that do not match a question are taken
	// for an attack on it. It goes on over TCP then.
	tcpAfter = 8
)

func (u *upstream) down() bool { return u.failed >= downAfter }

// choose returns the upstream to ask first: of several that are down the one
// that has answered last, since whoever asks for names that nobody answers makes
// the best one seem to be down.
func (p *Proxy) choose() uint8 {
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

// after returns the upstream to ask when i has not answered: the next that
// works, or the next.
func (p *Proxy) after(i uint8) uint8 {
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

// probe asks an upstream that is down what is asked of another.
func (p *Proxy) probe(i uint16, now int64) {
	w := &p.q[i-1]
	for j := range p.up {
		u := &p.up[j]
		if uint8(j) == w.up || !u.down() || now-u.probed < probeEvery || !p.usable(j) {
			continue
		}
		u.probed = now
		if p.probes >= maxProbes*len(p.up) {
			return
		}
		x := p.take()
		if x == nil {
			return
		}
		p.probes++
		x.name, x.nameLen, x.typ, x.class, x.flags = w.name, w.nameLen, w.typ, w.class, w.flags
		x.start, x.up, x.probe = now, uint8(j), true
		p.try(p.under.last, now)
	}
}

// try asks query i's upstream, over UDP unless it is one with TLS.
func (p *Proxy) try(i uint16, now int64) {
	w := &p.q[i-1]
	if !w.probe && !p.usable(int(w.up)) { // one with TLS has come back meanwhile
		p.leave(w, p.after(w.up))
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
			p.end(i, rcodeServFail, verdict.DNSOverload, now)
			return
		}
		w.port = port
		p.byPort[port] = i
		r := t.Random()
		w.ourID = uint16(r >> 48)
		p.mix(w)
	}
	if w.tries++; w.tries > 1 {
		p.c.Retries++
	}
	w.due = now + tryFor
	p.c.Asked++
	t.SendUDP(p.up[w.up].addr, p.up[w.up].port, w.port, p.question(w))
}

// mix gives the name of a query a case of its own.
func (p *Proxy) mix(w *pending) {
	for k := 0; k < len(w.flip); k += 8 {
		binary.LittleEndian.PutUint64(w.flip[k:], p.cfg.Transport.Random())
	}
}

// leave takes a query away from its upstream, for it to ask another.
func (p *Proxy) leave(w *pending, to uint8) {
	p.closePort(w)
	w.up, w.plain, w.tls = to, false, false
}

// tryTCP asks over TCP the upstream of query i, which is under way over UDP and no
// probe; or another if that one must not be asked any more. Where there is no room
// for that, the query ends.
func (p *Proxy) tryTCP(i uint16, now int64) {
	w := &p.q[i-1]
	if !p.usable(int(w.up)) {
		p.try(i, now)
		return
	}
	if p.tcp >= maxTCP && !p.giveUpTCP(w.client.Addr, now) {
		p.end(i, rcodeServFail, verdict.DNSOverload, now)
		return
	}
	p.closePort(w)
	w.tcp = true
	p.tcp++
	w.tries++
	w.due = w.start + totalTime
	p.c.Asked++
	p.c.Retries++
	p.c.OverTCP++
	if !p.cfg.Transport.SendTCP(int(w.up), p.up[w.up].addr, p.up[w.up].port, p.tag(i), p.question(w)) {
		p.leftTCP(w)
		p.end(i, rcodeServFail, verdict.DNSOverload, now) // that is not the upstream's fault
	}
}

// Due returns when Tick has something to do, or false.
func (p *Proxy) Due() (int64, bool) {
	at, any := int64(0), false
	for i := p.under.first; i != 0; i = p.q[i-1].next {
		if d := p.q[i-1].due; !any || d < at {
			at, any = d, true
		}
	}
	return at, any
}

// Tick looks after queries that nobody has answered.
func (p *Proxy) Tick(now int64) {
	for i := p.under.first; i != 0; {
		w := &p.q[i-1]
		next := w.next
		if now >= w.due {
			p.unanswered(i, now)
		}
		i = next
	}
}

// failed notes that an upstream has not answered a try.
func (p *Proxy) failed(up uint8, now int64) {
	if u := &p.up[up]; u.failed < 255 {
		u.failed++
		if u.failed == downAfter {
			u.probed = now
		}
	}
}

// unanswered goes on with a query whose try has failed.
func (p *Proxy) unanswered(i uint16, now int64) {
	w := &p.q[i-1]
	if w.refused>>w.up&1 == 0 {
		p.failed(w.up, now)
	}
	w.refused = 0
	if w.probe {
		p.drop(i)
		return
	}
	if now-w.start >= totalTime || w.tcp || w.tries >= maxTries {
		p.end(i, rcodeServFail, verdict.DNSTimeout, now)
		return
	}
	if to := p.after(w.up); to != w.up {
		// Another one gets a port and an identifier of its own; the same one
		// gets the same, so that its late answer is still good.
		p.leave(w, to)
	} else if w.tls {
		w.due = w.start + totalTime // what a connection carries is not lost
		return
	}
	p.try(i, now)
}

// TCPFailed says that a query over TCP has failed.
func (p *Proxy) TCPFailed(tag uint32, now int64) {
	if i := p.tagged(tag); i != 0 {
		p.leftTCP(&p.q[i-1])
		p.unanswered(i, now)
	}
}

// tagged returns the query that a tag stands for, or 0.
func (p *Proxy) tagged(tag uint32) uint16 {
	i := uint16(tag)
	if i == 0 || int(i) > len(p.q) {
		return 0
	}
	if w := &p.q[i-1]; !w.used || !w.tcp || w.gen != uint16(tag>>16) {
		return 0
	}
	return i
}
