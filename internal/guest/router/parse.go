package router

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// parse reads the first n frames of the batch. For packets that FastKey reads, TCP or UDP
// over IPv4 without options or fragmentation and addressed to the port, only the key is
// read: the fast path needs no more. b.idx and b.keys have the packets to look up.
func (e *Engine) parse(in *port, n int, now int64) {
	b := &e.b
	b.keys.Reset()
	bytes := uint64(0)
	for i := range b.frame[:n] {
		f := e.pool.Bytes(b.frame[i])
		bytes += uint64(len(f))
		ln := packet.FastKey(f, in.self, b.keys.Next())
		if ln == 0 {
			e.parseOther(in, i, now)
			continue
		}
		b.frame[i].Len = uint32(ln)
		j := b.keys.Len() & (Batch - 1)
		b.idx[j], b.fast[j] = uint8(i), true
		b.keys.Add()
	}
	e.c.RxBytes[in.n] += bytes
}

// parseOther handles frame i of the batch, which FastKey does not read: ARP is answered,
// fragments are reassembled, and the headers of other packets are parsed, so that their
// flows can be looked up.
func (e *Engine) parseOther(in *port, i int, now int64) {
	b := &e.b
	if b.frame[i].IsLarge() {
		e.readLarge(in, i, now)
		return
	}
	p := &b.pk[i]
	p.in, p.frame, p.plain = in, b.frame[i], false
	kind, why := e.read(p)
	switch kind {
	case kindOtherHost:
		e.c.OtherHost[in.n]++ // flooded by a switch
		e.pool.Put(p.frame.Buf)
		return
	case kindARP:
		if why = e.arpFrame(in, e.bytes(p), now); why == 0 {
			e.pool.Put(p.frame.Buf)
			return
		}
	case kindFragment:
		if !e.reassemble(p, now) || e.w != nil && e.redirect(p, now) {
			return
		}
	}
	switch {
	case why == 0:
	case kind == kindUnread || kind == kindARP:
		e.dropFrame(in, p.frame, why, now)
		return
	default:
		e.dropPacket(p, why, now)
		return
	}
	j := b.keys.Len() & (Batch - 1)
	b.idx[j], b.fast[j] = uint8(i), false
	*b.keys.Next() = keyOf(&p.Packet)
	b.keys.Add()
}

// A frameKind is the kind of a frame.
type frameKind uint8

const (
	kindUnread    frameKind = iota // no packet was parsed
	kindOtherHost                  // a frame for another link-layer address
	kindARP
	kindFragment
	kindIPv4
)

// read parses the headers of a packet from its frame. It returns the kind of the frame, and
// why it is to be dropped, or 0.
func (e *Engine) read(p *received) (frameKind, verdict.Reason) {
	f := e.bytes(p)
	typ := packet.Type(f)
	if typ == 0 {
		return kindUnread, verdict.MalformedPacket
	}
	ours := [6]byte(f) == p.in.mac
	if !ours && f[0]&1 == 0 {
		return kindOtherHost, 0
	}
	switch typ {
	case packet.TypeIPv4:
	case packet.TypeARP:
		return kindARP, 0
	case packet.TypeIPv6:
		return kindUnread, verdict.IPv6Unsupported
	default:
		return kindUnread, verdict.EtherTypeUnsupported
	}
	n, why := packet.ParseIPv4(f, &p.Packet)
	if why == verdict.FragmentedIPv4 && e.defrag && ours {
		p.frame.Len = packet.EthLen + uint32(p.Total)
		return kindFragment, 0
	}
	if why == 0 {
		p.frame.Len = uint32(n) // without the link's padding
		if !ours {
			why = verdict.Martian // RFC 1812 section 5.3.4: link-layer broadcasts are not forwarded
		}
	}
	return kindIPv4, why
}
