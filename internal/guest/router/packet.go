package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A received is a packet off the fast path: its headers, its frame, and the port where it
// arrived. For a reassembled datagram the frame is that of the first fragment, to which the
// others are linked.
type received struct {
	packet.Packet
	frame framebuf.Frame
	in    *port
	plain bool // packet.FastKey has read it
}

// frames returns the number of frames of a packet.
func (p *received) frames() uint64 { return 1 + uint64(p.Parts) }

// bytes returns a packet's frame.
func (e *Engine) bytes(p *received) []byte { return e.pool.Bytes(p.frame) }

// payload returns the data of a TCP segment that was not reassembled.
func (e *Engine) payload(p *received) []byte {
	f := e.bytes(p)
	return f[len(f)-int(p.Payload):]
}

// tcpOptions returns the options of a TCP segment, which parse has checked.
func (e *Engine) tcpOptions(p *received) []byte {
	l4 := e.bytes(p)[p.L4:]
	return l4[packet.TCPLen : int(l4[12]>>4)*4]
}

// keyOf returns the key of the direction that a packet is of, as it arrives.
func keyOf(p *packet.Packet) conntrack.Key {
	return conntrack.Key{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: uint32(p.Proto)}
}

// replyKeyOf returns the key of the packets that answer one as it left.
func replyKeyOf(p *packet.Packet) conntrack.Key {
	return conntrack.Key{Src: p.Dst, Dst: p.Src, SrcPort: p.DstPort, DstPort: p.SrcPort, Proto: uint32(p.Proto)}
}
