package netlab

import (
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what a guest can make the servers hold.
const (
	maxServed     = 256 // connections of one server's port at a time
	serverTimeout = 30 * time.Second
)

// bounded returns a listener that closes connections beyond maxServed at once.
func bounded(l net.Listener) net.Listener { return &bounds{l, make(chan struct{}, maxServed)} }

type bounds struct {
	net.Listener
	slots chan struct{}
}

// Accept waits for a connection for which there is room.
func (b *bounds) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.slots <- struct{}{}:
			return &held{Conn: c, free: sync.OnceFunc(func() { <-b.slots })}, nil
		default:
			c.Close()
		}
	}
}

// A held connection frees its slot when it is closed.
type held struct {
	net.Conn
	free func()
}

// Close ends the connection.
func (h *held) Close() error {
	h.free()
	return h.Conn.Close()
}

// serve starts the servers. They end when their hosts do.
func (n *Network) serve() error {
	for _, port := range servedPort {
		l, err := n.Web.ListenTCP(port)
		if err != nil {
			return err
		}
		srv := &http.Server{Handler: n.Web, ReadHeaderTimeout: serverTimeout, IdleTimeout: serverTimeout,
			MaxHeaderBytes: 16 << 10, ErrorLog: log.New(io.Discard, "", 0)}
		go srv.Serve(bounded(l)) //nolint:errcheck // ends with the listener
	}
	c, err := n.DNS.ListenUDP(dnsPort)
	if err != nil {
		return err
	}
	go n.DNS.serve(c)
	// The LAN's hosts have a server too, which the firewall must hide.
	for _, h := range []*Host{n.Alice, n.Bob} {
		l, err := h.ListenTCP(22)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
	return nil
}
