package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Bits of the first byte of FuzzPipeline's input: the policy.
const (
	fuzzReassemble = 1 << iota
	fuzzReject     // by default; else accept
	fuzzNarrow     // the WAN's MTU is 576
	fuzzServer     // a server behind the WAN address, hairpinning too
	fuzzSmall      // room for few flows and ports
	fuzzNames      // the DNS proxy, which intercepts, and a rule that asks for server names
)

// Bits of the byte before each frame; the others are the time since the last
// one, in tenths of a second.
const (
	fuzzWAN   = 1 << iota // it arrives at the WAN
	fuzzSums              // its checksums are made right, which no fuzzer would find by itself
	fuzzTimes             // shift
)

// FuzzPipeline puts any frames on both ports, under one of several policies,
// and lets time pass. Each record of the input is a byte of flags and time, a
// length (one byte, times four), and that many bytes of a frame. Frames are
// given the port's address.
func FuzzPipeline(f *testing.F) {
	type rec struct {
		flags byte
		frame []byte
	}
	add := func(policy byte, records ...rec) {
		b := []byte{policy}
		for _, r := range records {
			fr := r.frame
			for len(fr)%4 != 0 {
				fr = append(fr, 0)
			}
			b = append(append(b, r.flags, byte(len(fr)/4)), fr...)
		}
		f.Add(b)
	}
	out := func(p pkt) rec { return rec{0, p.frame(lanMAC)} }
	in := func(p pkt) rec { return rec{fuzzWAN, p.frame(wanMAC)} }
	all := func(side byte, fs [][]byte) (rs []rec) {
		for _, fr := range fs {
			rs = append(rs, rec{side, fr})
		}
		return rs
	}
	add(0, out(udp(host, 4000, web, 53)), in(udp(web, 53, ours, 4000)))
	add(0, out(syn(host, 4000, web, 80)), in(tcpSeg(web, 80, ours, 4000, packet.SYN|packet.ACK, 5000, 1001)),
		out(tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)), in(tcpSeg(web, 80, ours, 4000, packet.RST, 5001, 0)))
	add(fuzzSmall, out(echo(host, web, packet.EchoRequest, 7)), in(echo(web, ours, packet.EchoReply, 7)))
	add(0, rec{0, arp(packet.ARPRequest, host, macOf(ip(host)), "10.0.0.1")}, rec{fuzzWAN, arp(packet.ARPReply, "203.0.113.1", macOf(ip("203.0.113.1")), ours)})
	unreachable := in(quoted(web, ours, packet.Unreachable, 3, udp(ours, 4000, web, 53).frame(wanMAC), 60, nil))
	add(0, out(udp(host, 4000, web, 53)), unreachable)
	add(fuzzNarrow, out(udp(host, 4000, web, 53)), unreachable, out(large(udp(host, 4000, web, 53), 900)))
	frags := fragments(large(udp(host, 4000, web, 53), 60), lanMAC, 44, 7)
	add(fuzzReassemble, all(0, frags)...)
	add(fuzzReassemble|fuzzNarrow, all(0, [][]byte{frags[2], frags[0], frags[1]})...)
	add(fuzzReassemble|fuzzReject, all(fuzzWAN, fragments(large(udp(web, 53, ours, 4000), 60), wanMAC, 44, 7))...)
	add(fuzzReassemble, all(0, [][]byte{frags[0], shift(frags[1], 16, true), frags[2]})...)
	add(fuzzReassemble, all(0, fragments(large(echo(host, "10.0.0.1", packet.EchoRequest, 9), 100), lanMAC, 60, 8))...)
	add(fuzzReject, out(syn(host, 4000, web, 54)), in(syn(web, 80, ours, 4000)), rec{63 * fuzzTimes, nil}, out(udp(host, 4000, web, 54)))
	add(fuzzServer, in(syn(web, 4000, ours, 443)), out(tcpSeg(server, 443, web, 4000, packet.SYN|packet.ACK, 9, 1001)), out(syn(host, 4000, ours, 443)))
	add(fuzzNames|fuzzReassemble, all(fuzzSums, fragments(large(tcpSeg(host, 4000, lanAddr, 53, packet.SYN, 1000, 0), 60), lanMAC, 44, 7))...)
	hello := tcpSeg(host, 4000, web, 443, packet.ACK, 1001, 5001)
	hello.data = []byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 3}
	add(fuzzNames|fuzzReassemble, out(syn(host, 4000, web, 443)), in(tcpSeg(web, 443, ours, 4000, packet.SYN|packet.ACK, 5000, 1001)),
		out(tcpSeg(host, 4000, web, 443, packet.ACK, 1001, 5001)), out(hello))
	add(fuzzNames, out(udp(host, 4000, lanAddr, 53)), out(udp(host, 4000, "9.9.9.9", 53)), out(syn(host, 4001, lanAddr, 53)))
	odd := syn(host, 4000, web, 80)
	odd.opts = []byte{1, 2, 4, 5, 0xb4, 3, 3, 7}
	add(fuzzNarrow, rec{fuzzSums, odd.frame(lanMAC)}, rec{fuzzSums, tcpSeg(host, 4000, web, 80, 0x3f, 1, 1).frame(lanMAC)})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		l := fuzzLab(t, b[0])
		b = b[1:]
		for range 64 {
			if len(b) < 2 {
				break
			}
			flags, n := b[0], min(int(b[1])*4, len(b)-2)
			l.now += int64(flags/fuzzTimes) * 1e8
			fr := append([]byte(nil), b[2:2+n]...)
			b = b[2+n:]
			side := int(flags & fuzzWAN)
			copy(fr, l.e.port[side].mac[:])
			if flags&fuzzSums != 0 {
				makeSums(fr)
			}
			l.raw(side, fr) // fails when what comes out is malformed
			l.invariants()
		}
		l.now += 40e9
		l.e.tick = 0
		l.run()
		l.invariants()
		if l.e.frags.Held() != 0 || l.e.frags.Len() != 0 || l.e.delayed.Len() != 0 {
			t.Fatalf("%d fragments and %d SYNs are held for ever", l.e.frags.Held(), l.e.delayed.Len())
		}
	})
}

// fuzzBuffers is the memory of packet buffers, used again by each round.
var fuzzBuffers []byte

func fuzzLab(t testing.TB, policy byte) *lab {
	alloc := func(n int, _ bool) []byte {
		if n != 2048*framebuf.Size {
			return make([]byte, n)
		}
		if fuzzBuffers == nil {
			fuzzBuffers = make([]byte, n)
		}
		return fuzzBuffers
	}
	l := newLabIn(t, alloc, func(p *ruleset.Policy) {
		p.Settings.DefaultAction, p.Settings.MaxFlows = ruleset.Accept, 16
		if policy&fuzzReassemble != 0 {
			p.Settings.Fragments = ruleset.FragmentsReassemble
		}
		if policy&fuzzReject != 0 {
			p.Settings.DefaultAction = ruleset.Reject
		}
		if policy&fuzzNarrow != 0 {
			p.Interfaces[1].MTU = 576
		}
		if policy&fuzzServer != 0 {
			p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.TCP, ours, 443, 443, server, 443))}
		}
		if policy&fuzzNames != 0 {
			p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: 53}}
			p.Settings.Flags |= ruleset.FlagDNSIntercept
			p.Rules[2].SNI = 1
		}
		if policy&fuzzSmall != 0 {
			p.Settings.MaxFlows, p.SNAT[0].PortHi = 4, p.SNAT[0].PortLo+2
		}
	}, "deny egress udp :54", toDNSTCP, "accept egress tcp :443", "accept egress", "accept ingress tcp :443", established)
	l.anyMAC = true
	return l
}

// makeSums makes the checksums of a frame right, as far as it has any.
func makeSums(f []byte) {
	if packet.Type(f) != packet.TypeIPv4 || len(f) < packet.EthLen+20 {
		return
	}
	h := f[packet.EthLen:]
	hl := int(h[0]&15) * 4
	if hl < 20 || hl > len(h) {
		return
	}
	resum(h)
	n := int(binary.BigEndian.Uint16(h[2:]))
	off := map[uint8]int{packet.TCP: 16, packet.UDP: 6, packet.ICMP: 2}[h[9]]
	if off == 0 || n < hl+off+2 || n > len(h) || binary.BigEndian.Uint16(h[6:])&0x3fff != 0 {
		return
	}
	l4 := h[hl:n]
	sum := uint64(0)
	if h[9] != packet.ICMP {
		sum = uint64(binary.BigEndian.Uint32(h[12:])) + uint64(binary.BigEndian.Uint32(h[16:])) + uint64(h[9]) + uint64(len(l4))
	}
	l4[off], l4[off+1] = 0, 0
	binary.BigEndian.PutUint16(l4[off:], ^packet.Sum(l4, sum))
}
