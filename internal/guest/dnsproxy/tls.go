package dnsproxy

// DNS over TLS (RFC 7858). An upstream with TLS has a connection that many
// queries share; the Transport keeps it. Such an upstream is asked over TLS and
// in no other way (RFC 8310, the strict profile): when that does not work, it
// does not work.

// padTo is what the length of queries over TLS is a multiple of, so that it
// says little about the name (RFC 8467 section 4.1).
const padTo = 128

// usable reports whether upstream i may be asked now. A plain one beside others
// with TLS, which the policy must allow expressly, may be while all those are
// down.
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

// tryTLS asks query i's upstream over TLS.
func (p *Proxy) tryTLS(i uint16, now int64) {
	w := &p.q[i-1]
	p.closePort(w)
	// The identifier says where the query is: answers come in any order, and
	// there may be many. Nobody but the server can answer, so that it need not
	// be unpredictable; what is left of it tells an answer that comes too late
	// from one to the next query in this place, as the case of the name does.
	w.ourID = i - 1 | uint16(p.cfg.Transport.Random())<<10
	p.mix(w)
	w.tls = true
	if w.tries++; w.tries > 1 {
		p.c.Retries++
	}
	w.due = now + tryFor
	p.c.Asked++
	p.c.OverTLS++
	if !p.cfg.Transport.SendTLS(int(w.up), p.question(w)) {
		w.tls = false
		p.failed(w.up, now)
		p.refused(i, now)
	}
}

// TLSResponse handles a message that came over the connection to an upstream. It
// is an answer if it has the identifier, the question and the case of a query
// that is under way there.
func (p *Proxy) TLSResponse(up int, msg []byte, now int64) {
	if len(msg) < headerLen {
		p.c.Mismatched++
		return
	}
	i := be16(msg)%maxPending + 1
	w := &p.q[i-1]
	if !w.used || !w.tls || int(w.up) != up {
		p.c.Mismatched++
		return
	}
	switch same, right := w.asked(msg); {
	case !same:
		p.c.Mismatched++
	case !right:
		p.c.WrongCase++
	default:
		p.answered(i, msg, now)
	}
}

// TLSLost says that the connection to an upstream is gone. What was under way
// over it is asked again: if the connection has failed, another upstream, which
// counts as one unanswered query; if it had worked, over a new one.
func (p *Proxy) TLSLost(up int, failed bool, now int64) {
	if failed {
		p.failed(uint8(up), now)
	}
	for i := p.under.first; i != 0; {
		w := &p.q[i-1]
		next := w.next
		switch {
		case !w.tls || int(w.up) != up:
		case w.probe:
			p.drop(i)
		case w.tries >= maxTries || now-w.start >= totalTime:
			w.tls = false // Tick ends it
		case failed:
			w.tls = false
			p.refused(i, now)
		default:
			p.try(i, now)
		}
		i = next
	}
}

// padded returns options with a padding option behind them, for a message whose
// OPT record comes after n bytes.
func (p *Proxy) padded(opts []byte, n int) []byte {
	b := append(p.pad[:0], opts...)
	n += 11 + len(b) + 4 // the record's fixed part, and the option's
	fill := -n & (padTo - 1)
	b = append(b, 0, optPadding, 0, byte(fill))
	return append(b, zeroPad[:fill]...)
}

var zeroPad [padTo]byte
