package router

import (
	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var broadcastMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// parse reads the headers of the first n frames. ARP is answered and
// malformed packets are dropped here; the others are left in b.idx and
// b.keys for the look-up. Of usual ones only the key is read: mostly nothing else
// is needed (steady.go).
func (e *Engine) parse(in *port, n int, now int64) {
	b := &e.b
	b.keys.Reset()
	bytes := uint64(0)
	for i := range b.frame[:n] {
		f := e.pool.Bytes(b.frame[i])
		bytes += uint64(len(f))
		ln := packet.Usual(f, in.self, b.keys.Next())
		if ln == 0 {
			e.parseOther(in, i, f, now)
			continue
		}
		b.frame[i].Len = uint32(ln)
		j := b.keys.Len() & (Batch - 1)
		b.idx[j], b.usual[j] = uint8(i), true
		b.keys.Add()
	}
	e.c.RxBytes[in.n] += bytes
}

// parseOther is parse for frame i, f, which is not usual.
func (e *Engine) parseOther(in *port, i int, f []byte, now int64) {
	b := &e.b
	typ := packet.Type(f)
	if typ == 0 {
		e.dropFrame(in, i, verdict.MalformedPacket, now)
		return
	}
	dst := [6]byte(f)
	if dst != in.mac && dst[0]&1 == 0 {
		e.c.OtherHost[in.n]++ // a flooding switch; nobody asked us
		e.pool.Put(b.frame[i].Buf)
		return
	}
	switch typ {
	case packet.TypeIPv4:
	case packet.TypeARP:
		if why := e.arpFrame(in, f, now); why != 0 {
			e.dropFrame(in, i, why, now)
		} else {
			e.pool.Put(b.frame[i].Buf)
		}
		return
	case packet.TypeIPv6:
		e.dropFrame(in, i, verdict.IPv6Unsupported, now)
		return
	default:
		e.dropFrame(in, i, verdict.EtherTypeUnsupported, now)
		return
	}
	p := &b.pk[i]
	ln, why := packet.ParseIPv4(f, p)
	if why == verdict.FragmentedIPv4 && e.frags.on && dst == in.mac {
		b.frame[i].Len = packet.EthLen + uint32(p.Total)
		if !e.gather(in, i, now) {
			return
		}
		ln, why = int(b.frame[i].Len), 0
	}
	if why != 0 {
		e.dropPacket(in, i, why, now)
		return
	}
	b.frame[i].Len = uint32(ln) // without the link's padding
	if dst != in.mac {
		// RFC 1812 section 5.3.4: what came by link-layer broadcast is
		// not forwarded.
		e.dropPacket(in, i, verdict.Martian, now)
		return
	}
	j := b.keys.Len() & (Batch - 1)
	b.idx[j], b.usual[j] = uint8(i), false
	*b.keys.Next() = conntrack.Key{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort, Proto: uint32(p.Proto)}
	b.keys.Add()
}
