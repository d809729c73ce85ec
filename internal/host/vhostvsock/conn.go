package vhostvsock

import (
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A conn joins a connection of the guest to a Unix socket. The device's lock
// guards it.
type conn struct {
	key
	sock *net.UnixConn // nil while it is being opened

	in   []byte // from the guest, not yet taken by the writer
	got  uint32 // bytes from the guest, freely running
	fwd  uint32 // of them, written to the socket
	told uint32 // of fwd, the guest knows

	sent        uint32 // bytes to the guest
	alloc, peer uint32 // the guest's room, and how much of sent it has taken

	noMore bool // the guest sends no more
	deaf   bool // the guest receives no more
	closed bool // out of the table; the writer ends once in is empty
	gone   bool // the socket is of no use any more
	change *sync.Cond
}

// connect begins to connect the guest to a socket. Connections that have ended
// count until their sockets are closed: what they hold is bounded, too.
func (d *device) connect(k key, h *header) {
	if d.open >= maxConns || d.over {
		d.counts.Refused.Add(1)
		d.log("the guest has %d connections; more are refused", maxConns)
		d.refuse(k, h)
		return
	}
	c := &conn{key: k, alloc: h.alloc, peer: h.fwd, change: sync.NewCond(&d.mu)}
	d.conns[k] = c
	d.open++
	d.work.Go(func() {
		s, err := d.c.Dial(d.c.Path + "_" + strconv.FormatUint(uint64(k.host), 10))
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil || c.closed {
			d.open--
			d.counts.Refused.Add(1)
			if err == nil {
				s.Close()
			} else if !c.closed {
				d.abort(c)
			}
			return
		}
		c.sock = s
		d.counts.Connections.Add(1)
		d.tell(c, opResponse, 0)
		var both sync.WaitGroup
		both.Go(func() { d.write(c) })
		both.Go(func() { d.read(c) })
		d.work.Go(func() {
			both.Wait()
			d.mu.Lock()
			defer d.mu.Unlock()
			d.open--
		})
	})
}

// dial is a Config's Dial where none is set.
func dial(path string) (*net.UnixConn, error) {
	c, err := net.DialTimeout("unix", path, dialLimit)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// tell sends a packet without data, with the state of the connection's credit.
func (d *device) tell(c *conn, op uint16, flags uint32) {
	if d.send(packet{h: header{srcPort: c.host, dstPort: c.guest, op: op, flags: flags, alloc: bufAlloc, fwd: c.fwd}}) {
		c.told = c.fwd
	}
}

// abort breaks a connection off and tells the guest.
func (d *device) abort(c *conn) {
	d.tell(c, opRST, 0)
	d.finish(c)
}

// finish ends a connection on the guest's side. What came of it is still
// written.
func (d *device) finish(c *conn) {
	if c.closed {
		return
	}
	c.closed = true
	if d.conns[c.key] == c {
		delete(d.conns, c.key)
	}
	if c.sock != nil {
		c.sock.SetDeadline(time.Now().Add(drain)) //nolint:errcheck // then it waits for the other end
		c.sock.CloseRead()                        //nolint:errcheck // the reader ends
	}
	c.change.Broadcast()
}

// handle handles a packet of a connection.
func (d *device) handle(c *conn, h *header, data [][]byte) {
	if h.op == opRST {
		d.finish(c)
		return
	}
	if h.fwd-c.peer > c.sent-c.peer {
		d.bad("a count of %d bytes taken of %d that were sent", h.fwd, c.sent)
		d.abort(c)
		return
	}
	c.alloc, c.peer = h.alloc, h.fwd
	c.change.Broadcast()
	switch h.op {
	case opRW:
		if c.got-c.fwd+h.len > bufAlloc || h.len > bufAlloc || c.noMore {
			d.counts.Overruns.Add(1)
			d.log("the guest sent more than it was told there is room for")
			d.abort(c)
			return
		}
		n := len(c.in)
		c.in = append(c.in, make([]byte, h.len)...)
		gather(c.in[n:], data)
		c.got += h.len
	case opCreditRequest:
		d.tell(c, opCreditUpdate, 0)
	case opShutdown:
		c.noMore = c.noMore || h.flags&shutSend != 0
		c.deaf = c.deaf || h.flags&shutReceive != 0
	case opCreditUpdate:
	default:
		d.bad("operation %d on a connection that there is", h.op)
		d.abort(c)
	}
}

// write writes what the guest sends to the socket.
func (d *device) write(c *conn) {
	var b []byte
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() { c.sock.Close() }()
	for {
		for len(c.in) == 0 && !c.closed && !c.gone && !c.noMore {
			c.change.Wait()
		}
		if len(c.in) == 0 || c.gone {
			break
		}
		b, c.in = c.in, b[:0]
		d.mu.Unlock()
		n, err := c.sock.Write(b)
		d.mu.Lock()
		c.fwd += uint32(n)
		d.counts.Bytes.Add(uint64(n))
		if err != nil {
			c.gone = true
			break
		}
		if !c.closed && c.fwd-c.told >= bufAlloc/4 {
			d.tell(c, opCreditUpdate, 0)
		}
	}
	if c.noMore && !c.gone && !c.deaf && !c.closed {
		// The guest goes on to read.
		c.sock.CloseWrite() //nolint:errcheck // the other end may be gone
		for !c.closed && !c.gone && !c.deaf {
			c.change.Wait()
		}
	}
	if !c.closed {
		d.abort(c)
	}
}

// read passes on what the socket brings, within the guest's credit, and notices
// its end.
func (d *device) read(c *conn) {
	b := make([]byte, rxChunk)
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for c.sent-c.peer >= c.alloc && !c.closed {
			c.change.Wait()
		}
		if c.closed {
			return
		}
		room := min(uint32(len(b)), c.alloc-(c.sent-c.peer))
		d.mu.Unlock()
		n, err := c.sock.Read(b[:room])
		d.mu.Lock()
		if c.closed {
			return
		}
		if n > 0 && !c.deaf {
			waiting := true
			ok := d.send(packet{h: header{srcPort: c.host, dstPort: c.guest, op: opRW, alloc: bufAlloc, fwd: c.fwd}, data: append([]byte(nil), b[:n]...),
				sent: func() { waiting = false; c.change.Broadcast() }})
			c.sent += uint32(n)
			for ok && waiting && !c.closed {
				c.change.Wait()
			}
		}
		if err != nil {
			if err == io.EOF && !hungUp(c.sock) {
				d.tell(c, opShutdown, shutSend)
				d.watch(c)
			}
			c.gone = true
			c.change.Broadcast()
			return
		}
	}
}

// watch waits for the end of a socket whose other end sends no more.
func (d *device) watch(c *conn) {
	for !c.closed && !c.gone {
		d.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		up := !hungUp(c.sock)
		d.mu.Lock()
		if !up {
			return
		}
	}
}

// hungUp reports whether the other end of a socket is closed, as opposed to one
// that only sends no more.
func hungUp(s *net.UnixConn) bool {
	up := false
	rc, err := s.SyscallConn()
	if err != nil {
		return true
	}
	err = rc.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(p, 0)
		up = err == nil && (n == 0 || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0)
	})
	return err != nil || !up
}
