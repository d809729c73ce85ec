// Package tcp implements the endpoint of TCP connections (RFC 9293) that carry
// DNS messages, each prefixed with its length (RFC 7766): connections from
// clients to the firewall, and from the firewall to its upstreams. Connections to
// upstreams can also carry a stream of bytes, for TLS. It is not a general TCP.
//
//	stack.go     connections and their lifecycle
//	eviction.go  limits, and which connection is evicted for another
//	stream.go    streams of bytes
//	input.go     processing of received segments
//	output.go    transmission, retransmission, timers
//	chunk.go     buffers of sent and received data
//
// Not implemented are window scaling, SACK, timestamps, urgent data, delayed
// acknowledgements and TIME-WAIT. Segments received out of order are dropped, and
// retransmitted by their sender. All memory is allocated by New: connections, and
// chunks that the connections of a kind share. Time is an argument, in nanoseconds
// of any monotonic clock. A Stack is not safe for concurrent use.
package tcp

import (
	"github.com/thurward/thurward/internal/shared/packet"
)

const second = int64(1e9)

const (
	maxQuery   = 4096 // longest query, in bytes
	maxMessage = 65535
	maxTxBytes = 192 << 10 // send buffer of a client's connection

	idleTimeout      = 10 * second // RFC 7766 section 6.2.3
	queryTimeout     = 6 * second  // of a query to an upstream: longer than dnsproxy waits for the response
	handshakeTimeout = 3 * second
	lingerTimeout    = 3 * second // for the peer's FIN after ours
	initialRTO       = second     // RFC 6298 section 2
	maxRTO           = 8 * second
	maxRetries       = 5
	initialWnd       = 10 // segments (RFC 6928)
)

// States (RFC 9293 section 3.3.2). closed is that of an unused entry; closing
// stands for FIN-WAIT-1, FIN-WAIT-2, CLOSING and LAST-ACK.
const (
	closed = iota
	synSent
	synReceived
	established
	closing // our FIN is sent, or follows the data in the send buffer
)

// A Tuple identifies a connection by its two endpoints.
type Tuple struct {
	Local, Remote         packet.Addr
	LocalPort, RemotePort uint16
}

// A Segment is a segment to transmit. Data is valid only during the call of Emit.
type Segment struct {
	Tuple
	Seq, Ack uint32
	Flags    uint8
	Window   uint16
	MSS      uint16 // value of the option; 0: no option
	Data     []byte
	Passive  bool // the connection was opened by a client
}

// A User transmits segments for a Stack and receives its events. Message and
// Closed may call methods of the Stack.
type User interface {
	// Emit transmits a segment. It must not retain s.
	Emit(s *Segment)
	// Message handles a complete message. It must not retain msg.
	Message(id uint32, msg []byte)
	// StreamReady reports that a segment of a stream was processed: there may
	// be bytes to read, room to write, or the peer's FIN.
	StreamReady(id, tag uint32)
	// Closed reports that a connection was removed. Its id is invalid from then
	// on. tag is that of Connect or ConnectStream; passive connections have none.
	// It must not retain t.
	Closed(id, tag uint32, t *Tuple, passive bool)
	// Random returns an unpredictable number, for initial sequence numbers.
	Random() uint64
}

// Counters of a Stack.
type Counters struct {
	Accepted  uint64 // passive opens
	Refused   uint64 // SYNs of clients dropped because of the limits
	Stalled   uint64 // connections reset because the client acknowledges too little of its responses
	Connected uint64 // active opens
	Failed    uint64 // active opens that were refused or unreachable
	Evicted   uint64 // connections reset in favour of others
	Timeouts  uint64 // connections reset by a timeout
	Aborted   uint64 // connections reset because a message was too long or memory was exhausted
	Reset     uint64 // connections reset by the peer
	Resent    uint64 // retransmitted segments
	Invalid   uint64 // received segments that were not acceptable
}

type conn struct {
	Tuple
	state   uint8
	passive bool
	stream  bool
	gen     uint16
	tag     uint32
	rule    uint32
	mss     uint16

	una, nxt, max      uint32 // SND.UNA, SND.NXT, and the highest SND.NXT so far
	wnd, cwnd          uint32 // send window, congestion window
	rcv                uint32 // RCV.NXT
	tx, rx             queue
	msgLen             int   // length of the message being received
	lenBytes           uint8 // bytes of the length received
	lenHigh            byte
	lastAck            uint32 // last acknowledgement sent
	lastEdge           uint32 // right edge of the last window advertised
	finSent            bool
	finSeen            bool
	wantClose          bool
	dupAcks            uint8
	retries            uint8
	rto                int64
	resendAt           int64 // retransmission timer; 0: stopped
	deadline           int64 // when expire is due; 0: never
	queryDeadline      int64 // of a query: the deadline once it is established
	lastActive         int64 // last message received or sent
	lastProgress       int64 // last acknowledgement of new data
	txAtStart, txAcked int   // see startTxDeadline: bytes to send when the period began, and acknowledged since
	unanswered         int   // queries without a response
}

// A Stack is a table of connections with their buffers.
type Stack struct {
	user        User
	c           Counters
	conn        []conn
	limit       [numKinds]int // connections of each kind
	used        [numKinds]int // of those
	pools       [numKinds]pool
	n           int
	mss         [2]uint16 // that we announce: to upstreams, to clients
	perClient   clientCounts
	msg         []byte
	out         [2048]byte
	now         int64
	seg         Segment // arguments of Emit and Closed, to avoid allocations
	closedTuple Tuple
}

// New returns a stack for up to streams open streams. The MTUs, in bytes, are those
// of the paths to upstreams and to clients.
func New(u User, wanMTU, lanMTU, streams int) *Stack {
	s := &Stack{user: u, msg: make([]byte, maxMessage)}
	const headers = packet.MinIPv4 + packet.TCPLen
	s.mss = [2]uint16{uint16(min(wanMTU, 1500) - headers), uint16(min(lanMTU, 1500) - headers)}
	s.limit = [numKinds]int{kindPassive: maxPassive, kindQuery: maxQueries, kindStream: 2 * streams}
	s.conn = make([]conn, maxPassive+maxQueries+2*streams)
	chunks := [numKinds]int{kindPassive: passiveChunks, kindQuery: queryChunks, kindStream: streams * streamChunks}
	for k, n := range chunks {
		s.pools[k].init(n)
	}
	return s
}

// Counters returns the stack's counters. They keep changing.
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
	if c := &s.conn[i]; c.state != closed && c.gen == uint16(id>>16) {
		return c
	}
	return nil
}

func (s *Stack) find(t *Tuple) *conn {
	for i := range s.conn {
		if c := &s.conn[i]; c.state != closed && c.Tuple == *t {
			return c
		}
	}
	return nil
}

// Owns reports whether a connection has this tuple, and the index of the rule that
// accepted it, as passed to Accept.
func (s *Stack) Owns(t *Tuple) (rule uint32, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	if c := s.find(t); c != nil {
		return c.rule, true
	}
	return 0, false
}

// Conn returns the tuple of a connection, the tag of Connect or ConnectStream, and
// whether a client opened it. It returns zero values for an id that is not valid.
func (s *Stack) Conn(id uint32) (t Tuple, tag uint32, passive bool) {
	if c := s.byID(id); c != nil {
		return c.Tuple, c.tag, c.passive
	}
	return t, 0, false
}

// newConn allocates a connection, or returns nil (see reserveConn).
func (s *Stack) newConn(k kind, client packet.Addr, now int64) *conn {
	if !s.reserveConn(k, client) {
		return nil
	}
	for i := range s.conn {
		if c := &s.conn[i]; c.state == closed {
			*c = conn{gen: c.gen + 1, passive: k == kindPassive, stream: k == kindStream,
				rto: initialRTO, lastActive: now, lastProgress: now, mss: 536}
			s.n++
			s.used[k]++
			return c
		}
	}
	return nil // unreachable: reserveConn has found an entry
}

// Connect opens a connection and sends a query of at most 4096 bytes over it. It
// returns false if the query is longer, the tuple is in use, or a limit is reached.
func (s *Stack) Connect(t *Tuple, tag uint32, msg []byte, now int64) bool {
	s.now = now
	if len(msg) > maxQuery || s.find(t) != nil {
		return false
	}
	c := s.newConn(kindQuery, 0, now)
	if c == nil {
		return false
	}
	s.c.Connected++
	c.Tuple, c.tag, c.state = *t, tag, synSent
	if !s.enqueue(c, msg) {
		s.release(c)
		return false
	}
	iss := uint32(s.user.Random())
	c.una, c.nxt, c.max = iss, iss, iss
	c.deadline, c.queryDeadline = now+handshakeTimeout, now+queryTimeout
	s.output(c)
	return true
}

// Send sends a response to a client. It does nothing if the connection is closed or
// closing, and resets the connection if there is no buffer space.
func (s *Stack) Send(id uint32, msg []byte, now int64) {
	s.now = now
	c := s.byID(id)
	if c == nil || c.state != established && c.state != closing || c.finSent {
		return
	}
	c.unanswered = max(c.unanswered-1, 0)
	waited := c.tx.n
	if waited+len(msg) > maxTxBytes || !s.enqueue(c, msg) {
		s.c.Aborted++
		s.abort(c)
		return
	}
	c.lastActive = now
	if waited == 0 {
		c.lastProgress = now
		s.startTxDeadline(c)
	}
	s.closeIfAnswered(c)
	s.output(c)
}

// Cancel resets the connection of the query with this tag: its response is not
// needed any more.
func (s *Stack) Cancel(tag uint32, now int64) {
	s.now = now
	for i := range s.conn {
		if c := &s.conn[i]; c.state != closed && c.state != closing && c.kind() == kindQuery && c.tag == tag {
			s.abort(c)
			return
		}
	}
}

// Close closes a connection after the data in its send buffer. A connection that is
// not established is reset.
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
	c.deadline = s.now + lingerTimeout
	if c.stream {
		s.pools[kindStream].release(&c.rx) // the user reads no more
	}
	s.output(c)
}

// closeIfAnswered closes a connection whose peer has sent a FIN: that of a client once
// it has a response to each query, and that of an upstream at once.
func (s *Stack) closeIfAnswered(c *conn) {
	if c.finSeen && c.unanswered == 0 && c.state == established && !c.stream {
		c.state, c.wantClose = closing, true
		if c.tx.n == 0 {
			c.deadline = s.now + lingerTimeout
		}
	}
}

// abort resets a connection.
func (s *Stack) abort(c *conn) {
	if c.state != synSent {
		s.emit(c, c.nxt, packet.RST|packet.ACK, nil, 0)
	}
	s.remove(c)
}

// remove frees a connection and reports it as closed.
func (s *Stack) remove(c *conn) {
	id, tag, passive := s.id(c), c.tag, c.passive
	s.closedTuple = c.Tuple
	s.release(c)
	s.user.Closed(id, tag, &s.closedTuple, passive)
}

func (s *Stack) release(c *conn) {
	k := c.kind()
	s.pools[k].release(&c.tx)
	s.pools[k].release(&c.rx)
	s.n--
	s.used[k]--
	*c = conn{gen: c.gen}
}
