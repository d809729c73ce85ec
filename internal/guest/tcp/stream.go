package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// A stream is a connection to an upstream that carries bytes instead of messages,
// for TLS. Received bytes are buffered until they are read, and the receive window
// is the room in that buffer; bytes to send are buffered until they are
// acknowledged. The user decides how long a stream stays open: once established it
// has no deadline, and ends when segments are not acknowledged after all retries.

const (
	streamIn  = 16 << 10 // receive buffer, in bytes
	streamOut = 16 << 10 // send buffer, in bytes

	// streamMSS bounds segments in both directions to what passes wherever DNS
	// responses of 1232 bytes do: there is no path MTU discovery, and a message
	// of a TLS handshake can be longer than a packet.
	streamMSS = 1220
)

// ConnectStream opens a stream. It returns false if the tuple is in use or a limit
// is reached. User.StreamReady reports when it is established.
func (s *Stack) ConnectStream(t *Tuple, tag uint32, now int64) (id uint32, ok bool) {
	s.now = now
	if s.find(t) != nil {
		return 0, false
	}
	c := s.newConn(kindStream, 0, now)
	if c == nil {
		return 0, false
	}
	s.c.Connected++
	c.Tuple, c.tag, c.state = *t, tag, synSent
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.deadline = now + handshakeTimeout
	s.output(c)
	return s.id(c), true
}

// A StreamState is the state of a stream.
type StreamState struct {
	Open    bool // established, and not closed by us
	Ended   bool // the peer has sent a FIN
	Unread  int  // bytes in the receive buffer
	Room    int  // bytes that Write accepts
	Unacked bool // the peer has not acknowledged two retransmissions
}

// Stream returns the state of a stream, or false if there is no stream with this id.
func (s *Stack) Stream(id uint32) (StreamState, bool) {
	c := s.byID(id)
	if c == nil || !c.stream {
		return StreamState{}, false
	}
	st := StreamState{Open: c.state == established, Ended: c.finSeen, Unread: c.rx.n, Unacked: c.retries >= 2}
	if st.Open {
		st.Room = streamOut - c.tx.n
	}
	return st, true
}

// Write sends bytes over an open stream, and returns how many fit its send buffer.
func (s *Stack) Write(id uint32, b []byte, now int64) int {
	s.now = now
	c := s.byID(id)
	if c == nil || !c.stream || c.state != established {
		return 0
	}
	before := c.tx.n
	s.pools[kindStream].append(&c.tx, b[:min(len(b), streamOut-c.tx.n)])
	if c.tx.n > before {
		c.lastActive = now
		s.output(c)
	}
	return c.tx.n - before
}

// Read moves received bytes to dst and returns their number.
func (s *Stack) Read(id uint32, dst []byte, now int64) int {
	s.now = now
	c := s.byID(id)
	if c == nil || !c.stream {
		return 0
	}
	n := s.pools[kindStream].peek(dst, &c.rx, 0)
	s.pools[kindStream].discard(&c.rx, n)
	// A window update is sent once it is worth a segment (RFC 9293 section
	// 3.8.6.2.2).
	told, room := int32(c.lastEdge-c.rcv), int32(c.window())
	if c.state == established && !c.finSeen && told < streamIn/2 && room-told >= streamIn/2 {
		s.ack(c)
	}
	return n
}

// Abort resets a connection.
func (s *Stack) Abort(id uint32, now int64) {
	s.now = now
	if c := s.byID(id); c != nil {
		s.abort(c)
	}
}

// bufferStream appends received bytes to the receive buffer, or drops them once
// the user has closed the stream. They are within the window, for which there is
// memory.
func (s *Stack) bufferStream(c *conn, data []byte) {
	if c.state == established && !s.pools[kindStream].append(&c.rx, data) {
		s.c.Aborted++ // unreachable
		s.abort(c)
	}
}

// Input processes a segment of an existing connection (see Owns): its header p, its
// TCP options and its data.
func (s *Stack) Input(t *Tuple, p *packet.Packet, options, data []byte, now int64) {
	s.now = now
	c := s.find(t)
	if c == nil {
		return
	}
	if !c.stream {
		s.input(c, p, options, data)
		return
	}
	id, tag := s.id(c), c.tag
	s.input(c, p, options, data)
	if s.byID(id) != nil {
		s.user.StreamReady(id, tag)
	}
}
