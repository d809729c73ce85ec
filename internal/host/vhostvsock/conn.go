package vhostvsock

import (
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A conn is a connection of the guest and its Unix socket. The device's lock guards
// it.
type conn struct {
	key
	sock *net.UnixConn // nil while it is being opened

	in       []byte // from the guest, not yet written to the socket
	got      uint32 // bytes from the guest, modulo 2^32
	fwd      uint32 // of them, written to the socket
	reported uint32 // of fwd, in the last packet to the guest

	sent  uint32 // bytes to the guest, modulo 2^32
	alloc uint32 // size of the guest's receive buffer
	peer  uint32 // of sent, how much the guest has taken from it

	sendShut    bool // the guest will send no more
	receiveShut bool // the guest will receive no more
	closed      bool // removed from the table; the writer ends once in is empty
	broken      bool // the socket cannot be used any more
	change      *sync.Cond
}

// connect starts to connect the guest to a socket. Connections that have ended count
// until their sockets are closed, since they use memory until then.
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
		d.counts.Open.Add(1)
		d.control(c, opResponse, 0)
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

// dial is the default of a Config's Dial.
func dial(path string) (*net.UnixConn, error) {
	c, err := net.DialTimeout("unix", path, dialLimit)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// control sends a packet without data, with the connection's credit.
func (d *device) control(c *conn, op uint16, flags uint32) {
	if d.send(packet{h: header{srcPort: c.host, dstPort: c.guest, op: op, flags: flags, alloc: bufAlloc, fwd: c.fwd}}) {
		c.reported = c.fwd
	}
}

// abort resets a connection.
func (d *device) abort(c *conn) {
	d.control(c, opRST, 0)
	d.finish(c)
}

// finish ends a connection on the guest's side. Data received from it is still
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
		d.counts.Open.Add(-1)
		c.sock.SetDeadline(time.Now().Add(drain)) //nolint:errcheck // without one the writer may take longer
		c.sock.CloseRead()                        //nolint:errcheck // the reader ends
	}
	c.change.Broadcast()
}

// handle handles a packet of an existing connection.
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
		if c.got-c.fwd+h.len > bufAlloc || h.len > bufAlloc || c.sendShut {
			d.counts.Overruns.Add(1)
			d.log("the guest sent more than its credit")
			d.abort(c)
			return
		}
		n := len(c.in)
		c.in = append(c.in, make([]byte, h.len)...)
		gather(c.in[n:], data)
		c.got += h.len
	case opCreditRequest:
		d.control(c, opCreditUpdate, 0)
	case opShutdown:
		c.sendShut = c.sendShut || h.flags&shutSend != 0
		c.receiveShut = c.receiveShut || h.flags&shutReceive != 0
	case opCreditUpdate:
	default:
		d.bad("operation %d on an existing connection", h.op)
		d.abort(c)
	}
}

// write writes what the guest sends to the socket.
func (d *device) write(c *conn) {
	var b []byte
	var tap func([]byte)
	if d.c.Tap != nil {
		tap = d.c.Tap()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	defer func() {
		c.sock.Close()
		if left := c.in; tap != nil && len(left) > 0 { // the reader has gone; who follows by the tap has not
			c.in = nil
			d.mu.Unlock()
			tap(left)
			d.mu.Lock()
		}
	}()
	for {
		for len(c.in) == 0 && !c.closed && !c.broken && !c.sendShut {
			c.change.Wait()
		}
		if len(c.in) == 0 || c.broken {
			break
		}
		b, c.in = c.in, b[:0]
		d.mu.Unlock()
		if tap != nil {
			tap(b)
		}
		d.counts.Writing.Add(1)
		n, err := c.sock.Write(b)
		d.counts.Writing.Add(-1)
		d.mu.Lock()
		c.fwd += uint32(n)
		d.counts.Bytes.Add(uint64(n))
		if err != nil {
			c.broken = true
			break
		}
		if !c.closed && c.fwd-c.reported >= bufAlloc/4 {
			d.control(c, opCreditUpdate, 0)
		}
	}
	if c.sendShut && !c.broken && !c.receiveShut && !c.closed {
		// The guest may still receive.
		c.sock.CloseWrite() //nolint:errcheck // the other end may have closed
		for !c.closed && !c.broken && !c.receiveShut {
			c.change.Wait()
		}
	}
	if !c.closed {
		d.abort(c)
	}
}

// read forwards data from the socket to the guest, within its credit, until the end
// of the socket.
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
		if n > 0 && !c.receiveShut {
			waiting := true
			ok := d.send(packet{
				h:    header{srcPort: c.host, dstPort: c.guest, op: opRW, alloc: bufAlloc, fwd: c.fwd},
				data: append([]byte(nil), b[:n]...),
				sent: func() { waiting = false; c.change.Broadcast() },
			})
			c.sent += uint32(n)
			for ok && waiting && !c.closed {
				c.change.Wait()
			}
		}
		if err != nil {
			if err == io.EOF && !hungUp(c.sock) {
				d.control(c, opShutdown, shutSend)
				d.watch(c)
			}
			c.broken = true
			c.change.Broadcast()
			return
		}
	}
}

// watch waits for the close of a socket whose other end sends no more.
func (d *device) watch(c *conn) {
	for !c.closed && !c.broken {
		d.mu.Unlock()
		time.Sleep(200 * time.Millisecond)
		up := !hungUp(c.sock)
		d.mu.Lock()
		if !up {
			return
		}
	}
}

// hungUp reports whether the other end of a socket is closed, and not only shut down
// for sending.
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
