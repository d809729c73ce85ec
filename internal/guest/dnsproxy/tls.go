package dnsproxy

// DNS over TLS (RFC 7858). The Transport keeps one connection to each upstream with
// TLS, which all queries share. Such an upstream is used over TLS only (RFC 8310
// section 5, the strict privacy profile): if TLS fails, the upstream has failed.

// padTo is the block length to which queries over TLS are padded, in bytes, so that
// their length reveals little about the name (RFC 8467 section 4.1).
const padTo = 128

// usable reports whether upstream i may be used now. One without TLS beside others
// with TLS, which the policy must allow explicitly, may be used only while all
// those are down.
func (p *Proxy) usable(i int) bool {
	if p.up[i].tls {
		return true
	}
	for j := range p.up {
		if u := &p.up[j]; u.tls && !u.down() {
			return false
		}
	}
	return true
}

// tryTLS sends query i to its upstream over TLS, unless that connection has it already:
// TCP retransmits, and a server that is slow would be asked the same again and again.
func (p *Proxy) tryTLS(i uint16, now int64) {
	w := &p.queries[i-1]
	p.closePort(w)
	if w.overTLS == 0 {
		// The identifier contains the query's index, since responses come in any
		// order. Only the server can respond, so that it need not be unpredictable.
		// Its other bits, and the case of the name, distinguish a late response from
		// that to the next query with this index. They stay the same for all
		// upstreams, so that the first response counts.
		w.ourID = i - 1 | uint16(p.cfg.Transport.Random())<<10
		p.randomizeCase(w)
	}
	w.tls = true
	w.tries++
	w.due = now + tryTimeout
	if w.overTLS>>w.up&1 != 0 {
		return
	}
	if w.tries > 1 {
		p.c.Retries++
	}
	p.c.Asked++
	p.c.OverTLS++
	if !p.cfg.Transport.SendTLS(int(w.up), p.encodeQuery(w)) {
		w.tls = false
		p.noteFailure(w.up, now)
		p.upstreamRefused(i, now)
		return
	}
	w.overTLS |= 1 << w.up
}

// TLSResponse handles a message received over the connection to upstream number up.
// It is accepted if it has the identifier, the question and the case of a query
// that is pending there.
func (p *Proxy) TLSResponse(up int, msg []byte, now int64) {
	if len(msg) < headerLen {
		p.c.Mismatched++
		return
	}
	i := be16(msg)%maxPending + 1
	w := &p.queries[i-1]
	if !w.active || w.overTLS>>up&1 == 0 {
		p.c.Mismatched++
		return
	}
	switch same, right := w.matches(msg); {
	case !same:
		p.c.Mismatched++
	case !right:
		p.c.WrongCase++
	default:
		w.up, w.tls = uint8(up), true // it may have gone on with another since
		w.overTLS &^= 1 << up
		p.complete(i, msg, now)
	}
}

// TLSLost reports that the connection to upstream number up is closed. Its pending
// queries are retried: over a new connection if it had worked, and otherwise
// (failed) with another upstream, which counts as one query without a response.
func (p *Proxy) TLSLost(up int, failed bool, now int64) {
	if failed {
		p.noteFailure(uint8(up), now)
	}
	for i := p.active.first; i != 0; {
		w := &p.queries[i-1]
		next := w.next
		w.overTLS &^= 1 << up
		switch {
		case !w.tls || int(w.up) != up:
		case w.probe:
			p.release(i)
		case w.tries >= maxTries || now-w.start >= queryTimeout:
			w.tls = false // Tick fails it
		case failed:
			w.tls = false
			p.upstreamRefused(i, now)
		default:
			p.try(i, now)
		}
		i = next
	}
}

// padded returns options with a padding option appended, for a message whose OPT
// record follows after n bytes.
func (p *Proxy) padded(opts []byte, n int) []byte {
	b := append(p.pad[:0], opts...)
	n += 11 + len(b) + 4 // the record's fixed part, and the option's
	fill := -n & (padTo - 1)
	b = append(b, 0, optPadding, 0, byte(fill))
	return append(b, zeroPad[:fill]...)
}

var zeroPad [padTo]byte
