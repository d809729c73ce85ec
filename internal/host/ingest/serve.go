package ingest

import (
	"context"
	"errors"
	"net"
	"time"
)

// A Source is one connection of a firewall. It is of the goroutine that serves
// the connection.
type Source struct {
	Peer  string // what it comes from: see Peer
	Hello Hello  // zero until the firewall has said
	State any    // the handler's
}

// A Handler is what Serve does with connections. Functions that are nil are not
// called; those of one connection are called in order, those of several at the
// same time. One handler may serve several listeners; their connections share
// its bounds.
type Handler struct {
	Item   func(*Source, Item)           // a line; a Hello has been stored in the source already
	Idle   func(*Source)                 // everything received so far has been handled
	Closed func(*Source)                 // no more lines come
	Cut    func(*Source, error)          // it misbehaves and is cut off; Closed follows
	Refuse func(peer string, why error)  // a connection is not taken
	Begin  func(*Source)                 // before the first line
	Now    func() time.Time              // nil: time.Now
	Names  func(*Hello) (names []string) // more names by which a firewall is known; nil: none

	peers peers
}

// Bounds of one connection.
const (
	helloWait = 30 * time.Second // within which its first line must be there
	// A connection that has sent so many lines that cannot be read, and of
	// all its lines one in malformedShare, is not a firewall's.
	maxMalformed   = 1000
	malformedShare = 10
)

// Serve accepts connections and reads their lines until ctx ends; then it
// closes the listener and all connections, waits for their goroutines, and
// returns nil.
func (h *Handler) Serve(ctx context.Context, l net.Listener) error {
	return accept(ctx, l, func(c net.Conn) (serve func()) {
		id := Peer(c)
		if err := h.peers.admit(id, c, h.now()); err != nil {
			if h.Refuse != nil {
				h.Refuse(id, err)
			}
			return nil
		}
		return func() {
			cut := h.serve(c, id)
			h.peers.release(id, c, cut, h.now())
		}
	})
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// serve reads a connection to its end, and reports whether it was cut off.
func (h *Handler) serve(c net.Conn, id string) (cut bool) {
	s := &Source{Peer: id}
	if h.Begin != nil {
		h.Begin(s)
	}
	if h.Closed != nil {
		defer h.Closed(s)
	}
	r, g := NewReader(c), &guard{h: h, s: s}
	c.SetReadDeadline(time.Now().Add(helloWait)) //nolint:errcheck // the connection has ended, and Next says so
	for {
		it, err := r.Next()
		if err != nil && (g.said || !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err)) {
			return false
		}
		if err != nil {
			err = ErrSilent
		} else {
			err = g.check(&it)
		}
		if err != nil {
			if h.Cut != nil {
				h.Cut(s, err)
			}
			return true
		}
		if it.Kind == HelloKind {
			c.SetReadDeadline(time.Time{}) //nolint:errcheck // the same
		}
		if h.Item != nil && g.said {
			h.Item(s, it)
		}
		if h.Idle != nil && r.Buffered() == 0 {
			h.Idle(s)
		}
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// A guard finds out whether a connection is a firewall's.
type guard struct {
	h                *Handler
	s                *Source
	said             bool // its HELLO has come
	lines, malformed int
}

// check returns why a connection has to end with a line.
func (g *guard) check(it *Item) error {
	g.lines++
	switch it.Kind {
	case HelloKind:
		if g.said {
			return ErrTwice
		}
		names := []string{it.Hello.said(), it.Hello.Boot}
		if g.h.Names != nil {
			names = append(names, g.h.Names(&it.Hello)...)
		}
		var err error
		if it.Hello.Suffix, err = g.h.peers.claim(g.s.Peer, names, g.h.now()); err != nil {
			return err
		}
		it.Hello.Received(g.h.now())
		g.s.Hello, g.said = it.Hello, true
	case FromKind:
		return ErrForeign
	case Malformed:
		if g.malformed++; !g.said || g.malformed >= maxMalformed && g.malformed*malformedShare >= g.lines {
			if !g.said {
				return ErrNoHello
			}
			return ErrMalformed
		}
	case Unknown: // of a newer firewall, even before its HELLO
		if !g.said && g.lines > 16 {
			return ErrNoHello
		}
	default:
		if !g.said {
			return ErrNoHello
		}
	}
	return nil
}
