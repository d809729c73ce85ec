package vhostvsock

import "encoding/binary"

const (
	headerLen  = 44
	typeStream = 1
	hostCID    = 2
)

// Operations.
const (
	opRequest       = 1
	opResponse      = 2
	opRST           = 3
	opShutdown      = 4
	opRW            = 5
	opCreditUpdate  = 6
	opCreditRequest = 7
)

// Flags of opShutdown: what the sender will not do any more.
const (
	shutReceive = 1
	shutSend    = 2
)

// A header is the header of a packet.
type header struct {
	src, dst   uint64
	srcPort    uint32
	dstPort    uint32
	len        uint32
	typ, op    uint16
	flags      uint32
	alloc, fwd uint32
}

func parseHeader(b *[headerLen]byte) header {
	le := binary.LittleEndian
	return header{
		src: le.Uint64(b[0:]), dst: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		len: le.Uint32(b[24:]), typ: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		alloc: le.Uint32(b[36:]), fwd: le.Uint32(b[40:]),
	}
}

func (h *header) bytes() (b [headerLen]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.src)
	le.PutUint64(b[8:], h.dst)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.len)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.alloc)
	le.PutUint32(b[40:], h.fwd)
	return b
}

// gather copies the first bytes of scattered buffers to dst and returns the rest.
func gather(dst []byte, from [][]byte) (rest [][]byte, ok bool) {
	for len(dst) > 0 {
		if len(from) == 0 {
			return nil, false
		}
		n := copy(dst, from[0])
		dst = dst[n:]
		if n == len(from[0]) {
			from = from[1:]
		} else {
			from = append([][]byte{from[0][n:]}, from[1:]...)
		}
	}
	return from, true
}

// scatter copies b to scattered buffers, which must have room, and returns the rest
// of them.
func scatter(to [][]byte, b []byte) [][]byte {
	for len(b) > 0 && len(to) > 0 {
		n := copy(to[0], b)
		b = b[n:]
		if n == len(to[0]) {
			to = to[1:]
		} else {
			to = append([][]byte{to[0][n:]}, to[1:]...)
		}
	}
	return to
}

func size(bs [][]byte) (n int) {
	for _, b := range bs {
		n += len(b)
	}
	return n
}
