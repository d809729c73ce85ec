package router

import (
	"math"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Fragments, where the policy enables reassembly. They wait in a table until their datagram
// is complete. It is then validated, looked up, filtered and translated like any packet,
// with the ports of its first fragment and the checksum of all, and its fragments are sent
// as they arrived, in order. Nothing is copied, and no fragment is sent before the whole
// datagram has been validated (ADR 0007).

// reassemble handles fragment p. It reports true when that completes a datagram, which p
// then is: its frame is the first fragment, to which the others are linked. Otherwise the
// fragment is held or dropped.
func (e *Engine) reassemble(p *received, now int64) bool {
	f := e.bytes(p)
	c, ok := packet.PieceOf(f, &p.Packet)
	if !ok {
		e.dropPacket(p, verdict.MalformedPacket, now)
		return false
	}
	if e.martian(p) {
		e.dropPacket(p, verdict.Martian, now)
		return false
	}
	var r reassembly.Result
	e.frags.Add(&reassembly.Fragment{
		Key:   reassembly.Key{Src: p.Src, Dst: p.Dst, ID: packet.FragmentID(f), Proto: p.Proto, Link: uint8(p.in.n)},
		Piece: c, Frame: p.frame}, &r, now)
	for i := range r.Drop {
		if r.Drop[i].Len() > 0 {
			e.dropDatagram(r.Drop[i], now)
		}
	}
	if r.Reason != 0 {
		e.dropPacket(p, r.Reason, now)
		return false
	}
	return r.Complete.Len() > 0 && e.complete(p, &r, now)
}

// dropDatagram drops the fragments of an incomplete datagram, with one event.
func (e *Engine) dropDatagram(q framebuf.Queue, now int64) {
	for first := true; q.Len() > 0; first = false {
		fr := e.links.Pop(&q)
		e.c.DropReasons[verdict.FragmentedIPv4]++
		if first && e.events != nil {
			var p received
			packet.ParseIPv4(e.pool.Bytes(fr), &p.Packet) // a fragment: addresses and protocol
			p.in = e.route(p.Src)
			e.emitPacket(&p, verdict.Drop, verdict.FragmentedIPv4, e.policy.DefaultRule(), naming{}, now)
		}
		e.pool.Put(fr.Buf)
	}
}

// complete makes p the datagram of all fragments in r, and reports whether it is valid;
// otherwise it is dropped.
func (e *Engine) complete(p *received, r *reassembly.Result, now int64) bool {
	n, head := r.Complete.Len(), r.Complete.First()
	f := e.pool.Bytes(head)
	var rest uint64
	short, df := false, false
	fr := head
	for j := range n {
		b := e.pool.Bytes(fr)
		short = short || b[packet.EthLen+8] <= 1
		df = df || b[packet.EthLen+6]&0x40 != 0
		if j > 0 {
			hl := int(b[packet.EthLen]&15) * 4
			rest += uint64(packet.Sum(b[packet.EthLen+hl:], 0))
		}
		fr = e.links.Next(fr)
	}
	packet.ParseIPv4(f, &p.Packet) // valid, except that it is a fragment
	p.Fragment, p.Parts, p.DF = false, uint8(n-1), df
	p.frame = head
	why := verdict.MalformedPacket
	if int(p.L4)-packet.EthLen+r.Length <= math.MaxUint16 {
		why = packet.ParseFirst(f, &p.Packet, r.Length, rest)
	}
	switch {
	case why != 0:
	case p.Class == packet.ClassICMPError:
		why = verdict.FragmentedIPv4 // no router sends an ICMP error that needs fragmentation
	case short && p.TTL > 1:
		why = verdict.TTLExpired // of a later fragment; an answer would quote the first
	default:
		e.c.Reassembled++
		return true
	}
	e.dropPacket(p, why, now)
	return false
}

// reassemblyTick drops the incomplete datagrams that have expired.
func (e *Engine) reassemblyTick(now int64) {
	for q, ok := e.frags.Expired(now); ok; q, ok = e.frags.Expired(now) {
		e.dropDatagram(q, now)
	}
}

// release returns the buffers of a packet to the pool, and returns their number.
func (e *Engine) release(p *received) uint64 {
	fr := p.frame
	n := uint64(p.Parts)
	for range n {
		next := e.links.Next(fr)
		e.pool.Put(fr.Buf)
		fr = next
	}
	e.pool.Put(fr.Buf)
	return n + 1
}

// linear copies the fragments of a packet to its first buffer, for packets that the
// firewall itself reads or answers. It reports false when they do not fit.
func (e *Engine) linear(p *received) bool {
	if p.Parts == 0 {
		return true
	}
	fr := &p.frame
	if packet.EthLen+int(p.Total) > e.pool.MaxLen() {
		return false
	}
	next := e.links.Next(*fr)
	for ; p.Parts > 0; p.Parts-- {
		b := e.pool.Bytes(next)
		b = b[packet.EthLen+int(b[packet.EthLen]&15)*4:]
		at := int(fr.Len)
		fr.Len += uint32(len(b))
		copy(e.pool.Bytes(*fr)[at:], b)
		buf := next.Buf
		next = e.links.Next(next)
		e.pool.Put(buf)
		e.c.Joined++
	}
	packet.Unfragment(e.pool.Bytes(*fr))
	return true
}
