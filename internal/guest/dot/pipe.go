package dot

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/thurward/thurward/internal/shared/printable"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Class classifies why a connection to an upstream failed; zero: it did not.
type Class = verdict.TLSClass

// States of the goroutine. While it is parked, the packet loop owns all rings.
const (
	parked      = iota
	handshaking // set by the loop, to start the goroutine
	open
)

// Orders of the packet loop to the goroutine.
const (
	orderRun    = iota
	orderClose  // send close_notify and park
	orderCancel // park at once
)

const (
	sealedSize   = 16 << 10
	plainInSize  = 16 << 10
	plainOutSize = 64 << 10 // queries wait here during the handshake
)

// MaxReason is the maximum length of the reason of a failed connection, in bytes.
const MaxReason = 160

// A Pipe connects the packet loop with the goroutine that runs TLS. Plain bytes are
// DNS messages, sealed bytes are TLS records; "out" is towards the upstream. Both
// sides use atomics only; the channel merely wakes the goroutine.
type Pipe struct {
	plainOut, sealedIn *Ring // written by the loop, read by the goroutine
	plainIn, sealedOut *Ring // written by the goroutine, read by the loop

	state   atomic.Uint32
	order   atomic.Uint32
	eof     atomic.Bool // no more bytes follow those in sealedIn
	kicked  atomic.Bool // the goroutine must look at everything again
	busy    atomic.Bool // the goroutine is running
	toLoop  atomic.Bool // the loop must look at everything again
	stopped atomic.Bool // see Stop
	signal  chan struct{}

	// How the connection ended. Written by the goroutine before it parks.
	class  Class
	reason []byte
}

// NewPipe returns a pipe, with all its memory.
func NewPipe() *Pipe {
	return &Pipe{
		plainOut: newRing(plainOutSize), plainIn: newRing(plainInSize),
		sealedOut: newRing(sealedSize), sealedIn: newRing(sealedSize),
		signal: make(chan struct{}, 1),
		reason: make([]byte, 0, MaxReason+len(`\U00000000`)), // printable.Append truncates after appending
	}
}

// Bytes is about the memory of a Link and its Pipe, in bytes.
const Bytes = plainOutSize + plainInSize + 2*sealedSize + maxMessage

// start starts the goroutine, which must be parked, with empty rings.
func (p *Pipe) start() {
	for _, r := range [...]*Ring{p.plainIn, p.sealedOut, p.sealedIn} {
		r.reset()
	}
	p.eof.Store(false)
	p.order.Store(orderRun)
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

// working reports whether the goroutine has something to do, or has done something
// that the loop has not handled.
func (p *Pipe) working() bool { return p.kicked.Load() || p.busy.Load() || p.toLoop.Load() }

// Stop ends the goroutine. The pipe cannot be used afterwards.
func (p *Pipe) Stop() {
	p.stopped.Store(true)
	p.order.Store(orderCancel)
	p.kick()
}

// The methods below are for the goroutine.

var errCancelled = errors.New("cancelled")

// noBytes is the error of a read when no bytes are available. crypto/tls can be
// called again after a temporary error.
type noBytes struct{}

func (noBytes) Error() string   { return "no bytes yet" }
func (noBytes) Timeout() bool   { return true }
func (noBytes) Temporary() bool { return true }

// Wait blocks until the loop has something new. The caller must have looked at
// everything since the last call.
func (p *Pipe) Wait() {
	p.busy.Store(false)
	for !p.kicked.Load() {
		<-p.signal
	}
	p.busy.Store(true)
	p.kicked.Store(false)
}

// Next blocks until a connection is to be made. It returns false after Stop.
func (p *Pipe) Next() bool {
	for p.state.Load() == parked && !p.stopped.Load() {
		p.Wait()
	}
	return !p.stopped.Load()
}

// Opened reports that the handshake is complete.
func (p *Pipe) Opened() { p.setState(open) }

// Park ends a connection. The reason is a text for people. Since the server may have
// written parts of it, it is made printable (printable.Append) and cut at MaxReason
// bytes.
func (p *Pipe) Park(c Class, reason string) {
	p.class, p.reason = c, printable.Append(p.reason[:0], reason, MaxReason)
	p.setState(parked)
}

func (p *Pipe) setState(state uint32) {
	p.state.Store(state)
	p.toLoop.Store(true)
}

// ShouldClose reports whether the goroutine must send close_notify and park,
// Cancelled whether it must park at once.
func (p *Pipe) ShouldClose() bool { return p.order.Load() == orderClose }

// Cancelled: see ShouldClose.
func (p *Pipe) Cancelled() bool { return p.order.Load() == orderCancel }

// ReadSealed reads bytes that the server has sent. It blocks during the handshake
// only; later it returns a temporary error if there are none.
func (p *Pipe) ReadSealed(b []byte) (int, error) {
	for {
		if p.Cancelled() {
			return 0, errCancelled
		}
		end := p.eof.Load() // loaded before the ring is read: then no bytes follow
		if n := p.sealedIn.Read(b); n > 0 || len(b) == 0 {
			p.toLoop.Store(true)
			return n, nil
		}
		if end {
			return 0, io.EOF
		}
		if p.state.Load() == open {
			return 0, noBytes{}
		}
		p.Wait()
	}
}

// WriteSealed writes bytes for the server, and blocks while there is no room. The
// loop makes room, or cancels.
func (p *Pipe) WriteSealed(b []byte) (int, error) {
	for n := 0; ; {
		if p.Cancelled() {
			return n, errCancelled
		}
		k := p.sealedOut.Write(b[n:])
		if k > 0 {
			p.toLoop.Store(true)
		}
		if n += k; n == len(b) {
			return n, nil
		}
		p.Wait()
	}
}

// SealedRoom returns how many bytes WriteSealed takes without blocking.
func (p *Pipe) SealedRoom() int { return p.sealedOut.Room() }

// ReadPlain reads bytes to encrypt for the server. It returns 0 if there are none.
func (p *Pipe) ReadPlain(b []byte) int {
	n := p.plainOut.Read(b)
	if n > 0 {
		p.toLoop.Store(true)
	}
	return n
}

// PlainRoom returns how many bytes WritePlain takes.
func (p *Pipe) PlainRoom() int { return p.plainIn.Room() }

// WritePlain passes on decrypted bytes from the server, at most PlainRoom.
func (p *Pipe) WritePlain(b []byte) {
	p.plainIn.Write(b)
	p.toLoop.Store(true)
}
