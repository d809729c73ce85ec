package virtio

import "encoding/binary"

// Packets (virtio 1.2, 5.10.6): a header of 44 bytes, then data.
const (
	vsockHeader = 44
	vsockStream = 1

	vopRequest       = 1
	vopResponse      = 2
	vopRST           = 3
	vopShutdown      = 4
	vopRW            = 5
	vopCreditUpdate  = 6
	vopCreditRequest = 7

	shutdownRcv = 1 // the sender will receive no more
	// vsockBufAlloc is the buffer space that the peer is reported of (buf_alloc). Its data is
	// discarded at once.
	vsockBufAlloc = 4096
)

// A LinkState is a connection's. Zero is closed.
type LinkState uint8

// The states.
const (
	Closed LinkState = iota
	Connecting
	Open
)

// conn is the one connection.
type conn struct {
	state     LinkState
	port      uint32 // the host's
	local     uint32 // the guest's, different for each connection
	sent      uint32 // bytes of data sent, modulo 2^32
	peerAlloc uint32
	peerFwd   uint32 // of these, consumed by the peer (fwd_cnt)
	taken     uint32 // bytes of data received and discarded
	reported  uint32 // of these, reported to the peer
	asked     bool   // credit was requested since there last was some
	update    bool   // a credit update is due, but there was no buffer
}

func (c *conn) drop() { c.state = Closed }

// credit returns how many bytes the peer has room for (virtio 1.2, 5.10.6.3).
func (c *conn) credit() uint32 {
	if flying := c.sent - c.peerFwd; flying < c.peerAlloc {
		return c.peerAlloc - flying
	}
	return 0
}

// State returns the connection's state.
func (v *Vsock) State() LinkState { return v.conn.state }

// Connect requests a connection to a port of the host; State then reports its progress. It
// does nothing unless the state is Closed and there is a buffer.
func (v *Vsock) Connect(port uint32) {
	c := &v.conn
	if v.reason != "" || c.state != Closed {
		return
	}
	*c = conn{port: port, local: max(c.local+1, 1024)}
	if v.control(c.port, c.local, vopRequest, 0) {
		c.state = Connecting
	}
}

// Close resets the connection.
func (v *Vsock) Close() {
	if v.conn.state != Closed {
		v.breakOff()
	}
}

func (v *Vsock) breakOff() {
	v.c.Resets++
	v.conn.drop()
	v.control(v.conn.port, v.conn.local, vopRST, 0)
	v.Flush()
}

// Buffer returns room for data to be sent, as much as there is credit and
// buffer for, or nil.
func (v *Vsock) Buffer() []byte {
	c := &v.conn
	if c.state != Open || v.reason != "" {
		return nil
	}
	n := c.credit()
	if n == 0 {
		if !c.asked {
			c.asked = v.control(c.port, c.local, vopCreditRequest, 0)
			v.Flush()
		}
		return nil
	}
	if len(v.txFree) <= vsockControl {
		v.reclaim()
		if len(v.txFree) <= vsockControl {
			return nil
		}
	}
	b := v.txFree[len(v.txFree)-1]
	room := v.txMem.Mem[int(b)*vsockTxSize:][vsockHeader:vsockTxSize]
	return room[:min(uint32(len(room)), n)]
}

// Send sends the first n bytes of what the last call of Buffer returned. The device sees it
// after Flush.
func (v *Vsock) Send(n int) {
	if n <= 0 || len(v.txFree) == 0 || v.conn.state != Open || n > int(min(v.conn.credit(), vsockTxSize-vsockHeader)) {
		return
	}
	c := &v.conn
	v.transmit(c.port, c.local, vopRW, 0, n)
	c.sent += uint32(n)
	v.c.TxBytes += uint64(n)
}

// control sends a packet without data and reports whether there was a buffer.
func (v *Vsock) control(port, local uint32, op uint16, flags uint32) bool {
	if len(v.txFree) == 0 {
		v.reclaim()
	}
	if len(v.txFree) == 0 || v.tx.stopped != "" {
		return false
	}
	v.transmit(port, local, op, flags, 0)
	return true
}

// transmit sends the last of the free buffers, which already holds the data.
func (v *Vsock) transmit(port, local uint32, op uint16, flags uint32, n int) {
	k := len(v.txFree) - 1
	b := v.txFree[k]
	v.txFree = v.txFree[:k]
	h := v.txMem.Mem[int(b)*vsockTxSize:][:vsockHeader]
	le := binary.LittleEndian
	le.PutUint64(h[0:], v.cid)
	le.PutUint64(h[8:], HostCID)
	le.PutUint32(h[16:], local)
	le.PutUint32(h[20:], port)
	le.PutUint32(h[24:], uint32(n))
	le.PutUint16(h[28:], vsockStream)
	le.PutUint16(h[30:], op)
	le.PutUint32(h[32:], flags)
	alloc, taken := uint32(0), uint32(0)
	if c := &v.conn; local == c.local && port == c.port {
		alloc, taken = vsockBufAlloc, c.taken
		c.reported = c.taken
	}
	le.PutUint32(h[36:], alloc)
	le.PutUint32(h[40:], taken)
	v.tx.post(v.txMem.Phys+uint64(b)*vsockTxSize, uint32(vsockHeader+n), 0, uint32(b))
	v.c.TxPackets++
}

// receive handles a packet. Nothing in it is trusted.
func (v *Vsock) receive(p []byte) {
	v.c.RxPackets++
	le := binary.LittleEndian
	if len(p) < vsockHeader {
		v.c.BadPacket++
		return
	}
	src, dst := le.Uint64(p[0:]), le.Uint64(p[8:])
	port, local := le.Uint32(p[16:]), le.Uint32(p[20:])
	n, op := le.Uint32(p[24:]), le.Uint16(p[30:])
	if src != HostCID || dst != v.cid || int64(n) > int64(len(p)-vsockHeader) ||
		op == 0 || op > vopCreditRequest || le.Uint16(p[28:]) != vsockStream {
		v.c.BadPacket++
		return
	}
	c := &v.conn
	if c.state == Closed || port != c.port || local != c.local {
		if op != vopRST {
			v.c.Unasked++
			if !v.control(port, local, vopRST, 0) {
				v.c.NoRoom++
			}
		}
		return
	}
	if op == vopRST {
		v.c.Resets++
		c.drop()
		return
	}
	fwd := le.Uint32(p[40:])
	if fwd-c.peerFwd > c.sent-c.peerFwd { // beyond sent, or below the last one
		v.c.BadCredit++
		v.breakOff()
		return
	}
	c.peerAlloc, c.peerFwd = le.Uint32(p[36:]), fwd
	if c.credit() > 0 {
		c.asked = false
	}
	switch op {
	case vopResponse:
		if c.state == Connecting {
			c.state = Open
			v.c.Connects++
		}
	case vopRW:
		c.taken += n
		v.c.RxIgnored += uint64(n)
		c.update = c.update || c.taken-c.reported >= vsockBufAlloc/2
	case vopCreditRequest:
		c.update = true
	case vopShutdown:
		if le.Uint32(p[32:])&shutdownRcv != 0 {
			v.breakOff()
			return
		}
	case vopRequest:
		v.c.BadPacket++ // a request for the existing connection
		v.breakOff()
		return
	}
	if c.update && v.control(c.port, c.local, vopCreditUpdate, 0) {
		c.update = false
	}
}
