package main

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestWorkersFrames: the flows of a pair of queues are those of one worker, none is another pair's,
// and together they have as many endpoints as those of one pair.
func TestWorkersFrames(t *testing.T) {
	seen := map[[2]uint64]bool{}
	for pair := range maxPairs {
		s := newStream(4096, 60, false, [6]byte{2, 1}, [6]byte{2, 2})
		s.pair, s.pairs = pair, maxPairs
		var b [2048]byte
		for range 4096 {
			var p packet.Packet
			if _, why := packet.ParseIPv4(b[:s.fill(b[:])], &p); why != 0 || int(p.SrcPort/2)%maxPairs != pair {
				t.Fatalf("pair %d: %v, port %d", pair, why, p.SrcPort)
			}
			seen[[2]uint64{uint64(p.Src)<<32 | uint64(p.Dst), uint64(p.SrcPort)}] = true
		}
	}
	if len(seen) != maxPairs*4096 {
		t.Errorf("%d flows of %d", len(seen), maxPairs*4096)
	}
}

// TestLargeSegments: handshakes are valid and belong together, and a large segment is one that the
// firewall takes for 45 packets of 1,448 bytes.
func TestLargeSegments(t *testing.T) {
	s := newStream(16, 0, false, [6]byte{2, 1}, [6]byte{2, 2})
	var b [2048]byte
	var h [netHeader]byte
	for i := range uint64(100) {
		f := b[:s.syn(b[:], i)]
		var syn, synAck, ack packet.Packet
		for _, x := range []struct {
			f     []byte
			p     *packet.Packet
			flags uint8
		}{{f, &syn, tcpSYN}, {handshake(f), &synAck, tcpSYN | tcpACK}, {handshake(handshake(f)), &ack, tcpACK}} {
			if _, why := packet.ParseIPv4(x.f, x.p); why != 0 || !isTCP(x.f) || x.p.Flags != x.flags {
				t.Fatalf("%v, flags %x, want %x", why, x.p.Flags, x.flags)
			}
		}
		if synAck.Src != syn.Dst || synAck.Dst != syn.Src || synAck.DstPort != syn.SrcPort || ack.Src != syn.Src || ack.SrcPort != syn.SrcPort ||
			handshake(handshake(handshake(f))) != nil {
			t.Fatalf("%+v, %+v, %+v", syn, synAck, ack)
		}
		n := s.large(&h, b[:], i)
		var p packet.Packet
		if headers, why := packet.ParseLarge(b[:largeHeaders], n, packet.EthLen+packet.MinIPv4, &p); why != 0 || headers != largeHeaders || p.SrcPort != syn.SrcPort {
			t.Fatalf("%v, %d bytes of headers", why, headers)
		}
		if f := b[packet.EthLen+packet.MinIPv4+16:]; f[0] == 0 && f[1] == 0 {
			t.Fatal("no sum of the pseudo-header")
		}
	}
}

// TestFrames: every frame that the generator makes is valid, flows are
// distinct, and an answer belongs to its question.
func TestFrames(t *testing.T) {
	const flows = 3 * endpoints
	for _, size := range []int{60, 590, 1514, 0} {
		s := newStream(flows, size, false, [6]byte{2, 1}, [6]byte{2, 2})
		seen := map[[2]uint64]bool{}
		var b [2048]byte
		for i := range flows {
			f := b[:s.fill(b[:])]
			var p packet.Packet
			if _, why := packet.ParseIPv4(f, &p); why != 0 || !isUDP(f) {
				t.Fatalf("size %d, frame %d: %v", size, i, why)
			}
			k := [2]uint64{uint64(p.Src)<<32 | uint64(p.Dst), uint64(p.SrcPort)}
			if seen[k] {
				t.Fatalf("size %d: frame %d repeats a flow", size, i)
			}
			seen[k] = true
			var q packet.Packet
			if _, why := packet.ParseIPv4(answer(f), &q); why != 0 || q.Src != p.Dst || q.Dst != p.Src || q.SrcPort != p.DstPort || q.DstPort != p.SrcPort {
				t.Fatalf("answer %+v to %+v", q, p)
			}
		}
	}
}
