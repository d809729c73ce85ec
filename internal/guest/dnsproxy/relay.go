package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// OwnsPort reports whether a pending query was sent from this UDP port of the WAN
// address.
func (p *Proxy) OwnsPort(port uint16) bool { return p.byPort[port] != 0 }

// UDPResponse handles a UDP message from the WAN. It is accepted as the response to a
// query only if it comes from the address and port to which the query was sent, and
// has its identifier and its question in the same case (RFC 5452 section 9).
// UDPResponse may modify msg, as TCPResponse and TLSResponse may.
func (p *Proxy) UDPResponse(from packet.Addr, fromPort, toPort uint16, msg []byte, now int64) {
	i := p.byPort[toPort]
	if i == 0 {
		return
	}
	w := &p.queries[i-1]
	u := &p.up[w.up]
	switch same, exact := w.matches(msg); {
	case from != u.addr || fromPort != u.port || !same:
		p.c.Mismatched++
		if w.mismatches++; w.mismatches >= tcpAfter && !w.probe {
			p.tryTCP(i, now)
		}
	case !exact:
		// The server does not preserve case, or this is a forgery that guessed
		// all else. Over TCP the case does not matter.
		p.c.WrongCase++
		p.retryTCP(i, now)
	default:
		p.complete(i, msg, now)
	}
}

// TCPResponse handles the message received for the query with this tag.
func (p *Proxy) TCPResponse(tag uint32, msg []byte, now int64) {
	i := p.byTag(tag)
	if i == 0 {
		return
	}
	if same, _ := p.queries[i-1].matches(msg); !same {
		p.c.Mismatched++
		p.TCPFailed(tag, now)
		return
	}
	p.complete(i, msg, now)
}

// retryTCP retries query i, which was sent over UDP, over TCP. It drops a probe.
func (p *Proxy) retryTCP(i uint16, now int64) {
	if p.queries[i-1].probe {
		p.release(i)
		return
	}
	p.tryTCP(i, now)
}

// matches reports whether a message is a response to this query, and whether its name
// has the case of the query.
func (w *pending) matches(m []byte) (same, exact bool) {
	n := int(w.nameLen)
	if len(m) < headerLen+n+4 || be16(m) != w.ourID || be16(m[2:])&(flagQR|opcodeMask) != flagQR || be16(m[4:]) != 1 {
		return false, false
	}
	exact = true
	for k, c := range w.name[:n] {
		if lower(m[headerLen+k]) != lower(c) {
			return false, false
		}
		if letter(c) && w.caseBits[k/8]>>(k%8)&1 != 0 {
			c ^= 0x20
		}
		exact = exact && m[headerLen+k] == c
	}
	m = m[headerLen+n:]
	return be16(m) == w.qtype && be16(m[2:]) == w.qclass, exact
}

// complete handles the response to query i.
func (p *Proxy) complete(i uint16, m []byte, now int64) {
	w := &p.queries[i-1]
	u := &p.up[w.up]
	u.failures, u.answered = 0, now
	if w.probe {
		p.release(i)
		return
	}
	end := headerLen + int(w.nameLen) + 4
	a := &p.resp
	if !a.scan(m, end, w.qtype, w.qclass) {
		if be16(m[2:])&flagTC != 0 && !w.tcp && !w.tls {
			p.retryTCP(i, now) // truncated within a record
			return
		}
		p.c.Malformed++
		p.fail(i, rcodeServFail, verdict.DNSOther, now)
		return
	}
	if a.tc && !w.tcp && !w.tls {
		p.retryTCP(i, now)
		return
	}
	if !a.opt && !w.noEDNS && (a.rcode == rcodeFormErr || a.rcode == rcodeNotImp) {
		w.noEDNS = true // the upstream does not support EDNS (RFC 6891 section 6.2.2)
		if w.tcp {
			p.tryFailed(i, now)
		} else {
			p.try(i, now)
		}
		return
	}
	if a.rcode > rcodeMask && !w.edns {
		p.fail(i, rcodeServFail, verdict.DNSOther, now) // it cannot be expressed without EDNS
		return
	}
	whole := a.followChain(m, headerLen)
	if a.ech && p.sniRequired() && !(w.do && a.signed) {
		p.removeECH(m, end)
		if !a.scan(m, end, w.qtype, w.qclass) { // scanned as the client will read it
			p.c.Malformed++
			p.fail(i, rcodeServFail, verdict.DNSOther, now)
			return
		}
		whole = a.followChain(m, headerLen)
	}
	switch blocked, all := p.targetBlocked(m); {
	case blocked:
		p.fail(i, rcodeRefused, verdict.DNSBlockedList, now)
		return
	case !all:
		p.fail(i, rcodeServFail, verdict.DNSOther, now)
		return
	}
	if (a.privateFound || a.privateExtra) && !p.privateNames.Has(p.qname(w)) {
		if a.privateFound {
			p.privateAddr = a.privateAddr
			p.fail(i, rcodeRefused, verdict.DNSBlockedPrivate, now)
			return
		}
		// The additional section may be left out (RFC 2181 section 9).
		a.body, a.extra = a.beforeExtra, 0
		p.c.AdditionalRemoved++
	}
	b := p.encodeReply(w, m)
	limit := maxMsg
	if w.client.Conn == 0 {
		limit = min(int(w.size), p.cfg.MaxUDP)
	}
	bound, first := 0, packet.Addr(0)
	if len(b) > limit {
		p.c.Truncated++
		b = p.truncate(w, b)
	} else if whole && a.rcode == rcodeNoError {
		bound, first = p.bind(w, m, now)
	}
	// Bound before the reply is sent: the client may connect at once.
	p.cfg.Transport.Reply(&w.client, b)
	p.finish(w, outcome(a.rcode), bound, first, u.addr, now)
	p.release(i)
}

// targetBlocked reports whether a response has an alias or a service binding with a
// blocked target: any of them, also outside the chain, whose length is bounded. all
// is false if there are more than were examined.
func (p *Proxy) targetBlocked(m []byte) (blocked, all bool) {
	if p.blocked.Empty() {
		return false, true
	}
	a := &p.resp
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
	return false, !a.moreTargets
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

// encodeReply writes the response for the client to p.buf: the upstream's message
// with the client's identifier, the name in the client's case, and the proxy's own
// OPT record if the query had one.
func (p *Proxy) encodeReply(w *pending, m []byte) []byte {
	a := &p.resp
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

// truncate turns a response that is too long for the client into a truncated one
// without records: the client retries over TCP.
func (p *Proxy) truncate(w *pending, b []byte) []byte {
	b = b[:headerLen+int(w.nameLen)+4]
	clear(b[6:headerLen])
	b[2] |= flagTC >> 8
	if w.edns {
		b[11] = 1
		b = appendOPT(b, upstreamSize, uint8(p.resp.rcode>>4), w.do, nil)
	}
	return b
}

// bind adds bindings for the client: of every name of the chain to every address of
// the last one, with that address's TTL. The target of a service binding gets none:
// the owner of the queried name can write any name there.
func (p *Proxy) bind(w *pending, m []byte, now int64) (n int, first packet.Addr) {
	a := &p.resp
	who := w.client.Addr
	if p.bindsForAll(who) {
		who = fqdn.Everyone
	}
	p.c.Unbound += uint64(a.moreAddrs)
	var owner [maxName]byte
	for k := range a.addrs[:a.nAddrs] {
		d := &a.addrs[k]
		if !d.binds {
			continue
		}
		if l := expand(m, d.owner, &owner); string(owner[:l]) != string(a.last()) {
			continue
		}
		for j := range a.nChain {
			p.cfg.Names.Bind(who, a.name(j), d.addr, d.ttl, now, w.lookup)
		}
		if n++; n == 1 {
			first = d.addr
		}
	}
	p.c.Bound += uint64(n)
	return n, first
}
