package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Query handles a message from a client at time now. It returns the outcome if the
// proxy has responded itself, and 0 otherwise.
func (p *Proxy) Query(c *Client, msg []byte, now int64) verdict.DNSOutcome {
	var q question
	if !parseQuery(msg, &q, p.optBuf[:0]) {
		// No response to what is no query: two servers could otherwise send
		// responses to each other for ever.
		p.c.NotQueries++
		return 0
	}
	p.c.Queries++
	p.lookup++
	name := p.lower[:1]
	name[0] = 0
	if q.wellFormed {
		name = p.lower[:copy(p.lower[:], q.name)]
		for i, b := range name {
			name[i] = lower(b) // length bytes are below the letters
		}
	}
	switch {
	case !p.withinRate(p.rateOf(c.Addr), now):
		return p.refuse(c, &q, msg, name, rcodeServFail, verdict.DNSRateLimited)
	case q.flags&opcodeMask != 0 || q.typ == typeAXFR || q.typ == typeIXFR:
		return p.refuse(c, &q, msg, name, rcodeNotImp, verdict.DNSNotImplemented)
	case !q.wellFormed || q.ednsMalformed:
		return p.refuse(c, &q, msg, name, rcodeFormErr, verdict.DNSMalformed)
	case q.version != 0:
		return p.refuse(c, &q, msg, name, rcodeBadVers, verdict.DNSMalformed)
	case p.blocked.Within(name):
		return p.refuse(c, &q, msg, name, rcodeRefused, verdict.DNSBlockedList)
	case p.unusable(c.Addr, name, now):
		return p.refuse(c, &q, msg, name, rcodeRefused, verdict.DNSBlockedPolicy)
	}
	w := p.admit(c, now)
	if w == nil {
		return p.refuse(c, &q, msg, name, rcodeServFail, verdict.DNSOverload)
	}
	w.lookup, w.start = p.lookup, now
	w.setQuestion(&q)
	i := p.active.last
	w.up = p.firstUpstream()
	p.probe(i, now)
	p.try(i, now)
	return 0
}

// unusable reports whether the policy restricts queries (dns.queries: policy), and no rule
// lets the client use the name, unless it is one of an alias chain that it may use.
func (p *Proxy) unusable(client packet.Addr, name []byte, now int64) bool {
	return p.sources != nil && !p.sources.allows(client, p.cfg.Patterns.Match(name, p.sources.idBuf)) &&
		!p.cfg.Names.Knows(client, name, now)
}

// setQuestion stores the question of a query.
func (w *pending) setQuestion(q *question) {
	w.id, w.flags, w.qtype, w.qclass, w.size, w.edns, w.do = q.id, q.flags, q.typ, q.class, q.size, q.edns, q.do
	w.nameLen, w.nOpts = uint8(copy(w.name[:], q.name)), uint8(copy(w.opts[:], q.opts))
}

// encodeQuery writes the query for an upstream to p.buf, with the name in random
// case: a response with another is forged, or from a server that changes it.
func (p *Proxy) encodeQuery(w *pending) []byte {
	b := p.buf[:headerLen]
	binary.BigEndian.PutUint16(b, w.ourID)
	binary.BigEndian.PutUint16(b[2:], w.flags&(flagRD|flagZ|flagAD|flagCD))
	clear(b[4:])
	b[5] = 1
	b = append(b, w.name[:w.nameLen]...)
	for i, c := range b[headerLen:] {
		if letter(c) && w.caseBits[i/8]>>(i%8)&1 != 0 {
			b[headerLen+i] ^= 0x20
		}
	}
	b = binary.BigEndian.AppendUint16(b, w.qtype)
	b = binary.BigEndian.AppendUint16(b, w.qclass)
	if !w.noEDNS {
		b[11] = 1
		opts := w.opts[:w.nOpts]
		if w.tls {
			opts = p.padded(opts, len(b))
		}
		b = appendOPT(b, upstreamSize, 0, w.do, opts)
	}
	return b
}

// refuse responds to a query that is not sent to an upstream.
func (p *Proxy) refuse(c *Client, q *question, msg, name []byte, rcode int, why verdict.DNSOutcome) verdict.DNSOutcome {
	b := p.buf[:headerLen]
	p.putHeader(b, q.id, q.flags, rcode)
	if q.wellFormed {
		b[5] = 1
		b = append(b, msg[headerLen:q.end]...)
	}
	if q.edns {
		b[11] = 1
		var ede []byte
		if why == verdict.DNSBlockedList || why == verdict.DNSBlockedPolicy {
			ede = blockedOption[:]
		}
		b = appendOPT(b, upstreamSize, uint8(rcode>>4), q.do, ede)
	}
	p.cfg.Transport.Reply(c, b)
	p.report(Result{Client: *c, Name: name, Type: q.typ, Outcome: why, Lookup: p.lookup})
	return why
}

// blockedOption is an Extended DNS Error: Blocked (RFC 8914 section 4.16).
var blockedOption = [...]byte{0, optEDE, 0, 2, 0, edeBlocked}

// putHeader writes the header of a response by the proxy itself, without records.
func (p *Proxy) putHeader(b []byte, id, flags uint16, rcode int) {
	clear(b[:headerLen])
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], flagQR|flags&(opcodeMask|flagRD|flagCD)|flagRA|uint16(rcode&rcodeMask))
}

// report counts and reports a result.
func (p *Proxy) report(d Result) {
	p.c.Outcomes[d.Outcome]++
	p.result = d
	p.cfg.Transport.QueryDone(&p.result)
}

// fail responds to a pending query with rcode, and with an Extended DNS Error if it
// is blocked, and releases it.
func (p *Proxy) fail(i uint16, rcode int, why verdict.DNSOutcome, now int64) {
	w := &p.queries[i-1]
	if w.tcp && (why == verdict.DNSTimeout || why == verdict.DNSOverload) {
		p.endTCP(w)
		p.cfg.Transport.CancelTCP(p.tag(i))
	}
	if !w.probe {
		q := question{id: w.id, flags: w.flags, edns: w.edns, do: w.do}
		b := p.buf[:headerLen]
		p.putHeader(b, q.id, q.flags, rcode)
		b[5] = 1
		b = append(b, w.name[:w.nameLen]...)
		b = binary.BigEndian.AppendUint16(b, w.qtype)
		b = binary.BigEndian.AppendUint16(b, w.qclass)
		if w.edns {
			b[11] = 1
			var ede []byte
			if why == verdict.DNSBlockedList || why == verdict.DNSBlockedPrivate {
				ede = blockedOption[:]
			}
			b = appendOPT(b, upstreamSize, 0, w.do, ede)
		}
		p.cfg.Transport.Reply(&w.client, b)
		p.finish(w, why, 0, 0, 0, now)
	}
	p.release(i)
}

// finish counts and reports the result of a query that was sent to an upstream.
func (p *Proxy) finish(w *pending, why verdict.DNSOutcome, bound int, first, by packet.Addr, now int64) {
	took := now - w.start
	k := 0
	for k < len(Buckets) && took > Buckets[k] {
		k++
	}
	p.c.Latency[k]++
	p.c.LatencySum += took
	d := Result{Client: w.client, Name: p.qname(w), Type: w.qtype, Outcome: why, Lookup: w.lookup, Duration: took,
		Upstream: by, Bound: bound, First: first}
	if why == verdict.DNSBlockedPrivate {
		d.Private = p.privateAddr
	}
	p.report(d)
}

// qname returns the name of a query in lower case. It is valid until the next call.
func (p *Proxy) qname(w *pending) []byte {
	name := p.lower[:copy(p.lower[:], w.name[:w.nameLen])]
	for i, b := range name {
		name[i] = lower(b) // length bytes are below the letters
	}
	return name
}
