package tcp

import "github.com/thurward/thurward/internal/shared/packet"

// A stream is a connection of our own that carries bytes, not messages: those of
// TLS. What arrives waits until it is read, and the other side is told of no more
// room than there is; what is to be sent is taken as far as there is room. The
// owner decides how long a stream lives: once it exists, only segments that are
// never acknowledged end it.

const (
	streamIn  = 16 << 10 // bytes that wait to be read
	streamOut = 16 << 10 // bytes that wait to be sent or acknowledged

	// streamMSS fits every path that a DNS answer of 1232 bytes fits: nobody
	// looks for the path's MTU here, and a TLS handshake has messages of more
	// than a packet.
	streamMSS = 1220
)

// ConnectStream begins a stream. It returns false when that is not possible.
// User.Stream tells what happens to it, User.Closed its end.
func (s *Stack) ConnectStream(t *Tuple, tag uint32, now int64) (id uint32, ok bool) {
	s.now = now
	if s.find(t) != nil {
		return 0, false
	}
	c := s.open(aStream, 0, now)
	if c == nil {
		return 0, false
	}
	s.c.Connected++
	c.Tuple, c.tag, c.state, c.stream = *t, tag, synSent, true
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.ends = now + handshakeFor
	s.push(c)
	return s.id(c), true
}

// A StreamState says how a stream is.
type StreamState struct {
	Open    bool // the other side has accepted it, and we have not closed it
	Ended   bool // the other side has sent all it had to
	Unread  int  // bytes that have come
	Room    int  // bytes that Write takes
	Unacked bool // the other side acknowledges nothing, although it was sent again
}

// Stream returns the state of a stream, false when there is none with this id.
func (s *Stack) Stream(id uint32) (StreamState, bool) {
	c := s.byID(id)
	if c == nil || !c.stream {
		return StreamState{}, false
	}
	st := StreamState{Open: c.state == established, Ended: c.finSeen, Unread: c.rx.n, Unacked: c.tries >= 2}
	if st.Open {
		st.Room = streamOut - c.tx.n
	}
	return st, true
}

// Write sends bytes over a stream that is open and returns how many it took.
func (s *Stack) Write(id uint32, b []byte, now int64) int {
	s.now = now
	c := s.byID(id)
	if c == nil || !c.stream || c.state != established {
		return 0
	}
	before := c.tx.n
	s.chunks[aStream].put(&c.tx, b[:min(len(b), streamOut-c.tx.n)])
	if c.tx.n > before {
		c.active = now
		s.push(c)
	}
	return c.tx.n - before
}

// Read moves bytes that have come over a stream to dst and returns their number.
func (s *Stack) Read(id uint32, dst []byte, now int64) int {
	s.now = now
	c := s.byID(id)
	if c == nil || !c.stream {
		return 0
	}
	n := s.chunks[aStream].copy(dst, &c.rx, 0)
	s.chunks[aStream].take(&c.rx, n)
	// The other side learns of room when it is worth a segment (RFC 9293
	// section 3.8.6.2.2).
	if told := int32(c.edge - c.rcv); c.state == established && !c.finSeen && told < streamIn/2 && int32(c.window())-told >= streamIn/2 {
		s.ack(c)
	}
	return n
}

// Abandon resets a connection.
func (s *Stack) Abort(id uint32, now int64) {
	s.now = now
	if c := s.byID(id); c != nil {
		s.abort(c)
	}
}

// took keeps bytes of a stream until they are read. The window has seen to it
// that there is room; after our end nobody reads them. It returns false when the
// connection is gone.
func (s *Stack) took(c *conn, data []byte) bool {
	if c.state != established {
		return true
	}
	if !s.chunks[aStream].put(&c.rx, data) { // cannot be
		s.c.Aborted++
		s.abort(c)
		return false
	}
	return true
}

// Input handles a segment of a connection that is there (see Owns): its header
// in p, its options and its data.
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
