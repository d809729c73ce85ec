package tcp

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Accept handles a SYN of a client, which the rule with this index has let
// through, for a connection that is not there yet.
func (s *Stack) Accept(t *Tuple, p *packet.Packet, options []byte, rule uint32, now int64) {
	s.now = now
	c := s.open(aServed, t.Remote, now)
	if c == nil {
		s.c.Refused++
		return
	}
	s.c.Accepted++
	c.Tuple, c.rule, c.state = *t, rule, synReceived
	c.rcv = p.Seq + 1
	c.peer(p, options)
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.ends = now + handshakeFor
	s.push(c)
}

// peer reads from a SYN what the other side takes.
func (c *conn) peer(p *packet.Packet, o []byte) {
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

// input handles a segment of connection c.
func (s *Stack) input(c *conn, p *packet.Packet, options, data []byte) {
	if c.state == synSent {
		s.answered(c, p, options)
		return
	}
	if p.Flags&packet.SYN != 0 && c.state == synReceived && p.Seq+1 == c.rcv && p.Flags&packet.ACK == 0 {
		c.nxt = c.una // the SYN again: our answer is lost
		s.push(c)
		return
	}
	// RFC 9293 section 3.10.7.4: the sequence number, then RST, SYN, ACK.
	n := uint32(len(data))
	if p.Flags&packet.FIN != 0 {
		n++
	}
	first, end := int32(p.Seq-c.rcv), int32(p.Seq+n-c.rcv)
	wnd := int32(c.window())
	fits := first >= 0 && first < max(wnd, 1) || n > 0 && first < 0 && end > 0
	if p.Flags&packet.RST != 0 {
		switch {
		case p.Seq == c.rcv:
			s.c.Reset++
			s.drop(c)
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
			if p.Flags&packet.SYN == 0 && p.Flags&packet.ACK != 0 {
				s.acked(c, p, 1) // an old copy may still carry a good acknowledgement
			}
		}
		return
	}
	if !s.acked(c, p, int(n)) {
		return
	}
	got, cut := false, false
	if n > 0 && first > 0 {
		s.ack(c) // out of order: the sender learns where we are
	} else if n > 0 {
		data = data[min(int(-first), len(data)):]
		if int(wnd) < len(data) {
			data = data[:wnd]
			n, cut = 0, true // without the FIN
		}
		c.rcv += uint32(len(data))
		got = true
		id := s.id(c)
		if !s.read(c, data) || s.byID(id) == nil {
			return
		}
		if p.Flags&packet.FIN != 0 && n > 0 && !c.finSeen {
			c.finSeen = true
			c.rcv++
			if !c.served && !c.stream && c.state == established {
				c.state, c.wantClose, c.ends = closing, true, s.now+lingerFor
			}
			s.closeWhenDone(c)
		}
	}
	if !s.push(c) && got && (c.told != c.rcv || cut) { // also to a probe of our shut window
		s.ack(c)
	}
	s.ended(c)
}

// ended forgets a connection that both sides have ended.
func (s *Stack) ended(c *conn) {
	if c.finSent && c.una == c.max && c.finSeen {
		s.drop(c)
	}
}

// answered handles the answer to our SYN.
func (s *Stack) answered(c *conn, p *packet.Packet, options []byte) {
	right := p.Flags&packet.ACK != 0 && p.Ack == c.una+1
	switch {
	case p.Flags&packet.RST != 0:
		if right {
			s.c.Reset++
			s.c.Failed++
			s.drop(c)
		}
	case !right || p.Flags&packet.SYN == 0:
		s.c.Invalid++
	default:
		c.peer(p, options)
		c.rcv = p.Seq + 1
		c.una++
		c.state, c.tries, c.resend, c.rto = established, 0, 0, firstRTO
		c.ends, c.active = c.limit, s.now
		if !s.push(c) {
			s.ack(c)
		}
	}
}

// acked takes the acknowledgement and the window of a segment of n bytes. It
// returns false when the segment is to be dropped.
func (s *Stack) acked(c *conn, p *packet.Packet, n int) bool {
	if int32(p.Ack-c.max) > 0 {
		s.c.Invalid++
		s.ack(c) // of what was never sent
		return false
	}
	if c.state == synReceived {
		if p.Ack != c.una+1 {
			s.c.Invalid++
			return false
		}
		c.una++
		c.state, c.tries, c.resend, c.rto = established, 0, 0, firstRTO
		c.ends = s.now + idleFor
		c.wnd = uint32(p.Window)
		return true
	}
	d := int32(p.Ack - c.una)
	switch {
	case d > 0:
		data := min(int(d), c.tx.n)
		s.chunks[c.kind()].take(&c.tx, data)
		c.una = p.Ack
		if int32(c.nxt-c.una) < 0 {
			c.nxt = c.una
		}
		c.finSent = c.finSent || int(d) > data // what is acknowledged behind the data can only be our FIN
		c.cwnd = min(c.cwnd+uint32(c.mss), 64<<10)
		c.tries, c.rto, c.resend, c.dups, c.moved = 0, firstRTO, 0, 0, s.now
		if c.una != c.max {
			c.resend = s.now + c.rto
		}
		if c.taken += data; c.served && data > 0 && c.tx.n == 0 { // it has taken all
			c.active, c.ends = s.now, s.now+idleFor
			if c.wantClose {
				c.ends = s.now + lingerFor
			}
		}
	case d == 0 && c.una != c.max && c.wnd == 0 && p.Window > 0:
		c.nxt, c.finSent = c.una, false // the window opens: the probe that is under way was dropped
	case d == 0 && n == 0 && c.una != c.max && uint32(p.Window) == c.wnd:
		if c.dups++; c.dups == 3 { // RFC 5681 section 3.2
			c.cwnd = max(c.cwnd/2, 2*uint32(c.mss))
			s.back(c)
		}
	}
	if d >= 0 {
		c.wnd = uint32(p.Window)
	}
	return true
}

// read takes data of the stream apart into messages. It returns false when the
// connection is gone.
func (s *Stack) read(c *conn, data []byte) bool {
	if c.stream {
		return s.took(c, data)
	}
	id := s.id(c)
	limit := maxMessage
	if c.served {
		limit = maxQuery
	}
	for len(data) > 0 {
		if c.prefix < 2 {
			if c.prefix == 0 {
				c.first = data[0]
			} else {
				c.need = int(c.first)<<8 | int(data[0])
			}
			if c.prefix++; c.prefix == 1 && c.served && c.tx.n == 0 {
				c.ends = s.now + idleFor // for the rest of the message
			}
			data = data[1:]
			if c.prefix == 2 && (c.need > limit || c.need == 0) {
				s.c.Aborted++
				s.abort(c)
				return false
			}
			continue
		}
		n := min(c.need-c.rx.n, len(data))
		if !s.makeRoom(c, &c.rx, n) {
			s.c.Aborted++
			s.abort(c)
			return false
		}
		if s.byID(id) == nil {
			return false // it gave way itself
		}
		mem := &s.chunks[c.kind()]
		mem.put(&c.rx, data[:n])
		data = data[n:]
		if c.rx.n < c.need {
			break
		}
		msg := s.msg[:mem.copy(s.msg, &c.rx, 0)]
		mem.release(&c.rx)
		c.prefix, c.active = 0, s.now
		if c.served {
			c.pending++
			if c.tx.n == 0 {
				c.ends = s.now + idleFor
			}
		}
		s.user.Message(id, msg)
		if s.byID(id) == nil {
			return false
		}
	}
	return true
}
