package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// enqueue puts a message with its length into a connection's queue.
func (s *Stack) enqueue(c *conn, msg []byte) bool {
	if !s.makeRoom(c, &c.tx, 2+len(msg)) {
		return false
	}
	l := [2]byte{byte(len(msg) >> 8), byte(len(msg))}
	p := &s.chunks[c.kind()]
	return p.put(&c.tx, l[:]) && p.put(&c.tx, msg)
}

// window returns the receive window. That of a stream is the room for bytes
// that wait to be read. Messages are handled as they arrive, so that theirs is
// always the same: one that shrank with the message under way could be too small
// for the segment that completes it, for which a sender that avoids small segments
// (RFC 9293 section 3.8.6.2.1) would wait in vain.
func (c *conn) window() uint16 {
	switch {
	case c.served:
		return maxQuery
	case c.stream:
		return uint16(streamIn - c.rx.n)
	}
	return maxMessage
}

// emit sends one segment of connection c.
func (s *Stack) emit(c *conn, seq uint32, flags uint8, data []byte, mss uint16) {
	s.seg = Segment{Tuple: c.Tuple, Seq: seq, Flags: flags, Window: c.window(), MSS: mss, Data: data, Passive: c.served}
	if flags&packet.ACK != 0 {
		s.seg.Ack = c.rcv
		c.told, c.edge = c.rcv, c.rcv+uint32(s.seg.Window)
	}
	s.user.Emit(&s.seg)
}

// ack acknowledges what has come.
func (s *Stack) ack(c *conn) { s.emit(c, c.nxt, packet.ACK, nil, 0) }

func (s *Stack) ourMSS(c *conn) uint16 {
	switch {
	case c.served:
		return s.mss[1]
	case c.stream:
		return min(s.mss[0], streamMSS)
	}
	return s.mss[0]
}

// push sends what may be sent now: a SYN, data as far as the windows go, a FIN
// behind the last of it. It reports whether anything was sent.
func (s *Stack) push(c *conn) bool {
	sent := false
	defer func() {
		if c.una != c.max && c.resend == 0 {
			c.resend = s.now + c.rto
		}
	}()
	switch c.state {
	case synSent, synReceived:
		if c.nxt != c.una {
			return false
		}
		flags := uint8(packet.SYN)
		if c.state == synReceived {
			flags |= packet.ACK
		}
		s.emit(c, c.nxt, flags, nil, s.ourMSS(c))
		c.sentTo(c.una + 1)
		return true
	case free:
		return false
	}
	mss := int(min(c.mss, s.ourMSS(c)))
	for range 64 {
		under := int(c.nxt - c.una)
		if c.finSent && under > c.tx.n {
			break
		}
		n := min(c.tx.n-under, mss, int(min(c.wnd, c.cwnd))-under)
		if n <= 0 && c.wnd == 0 && under == 0 && c.tx.n > 0 && c.tries > 0 {
			n = 1 // a probe of a window that is shut
		}
		last := under+max(n, 0) == c.tx.n
		fin := c.wantClose && last && !c.finSent
		if n <= 0 && !fin || n < mss && !last && under > 0 {
			break // nothing fits, or only a part of a segment that can wait (RFC 9293 section 3.8.6.2.1)
		}
		n = max(n, 0)
		data := s.out[:n]
		s.chunks[c.kind()].copy(data, &c.tx, under)
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
		c.sentTo(to)
		sent = true
		if fin {
			break
		}
	}
	if c.tx.n > 0 && c.wnd == 0 && c.una == c.max && c.resend == 0 {
		c.resend = s.now + c.rto // to probe
	}
	return sent
}

func (c *conn) sentTo(seq uint32) {
	c.nxt = seq
	if int32(seq-c.max) > 0 {
		c.max = seq
	}
}

// Due returns when Tick has something to do, or false.
func (s *Stack) Due() (at int64, any bool) {
	if s.n == 0 {
		return 0, false
	}
	for i := range s.conn {
		c := &s.conn[i]
		if c.state == free {
			continue
		}
		for _, d := range [...]int64{c.ends, c.resend} {
			if d != 0 && (!any || d < at) {
				at, any = d, true
			}
		}
	}
	return at, any
}

// Tick resends what has not been acknowledged and ends what is over.
func (s *Stack) Tick(now int64) {
	s.now = now
	if s.n == 0 {
		return
	}
	for i := range s.conn {
		c := &s.conn[i]
		switch {
		case c.state == free:
		case c.ends != 0 && now >= c.ends:
			s.over(c)
		case c.resend != 0 && now >= c.resend:
			s.again(c)
		}
	}
}

// owes begins the time in which a client must take a part of its answers.
func (s *Stack) owes(c *conn) {
	c.owed, c.taken, c.ends = c.tx.n, 0, s.now+idleFor
}

// over ends a connection whose time has come, unless its client is at work: it
// takes its answers, however slowly, or waits for them.
func (s *Stack) over(c *conn) {
	switch atWork := c.state == established && c.served; {
	case c.served && c.tx.n > 0 && c.taken >= min(c.owed, leastTaken):
		s.owes(c) // also when it has sent its FIN
	case c.served && c.tx.n > 0:
		s.c.Stalled++
		s.abort(c)
	case atWork && c.pending > 0 && s.now-c.active < 3*idleFor:
		c.ends = s.now + idleFor
	case atWork && c.pending == 0 && c.prefix == 0:
		s.close(c) // idle
	default:
		s.c.Timeouts++
		s.abort(c)
	}
}

// again resends from the first byte that has not been acknowledged.
func (s *Stack) again(c *conn) {
	c.resend = 0
	if c.tries++; c.tries > maxTries {
		s.c.Timeouts++
		s.abort(c)
		return
	}
	c.rto = min(2*c.rto, maxRTO)
	c.cwnd = uint32(c.mss)
	s.back(c)
	if c.resend == 0 {
		c.resend = s.now + c.rto
	}
}

// back begins to send again at the first byte that has not been acknowledged.
func (s *Stack) back(c *conn) {
	c.nxt, c.dups = c.una, 0
	if c.finSent && int(c.max-c.una) > 0 {
		c.finSent = false
	}
	s.push(c)
}
