package tcp

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Accept opens a connection for the SYN p of a client, which the rule with this
// index has accepted. No connection may have this tuple (see Owns). options are the
// TCP options of the segment.
func (s *Stack) Accept(t *Tuple, p *packet.Packet, options []byte, rule uint32, now int64) {
	s.now = now
	c := s.newConn(kindPassive, t.Remote, now)
	if c == nil {
		s.c.Refused++
		return
	}
	s.c.Accepted++
	c.Tuple, c.rule, c.state = *t, rule, synReceived
	c.rcv = p.Seq + 1
	c.synOptions(p, options)
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.deadline = now + handshakeTimeout
	s.output(c)
}

// synOptions sets the send window and the maximum segment size from the peer's SYN.
func (c *conn) synOptions(p *packet.Packet, o []byte) {
	c.wnd = uint32(p.Window)
	for len(o) > 0 {
		switch {
		case o[0] == 0:
			o = nil
			continue
		case o[0] == 1:
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			break
		}
		if o[0] == 2 && o[1] == 4 {
			c.mss = max(binary.BigEndian.Uint16(o[2:]), 64)
		}
		o = o[o[1]:]
	}
	c.cwnd = initialWnd * uint32(c.mss)
}

// input processes a segment of connection c.
func (s *Stack) input(c *conn, p *packet.Packet, options, data []byte) {
	if c.state == synSent {
		s.inSynSent(c, p, options)
		return
	}
	if p.Flags&packet.SYN != 0 && c.state == synReceived && p.Seq+1 == c.rcv && p.Flags&packet.ACK == 0 {
		c.nxt = c.una // a retransmitted SYN: our SYN-ACK was lost
		s.output(c)
		return
	}
	// RFC 9293 section 3.10.7.4: the sequence number, then RST, SYN, ACK.
	n := uint32(len(data))
	if p.Flags&packet.FIN != 0 {
		n++
	}
	first, end := int32(p.Seq-c.rcv), int32(p.Seq+n-c.rcv)
	wnd := int32(c.window())
	fits := first < max(wnd, 1) && (first >= 0 || end > 0)
	if p.Flags&packet.RST != 0 {
		switch {
		case p.Seq == c.rcv:
			s.c.Reset++
			s.remove(c)
		case fits:
			s.ack(c) // RFC 5961 section 3.2
		default:
			s.c.Invalid++
		}
		return
	}
	if !fits || p.Flags&packet.SYN != 0 || p.Flags&packet.ACK == 0 {
		s.c.Invalid++
		if p.Flags&packet.ACK != 0 || p.Flags&packet.SYN != 0 {
			s.ack(c)
		}
		return
	}
	if !s.processAck(c, p, int(n)) {
		return
	}
	cut := false
	if n > 0 && first > 0 {
		s.ack(c) // out of order: a duplicate acknowledgement
	} else if n > 0 {
		data = data[min(int(-first), len(data)):]
		if int(wnd) < len(data) {
			data, cut = data[:wnd], true // and no FIN, which is beyond the window
		}
		c.rcv += uint32(len(data))
		id := s.id(c)
		s.readMessages(c, data)
		if s.byID(id) == nil {
			return
		}
		if p.Flags&packet.FIN != 0 && !cut && !c.finSeen {
			c.finSeen = true
			c.rcv++
			s.closeIfAnswered(c)
		}
	}
	if !s.output(c) && (c.lastAck != c.rcv || cut) { // also a probe of our closed window
		s.ack(c)
	}
	s.removeIfClosed(c)
}

// removeIfClosed removes a connection that both sides have closed.
func (s *Stack) removeIfClosed(c *conn) {
	if c.finSent && c.una == c.max && c.finSeen {
		s.remove(c)
	}
}

// inSynSent processes a segment in state SYN-SENT (RFC 9293 section 3.10.7.3).
func (s *Stack) inSynSent(c *conn, p *packet.Packet, options []byte) {
	acceptable := p.Flags&packet.ACK != 0 && p.Ack == c.una+1
	switch {
	case p.Flags&packet.RST != 0:
		if acceptable {
			s.c.Reset++
			s.c.Failed++
			s.remove(c)
		}
	case !acceptable || p.Flags&packet.SYN == 0:
		s.c.Invalid++
	default:
		c.synOptions(p, options)
		c.rcv = p.Seq + 1
		c.una++
		c.state, c.retries, c.resendAt, c.rto = established, 0, 0, initialRTO
		c.deadline, c.lastActive = c.queryDeadline, s.now
		if !s.output(c) {
			s.ack(c)
		}
	}
}

// processAck processes the acknowledgement number and the window of a segment of n
// bytes. It returns false if the segment must be dropped.
func (s *Stack) processAck(c *conn, p *packet.Packet, n int) bool {
	if int32(p.Ack-c.max) > 0 {
		s.c.Invalid++
		s.ack(c) // acknowledges what was not sent
		return false
	}
	if c.state == synReceived {
		if p.Ack != c.una+1 {
			s.c.Invalid++
			return false
		}
		c.una++
		c.state, c.retries, c.resendAt, c.rto = established, 0, 0, initialRTO
		c.deadline = s.now + idleTimeout
	}
	acked := int32(p.Ack - c.una)
	switch {
	case acked > 0:
		data := min(int(acked), c.tx.n)
		s.pools[c.kind()].discard(&c.tx, data)
		c.una = p.Ack
		if int32(c.nxt-c.una) < 0 {
			c.nxt = c.una
		}
		c.finSent = c.finSent || int(acked) > data // beyond the data there is only our FIN
		c.cwnd = min(c.cwnd+uint32(c.mss), 64<<10)
		c.retries, c.rto, c.resendAt, c.dupAcks, c.lastProgress = 0, initialRTO, 0, 0, s.now
		if c.txAcked += data; c.passive && data > 0 && c.tx.n == 0 { // all responses are acknowledged
			c.lastActive, c.deadline = s.now, s.now+idleTimeout
			if c.wantClose {
				c.deadline = s.now + lingerTimeout
			}
		}
	case acked == 0 && c.una != c.max && c.wnd == 0 && p.Window > 0:
		c.nxt, c.finSent = c.una, false // the window opens: the peer has dropped our probe
	case acked == 0 && n == 0 && c.una != c.max && uint32(p.Window) == c.wnd:
		if c.dupAcks++; c.dupAcks == 3 { // RFC 5681 section 3.2
			c.cwnd = max(c.cwnd/2, 2*uint32(c.mss))
			s.goBack(c)
		}
	}
	if acked >= 0 {
		c.wnd = uint32(p.Window)
	}
	return true
}

// readMessages splits received data into messages. It may remove the connection.
func (s *Stack) readMessages(c *conn, data []byte) {
	if c.stream {
		s.bufferStream(c, data)
		return
	}
	id := s.id(c)
	limit := maxMessage
	if c.passive {
		limit = maxQuery
	}
	for len(data) > 0 {
		if c.lenBytes < 2 {
			if c.lenBytes == 0 {
				c.lenHigh = data[0]
			} else {
				c.msgLen = int(c.lenHigh)<<8 | int(data[0])
			}
			if c.lenBytes++; c.lenBytes == 1 && c.passive && c.tx.n == 0 {
				c.deadline = s.now + idleTimeout // for the rest of the message; responses have a deadline already
			}
			data = data[1:]
			if c.lenBytes == 2 && (c.msgLen > limit || c.msgLen == 0) {
				s.c.Aborted++
				s.abort(c)
				return
			}
			continue
		}
		n := min(c.msgLen-c.rx.n, len(data))
		if !s.reserveChunks(c, &c.rx, n) {
			s.c.Aborted++
			s.abort(c)
			return
		}
		if s.byID(id) == nil {
			return // it was evicted itself
		}
		mem := &s.pools[c.kind()]
		mem.append(&c.rx, data[:n])
		data = data[n:]
		if c.rx.n < c.msgLen {
			break
		}
		msg := s.msg[:mem.peek(s.msg, &c.rx, 0)]
		mem.release(&c.rx)
		c.lenBytes, c.lastActive = 0, s.now
		if c.passive {
			c.unanswered++
			if c.tx.n == 0 {
				c.deadline = s.now + idleTimeout
			}
		}
		s.user.Message(id, msg)
		if s.byID(id) == nil {
			return
		}
	}
}
