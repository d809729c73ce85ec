package dashboard

import (
	"net"
	"sync"

	"github.com/thurward/thurward/internal/host/ingest"
)

// pageConns is how many connections a page has at a time.
const pageConns = 32

type pageConnKey struct{}

// LimitPage bounds the connections of a page's listener. Beyond the bound it closes the
// oldest one without a request that had a token, so that clients without a token
// cannot keep out those with one.
func LimitPage(l net.Listener) net.Listener { return &pageListener{Listener: ingest.Patient(l)} }

type pageListener struct {
	net.Listener
	mu    sync.Mutex
	conns []*pageConn // the oldest first
}

func (l *pageListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p := &pageConn{Conn: c, l: l}
		if old, ok := l.take(p); ok {
			if old != nil {
				old.Close()
			}
			return p, nil
		}
		c.Close()
	}
}

// take counts a connection, and returns the one that has to be closed for it. ok is
// false if there is none.
func (l *pageListener) take(p *pageConn) (old *pageConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.conns) >= pageConns {
		for _, c := range l.conns {
			if !c.trusted {
				old = c
				break
			}
		}
		if old == nil {
			return nil, false
		}
		l.remove(old)
	}
	l.conns = append(l.conns, p)
	return old, true
}

func (l *pageListener) remove(p *pageConn) {
	for i, c := range l.conns {
		if c == p {
			l.conns = append(l.conns[:i:i], l.conns[i+1:]...)
			return
		}
	}
}

// A pageConn is a connection of a client.
type pageConn struct {
	net.Conn
	l       *pageListener
	trusted bool // a request had a token; guarded by l.mu
}

func (p *pageConn) trust() {
	p.l.mu.Lock()
	p.trusted = true
	p.l.mu.Unlock()
}

func (p *pageConn) Close() error {
	p.l.mu.Lock()
	p.l.remove(p)
	p.l.mu.Unlock()
	return p.Conn.Close()
}
