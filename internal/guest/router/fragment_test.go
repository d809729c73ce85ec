package router

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestRFC4787_REQ13a_FragmentsInOrder: without DF a packet is cut, and its
// fragments leave in order.
func TestRFC4787_REQ13a_FragmentsInOrder(t *testing.T) {
	for _, mtu := range []int{1280, 1000, 576} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = uint16(mtu) }, "accept egress", established)
		l.one(lan, udp("10.0.0.3", 4000, web, 53))
		for _, n := range []int{mtu - 27, 1400, 1472} {
			p := large(udp(host, 4000, web, 53), n)
			v := l.one(lan, p)
			if string(v.frame[packet.EthLen+28:]) != string(p.data) || v.SrcPort == 4000 {
				t.Fatalf("MTU %d, %d bytes: left as %v", mtu, n, v)
			}
			sum := 0
			for i, s := range v.sizes {
				sum += s - 20
				if s > mtu || i < len(v.sizes)-1 && s <= mtu-8 {
					t.Fatalf("MTU %d: fragments of %v", mtu, v.sizes)
				}
			}
			if sum != n+8 || len(v.sizes) < 2 {
				t.Fatalf("MTU %d: fragments of %v", mtu, v.sizes)
			}
		}
		l.invariants()
	}
}

func TestRFC4787_REQ13_DFIsAnswered(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[0].MTU = 1280 }, "accept", established)
	l.one(lan, udp(host, 4000, web, 53))
	p := large(udp(web, 53, ours, 4000), 1300)
	p.df = true
	v := l.answered(wan, p, verdict.PacketTooBig)
	q := v.quotes(t, packet.Unreachable, packet.FragNeeded)
	if mtu := binary.BigEndian.Uint16(v.frame[int(v.L4)+6:]); mtu != 1280 || q.Dst != ip(ours) || q.DstPort != 4000 || addr(v.Src).String() != ours {
		t.Fatalf("MTU %d, about %+v, from %v", mtu, q, v)
	}
}

// TestRFC1812_S5_2_5_FragmentsOfFragments: what came in fragments leaves in
// smaller ones where it must.
func TestRFC1812_S5_2_5_FragmentsOfFragments(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.Fragments, p.Interfaces[1].MTU = ruleset.FragmentsReassemble, 576
	}, "accept", established)
	p := large(udp(host, 4000, web, 53), 4000)
	got := l.feed(lan, fragments(p, lanMAC, 1500, 7)...)
	if len(got) != 1 || string(got[0].frame[packet.EthLen+28:]) != string(p.data) || len(got[0].sizes) != 8 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	// With DF in its fragments, the sender is notified.
	fs := fragments(p, lanMAC, 1500, 8)
	for i := range fs {
		packet.SetDF(fs[i][packet.EthLen:])
	}
	if got := l.feed(lan, fs...); len(got) != 0 {
		t.Fatalf("%v passed", got)
	}
	if back := l.taken(lan); len(back) != 1 || back[0].ICMPCode != packet.FragNeeded {
		t.Fatalf("answer %v", back)
	}
	// One is enough.
	fs = fragments(p, lanMAC, 1500, 8)
	packet.SetDF(fs[0][packet.EthLen:])
	if got := l.feed(lan, fs...); len(got) != 0 {
		t.Fatalf("%v passed", got)
	}
	if back := l.taken(lan); len(back) != 1 || back[0].ICMPCode != packet.FragNeeded {
		t.Fatalf("answer %v", back)
	}
	// Smaller ones pass as they are.
	fs = fragments(p, lanMAC, 500, 9)
	for i := range fs {
		packet.SetDF(fs[i][packet.EthLen:])
	}
	if got := l.feed(lan, fs...); len(got) != 1 || len(got[0].sizes) != len(fs) {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestCutWithoutBuffers: without buffers for all of its fragments a packet is
// dropped whole.
func TestCutWithoutBuffers(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 576 }, "accept", established)
	l.one(lan, udp(host, 4000, web, 53))
	var taken []uint32
	for l.pool.Free() > 3 {
		b, _ := l.pool.Get()
		taken = append(taken, b)
	}
	l.dropped(lan, large(udp(host, 4000, web, 53), 1472), verdict.TxFull)
	if l.partial != 0 || l.e.c.NoBuffer != 1 {
		t.Fatalf("%d incomplete datagrams left, %d times no buffer", l.partial, l.e.c.NoBuffer)
	}
	for _, b := range taken {
		l.pool.Put(b)
	}
	l.invariants()
}

// TestRFC6864_S5_3_1_TranslatedIdentification: two hosts behind one address that
// chose the same identification leave with different ones; atomic packets keep
// theirs, and all fragments of a datagram have one (RFC 7857 section 10).
func TestRFC6864_S5_3_1_TranslatedIdentification(t *testing.T) {
	l := reassembling(t, "accept", established)
	id := func(v *view) uint16 { return packet.FragmentID(v.frame) }
	seen := map[uint16]bool{}
	for i := range 200 {
		f := udp(addr(ip(host)+packet.Addr(i%2)).String(), 4000, web, 53).frame(lanMAC)
		packet.SetID(f[packet.EthLen:], uint16(i/2))
		got := l.feed(lan, f)
		if len(got) != 1 || seen[id(got[0])] {
			t.Fatalf("packet %d left as %v with identification %d, which is taken", i, got, id(got[0]))
		}
		seen[id(got[0])] = true
	}
	got := l.feed(lan, fragments(large(udp(host, 4000, web, 53), 3000), lanMAC, 1500, 7)...)
	if len(got) != 1 || seen[id(got[0])] { // collect put them together by their identification
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	seen[id(got[0])] = true
	// Fragments are not atomic, whatever their DF says.
	fs := fragments(large(udp(host, 4000, web, 53), 3000), lanMAC, 1500, 4711)
	for i := range fs {
		packet.SetDF(fs[i][packet.EthLen:])
	}
	if got := l.feed(lan, fs...); len(got) != 1 || seen[id(got[0])] || id(got[0]) == 4711 {
		t.Fatalf("with DF: %v; drops: %s", got, l.drops())
	}
	f := udp(host, 4000, web, 53).frame(lanMAC)
	packet.SetID(f[packet.EthLen:], 4711)
	packet.SetDF(f[packet.EthLen:])
	if got := l.feed(lan, f); id(got[0]) != 4711 {
		t.Fatalf("an atomic packet left with identification %d", id(got[0]))
	}
	// What is not translated is its sender's business.
	f = udp(web, 53, ours, 4000).frame(wanMAC)
	packet.SetID(f[packet.EthLen:], 4712)
	if got := l.feed(wan, f); id(got[0]) != 4712 {
		t.Fatalf("the answer left with identification %d", id(got[0]))
	}
}

// TestMSSClamp: SYN and SYN-ACK announce what fits the smaller MTU of both
// sides, wherever the option stands, and other segments are left alone.
func TestMSSClamp(t *testing.T) {
	mss := func(v *view) uint16 {
		o := v.frame[int(v.L4)+20:]
		for i := 0; i < len(o); i++ {
			if o[i] == 2 {
				return binary.BigEndian.Uint16(o[i+2:])
			}
		}
		return 0
	}
	for _, mtus := range [][2]uint16{{1500, 1400}, {1400, 1500}} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[0].MTU, p.Interfaces[1].MTU = mtus[0], mtus[1] }, "accept", established)
		for i, c := range []struct {
			opts []byte
			want uint16
		}{
			{[]byte{2, 4, 0x05, 0xb4}, 1360},
			{[]byte{1, 2, 4, 0x05, 0xb4, 3, 3, 7}, 1360},
			{[]byte{1, 1, 1, 2, 4, 0xff, 0xff, 0}, 1360},
			{[]byte{2, 4, 0x05, 0x50}, 1360},
			{[]byte{2, 4, 0x05, 0x51}, 1360},
			{[]byte{2, 4, 0x02, 0x00}, 512},
			{nil, 0},
			{[]byte{0, 0, 0, 0}, 0},
		} {
			p := syn(host, uint16(4000+i), web, 80)
			p.opts = c.opts
			v := l.one(lan, p)
			if got := mss(v); got != c.want {
				t.Fatalf("SYN with options %x left with %d, want %d", c.opts, got, c.want)
			}
			a := tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001)
			a.opts = c.opts
			if got := mss(l.one(wan, a)); got != c.want {
				t.Fatalf("SYN-ACK with options %x left with %d, want %d", c.opts, got, c.want)
			}
			d := tcpSeg(host, uint16(4000+i), web, 80, packet.ACK, 1001, 5001)
			d.opts = []byte{2, 4, 0x05, 0xb4}
			if got := mss(l.one(lan, d)); got != 1460 {
				t.Fatalf("ACK left with %d", got)
			}
		}
		if l.e.c.MSSClamped != 8 {
			t.Fatalf("%d counted", l.e.c.MSSClamped)
		}
	}
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Interfaces[1].MTU, p.Settings.Flags = 1400, ruleset.FlagNoMSSClamp
	}, "accept", established)
	p := syn(host, 4000, web, 80)
	p.opts = []byte{2, 4, 0x05, 0xb4}
	if got := mss(l.one(lan, p)); got != 1460 {
		t.Fatalf("switched off, it left with %d", got)
	}
}

// TestMSSClampRepeated: an end takes the last of several options, so that all are
// lowered.
func TestMSSClampRepeated(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1400 }, "accept", established)
	p := syn(host, 4000, web, 80)
	p.opts = []byte{2, 4, 5, 0, 2, 4, 5, 0xb4, 1, 2, 4, 5, 0xb4, 2, 3, 9, 2, 4, 0xff, 0xff}
	want := []byte{2, 4, 5, 0, 2, 4, 5, 0x50, 1, 2, 4, 5, 0x50, 2, 3, 9, 2, 4, 5, 0x50}
	if v := l.one(lan, p); string(v.frame[int(v.L4)+20:]) != string(want) || l.e.c.MSSClamped != 1 {
		t.Fatalf("options %x, want %x; %d counted", v.frame[int(v.L4)+20:], want, l.e.c.MSSClamped)
	}
}

// TestPiecesThatWait: the pieces of a packet whose next hop does not answer are reported as
// its flow's, and its sender is told.
func TestPiecesThatWait(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Interfaces[0].MTU = 576
		p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 5000, 5000, "10.0.0.99", 6000)}
	}, "accept", established)
	l.put(wan, large(udp(client, 4000, ours, 5000), 1000))
	l.seen = nil
	var told []*view
	for range 5 {
		l.pass(1)
		told = append(told, l.taken(wan)...)
	}
	if len(told) == 0 {
		t.Fatalf("the sender was not told; drops: %s", l.drops())
	}
	q := told[0].quotes(t, packet.Unreachable, packet.HostUnreachable)
	if told[0].Dst != ip(client) || q.Dst != ip(ours) || q.DstPort != 5000 || q.SrcPort != 4000 {
		t.Errorf("told %v about %+v", told[0], q)
	}
	if len(l.seen) != 2 || !tupleIs(l.seen[0], client, 4000, ours, 5000) || !tupleIs(l.seen[1], client, 4000, ours, 5000) {
		t.Errorf("events %+v", l.seen)
	}
	l.invariants()
}
