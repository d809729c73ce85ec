package dataplane

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/packet"
)

// steadyWay is how directions of flows are marked whose packets arrive at port
// in and need nothing but to be sent on.
func steadyWay(in *port) uint8 { return 1 + uint8(in.n) }

// steady handles usual packet i, which belongs to direction r of a known flow,
// d, that is steady: the policy has accepted it and its flow's state will not
// change. It reports false, and has changed nothing, when forward must look at
// the packet. To an observer it is forward, only quicker: TestSteadyIsForward.
func (e *Engine) steady(out *port, d *conntrack.Dir, r conntrack.Ref, i int, now int64) bool {
	fr := e.b.frame[i&(Batch-1)]
	f := e.pool.Bytes(fr)
	total := len(f) - packet.EthLen
	if len(f) < packet.EthLen+packet.MinIPv4+packet.UDPLen || f[packet.EthLen+8] <= 1 || total > out.mtu {
		return false
	}
	hop := d.Out.Dst
	if hop&out.mask != out.net {
		hop = out.gateway
	}
	n := out.arp.last
	if n == nil || n.addr != hop {
		if n = out.arp.find(hop); n == nil {
			return false
		}
	}
	if n.state != reachable || now >= n.expires {
		return false
	}
	if d.Key.Proto == packet.TCP {
		if !e.steadyTCP(r, f) {
			return false
		}
	}
	d.LastSeen = now
	d.Packets++
	d.Bytes += uint64(total)
	e.c.Accepts[d.Rule]++
	packet.ApplyUsual(f, &d.Key, &d.Out)
	if f[packet.EthLen+6]&0x40 == 0 && d.Out.Src != d.Key.Src {
		packet.SetID(f[packet.EthLen:], e.nextID(d.Out.Src, d.Out.Dst, uint8(d.Key.Proto))) // not atomic: see idents
	}
	binary.LittleEndian.PutUint64(f, packet.MAC(n.mac)|out.self<<48)
	binary.LittleEndian.PutUint32(f[8:], uint32(out.self>>16))
	e.enqueue(out, fr)
	return true
}

// steadyTCP checks the segment in frame f, which belongs to direction r of an
// established connection.
func (e *Engine) steadyTCP(r conntrack.Ref, f []byte) bool {
	if len(f) < packet.EthLen+packet.MinIPv4+packet.TCPLen {
		return false
	}
	h := (*[packet.TCPLen]byte)(f[packet.EthLen+packet.MinIPv4:])
	flags := h[13] & 0x3f
	if flags&(packet.SYN|packet.ACK|packet.RST|packet.FIN) != packet.ACK {
		return false
	}
	var p packet.Packet
	p.Flags = flags
	p.Seq, p.Ack = binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	p.Window = binary.BigEndian.Uint16(h[14:])
	p.Payload = uint16(len(f) - packet.EthLen - packet.MinIPv4 - int(h[12]>>4)*4)
	return e.flows.TCPSteady(r, &p)
}
