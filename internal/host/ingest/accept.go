package ingest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// acceptPause is how long a patient listener waits after an error.
const acceptPause = 100 * time.Millisecond

// Patient returns a listener whose Accept fails only when it is closed: after
// any other error, such as a lack of file descriptors, it waits and tries again.
// A process that listens for firewalls must not end because of a passing error.
func Patient(l net.Listener) net.Listener {
	return &patient{Listener: l, closed: make(chan struct{})}
}

type patient struct {
	net.Listener
	once   sync.Once
	closed chan struct{}
}

func (p *patient) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err == nil || errors.Is(err, net.ErrClosed) {
			return c, err
		}
		select {
		case <-p.closed:
			return nil, net.ErrClosed
		case <-time.After(acceptPause):
		}
	}
}

func (p *patient) Close() error {
	p.once.Do(func() { close(p.closed) })
	return p.Listener.Close()
}

// accept accepts connections until ctx ends; then it closes the listener and
// all connections, waits for their goroutines, and returns nil. take decides
// about each connection: the function that it returns serves it, in a goroutine
// of its own; nil refuses it. A connection is closed when it has been served.
func accept(ctx context.Context, l net.Listener, take func(net.Conn) (serve func())) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l = Patient(l)
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case err != nil:
			return err
		}
		serve := take(c)
		if serve == nil {
			c.Close()
			continue
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			serve()
		})
	}
}
