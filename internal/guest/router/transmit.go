package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// send translates a packet and sends it through port out.
func (e *Engine) send(out *port, p *received, r *packet.Rewrite, now int64) {
	fr := p.frame
	e.source = p.Src
	if p.plain {
		// What packet.Apply does, for a packet that packet.FastKey has read, in fewer steps.
		h := e.pool.Head(fr)
		sum := packet.PutAddrs(h, r)
		packet.PassTTL(h, sum)
		sum += packet.PutPorts(h, r)
		if p.Class == packet.ClassTCP {
			packet.UpdateTCP(h, sum)
		} else {
			packet.UpdateUDP(h, sum)
		}
	} else {
		packet.Apply(e.pool.Bytes(fr), &p.Packet, r)
	}
	if !p.DF && r.Src != p.Src || p.Flags&packet.SYN != 0 || p.Parts > 0 {
		e.finish(out, p, r, now)
		return
	}
	e.output(out, fr, r.Dst, now)
}

// output sends an IPv4 frame to the next hop for dst, or queues it until the next hop's
// link-layer address is known.
func (e *Engine) output(out *port, fr framebuf.Frame, dst packet.Addr, now int64) {
	if int(fr.Len) > packet.EthLen+out.mtu {
		e.cut(out, fr, dst, now)
		return
	}
	hop := dst
	if dst&out.mask != out.net {
		if out.gateway == 0 {
			e.dropOut(out, fr, verdict.NeighbourUnresolved)
			return
		}
		hop = out.gateway
	}
	if first := out.reachable(hop, now); first != 0 {
		out.address(e.pool.Head(fr), first)
	} else if !e.resolved(out, fr, hop, now) {
		return
	}
	e.enqueue(out, fr)
}

// address writes the Ethernet header of an IPv4 frame, whose first 8 bytes reachable has
// returned.
func (p *port) address(h *[framebuf.Head]byte, first uint64) {
	binary.LittleEndian.PutUint64(h[0:], first)
	binary.LittleEndian.PutUint32(h[8:], uint32(p.self>>16))
	packet.SetType(h[:], packet.TypeIPv4)
}

// resolved does the same where it is not certain that the next hop can be reached. It reports
// false if the frame waits for it.
func (e *Engine) resolved(out *port, fr framebuf.Frame, hop packet.Addr, now int64) bool {
	n, probe := out.neigh.Use(hop, now)
	if n == nil {
		e.resolve(out, hop, fr, now)
		return false
	}
	if probe {
		e.ask(out, hop, &n.MAC)
	}
	packet.PutEth(e.pool.Bytes(fr), &n.MAC, &out.mac, packet.TypeIPv4)
	return true
}

// enqueue adds a finished frame to the port's batch.
func (e *Engine) enqueue(out *port, fr framebuf.Frame) {
	if out.ntx == len(out.tx) {
		e.flush(out)
	}
	out.tx[out.ntx] = fr
	out.ntx++
}

// flush transmits the port's batch. Frames that the device does not take are dropped.
func (e *Engine) flush(out *port) {
	if out.ntx == 0 {
		return
	}
	q := out.tx[:out.ntx]
	out.ntx = 0
	n := out.Transmit(q)
	bytes := uint64(0)
	packets := uint64(n)
	for _, f := range q[:n] {
		bytes += uint64(f.Len)
		if f.IsLarge() { // its description is the driver's, and no other frame's yet
			l := e.pool.Large(f)
			packets += uint64(l.Segments) - 1
			bytes += uint64(l.Total) + uint64(l.Segments-1)*uint64(l.Headers)
		}
	}
	e.c.TxPackets[out.n] += packets
	e.c.TxBytes[out.n] += bytes
	for i := range q[n:] {
		e.dropOut(out, q[n+i], verdict.TxFull)
	}
}
