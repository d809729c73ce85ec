package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Most packets are TCP or UDP without IP options or fragmentation, of directions marked by
// conntrack.MarkFast: the policy has accepted them, and their flows' state does not change.
// The fast path handles runs of packets with the same path: each is checked, and then written.
// The result is that of forward: TestFastPathIsForward.

// noHop is a value that is not a packet.Addr.
const noHop = 1 << 32

// fastPath forwards the run that begins with key j of a prepared batch from port in, and
// returns the first key after the run, whose packet it has not handled.
func (e *Engine) fastPath(in *port, j int, now int64) int {
	_, d := e.flows.Hint(&e.b.keys, j)
	if e.plain || d == nil || j >= e.b.keys.Len() {
		return j
	}
	path := d.Fast()
	if path == 0 || path.Ingress() != in.n {
		return j
	}
	out := &e.port[path.Egress()]
	if len(out.tx)-out.ntx < Batch {
		e.flush(out)
	}
	return e.sendFast(out, path, j, now)
}

// sendFast forwards the packets with the keys from j on, until one has another path or is left
// to forward, and returns its key.
func (e *Engine) sendFast(out *port, path conntrack.Path, j int, now int64) int {
	b, flows := &e.b, e.flows
	hop, mac := uint64(noHop), uint64(0) // of the last packet
	for n := b.keys.Len(); j < n; j++ {
		j := j & (Batch - 1)
		r, d := flows.Hint(&b.keys, j)
		if d == nil || !b.fast[j] || !flows.IsFast(d, b.keys.Key(j), path, now) {
			break
		}
		fr := b.frame[b.idx[j]&(Batch-1)]
		h := e.pool.Head(fr)
		if h[packet.EthLen+8] <= 1 || int(fr.Len) > packet.EthLen+out.mtu {
			break
		}
		to := d.Out.Dst
		if to&out.mask != out.net {
			to = out.gateway
		}
		if uint64(to) != hop {
			if mac = out.reachable(to, now); mac == 0 {
				break
			}
			hop = uint64(to)
		}
		if d.Key.Proto == packet.TCP {
			const l4 = packet.EthLen + packet.MinIPv4  // of a frame that packet.FastKey has read, which has all headers
			rest := binary.BigEndian.Uint32(h[l4+12:]) // data offset, flags, window
			if rest>>16&(packet.SYN|packet.ACK|packet.RST|packet.FIN) != packet.ACK ||
				!flows.TCPFast(r, binary.BigEndian.Uint32(h[l4+4:]), binary.BigEndian.Uint32(h[l4+8:]), fr.Len-l4-rest>>28*4, rest&0xffff) {
				break
			}
		}
		// From here on the packet is forwarded.
		d.LastSeen = now
		d.Packets++
		d.Bytes += uint64(fr.Len) - packet.EthLen
		e.c.Accepts[d.Rule]++
		if h[packet.EthLen+6]&0x40 == 0 && d.Out.Src != d.Key.Src {
			packet.SetID(h[packet.EthLen:], e.nextID(d.Out.Src, d.Out.Dst, uint8(d.Key.Proto))) // not atomic (RFC 6864): see idents
		}
		sum := packet.PutAddrs(h, &d.Out)
		packet.PassTTL(h, sum)
		sum += packet.PutPorts(h, &d.Out)
		if d.Key.Proto == packet.TCP {
			packet.UpdateTCP(h, sum)
		} else {
			packet.UpdateUDP(h, sum)
		}
		binary.LittleEndian.PutUint64(h[0:], mac)
		binary.LittleEndian.PutUint32(h[8:], uint32(out.self>>16))
		out.tx[out.ntx&(2*Batch-1)] = fr
		out.ntx++
	}
	return j
}

// reachable returns the first 8 bytes of frames to a neighbour on port p, or 0 when its
// link-layer address is not confirmed.
func (p *port) reachable(a packet.Addr, now int64) uint64 {
	n := p.neigh.Find(a)
	if n == nil || n.State != neigh.Reachable || now >= n.Expires {
		return 0
	}
	return packet.MAC(n.MAC) | p.self<<48
}
