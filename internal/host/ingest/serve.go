package ingest

import (
	"context"
	"errors"
	"net"
	"time"
)

// A Source is one connection of a firewall. It is used only by the goroutine that
// serves the connection.
type Source struct {
	Peer  string // the other end: see Peer
	Hello Hello  // zero before the HELLO
	State any    // of the handler
}

// A Handler has the functions that Serve calls. Those that are nil are not called.
// Calls for one connection are in order, calls for several are concurrent. One
// handler may serve several listeners; their connections share its bounds.
type Handler struct {
	Begin  func(*Source)                 // before the first line
	Item   func(*Source, Item)           // a line; a HELLO is in the source already
	Idle   func(*Source)                 // all lines received so far have been handled
	Cut    func(*Source, error)          // the connection is cut off, and why; Closed follows
	Closed func(*Source)                 // after the last line
	Refuse func(peer string, why error)  // a connection is refused
	Names  func(*Hello) (names []string) // further names of a firewall that must be unique
	Now    func() time.Time              // nil: time.Now

	peers peers
}

// Bounds of one connection.
const (
	helloTimeout = 30 * time.Second // for its first line
	// A connection with maxMalformed malformed lines, if they are at least one
	// in malformedShare of its lines, is not a firewall's.
	maxMalformed   = 1000
	malformedShare = 10
	maxUnknown     = 16 // lines of unknown kinds before the HELLO
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
	s, name := &Source{Peer: id}, given(c)
	if h.Begin != nil {
		h.Begin(s)
	}
	if h.Closed != nil {
		defer h.Closed(s)
	}
	r, g := NewReader(c), &guard{h: h, s: s, given: name}
	c.SetReadDeadline(time.Now().Add(helloTimeout)) //nolint:errcheck // Next returns the error
	for {
		it, err := r.Next()
		if err != nil && (g.greeted || !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err)) {
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
			c.SetReadDeadline(time.Time{}) //nolint:errcheck // as above
		}
		if h.Item != nil && g.greeted {
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

// A guard decides whether a connection is a firewall's.
type guard struct {
	h                *Handler
	s                *Source
	given            string // the firewall's name, of its launcher
	greeted          bool   // the HELLO was received
	lines, malformed int
}

// check returns an error if a line ends the connection.
func (g *guard) check(it *Item) error {
	g.lines++
	switch it.Kind {
	case HelloKind:
		if g.greeted {
			return ErrTwice
		}
		it.Hello.Given = g.given
		names := []string{it.Hello.base(), it.Hello.Boot}
		if g.h.Names != nil {
			names = append(names, g.h.Names(&it.Hello)...)
		}
		var err error
		if it.Hello.Suffix, err = g.h.peers.claim(g.s.Peer, names, g.h.now()); err != nil {
			return err
		}
		it.Hello.Received(g.h.now())
		g.s.Hello, g.greeted = it.Hello, true
	case FromKind:
		return ErrForeign
	case Malformed:
		if g.malformed++; !g.greeted || g.malformed >= maxMalformed && g.malformed*malformedShare >= g.lines {
			if !g.greeted {
				return ErrNoHello
			}
			return ErrMalformed
		}
	case Unknown: // a newer firewall may send such lines before its HELLO
		if !g.greeted && g.lines > maxUnknown {
			return ErrNoHello
		}
	default:
		if !g.greeted {
			return ErrNoHello
		}
	}
	return nil
}
