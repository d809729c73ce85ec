// Package tcp ends TCP connections (RFC 9293) that carry DNS messages, each
// behind its length (RFC 7766): those of clients to the firewall, and those of
// the firewall to its upstreams. To upstreams there are also streams of bytes,
// for TLS. It is no general TCP.
//
//	stack.go   connections
//	share.go   who gets a place and memory, and who gives way
//	stream.go  streams
//	input.go   a segment arrives
//	output.go  a segment leaves, retransmission, time
//	chunk.go   what waits to be sent or read
//
// What it leaves out: window scaling, SACK, time-stamps, urgent data, delayed
// acknowledgements and TIME-WAIT. Segments that come out of order are dropped;
// their sender repeats them. All memory is taken when it starts: connections,
// and chunks that those of a kind share. Time is an argument. One goroutine uses
// it.
package tcp

import (
	"github.com/thurward/thurward/internal/shared/packet"
)

const second = int64(1e9)

const (
	maxQuery   = 4096 // longest message of a client
	maxMessage = 65535
	maxQueued  = 192 << 10 // bytes that may wait for one client

	idleFor      = 10 * second // RFC 7766 section 6.2.3
	askFor       = 6 * second  // a question of our own: longer than anybody waits for the answer
	handshakeFor = 3 * second
	lingerFor    = 3 * second // for the other side's end of a connection
	firstRTO     = second     // RFC 6298 section 2
	maxRTO       = 8 * second
	maxTries     = 5
	initialWnd   = 10 // segments (RFC 6928)
)

// States. Zero is a free place.
const (
	free = iota
	synSent
	synReceived
	established
	closing // our FIN is sent, or is to be as soon as all data is
)

// A Tuple names a connection by its ends.
type Tuple struct {
	Local, Remote         packet.Addr
	LocalPort, RemotePort uint16
}

// A Segment is one that leaves. Data is valid during the call only.
type Segment struct {
	Tuple
	Seq, Ack uint32
	Flags    uint8
	Window   uint16
	MSS      uint16 // option of a SYN; 0: none
	Data     []byte
	Passive  bool // it belongs to a client's connection
}

// A User gets what happens, and carries segments.
type User interface {
	// Emit sends a segment.
	Emit(s *Segment)
	// Message handles a message that arrived whole. It may not keep it.
	Message(id uint32, msg []byte)
	// Stream says that a segment of a stream has come: there may be bytes to
	// read, room to write, or the other side's end.
	StreamReady(id, tag uint32)
	// Closed says that a connection is gone. Its id will stand for nothing
	// any more. tag is the one of Connect or ConnectStream.
	Closed(id, tag uint32, t *Tuple, served bool)
	// Random returns an unpredictable number.
	Random() uint64
}

// Counters of a Stack.
type Counters struct {
	Accepted  uint64 // connections of clients
	Refused   uint64 // of them not taken: too many
	Stalled   uint64 // given up since the client takes next to nothing of its answers
	Connected uint64 // own ones that were begun
	Failed    uint64 // of them that came to nothing
	Evicted   uint64 // that made room for others
	Timeouts  uint64 // given up for want of an answer
	Aborted   uint64 // reset by us: too long a message, no memory
	Reset     uint64 // reset by the other side
	Resent    uint64 // segments
	Invalid   uint64 // segments that did not fit their connection
}

type conn struct {
	Tuple
	state  uint8
	served bool
	stream bool
	gen    uint16
	tag    uint32
	rule   uint32
	mss    uint16

	una, nxt, max uint32 // sent: not acknowledged, next, the most that ever was next
	wnd, cwnd     uint32 // what the other side takes, what the path seems to
	rcv           uint32 // next that is expected
	tx, rx        queue
	need          int   // length of the message that is being read
	prefix        uint8 // bytes of its length that are there
	first         byte
	told          uint32 // what we have acknowledged last
	edge          uint32 // end of the window that the other side was told last
	finSent       bool
	finSeen       bool
	wantClose     bool
	dups          uint8
	tries         uint8
	rto           int64
	resend        int64 // when; 0: nothing is under way
	ends          int64 // when the connection is given up, or is looked after
	limit         int64 // a question of our own: when it is given up at the latest
	active        int64 // when a message came or went last
	moved         int64 // when the other side took something last
	owed, taken   int   // a client's answers: what waited when the time began that ends with ends, and what was taken of it
	pending       int   // messages of the client that have no response yet
}

// A Stack holds all connections.
type Stack struct {
	user   User
	c      Counters
	conn   []conn
	most   [numKinds]int // places
	has    [numKinds]int // of them taken
	chunks [numKinds]chunks
	n      int
	mss    [2]uint16 // ours: towards upstreams, towards clients
	tally  tally
	msg    []byte
	out    [2048]byte
	now    int64
	seg    Segment // what leaves, and whose connection is gone: not on the heap each time
	gone   Tuple
}

// New makes a stack that may have so many streams at a time. The sizes are the
// largest packets of both sides.
func New(u User, wanMTU, lanMTU, streams int) *Stack {
	s := &Stack{user: u, msg: make([]byte, maxMessage)}
	const headers = packet.MinIPv4 + packet.TCPLen
	s.mss = [2]uint16{uint16(min(wanMTU, 1500) - headers), uint16(min(lanMTU, 1500) - headers)}
	s.most = [numKinds]int{aServed: maxServed, anAsked: maxAsked, aStream: 2 * streams}
	s.conn = make([]conn, maxServed+maxAsked+2*streams)
	for k, n := range [numKinds]int{aServed: servedChunks, anAsked: askedChunks, aStream: streams * streamChunks} {
		s.chunks[k].init(n)
	}
	return s
}

// Counters returns the counters, which the stack goes on changing.
func (s *Stack) Counters() *Counters { return &s.c }

// Len returns the number of connections.
func (s *Stack) Len() int { return s.n }

func (s *Stack) id(c *conn) uint32 {
	for i := range s.conn {
		if c == &s.conn[i] {
			return uint32(c.gen)<<16 | uint32(i+1)
		}
	}
	return 0
}

func (s *Stack) byID(id uint32) *conn {
	i := int(uint16(id)) - 1
	if i < 0 || i >= len(s.conn) {
		return nil
	}
	if c := &s.conn[i]; c.state != free && c.gen == uint16(id>>16) {
		return c
	}
	return nil
}

func (s *Stack) find(t *Tuple) *conn {
	for i := range s.conn {
		if c := &s.conn[i]; c.state != free && c.Tuple == *t {
			return c
		}
	}
	return nil
}

// Owns reports whether a connection has this tuple, and the rule that it was
// accepted by.
func (s *Stack) Owns(t *Tuple) (rule uint32, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	if c := s.find(t); c != nil {
		return c.rule, true
	}
	return 0, false
}

// Conn returns what a connection is: its ends, the tag of Connect, and whether
// it is a client's.
func (s *Stack) Conn(id uint32) (t Tuple, tag uint32, served bool) {
	if c := s.byID(id); c != nil {
		return c.Tuple, c.tag, c.served
	}
	return t, 0, false
}

// open takes a place for a connection, nil when there is none (see makePlace).
func (s *Stack) open(k kind, client packet.Addr, now int64) *conn {
	if !s.makePlace(k, client) {
		return nil
	}
	for i := range s.conn {
		if c := &s.conn[i]; c.state == free {
			*c = conn{gen: c.gen + 1, served: k == aServed, stream: k == aStream, rto: firstRTO, active: now, moved: now, mss: 536}
			s.n++
			s.has[k]++
			return c
		}
	}
	return nil // cannot be
}

// Connect begins a connection and sends a message over it. It returns false
// when that is not possible.
func (s *Stack) Connect(t *Tuple, tag uint32, msg []byte, now int64) bool {
	s.now = now
	if len(msg) > maxQuery || s.find(t) != nil {
		return false
	}
	c := s.open(anAsked, 0, now)
	if c == nil {
		return false
	}
	s.c.Connected++
	c.Tuple, c.tag, c.state = *t, tag, synSent
	if !s.enqueue(c, msg) {
		s.forget(c)
		return false
	}
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.ends, c.limit = now+handshakeFor, now+askFor
	s.push(c)
	return true
}

// Send sends a response to a client, if its connection is still there.
func (s *Stack) Send(id uint32, msg []byte, now int64) {
	s.now = now
	c := s.byID(id)
	if c == nil || c.state != established && c.state != closing || c.finSent {
		return
	}
	c.pending = max(c.pending-1, 0)
	waited := c.tx.n
	if waited+len(msg) > maxQueued || !s.enqueue(c, msg) {
		s.c.Aborted++
		s.abort(c)
		return
	}
	c.active = now
	if waited == 0 {
		c.moved = now
		s.owes(c)
	}
	s.closeWhenDone(c)
	s.push(c)
}

// Drop resets the connection of a question, by its tag, that needs no answer any
// more.
func (s *Stack) Cancel(tag uint32, now int64) {
	s.now = now
	for i := range s.conn {
		if c := &s.conn[i]; c.state != free && c.state != closing && c.kind() == anAsked && c.tag == tag {
			s.abort(c)
			return
		}
	}
}

// Close ends a connection in good order.
func (s *Stack) Close(id uint32, now int64) {
	s.now = now
	if c := s.byID(id); c != nil {
		s.close(c)
	}
}

func (s *Stack) close(c *conn) {
	if c.state == synSent || c.state == synReceived {
		s.abort(c)
		return
	}
	c.state, c.wantClose = closing, true
	c.ends = s.now + lingerFor
	if c.stream {
		s.chunks[aStream].release(&c.rx) // nobody reads it any more
	}
	s.push(c)
}

// closeWhenDone ends a connection whose client has sent all it had to, and got
// all the answers.
func (s *Stack) closeWhenDone(c *conn) {
	if c.finSeen && c.pending == 0 && c.state == established && !c.stream {
		c.state, c.wantClose = closing, true
		if c.tx.n == 0 {
			c.ends = s.now + lingerFor
		}
	}
}

// abort resets a connection.
func (s *Stack) abort(c *conn) {
	if c.state != synSent {
		s.emit(c, c.nxt, packet.RST|packet.ACK, nil, 0)
	}
	s.drop(c)
}

// drop forgets a connection and tells it.
func (s *Stack) drop(c *conn) {
	id, tag, served := s.id(c), c.tag, c.served
	s.gone = c.Tuple
	s.forget(c)
	s.user.Closed(id, tag, &s.gone, served)
}

func (s *Stack) forget(c *conn) {
	k := c.kind()
	s.chunks[k].release(&c.tx)
	s.chunks[k].release(&c.rx)
	s.n--
	s.has[k]--
	*c = conn{gen: c.gen}
}
