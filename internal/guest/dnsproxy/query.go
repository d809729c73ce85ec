package dnsproxy

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Query handles a message of a client.
func (p *Proxy) Query(c *Client, msg []byte, now int64) verdict.DNSOutcome {
	var q question
	if !parseQuery(msg, &q, p.optBuf[:0]) {
		// What is no query gets no response: two servers must not begin to
		// talk to each other.
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
			name[i] = lower(b) // lengths of labels are below the letters
		}
	}
	switch {
	case !p.within(p.client(c.Addr), now):
		return p.refuse(c, &q, msg, name, rcodeServFail, verdict.DNSRateLimited)
	case q.flags&opcodeMask != 0 || q.typ == typeAXFR || q.typ == typeIXFR:
		return p.refuse(c, &q, msg, name, rcodeNotImp, verdict.DNSNotImplemented)
	case !q.wellFormed || q.ednsMalformed:
		return p.refuse(c, &q, msg, name, rcodeFormErr, verdict.DNSMalformed)
	case q.version != 0:
		return p.refuse(c, &q, msg, name, rcodeBadVers, verdict.DNSMalformed)
	case p.blocked.Within(name):
		return p.refuse(c, &q, msg, name, rcodeRefused, verdict.DNSBlockedList)
	case p.uses != nil && !p.uses.allows(c.Addr, p.cfg.Patterns.Match(name, p.uses.ids)) && !p.cfg.Names.Knows(c.Addr, name, now):
		return p.refuse(c, &q, msg, name, rcodeRefused, verdict.DNSBlockedPolicy)
	}
	w := p.admit(c, now)
	if w == nil {
		return p.refuse(c, &q, msg, name, rcodeServFail, verdict.DNSOverload)
	}
	w.lookup, w.start = p.lookup, now
	w.ask(&q)
	i := p.under.last
	w.up = p.choose()
	p.probe(i, now)
	p.try(i, now)
	return 0
}

// ask notes the question of a query.
func (w *pending) ask(q *question) {
	w.id, w.flags, w.typ, w.class, w.size, w.edns, w.do = q.id, q.flags, q.typ, q.class, q.size, q.edns, q.do
	w.nameLen, w.nOpts = uint8(copy(w.name[:], q.name)), uint8(copy(w.opts[:], q.opts))
}

// question writes the query that an upstream gets to p.buf: the name in a case
// of its own, so that an answer which was not made for it shows.
func (p *Proxy) question(w *pending) []byte {
	b := p.buf[:headerLen]
	binary.BigEndian.PutUint16(b, w.ourID)
	binary.BigEndian.PutUint16(b[2:], w.flags&(flagRD|flagZ|flagAD|flagCD))
	clear(b[4:])
	b[5] = 1
	b = append(b, w.name[:w.nameLen]...)
	for i, c := range b[headerLen:] {
		if letter(c) && w.flip[i/8]>>(i%8)&1 != 0 {
			b[headerLen+i] ^= 0x20
		}
	}
	b = binary.BigEndian.AppendUint16(b, w.typ)
	b = binary.BigEndian.AppendUint16(b, w.class)
	if !w.plain {
		b[11] = 1
		opts := w.opts[:w.nOpts]
		if w.tls {
			opts = p.padded(opts, len(b))
		}
		b = appendOPT(b, upstreamSize, 0, w.do, opts)
	}
	return b
}

// refuse answers a query without asking an upstream.
func (p *Proxy) refuse(c *Client, q *question, msg, name []byte, rcode int, why verdict.DNSOutcome) verdict.DNSOutcome {
	b := p.buf[:headerLen]
	p.head(b, q.id, q.flags, rcode)
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
	p.done(Result{Client: *c, Name: name, Type: q.typ, Outcome: why, Lookup: p.lookup})
	return why
}

// blockedOption is an Extended DNS Error: Blocked (RFC 8914 section 4.16).
var blockedOption = [...]byte{0, optEDE, 0, 2, 0, edeBlocked}

// head writes the header of a response of our own, with no records.
func (p *Proxy) head(b []byte, id, flags uint16, rcode int) {
	clear(b[:headerLen])
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], flagQR|flags&(opcodeMask|flagRD|flagCD)|flagRA|uint16(rcode&rcodeMask))
}

// done counts a query's end and tells it.
func (p *Proxy) done(d Result) {
	p.c.Outcomes[d.Outcome]++
	p.told = d
	p.cfg.Transport.QueryDone(&p.told)
}

// end answers a query that no upstream has answered well: with rcode and, when
// the name is blocked, with the reason.
func (p *Proxy) end(i uint16, rcode int, why verdict.DNSOutcome, now int64) {
	w := &p.q[i-1]
	if w.tcp && (why == verdict.DNSTimeout || why == verdict.DNSOverload) {
		p.leftTCP(w)
		p.cfg.Transport.CancelTCP(p.tag(i))
	}
	if !w.probe {
		q := question{id: w.id, flags: w.flags, edns: w.edns, do: w.do}
		b := p.buf[:headerLen]
		p.head(b, q.id, q.flags, rcode)
		b[5] = 1
		b = append(b, w.name[:w.nameLen]...)
		b = binary.BigEndian.AppendUint16(b, w.typ)
		b = binary.BigEndian.AppendUint16(b, w.class)
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
	p.drop(i)
}

// finish counts and tells the end of a query that an upstream was asked.
func (p *Proxy) finish(w *pending, why verdict.DNSOutcome, bound int, first, by packet.Addr, now int64) {
	took := now - w.start
	k := 0
	for k < len(Buckets) && took > Buckets[k] {
		k++
	}
	p.c.Latency[k]++
	p.c.LatencySum += took
	d := Result{Client: w.client, Name: p.asked(w), Type: w.typ, Outcome: why, Lookup: w.lookup, Duration: took, Upstream: by, Bound: bound, First: first}
	if why == verdict.DNSBlockedPrivate {
		d.Private = p.lead
	}
	p.done(d)
}

// asked returns the name that a query asks for, in lower case; it is valid until
// the next call.
func (p *Proxy) asked(w *pending) []byte {
	name := p.lower[:copy(p.lower[:], w.name[:w.nameLen])]
	for i, b := range name {
		name[i] = lower(b) // lengths of labels are below the letters
	}
	return name
}
