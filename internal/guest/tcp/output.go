package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// enqueue appends a message with its length to the send buffer.
func (s *Stack) enqueue(c *conn, msg []byte) bool {
	if !s.reserveChunks(c, &c.tx, 2+len(msg)) {
		return false
	}
	l := [2]byte{byte(len(msg) >> 8), byte(len(msg))}
	p := &s.pools[c.kind()]
	p.append(&c.tx, l[:])
	p.append(&c.tx, msg)
	return true
}

// window returns the receive window. That of a stream is the room for bytes
// that wait to be read. Messages are handled as they arrive, so that theirs is
// always the same: one that shrank with the message under way could be too small
// for the segment that completes it, for which a sender that avoids small segments
// (RFC 9293 section 3.8.6.2.1) would wait in vain.
func (c *conn) window() uint16 {
	switch {
	case c.passive:
		return maxQuery
	case c.stream:
		return uint16(streamIn - c.rx.n)
	}
	return maxMessage
}

// emit sends one segment of connection c.
func (s *Stack) emit(c *conn, seq uint32, flags uint8, data []byte, mss uint16) {
	s.seg = Segment{Tuple: c.Tuple, Seq: seq, Ack: c.rcv, Flags: flags, Window: c.window(), MSS: mss, Data: data, Passive: c.passive}
	c.lastAck, c.lastEdge = c.rcv, c.rcv+uint32(s.seg.Window)
	s.user.Emit(&s.seg)
}

// ack sends an acknowledgement.
func (s *Stack) ack(c *conn) { s.emit(c, c.nxt, packet.ACK, nil, 0) }

func (s *Stack) ourMSS(c *conn) uint16 {
	switch {
	case c.passive:
		return s.mss[1]
	case c.stream:
		return min(s.mss[0], streamMSS)
	}
	return s.mss[0]
}

// output sends what may be sent now: a SYN, or data within the windows and the FIN
// behind it. It reports whether it has sent anything.
func (s *Stack) output(c *conn) bool {
	sent := false
	defer func() {
		if (c.una != c.max || c.tx.n > 0) && c.resendAt == 0 { // for a retransmission or a probe
			c.resendAt = s.now + c.rto
		}
	}()
	switch c.state {
	case synSent, synReceived:
		flags := uint8(packet.SYN)
		if c.state == synReceived {
			flags |= packet.ACK
		}
		s.emit(c, c.nxt, flags, nil, s.ourMSS(c))
		c.advance(c.una + 1)
		return true
	}
	mss := int(min(c.mss, s.ourMSS(c)))
	for range 64 {
		under := int(c.nxt - c.una)
		n := max(min(c.tx.n-under, mss, int(min(c.wnd, c.cwnd))-under), 0)
		if c.wnd == 0 && under == 0 && c.tx.n > 0 && c.retries > 0 {
			n = 1 // a probe of a zero window (RFC 9293 section 3.8.6.1)
		}
		last := under+n == c.tx.n
		fin := c.wantClose && last && !c.finSent
		if n == 0 && !fin || n < mss && !last && under > 0 {
			break // no room, or only for a part of a segment, which can wait (RFC 9293 section 3.8.6.2.1)
		}
		data := s.out[:n]
		s.pools[c.kind()].peek(data, &c.tx, under)
		flags := uint8(packet.ACK)
		if last && n > 0 {
			flags |= packet.PSH
		}
		to := c.nxt + uint32(n)
		if fin {
			flags |= packet.FIN
			to++
			c.finSent = true
		}
		if int32(c.max-c.nxt) > 0 {
			s.c.Resent++
		}
		s.emit(c, c.nxt, flags, data, 0)
		c.advance(to)
		sent = true
	}
	return sent
}

func (c *conn) advance(seq uint32) {
	c.nxt = seq
	if int32(seq-c.max) > 0 {
		c.max = seq
	}
}

// Due returns the time at which Tick must be called, or false if no timer runs.
func (s *Stack) Due() (at int64, any bool) {
	if s.n == 0 {
		return 0, false
	}
	for i := range s.conn {
		c := &s.conn[i] // an unused entry has no timers
		for _, d := range [...]int64{c.deadline, c.resendAt} {
			if d != 0 && (!any || d < at) {
				at, any = d, true
			}
		}
	}
	return at, any
}

// Tick retransmits what was not acknowledged in time and closes what has expired.
func (s *Stack) Tick(now int64) {
	s.now = now
	if s.n == 0 {
		return
	}
	for i := range s.conn {
		c := &s.conn[i]
		switch {
		case c.deadline != 0 && now >= c.deadline:
			s.expire(c)
		case c.resendAt != 0 && now >= c.resendAt:
			s.retransmit(c)
		}
	}
}

// startTxDeadline starts the period in which a client must acknowledge a part of
// the responses in the send buffer.
func (s *Stack) startTxDeadline(c *conn) {
	c.txAtStart, c.txAcked, c.deadline = c.tx.n, 0, s.now+idleTimeout
}

// expire handles the deadline of a connection: it closes or resets the connection,
// unless its client makes progress in receiving responses, or waits for one.
func (s *Stack) expire(c *conn) {
	switch open := c.state == established && c.passive; {
	case c.passive && c.tx.n > 0 && c.txAcked >= min(c.txAtStart, minProgress):
		s.startTxDeadline(c) // also after its FIN
	case c.passive && c.tx.n > 0:
		s.c.Stalled++
		s.abort(c)
	case open && c.unanswered > 0 && s.now-c.lastActive < 3*idleTimeout:
		c.deadline = s.now + idleTimeout
	case open && c.unanswered == 0 && c.lenBytes == 0:
		s.close(c) // idle
	default:
		s.c.Timeouts++
		s.abort(c)
	}
}

// retransmit handles the retransmission timer (RFC 6298 section 5).
func (s *Stack) retransmit(c *conn) {
	c.resendAt = 0
	if c.retries++; c.retries > maxRetries {
		s.c.Timeouts++
		s.abort(c)
		return
	}
	c.rto = min(2*c.rto, maxRTO)
	c.cwnd = uint32(c.mss)
	s.goBack(c)
}

// goBack continues sending at the first byte that is not acknowledged.
func (s *Stack) goBack(c *conn) {
	c.nxt, c.dupAcks, c.finSent = c.una, 0, false
	s.output(c)
}
