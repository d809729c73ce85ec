package router

import (
	"encoding/binary"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
)

// Most packets are TCP or UDP without IP options or fragmentation, of directions marked by
// conntrack.MarkFast: the policy has accepted them, and their flows' state does not change.
// The fast path handles runs of packets with the same path, in two passes: the first finds
// packets that are left to forward, the second writes. The result is that of forward:
// TestFastPathIsForward.

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
	n := e.fastUntil(out, path, j, now)
	if n > j {
		e.sendFast(out, j, n, now)
	}
	return n
}

// fastUntil returns the first key from j on whose packet has another path or is left to
// forward, and records the next hops of those before it.
func (e *Engine) fastUntil(out *port, path conntrack.Path, j int, now int64) int {
	b, flows := &e.b, e.flows
	hop, mac := uint64(noHop), uint64(0) // of the last packet
	n := b.keys.Len()
	for ; j < n; j++ {
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
		if d.Key.Proto == packet.TCP && !fastTCP(flows, r, h, fr.Len) {
			break
		}
		b.hop[j] = mac
	}
	return j
}

// sendFast forwards the packets with the keys from j to below n.
func (e *Engine) sendFast(out *port, j, n int, now int64) {
	if len(out.tx)-out.ntx < Batch {
		e.flush(out)
	}
	b, flows, pool, accepts := &e.b, e.flows, e.pool, e.c.Accepts
	self := uint32(out.self >> 16)
	ntx := out.ntx
	for ; j < n; j++ {
		j := j & (Batch - 1)
		fr := b.frame[b.idx[j]&(Batch-1)]
		h := pool.Head(fr)
		r, _ := flows.Hint(&b.keys, j)
		d := flows.Dir(r) // not None: fastUntil has checked it
		d.LastSeen = now
		d.Packets++
		d.Bytes += uint64(fr.Len) - packet.EthLen
		accepts[d.Rule]++
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
		binary.LittleEndian.PutUint64(h[0:], b.hop[j])
		binary.LittleEndian.PutUint32(h[8:], self)
		out.tx[ntx&(2*Batch-1)] = fr
		ntx++
	}
	out.ntx = ntx
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

// fastTCP checks the segment in a frame of n bytes that begins with h, of direction r of an
// established connection. It reports false for one that is left to forward. That the headers
// lie within the frame packet.FastKey has checked.
func fastTCP(flows *conntrack.Table, r conntrack.Ref, h *[packet.Head]byte, n uint32) bool {
	const l4 = packet.EthLen + packet.MinIPv4
	numbers := binary.BigEndian.Uint64(h[l4+4:])
	rest := binary.BigEndian.Uint32(h[l4+12:]) // data offset, flags, window
	if rest>>16&(packet.SYN|packet.ACK|packet.RST|packet.FIN) != packet.ACK {
		return false
	}
	return flows.TCPFast(r, uint32(numbers>>32), uint32(numbers), n-l4-rest>>28*4, rest&0xffff)
}
