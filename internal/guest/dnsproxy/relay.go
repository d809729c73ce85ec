package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Mine reports whether a UDP packet to port of the WAN address is for the
// proxy.
func (p *Proxy) OwnsPort(port uint16) bool { return p.byPort[port] != 0 }

// Answer handles a UDP message from the WAN to a port that is Mine. It is taken
// for the answer only if it comes from where the question went, with the
// question's identifier and the question itself, in the same case (RFC 5452
// section 9). It may change msg, as TCPResponse and TLSResponse may.
func (p *Proxy) UDPResponse(from packet.Addr, fromPort, toPort uint16, msg []byte, now int64) {
	i := p.byPort[toPort]
	if i == 0 {
		return
	}
	w := &p.q[i-1]
	u := &p.up[w.up]
	switch same, right := w.asked(msg); {
	case from != u.addr || fromPort != u.port || !same:
		p.c.Mismatched++
		if w.wrong++; w.wrong >= tcpAfter && !w.probe {
			p.tryTCP(i, now)
		}
	case !right:
		// A server that does not keep the case, or a forgery that comes very
		// near: over TCP it does not matter.
		p.c.WrongCase++
		p.overTCP(i, now)
	default:
		p.answered(i, msg, now)
	}
}

// TCPResponse handles the response to a query over TCP.
func (p *Proxy) TCPResponse(tag uint32, msg []byte, now int64) {
	i := p.tagged(tag)
	if i == 0 {
		return
	}
	if same, _ := p.q[i-1].asked(msg); !same {
		p.c.Mismatched++
		p.TCPFailed(tag, now)
		return
	}
	p.answered(i, msg, now)
}

// overTCP goes on over TCP with query i, which is under way over UDP. For a probe
// that is not worth it.
func (p *Proxy) overTCP(i uint16, now int64) {
	if p.q[i-1].probe {
		p.drop(i)
		return
	}
	p.tryTCP(i, now)
}

// asked reports whether a message is a response to this question, and whether
// the name has the case in which it was asked.
func (w *pending) asked(m []byte) (same, right bool) {
	n := int(w.nameLen)
	if len(m) < headerLen+n+4 || be16(m) != w.ourID || be16(m[2:])&(flagQR|opcodeMask) != flagQR || be16(m[4:]) != 1 {
		return false, false
	}
	right = true
	for k, c := range w.name[:n] {
		if lower(m[headerLen+k]) != lower(c) {
			return false, false
		}
		if letter(c) && w.flip[k/8]>>(k%8)&1 != 0 {
			c ^= 0x20
		}
		right = right && m[headerLen+k] == c
	}
	m = m[headerLen+n:]
	return be16(m) == w.typ && be16(m[2:]) == w.class, right
}

// answered handles the response to query i.
func (p *Proxy) answered(i uint16, m []byte, now int64) {
	w := &p.q[i-1]
	u := &p.up[w.up]
	u.failed, u.answered = 0, now
	if w.probe {
		p.drop(i)
		return
	}
	end := headerLen + int(w.nameLen) + 4
	a := &p.a
	if !a.scan(m, end, w.typ, w.class) {
		if be16(m[2:])&flagTC != 0 && !w.tcp && !w.tls {
			p.overTCP(i, now) // cut off in the middle of a record
			return
		}
		p.c.Malformed++
		p.end(i, rcodeServFail, verdict.DNSOther, now)
		return
	}
	if a.tc && !w.tcp && !w.tls {
		p.overTCP(i, now)
		return
	}
	if !a.opt && !w.plain && (a.rcode == rcodeFormErr || a.rcode == rcodeNotImp) {
		w.plain = true // an upstream from before EDNS (RFC 6891 section 6.2.2)
		if w.tcp {
			p.unanswered(i, now)
		} else {
			p.try(i, now)
		}
		return
	}
	if a.rcode > rcodeMask && !w.edns {
		p.end(i, rcodeServFail, verdict.DNSOther, now) // only EDNS can say it
		return
	}
	whole := a.follow(m, headerLen)
	if a.ech && p.mustSee() && !(w.do && a.signed) {
		if !p.hideECH(m, end) || !a.scan(m, end, w.typ, w.class) { // what the client reads is read here, too
			p.c.Malformed++
			p.end(i, rcodeServFail, verdict.DNSOther, now)
			return
		}
		whole = a.follow(m, headerLen)
	}
	switch blocked, all := p.leadsToBlocked(m); {
	case blocked:
		p.end(i, rcodeRefused, verdict.DNSBlockedList, now)
		return
	case !all:
		p.end(i, rcodeServFail, verdict.DNSOther, now)
		return
	}
	if (a.insideFound || a.insideExtra) && !p.private.Has(p.asked(w)) {
		if a.insideFound {
			p.lead = a.insideAddr
			p.end(i, rcodeRefused, verdict.DNSBlockedPrivate, now)
			return
		}
		// Nobody has asked for what is additional (RFC 2181 section 9).
		a.body, a.extra = a.core, 0
		p.c.AdditionalRemoved++
	}
	b := p.response(w, m)
	limit := maxMsg
	if w.client.Conn == 0 {
		limit = min(int(w.size), p.cfg.MaxUDP)
	}
	bound, first := 0, packet.Addr(0)
	if len(b) > limit {
		p.c.Truncated++
		b = p.cut(w, b)
	} else if whole && a.rcode == rcodeNoError {
		bound, first = p.bind(w, m, now)
	}
	// Whoever gets the answer may use it at once: it is bound.
	p.cfg.Transport.Reply(&w.client, b)
	p.finish(w, outcome(a.rcode), bound, first, u.addr, now)
	p.drop(i)
}

// leadsToBlocked reports whether a response has an alias, or a service, whose
// target is blocked: any of them, not only those of the chain, since the chain
// that is followed has an end. all is false when there are more than are looked
// at.
func (p *Proxy) leadsToBlocked(m []byte) (blocked, all bool) {
	if p.blocked.Empty() {
		return false, true
	}
	a := &p.a
	var name [maxName]byte
	for k := range a.aliases[:a.nAliases] {
		if n := expand(m, a.aliases[k].target, &name); p.blocked.Within(name[:n]) {
			return true, true
		}
	}
	for k := range a.addrs[:a.nAddrs] {
		if t := a.addrs[k].target; t != 0 {
			if n := expand(m, t, &name); p.blocked.Within(name[:n]) {
				return true, true
			}
		}
	}
	return false, !a.more
}

func outcome(rcode int) verdict.DNSOutcome {
	switch rcode {
	case rcodeNoError:
		return verdict.DNSAnswered
	case rcodeNXDomain:
		return verdict.DNSNXDomain
	case rcodeServFail:
		return verdict.DNSServFail
	case rcodeRefused:
		return verdict.DNSRefused
	}
	return verdict.DNSOther
}

// response writes to p.buf what the client gets: the upstream's message with
// the client's identifier, the name in the client's case, and an OPT record of
// our own where the client has one.
func (p *Proxy) response(w *pending, m []byte) []byte {
	a := &p.a
	b := append(p.buf[:0], m[:a.body]...)
	binary.BigEndian.PutUint16(b, w.id)
	copy(b[headerLen:], w.name[:w.nameLen])
	extra := a.extra
	if w.edns {
		extra++
		b = appendOPT(b, upstreamSize, uint8(a.rcode>>4), w.do, a.opts)
	}
	binary.BigEndian.PutUint16(b[10:], extra)
	return b
}

// cut makes a response that is too long for the client a truncated one,
// without records: the client asks again over TCP.
func (p *Proxy) cut(w *pending, b []byte) []byte {
	b = b[:headerLen+int(w.nameLen)+4]
	clear(b[6:headerLen])
	b[2] |= flagTC >> 8
	if w.edns {
		b[11] = 1
		b = appendOPT(b, upstreamSize, uint8(p.a.rcode>>4), w.do, nil)
	}
	return b
}

// bind installs what the client is about to learn: every name of the chain at
// every address of the leaf, for that address's lifetime. The target of a service
// gets nothing: it is a name that the owner of the asked one has written.
func (p *Proxy) bind(w *pending, m []byte, now int64) (n int, first packet.Addr) {
	a := &p.a
	who := w.client.Addr
	if p.everyone(who) {
		who = fqdn.Everyone
	}
	p.c.Unbound += uint64(a.left)
	var owner [maxName]byte
	for k := range a.addrs[:a.nAddrs] {
		d := &a.addrs[k]
		if !d.opens {
			continue
		}
		if l := expand(m, d.owner, &owner); string(owner[:l]) != string(a.leaf()) {
			continue
		}
		for j := range a.nLinks {
			p.cfg.Names.Bind(who, a.link(j), d.addr, d.ttl, now, w.lookup)
		}
		if n++; n == 1 {
			first = d.addr
		}
	}
	p.c.Bound += uint64(n)
	return n, first
}
