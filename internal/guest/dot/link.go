// Package dot keeps a persistent connection for DNS over TLS (RFC 7858) to one
// upstream. It has two halves. A Link runs in the packet loop: TCP, the framing of
// messages, and all timers. A goroutine runs crypto/tls and only converts bytes
// (package tlspipe). Between the two is a Pipe, whose rings pass bytes without
// locks, so that neither half waits for the other.
//
//	                     packet loop           |        goroutine
//	queries -> Link.Send -> plainOut ring -----|--> crypto/tls -> sealedOut ring --+
//	           tcp.Stack <- Link.Poll <--------|-----------------------------------+
//	           tcp.Stack -> sealedIn ring -----|--> crypto/tls -> plainIn ring ----+
//	responses <- Link.Poll <-------------------|-----------------------------------+
//
// The half in the packet loop does not allocate.
package dot

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const second = int64(1e9)

const (
	maxMessage      = 65535
	setupTimeout    = 3 * second  // of the TCP handshake, and of the TLS handshake
	responseTimeout = 5 * second  // without any response to queries: longer than dnsproxy waits for one
	idleTimeout     = 30 * second // RFC 7858 section 3.4
	closeTimeout    = second      // for the goroutine to send close_notify
	firstBackoff    = second      // after a failed connection; doubled by each further one
	longBackoff     = 16 * second
	messagesPerPoll = 64 // messages read by one Poll
)

// A State is the state of a Link.
type State uint8

// The states.
const (
	Idle        State = iota // no connection; the next query opens one
	Connecting               // TCP handshake
	Handshaking              // TLS handshake
	Open                     // queries are sent
	Ending                   // waiting for the goroutine to park
	Failed                   // the last connection failed; none is opened until the backoff is over
)

// A User receives a Link's messages and events. Its methods are called by Poll, Send
// and Closed.
type User interface {
	// AllocPort reserves a TCP port of the WAN address; FreePort releases it.
	AllocPort() (local packet.Addr, port uint16, ok bool)
	FreePort(port uint16)
	// Response handles a message from upstream number up. It must not retain msg.
	Response(up int, msg []byte)
	// Lost reports that the connection to upstream number up is closed: queries
	// sent over it get no response. failed: it never brought one.
	Lost(up int, failed bool)
	// Failed reports why connections fail: once, until the reason changes or a
	// connection has worked. The reason is valid only during the call.
	Failed(up int, c Class, reason []byte)
}

// Counters of a Link.
type Counters struct {
	Connections uint64                        // handshakes completed, with a valid certificate
	Failures    [verdict.NumTLSClasses]uint64 // failed connections, by class
	Unsent      uint64                        // queries dropped because the ring was full
}

// A Config configures a Link.
type Config struct {
	Up       int // number of the upstream
	Addr     packet.Addr
	Port     uint16
	User     User
	TCP      *tcp.Stack
	ClockSet bool // the time of day is known, so that certificates can be verified
}

// A Link is the half in the packet loop. It is not safe for concurrent use.
type Link struct {
	cfg          Config
	pipe         *Pipe
	c            Counters
	state        State
	conn         uint32 // id of the stream; 0: none
	endClass     Class  // Ending: why the Link ended the connection
	aborted      bool   // Ending: the connection is reset
	useful       bool   // a response was received
	pollDue      bool   // Poll has something to do
	dropDue      bool   // Poll drops the connection: see Drop
	deadline     int64  // of the states Connecting, Handshaking, Ending and Failed
	lastQuery    int64  // time of the last query, or of the handshake's end
	waitingSince int64  // the first query after the last response; 0: none
	backoff      int64
	reported     struct {
		class Class
		sum   uint32
	}
	received int // bytes in msg: a message prefixed with its length
	msg      [2 + maxMessage]byte
}

// New returns a link that uses pipe p. See Pipe.
func New(c Config, p *Pipe) *Link { return &Link{cfg: c, pipe: p} }

// Pipe returns the link's pipe, for tlspipe.Run.
func (l *Link) Pipe() *Pipe { return l.pipe }

// State returns the link's state.
func (l *Link) State() State { return l.state }

// Counters returns the link's counters. They keep changing.
func (l *Link) Counters() *Counters { return &l.c }

// Send sends a query, and opens a connection for it if there is none. It returns
// false if the last connection failed and the backoff is not over, or none can be
// opened. A query that was accepted gets a Response or is Lost; if there was no room
// for it, it is dropped and counted.
func (l *Link) Send(msg []byte, now int64) bool {
	switch l.state {
	case Failed:
		if now < l.deadline {
			return false
		}
		fallthrough
	case Idle:
		if !l.connect(now) {
			return false
		}
	case Ending:
		return !l.aborted // Lost follows soon
	}
	if l.pipe.plainOut.Room() < 2+len(msg) {
		l.c.Unsent++
		return true
	}
	var n [2]byte
	binary.BigEndian.PutUint16(n[:], uint16(len(msg)))
	l.pipe.plainOut.Write(n[:])
	l.pipe.plainOut.Write(msg)
	l.lastQuery = now
	if l.waitingSince == 0 {
		l.waitingSince = now
	}
	if l.state == Open {
		l.pipe.kick()
	}
	return true
}

// connect opens a connection.
func (l *Link) connect(now int64) bool {
	if !l.cfg.ClockSet {
		l.fail(verdict.TLSClockNotSet, []byte("the time of day is not known, so that certificates cannot be verified"), now)
		return false
	}
	local, port, ok := l.cfg.User.AllocPort()
	if !ok {
		l.fail(verdict.TLSTimeout, []byte("no free port on the WAN address"), now)
		return false
	}
	l.pipe.plainOut.reset()
	t := tcp.Tuple{Local: local, Remote: l.cfg.Addr, LocalPort: port, RemotePort: l.cfg.Port}
	if l.conn, ok = l.cfg.TCP.ConnectStream(&t, 0, now); !ok {
		l.cfg.User.FreePort(port)
		l.fail(verdict.TLSTimeout, []byte("too many TCP connections"), now)
		return false
	}
	l.state, l.deadline = Connecting, now+setupTimeout
	l.useful, l.aborted, l.endClass, l.received, l.waitingSince = false, false, 0, 0, 0
	return true
}

// Working reports whether the goroutine or Poll has something to do, so that the
// packet loop must not sleep.
func (l *Link) Working() bool { return l.pollDue || l.pipe.working() }

// Wake makes the next Poll look at everything.
func (l *Link) Wake() { l.pollDue = true }

// Drop has the next Poll reset the connection, and send nothing more on it: its keys may be
// in use elsewhere. A connection without keys stays. Queries go by another connection.
func (l *Link) Drop() { l.dropDue, l.pollDue = true, true }

func (l *Link) drop(now int64) {
	switch l.state {
	case Handshaking, Open, Ending:
		l.shutdown(orderCancel, l.endClass, now)
		if l.conn != 0 {
			l.cfg.TCP.Abort(l.conn, now) // calls Closed
		}
	}
}

// Closed handles the removal of stream id (see tcp.User), if it is the link's.
func (l *Link) Closed(id uint32, now int64) {
	if id != l.conn {
		return // another link's, or a previous one
	}
	l.conn = 0
	if l.state == Connecting {
		// The goroutine has not started.
		c, why := verdict.TLSClosed, "the server or the network refused the connection"
		if now >= l.deadline {
			c, why = verdict.TLSTimeout, "no answer to the TCP SYN"
		}
		l.connectionOver(c, []byte(why), now)
		return
	}
	l.pipe.eof.Store(true)
	l.pipe.kick()
	l.pollDue = true
}

// Poll moves bytes between the rings and the stream, and handles changes of state.
func (l *Link) Poll(now int64) {
	if l.pipe.toLoop.Swap(false) {
		l.pollDue = true
	}
	if !l.pollDue {
		return
	}
	l.pollDue = false
	if l.dropDue {
		l.dropDue = false
		l.drop(now)
	}
	if l.state == Connecting {
		if st, ok := l.cfg.TCP.Stream(l.conn); ok && st.Open {
			l.state = Handshaking
			l.pipe.start()
		}
	}
	if l.state == Idle || l.state == Failed || l.state == Connecting {
		return
	}
	state := l.pipe.state.Load() // loaded before the rings are read: once parked, the goroutine writes no more
	if state == open && l.state == Handshaking {
		l.state, l.lastQuery = Open, now
		l.c.Connections++
		if l.waitingSince != 0 {
			l.waitingSince = now
		}
	}
	l.sendSealed(now)
	l.receiveSealed(now)
	l.readMessages()
	if state == parked {
		l.finishParked(now)
	}
}

// sendSealed moves sealed bytes to the stream. They are discarded if it is gone.
func (l *Link) sendSealed(now int64) {
	for range 2 {
		b := l.pipe.sealedOut.Peek()
		n := len(b)
		if l.conn != 0 {
			n = l.cfg.TCP.Write(l.conn, b, now)
		}
		if n == 0 {
			return
		}
		l.pipe.sealedOut.Discard(n)
		l.pipe.kick()
	}
}

// receiveSealed moves sealed bytes from the stream, if there is one.
func (l *Link) receiveSealed(now int64) {
	for range 2 {
		n := l.cfg.TCP.Read(l.conn, l.pipe.sealedIn.Space(), now)
		if n == 0 {
			break
		}
		l.pipe.sealedIn.Commit(n)
		l.pipe.kick()
	}
	if st, ok := l.cfg.TCP.Stream(l.conn); ok && st.Ended && st.Unread == 0 && !l.pipe.eof.Load() {
		l.pipe.eof.Store(true)
		l.pipe.kick()
	}
}

// readMessages splits plain bytes into messages, each prefixed with its length.
func (l *Link) readMessages() {
	full := l.pipe.plainIn.Room() == 0
	for range messagesPerPoll {
		want := 2
		if l.received >= 2 {
			want += int(binary.BigEndian.Uint16(l.msg[:]))
		}
		n := l.pipe.plainIn.Read(l.msg[l.received:want])
		if l.received += n; n == 0 {
			break
		}
		if l.received < want || want == 2 && binary.BigEndian.Uint16(l.msg[:]) != 0 {
			continue
		}
		msg := l.msg[2:want]
		l.received = 0
		l.waitingSince = 0
		l.useful, l.backoff, l.reported.class = true, 0, 0
		l.cfg.User.Response(l.cfg.Up, msg)
	}
	if l.pipe.plainIn.Len() > 0 {
		l.pollDue = true // the next Poll reads the rest
	}
	if full {
		l.pipe.kick()
	}
}

// finishParked ends the connection once the goroutine is parked.
func (l *Link) finishParked(now int64) {
	id := l.conn // 0, which is no connection, if the server has reset it
	l.conn = 0
	if l.aborted {
		l.cfg.TCP.Abort(id, now)
	} else {
		l.cfg.TCP.Close(id, now)
	}
	c, why := l.pipe.class, l.pipe.reason
	if l.endClass != 0 {
		c, why = l.endClass, []byte(silentReason)
	}
	if l.state == Handshaking && c == 0 {
		c = verdict.TLSClosed
	}
	l.connectionOver(c, why, now)
}

const silentReason = "no answer in time"

// connectionOver handles the end of a connection whose goroutine is parked or was not
// started.
func (l *Link) connectionOver(c Class, why []byte, now int64) {
	if l.useful || c == 0 {
		// A server may close a connection that has worked at any time.
		l.state = Idle
		l.cfg.User.Lost(l.cfg.Up, false)
		return
	}
	l.fail(c, why, now)
	l.cfg.User.Lost(l.cfg.Up, true)
}

// fail counts and reports a failed connection, and begins the backoff before the next.
func (l *Link) fail(c Class, why []byte, now int64) {
	l.c.Failures[c]++
	l.backoff = min(max(2*l.backoff, firstBackoff), longBackoff)
	l.state, l.deadline = Failed, now+l.backoff
	sum := uint32(2166136261) // FNV-1a, to compare reasons
	for _, b := range why {
		sum = (sum ^ uint32(b)) * 16777619
	}
	if l.reported.class != c || l.reported.sum != sum {
		l.reported.class, l.reported.sum = c, sum
		l.cfg.User.Failed(l.cfg.Up, c, why)
	}
}

// Tick handles the timers. Due returns when it must be called.
func (l *Link) Tick(now int64) {
	switch l.state {
	case Connecting:
		if now >= l.deadline {
			l.cfg.TCP.Abort(l.conn, now) // calls Closed
		}
	case Handshaking:
		if now >= l.deadline {
			l.shutdown(orderCancel, verdict.TLSTimeout, now)
		}
	case Open:
		switch {
		case l.waitingSince != 0 && now-l.waitingSince >= responseTimeout, l.unacked():
			l.shutdown(orderCancel, verdict.TLSTimeout, now)
		case now-l.lastQuery >= idleTimeout: // no query is waiting: the case above comes before
			l.shutdown(orderClose, 0, now)
		}
	case Ending:
		if now >= l.deadline && l.pipe.order.Load() == orderClose {
			l.pipe.order.Store(orderCancel)
			l.pipe.kick()
		}
	}
}

func (l *Link) unacked() bool {
	st, ok := l.cfg.TCP.Stream(l.conn)
	return ok && st.Unacked
}

// shutdown orders the goroutine to end the connection.
func (l *Link) shutdown(order uint32, why Class, now int64) {
	l.state, l.endClass, l.aborted, l.deadline = Ending, why, order == orderCancel, now+closeTimeout
	l.pipe.order.Store(order)
	l.pipe.kick()
}

// Due returns the time at which Tick must be called, or false if no timer runs.
func (l *Link) Due() (at int64, any bool) {
	switch l.state {
	case Connecting, Handshaking:
		return l.deadline, true
	case Ending:
		return l.deadline, l.pipe.order.Load() == orderClose
	case Open:
		if l.waitingSince != 0 {
			return l.waitingSince + responseTimeout, true
		}
		return l.lastQuery + idleTimeout, true
	}
	return 0, false
}
