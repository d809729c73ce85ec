// Package dot is a persistent connection for DNS over TLS (RFC 7858) to one
// upstream, in two halves. The packet loop has the Link: TCP, the framing of
// messages, and all that has to do with time. A goroutine speaks TLS and is
// nothing but a pipe (tlspipe). Between them lies a Pipe, whose rings carry bytes
// without locks: neither half waits for the other.
//
//	                 packet loop           |        goroutine
//	queries -> Link.Ask -> plainOut ring --|--> crypto/tls -> sealedOut ring --+
//	           tcpend <- Link.Poll <-------|-----------------------------------+
//	           tcpend -> sealedIn ring ----|--> crypto/tls -> plainIn ring ----+
//	answers <- Link.Poll <-----------------|-----------------------------------+
//
// Nothing of the packet loop's half allocates.
package dot

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const second = int64(1e9)

const (
	maxMessage = 65535
	setupFor   = 3 * second  // TCP's handshake and that of TLS
	silentFor  = 5 * second  // with a query under way: longer than anybody waits for it
	idleFor    = 30 * second // RFC 7858 section 3.4
	finishFor  = second      // for the goroutine to say good-bye
	firstPause = second      // after a connection that came to nothing
	longPause  = 16 * second
	perPoll    = 64 // messages that are read at a time
)

// A State is what a Link does.
type State uint8

// The states.
const (
	Idle        State = iota // no connection; the next query makes one
	Connecting               // TCP's handshake
	Handshaking              // that of TLS
	Open                     //
	Ending                   // the goroutine has not parked yet
	Failed                   // the last connection came to nothing; there is a pause
)

// A User is told what happens. The calls come from within Poll, Ask and Closed.
type User interface {
	// AllocPort reserves a TCP port of the WAN address; FreePort ends that.
	AllocPort() (local packet.Addr, port uint16, ok bool)
	FreePort(port uint16)
	// Answer handles a message of the upstream. It may not keep it.
	Response(up int, msg []byte)
	// Lost says that there is no connection any more: what it was asked has
	// no answer. failed: there never was one that was good for anything.
	Lost(up int, failed bool)
	// Failed says why: once, until another reason comes or it has worked
	// again. The reason is valid during the call.
	Failed(up int, c Class, reason []byte)
}

// Counters of a Link.
type Counters struct {
	Connections uint64                        // that were opened: the certificate is good
	Failures    [verdict.NumTLSClasses]uint64 // that came to nothing, by class
	Unsent      uint64                        // queries that had no room
}

// Config says what a Link connects to.
type Config struct {
	Up       int // number of the upstream
	Addr     packet.Addr
	Port     uint16
	User     User
	TCP      *tcp.Stack
	ClockSet bool // the time of day is known
}

// A Link is the packet loop's half. One goroutine uses it.
type Link struct {
	cfg     Config
	pipe    *Pipe
	c       Counters
	state   State
	conn    uint32 // its stream; 0: none
	why     Class  // Ending: what the loop has ended it for
	fail    bool   // Ending: not in good order
	useful  bool   // it has brought an answer
	touched bool   // there is something for Poll
	due     int64  // Connecting, Handshaking, Ending, Failed: until then
	asked   int64  // when it was asked last, Open
	waiting int64  // since when it has been asked and not answered; 0: not
	pause   int64
	told    struct {
		class Class
		sum   uint32
	}
	have int // bytes of the message that is being read, its length first
	msg  [2 + maxMessage]byte
}

// New makes a link.
func New(c Config, p *Pipe) *Link { return &Link{cfg: c, pipe: p} }

// Pipe returns the link's pipe, for the goroutine.
func (l *Link) Pipe() *Pipe { return l.pipe }

// State returns what the link does.
func (l *Link) State() State { return l.state }

// Counters returns the counters, which the link goes on changing.
func (l *Link) Counters() *Counters { return &l.c }

// Ask sends a query. It returns false when that is not possible now: the
// upstream was not there a moment ago. A query that was taken is answered or
// Lost, or nothing happens: then there was no room for it.
func (l *Link) Send(msg []byte, now int64) bool {
	switch l.state {
	case Failed:
		if now < l.due {
			return false
		}
		fallthrough
	case Idle:
		if !l.connect(now) {
			return false
		}
	case Ending:
		return !l.fail // Lost comes soon
	}
	if l.pipe.plainOut.Room() < 2+len(msg) {
		l.c.Unsent++
		return true
	}
	var n [2]byte
	binary.BigEndian.PutUint16(n[:], uint16(len(msg)))
	l.pipe.plainOut.Write(n[:])
	l.pipe.plainOut.Write(msg)
	l.asked = now
	if l.waiting == 0 {
		l.waiting = now
	}
	if l.state == Open {
		l.pipe.kick()
	}
	return true
}

// connect begins a connection.
func (l *Link) connect(now int64) bool {
	if !l.cfg.ClockSet {
		l.failed(verdict.TLSClockNotSet, []byte("the machine has no clock, so that nobody can tell whether a certificate is valid"), now)
		return false
	}
	local, port, ok := l.cfg.User.AllocPort()
	if !ok {
		l.failed(verdict.TLSTimeout, []byte("no free port on the WAN address"), now)
		return false
	}
	l.pipe.plainOut.reset()
	t := tcp.Tuple{Local: local, Remote: l.cfg.Addr, LocalPort: port, RemotePort: l.cfg.Port}
	if l.conn, ok = l.cfg.TCP.ConnectStream(&t, 0, now); !ok {
		l.cfg.User.FreePort(port)
		l.failed(verdict.TLSTimeout, []byte("too many TCP connections"), now)
		return false
	}
	l.state, l.due = Connecting, now+setupFor
	l.useful, l.fail, l.why, l.have, l.waiting = false, false, 0, 0, 0
	return true
}

// Working reports whether the goroutine has something to do, or Poll: no time to
// sleep.
func (l *Link) Working() bool { return l.touched || l.pipe.working() }

// Touch says that there may be something to do.
func (l *Link) Wake() { l.touched = true }

// Closed says that a stream is gone, perhaps the link's.
func (l *Link) Closed(id uint32, now int64) {
	if id != l.conn {
		return // another's, or an old one
	}
	l.conn = 0
	if l.state == Connecting {
		// No connection, so nothing for the goroutine: it is over.
		c, why := verdict.TLSClosed, "the server, or the network, has refused the connection"
		if now >= l.due {
			c, why = verdict.TLSTimeout, "no answer to the connection's first segment"
		}
		l.over(c, []byte(why), now)
		return
	}
	l.pipe.eof.Store(true)
	l.pipe.kick()
	l.touched = true
}

// Poll moves what there is to move.
func (l *Link) Poll(now int64) {
	if l.pipe.news.Swap(false) {
		l.touched = true
	}
	if !l.touched {
		return
	}
	l.touched = false
	if l.state == Connecting {
		if st, ok := l.cfg.TCP.Stream(l.conn); ok && st.Open {
			l.state = Handshaking
			l.pipe.start()
		}
	}
	if l.state == Idle || l.state == Failed || l.state == Connecting {
		return
	}
	does := l.pipe.state.Load() // before what it has done: nothing follows when it has parked
	if does == open && l.state == Handshaking {
		l.state, l.asked = Open, now
		l.c.Connections++
		if l.waiting != 0 {
			l.waiting = now
		}
	}
	l.outwards(now)
	l.inwards(now)
	l.answers()
	if does == parked {
		l.parked(now)
	}
}

// outwards moves sealed bytes to the network. Those for a connection that is
// gone go nowhere.
func (l *Link) outwards(now int64) {
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

// inwards moves sealed bytes from the network, if there is a connection.
func (l *Link) inwards(now int64) {
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

// answers takes plain bytes apart into messages, each behind its length.
func (l *Link) answers() {
	full := l.pipe.plainIn.Room() == 0
	for range perPoll {
		want := 2
		if l.have >= 2 {
			want += int(binary.BigEndian.Uint16(l.msg[:]))
		}
		if l.have < want {
			n := l.pipe.plainIn.Read(l.msg[l.have:want])
			if l.have += n; n == 0 {
				break
			}
		}
		if l.have < want || want == 2 && binary.BigEndian.Uint16(l.msg[:]) != 0 {
			continue
		}
		msg := l.msg[2:want]
		l.have = 0
		l.waiting = 0
		if !l.useful {
			l.useful, l.pause, l.told.class = true, 0, 0
		}
		l.cfg.User.Response(l.cfg.Up, msg)
	}
	if l.pipe.plainIn.Len() > 0 {
		l.touched = true // the rest at the next poll
	}
	if full {
		l.pipe.kick()
	}
}

// parked goes on when the goroutine has ended its part.
func (l *Link) parked(now int64) {
	if l.conn != 0 {
		l.outwards(now) // its last words
		id := l.conn
		l.conn = 0
		if l.fail {
			l.cfg.TCP.Abort(id, now)
		} else {
			l.cfg.TCP.Close(id, now)
		}
	}
	c, why := l.pipe.class, l.pipe.reason
	if l.why != 0 {
		c, why = l.why, []byte(silent)
	}
	if l.state == Handshaking && c == 0 {
		c = verdict.TLSClosed
	}
	l.over(c, why, now)
}

const silent = "no answer in time"

// over ends a connection, whose goroutine is parked or had not begun.
func (l *Link) over(c Class, why []byte, now int64) {
	if l.useful || c == 0 {
		// It has worked: a server may close a connection at any time.
		l.state = Idle
		l.cfg.User.Lost(l.cfg.Up, false)
		return
	}
	l.failed(c, why, now)
	l.cfg.User.Lost(l.cfg.Up, true)
}

// failed counts and tells a connection that came to nothing, and makes a pause
// before the next.
func (l *Link) failed(c Class, why []byte, now int64) {
	l.c.Failures[c]++
	l.pause = min(max(2*l.pause, firstPause), longPause)
	l.state, l.due = Failed, now+l.pause
	sum := uint32(2166136261) // FNV-1a: reasons are told apart by it
	for _, b := range why {
		sum = (sum ^ uint32(b)) * 16777619
	}
	if l.told.class != c || l.told.sum != sum {
		l.told.class, l.told.sum = c, sum
		l.cfg.User.Failed(l.cfg.Up, c, why)
	}
}

// Tick looks after what time changes.
func (l *Link) Tick(now int64) {
	switch l.state {
	case Connecting:
		if now >= l.due {
			l.cfg.TCP.Abort(l.conn, now) // Closed goes on
		}
	case Handshaking:
		if now >= l.due || l.unacked() {
			l.end(cancel, verdict.TLSTimeout, now)
		}
	case Open:
		switch {
		case l.waiting != 0 && now-l.waiting >= silentFor, l.unacked():
			l.end(cancel, verdict.TLSTimeout, now)
		case now-l.asked >= idleFor: // not waiting: that would have been too long
			l.end(finish, 0, now)
		}
	case Ending:
		if now >= l.due && l.pipe.order.Load() == finish {
			l.pipe.order.Store(cancel)
			l.pipe.kick()
		}
	}
}

func (l *Link) unacked() bool {
	st, ok := l.cfg.TCP.Stream(l.conn)
	return ok && st.Unacked
}

// end has the goroutine end its part.
func (l *Link) end(order uint32, why Class, now int64) {
	l.state, l.why, l.fail, l.due = Ending, why, order == cancel, now+finishFor
	l.pipe.order.Store(order)
	l.pipe.kick()
}

// Due returns when Tick has something to do, or false.
func (l *Link) Due() (at int64, any bool) {
	switch l.state {
	case Connecting, Handshaking:
		return l.due, true
	case Ending:
		return l.due, l.pipe.order.Load() == finish
	case Open:
		if l.waiting != 0 {
			return l.waiting + silentFor, true
		}
		return l.asked + idleFor, true
	}
	return 0, false
}
