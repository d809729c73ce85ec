package router

import (
	"math/bits"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// idents has the next identification of packets whose source was translated, by a keyed
// hash of addresses and protocol. Translated hosts share an address, so identifications of
// their own choice would collide, and fragments of different datagrams would be reassembled
// together. The firewall therefore chooses them as the sender would (RFC 6864 section
// 5.3.1, RFC 7857 section 10). They are unique within 65536 packets of a bucket.
type idents [1024]uint16

func (e *Engine) nextID(src, dst packet.Addr, proto uint8) uint16 {
	return e.nextIDs(src, dst, proto, 1)
}

// nextIDs is nextID for n packets whose identifications follow each other: it returns the
// first one.
func (e *Engine) nextIDs(src, dst packet.Addr, proto uint8, n uint16) uint16 {
	hi, lo := bits.Mul64((uint64(src)<<32|uint64(dst))^e.rndKey, e.rndKey+uint64(proto)<<1)
	id := &e.ids[(hi^lo)%uint64(len(e.ids))]
	if e.w != nil {
		return e.w.nextIDs(id, n)
	}
	first := *id + 1
	*id += n
	return first
}

// finish does what few packets need between translation and output: it clamps the MSS of a
// SYN to what both ports carry, gives a packet with a new source that is not atomic a new
// identification, and translates the further fragments of a datagram like the first.
func (e *Engine) finish(out *port, p *received, r *packet.Rewrite, now int64) {
	fr := p.frame
	f := e.pool.Bytes(fr)
	if p.Flags&packet.SYN != 0 && e.mss != 0 && packet.ClampMSS(f[p.L4:], e.mss) {
		e.c.MSSClamped++
	}
	renumber := r.Src != p.Src && (!p.DF || p.Parts > 0)
	var id uint16
	if renumber {
		id = e.nextID(r.Src, r.Dst, p.Proto)
		packet.SetID(f[packet.EthLen:], id)
	}
	next := e.links.Next(fr) // before output, which may put fr into a queue
	e.output(out, fr, r.Dst, now)
	for range p.Parts {
		fr = next
		next = e.links.Next(fr)
		f := e.pool.Bytes(fr)
		q := packet.Packet{
			Src: p.Src, Dst: p.Dst, Proto: p.Proto, Class: packet.ClassOther,
			TTL: f[packet.EthLen+8], L4: packet.EthLen + packet.MinIPv4,
		}
		packet.Apply(f, &q, r)
		if renumber {
			packet.SetID(f[packet.EthLen:], id)
		}
		e.output(out, fr, r.Dst, now)
	}
}

// fragmentsFit reports whether a packet was reassembled from fragments that each fit the
// MTU of port out.
func (e *Engine) fragmentsFit(p *received, out *port) bool {
	fits := p.Parts > 0
	fr := p.frame
	for j := 0; j <= int(p.Parts) && fits; j++ {
		fits = int(fr.Len) <= packet.EthLen+out.mtu
		fr = e.links.Next(fr)
	}
	return fits
}

// cut sends frame fr, which exceeds the MTU of port out, as fragments in order (RFC 791
// section 3.2, RFC 4787 REQ-13a).
func (e *Engine) cut(out *port, fr framebuf.Frame, dst packet.Addr, now int64) {
	f := e.pool.Bytes(fr)
	c := packet.NewCutter(f[packet.EthLen:], out.mtu)
	if n := c.Pieces(); n > e.pool.Free() {
		e.c.NoBuffer++
		e.dropOut(out, fr, verdict.TxFull)
		return
	}
	e.c.Fragmented++
	for {
		buf, ok := e.pool.Get()
		if !ok {
			break
		}
		n := c.Next(e.pool.Buffer(buf)[headroom+packet.EthLen:])
		if n == 0 {
			e.pool.Put(buf)
			break
		}
		e.c.FragmentsSent++
		piece := framebuf.Frame{Buf: buf, Len: uint32(packet.EthLen + n)}
		packet.SetType(e.pool.Bytes(piece), packet.TypeIPv4)
		e.output(out, piece, dst, now)
	}
	e.pool.Put(fr.Buf)
}
