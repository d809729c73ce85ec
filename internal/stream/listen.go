package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mdlayher/vsock"
)

// ErrInUse is that somebody else listens on an address.
var ErrInUse = errors.New("somebody else listens there")

// Listen opens an address for guests or followers:
//
//	unix:PATH    a Unix stream socket; its folder is made if it is not there
//	vsock:PORT   the host's AF_VSOCK, any CID (needs vhost_vsock)
//
// A socket file that nobody listens on any more is replaced. The socket is for
// its owner and root only, and must lie where no other user can replace it;
// vsock is for guests, not for processes of the host. When somebody listens
// there the error is ErrInUse.
//
// Accept of the listener does not return what is over soon: while there are no
// descriptors left it tries again every 100 ms.
func Listen(address string) (net.Listener, error) {
	kind, where, _ := strings.Cut(address, ":")
	switch kind {
	case "unix":
		return listenUnix(where)
	case "vsock":
		p, err := strconv.ParseUint(where, 10, 32)
		if err != nil || p == 0 {
			return nil, fmt.Errorf("%q: not a vsock port (want vsock:9000)", address)
		}
		l, err := vsock.Listen(uint32(p), nil)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("%s: %w", address, ErrInUse)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w (modprobe vhost_vsock; or take unix:PATH_9000)", address, err)
		}
		return &listener{Listener: l, admit: isGuest, done: make(chan struct{})}, nil
	}
	return nil, fmt.Errorf("%q: not an address (want unix:PATH or vsock:PORT)", address)
}

// MaxConns is how many connections Serve has at a time; more are closed at
// once, so that a guest cannot exhaust the host.
const MaxConns = 64

// A Source is one connection of a firewall. It is of the goroutine that serves
// the connection.
type Source struct {
	Peer  string // what the transport calls it
	Hello Hello  // zero until the firewall has said
	State any    // the handler's
}

// A Handler is what Serve does with connections. Functions that are nil are not
// called; those of one connection are called in order, those of several at the
// same time.
type Handler struct {
	Item   func(*Source, Item) // a line; a Hello has been stored in the source already
	Idle   func(*Source)       // everything received so far has been handled
	Closed func(*Source)       // no more lines come
	Refuse func(peer net.Addr) // there are too many connections
	Begin  func(*Source)       // before the first line
	Now    func() time.Time    // nil: time.Now
}

// Serve accepts connections and reads their lines until ctx ends; then it
// closes the listener and all connections, waits for their goroutines, and
// returns nil.
func (h *Handler) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, MaxConns)
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of file descriptors, for one: it may get better
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				h.serve(ctx, c)
				<-slots
			})
		default:
			if h.Refuse != nil {
				h.Refuse(c.RemoteAddr())
			}
			c.Close()
		}
	}
}

func (h *Handler) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	s := &Source{Peer: c.RemoteAddr().String()}
	if h.Begin != nil {
		h.Begin(s)
	}
	if h.Closed != nil {
		defer h.Closed(s)
	}
	now := h.Now
	if now == nil {
		now = time.Now
	}
	r := NewReader(c)
	for {
		it, err := r.Next()
		if err != nil {
			return
		}
		if it.Kind == HelloKind {
			it.Hello.Received(now())
			s.Hello = it.Hello
		}
		if h.Item != nil {
			h.Item(s, it)
		}
		if h.Idle != nil && r.Buffered() == 0 {
			h.Idle(s)
		}
	}
}
