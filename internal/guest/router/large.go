package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Large frames (framebuf.Large; ADR 0039). One passes whole where the fast path would take
// each of its segments, and the way out takes large frames. Every other one is cut on
// arrival, and its segments are handled one by one like any packets: whatever else the
// firewall does with packets knows nothing of large frames. Packets are counted as they are
// on the links, so a large frame counts as its segments.

// readLarge reads the headers of frame i of the batch, which is large, into the batch.
func (e *Engine) readLarge(in *port, i int, now int64) {
	b := &e.b
	p := &b.pk[i]
	p.in, p.frame, p.plain = in, b.frame[i], false
	l := e.pool.Large(p.frame)
	f := e.pool.First(p.frame)
	e.c.RxBytes[in.n] += uint64(l.Total)
	why := verdict.MalformedPacket
	switch typ := packet.Type(f); {
	case l.Parts == 0 || len(f) < packet.EthLen:
	case [6]byte(f) != in.mac && f[0]&1 == 0:
		e.c.OtherHost[in.n]++
		e.pool.Release(p.frame)
		return
	case [6]byte(f) != in.mac:
		why = verdict.Martian // no TCP segment is for all
	case typ == packet.TypeIPv4:
		var n int
		n, why = packet.ParseLarge(f, int(l.Total), int(l.Transport), &p.Packet)
		l.Headers, l.Segments = uint16(n), 1
	case typ == packet.TypeIPv6:
		why = verdict.IPv6Unsupported
	}
	if why == 0 {
		l.Segments = uint16((int(p.Payload) + int(l.Size) - 1) / int(l.Size))
		e.c.RxPackets[in.n] += uint64(l.Segments) - 1
		e.c.RxBytes[in.n] += uint64(l.Segments-1) * uint64(l.Headers)
	} else {
		e.dropFrame(in, p.frame, why, now)
		return
	}
	j := b.keys.Len() & (Batch - 1)
	b.idx[j], b.fast[j] = uint8(i), false
	*b.keys.Next() = keyOf(&p.Packet)
	b.keys.Add()
}

// large handles a large frame, whose packet p has key j of the batch.
func (e *Engine) large(p *received, j int, now int64) {
	if !e.passWhole(p, j, now) {
		e.split(p, now)
	}
}

// passWhole forwards a large frame if its segments would take the fast path and it can
// leave as it is.
func (e *Engine) passWhole(p *received, j int, now int64) bool {
	r, d := e.flows.Hint(&e.b.keys, j)
	if e.plain || d == nil {
		return false
	}
	path := d.Fast()
	if path == 0 || path.Ingress() != p.in.n || !e.flows.IsFast(d, e.b.keys.Key(j), path, now) {
		return false
	}
	out, l := &e.port[path.Egress()], e.pool.Large(p.frame)
	if !out.large || p.TTL <= 1 || int(l.Headers)+int(l.Size) > packet.EthLen+out.mtu ||
		p.Flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) != packet.ACK {
		return false
	}
	hop := d.Out.Dst
	if hop&out.mask != out.net {
		hop = out.gateway
	}
	mac := out.reachable(hop, now)
	if mac == 0 || !e.flows.TCPFast(r, p.Seq, p.Ack, uint32(p.Payload), uint32(p.Window)) {
		return false
	}
	d.LastSeen = now
	d.Packets += uint64(l.Segments)
	d.Bytes += e.wireBytes(p, l)
	e.c.Accepts[d.Rule] += uint64(l.Segments)
	f := e.pool.First(p.frame)
	if !p.DF && d.Out.Src != p.Src {
		packet.SetID(f[packet.EthLen:], e.nextIDs(d.Out.Src, d.Out.Dst, p.Proto, l.Segments))
	}
	packet.ApplyLarge(f, &p.Packet, &d.Out)
	binary.LittleEndian.PutUint64(f, mac)
	binary.LittleEndian.PutUint32(f[8:], uint32(out.self>>16))
	e.c.LargeForwarded++
	e.enqueue(out, p.frame)
	return true
}

// wireBytes returns the length of the IPv4 packets that a large frame is on a link.
func (e *Engine) wireBytes(p *received, l *framebuf.Large) uint64 {
	return uint64(p.Total) + uint64(l.Segments-1)*uint64(l.Headers-packet.EthLen)
}

// split cuts a large frame into its segments and handles each. Without buffers for all of
// them it is dropped.
func (e *Engine) split(p *received, now int64) {
	large := p.frame
	l := *e.pool.Large(large)
	n, size := int(l.Segments), int(l.Size)
	longest := int(l.Headers) + min(size, int(p.Payload))
	if n > e.pool.Free() || longest > e.pool.MaxLen() {
		why := verdict.TxFull
		if longest > e.pool.MaxLen() {
			why = verdict.PacketTooBig
		} else {
			e.c.NoBuffer++
		}
		e.c.DropReasons[why] += uint64(n)
		e.emitPacket(p, verdict.Drop, why, e.policy.DefaultRule(), naming{}, now)
		e.pool.Release(large)
		return
	}
	e.c.LargeCut++
	whole := p.Packet
	var headers [packet.MaxHeaders]byte
	h := headers[:e.pool.Copy(headers[:l.Headers], large, 0)]
	s := &e.segment
	for i := range n {
		buf, ok := e.pool.Get()
		if !ok {
			e.c.NoBuffer++ // answers to the segments before have taken some
			e.c.DropReasons[verdict.TxFull] += uint64(n - i)
			break
		}
		at := int(l.Headers) + i*size
		k := min(size, int(l.Total)-at)
		fr := framebuf.Frame{Buf: buf, Len: uint32(int(l.Headers) + k)}
		f := e.pool.Bytes(fr)
		e.pool.Copy(f[l.Headers:], large, at)
		packet.PutSegment(f, h, &whole, i, size)
		s.in, s.frame = p.in, fr
		packet.ParseIPv4(f, &s.Packet)
		e.single(s, now)
	}
	e.pool.Release(large)
}

// single handles a packet that was in no batch.
func (e *Engine) single(p *received, now int64) {
	k := keyOf(&p.Packet)
	if r := e.flows.Lookup(&k, now); r != conntrack.None {
		e.forward(p, r, now)
	} else {
		e.admit(p, &k, conntrack.None, now)
	}
}
