package dot

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Class says why a connection to an upstream came to nothing; zero: nothing
// went wrong.
type Class = verdict.TLSClass

// What the goroutine does. While it is parked the rings belong to the loop.
const (
	parked      = iota
	handshaking // set by the loop: go
	open
)

// What the loop wants of the goroutine.
const (
	run    = iota
	finish // end in good order
	cancel // end at once
)

const (
	sealedSize   = 16 << 10
	plainInSize  = 16 << 10
	plainOutSize = 64 << 10 // queries that wait for the handshake
)

// MaxReason is how long the reason is, in bytes, for which a connection came to
// nothing.
const MaxReason = 160

// A Pipe lies between the packet loop and the goroutine that speaks TLS. Plain
// bytes are DNS messages, sealed ones are TLS records; "out" is towards the
// upstream. Both sides use atomics only; the channel wakes the goroutine and
// carries nothing.
type Pipe struct {
	plainOut, sealedIn *Ring // the loop writes, the goroutine reads
	plainIn, sealedOut *Ring // the other way round

	state  atomic.Uint32
	order  atomic.Uint32
	eof    atomic.Bool // sealedIn gets no more
	kicked atomic.Bool // the loop has something for the goroutine
	busy   atomic.Bool // the goroutine has not come to rest
	news   atomic.Bool // the goroutine has something for the loop
	over   atomic.Bool // see Stop
	signal chan struct{}

	// How it ended; the goroutine's until it parks.
	class  Class
	reason []byte
}

// NewPipe makes a pipe; all its memory is taken here.
func NewPipe() *Pipe {
	return &Pipe{plainOut: newRing(plainOutSize), plainIn: newRing(plainInSize), sealedOut: newRing(sealedSize), sealedIn: newRing(sealedSize),
		signal: make(chan struct{}, 1), reason: make([]byte, 0, MaxReason+len(`\U00000000`))} // printable.Append cuts what it has written
}

// Bytes is about what a Link takes of memory.
const Bytes = plainOutSize + plainInSize + 2*sealedSize + maxMessage

// start lets the goroutine begin, with empty rings. It must be parked.
func (p *Pipe) start() {
	for _, r := range [...]*Ring{p.plainIn, p.sealedOut, p.sealedIn} {
		r.reset()
	}
	p.eof.Store(false)
	p.order.Store(run)
	p.class, p.reason = 0, p.reason[:0]
	p.state.Store(handshaking)
	p.kick()
}

func (p *Pipe) kick() {
	p.kicked.Store(true)
	select {
	case p.signal <- struct{}{}:
	default:
	}
}

// working reports whether the goroutine has something to do, or has done
// something that the loop has not seen.
func (p *Pipe) working() bool { return p.kicked.Load() || p.busy.Load() || p.news.Load() }

// Stop ends the goroutine, and with it the pipe.
func (p *Pipe) Stop() {
	p.over.Store(true)
	p.order.Store(cancel)
	p.kick()
}

// What follows is the goroutine's.

var errCancelled = errors.New("cancelled")

// A nothing says that there are no bytes just now. crypto/tls goes on after an
// error that is temporary.
type nothing struct{}

func (nothing) Error() string   { return "no bytes yet" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// Rest waits for the loop to have something new. Whoever calls it has looked at
// everything after the last call.
func (p *Pipe) Wait() {
	p.busy.Store(false)
	for !p.kicked.Load() {
		<-p.signal
	}
	p.busy.Store(true)
	p.kicked.Store(false)
}

// Next waits until a connection is wanted. It returns false after Stop.
func (p *Pipe) Next() bool {
	for p.state.Load() == parked && !p.over.Load() {
		p.Wait()
	}
	return !p.over.Load()
}

// Opened says that the handshake is done.
func (p *Pipe) Opened() { p.tell(open) }

// Park ends a connection. The reason is for people; since parts of it may be the
// server's, it is made printable (printable.Append) and cut at MaxReason bytes.
func (p *Pipe) Park(c Class, reason string) {
	p.class, p.reason = c, printable.Append(p.reason[:0], reason, MaxReason)
	p.tell(parked)
}

func (p *Pipe) tell(state uint32) {
	p.state.Store(state)
	p.news.Store(true)
}

// Finish reports whether the connection is to be ended in good order, Cancelled
// whether at once.
func (p *Pipe) ShouldClose() bool { return p.order.Load() == finish }

// Cancelled: see Finish.
func (p *Pipe) Cancelled() bool { return p.order.Load() == cancel }

// ReadSealed reads what the server has sent. While the handshake is under way it
// waits for it; later it does not.
func (p *Pipe) ReadSealed(b []byte) (int, error) {
	for {
		if p.Cancelled() {
			return 0, errCancelled
		}
		end := p.eof.Load() // before the look at the ring: then nothing follows
		if n := p.sealedIn.Read(b); n > 0 || len(b) == 0 {
			p.news.Store(true)
			return n, nil
		}
		if end {
			return 0, io.EOF
		}
		if p.state.Load() == open {
			return 0, nothing{}
		}
		p.Wait()
	}
}

// WriteSealed writes what the server is to get, and waits for room. The loop
// sees to it that there is some again, or cancels.
func (p *Pipe) WriteSealed(b []byte) (int, error) {
	for n := 0; ; {
		if p.Cancelled() {
			return n, errCancelled
		}
		k := p.sealedOut.Write(b[n:])
		if k > 0 {
			p.news.Store(true)
		}
		if n += k; n == len(b) {
			return n, nil
		}
		p.Wait()
	}
}

// SealedRoom returns how many sealed bytes can be written without waiting.
func (p *Pipe) SealedRoom() int { return p.sealedOut.Room() }

// Queries reads plain bytes for the server; 0: none now.
func (p *Pipe) ReadPlain(b []byte) int {
	n := p.plainOut.Read(b)
	if n > 0 {
		p.news.Store(true)
	}
	return n
}

// AnswerRoom returns how many plain bytes from the server fit.
func (p *Pipe) PlainRoom() int { return p.plainIn.Room() }

// Answers takes plain bytes from the server, at most AnswerRoom.
func (p *Pipe) WritePlain(b []byte) {
	p.plainIn.Write(b)
	p.news.Store(true)
}
