package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestFramesByAddressAndType: the result for a frame by its link-layer address, its type
// and its length, and that each is counted where it belongs.
func TestFramesByAddressAndType(t *testing.T) {
	eth := func(to [6]byte, typ uint16, n int) []byte {
		f := append(append(to[:], 2, 9, 9, 9, 9, 9), byte(typ>>8), byte(typ))
		return append(f, make([]byte, n)...)
	}
	ipv4 := func(to [6]byte) []byte { return udp(host, 4000, web, 5000).frame(to) }
	multicast, others, all := [6]byte{1, 0, 0x5e, 0, 0, 1}, [6]byte{2, 0, 0, 0, 9, 9}, broadcastMAC
	for _, x := range []struct {
		name  string
		frame []byte
		why   verdict.Reason // 0: not dropped
		other bool           // for another host
		passes,
		arp bool
	}{
		{"nothing", nil, verdict.MalformedPacket, false, false, false},
		{"no type", eth(lanMAC, 0x800, 0)[:13], verdict.MalformedPacket, false, false, false},
		{"a type alone", eth(lanMAC, 0x800, 0), verdict.MalformedPacket, false, false, false},
		{"another's without a type", eth(others, 0, 0)[:13], verdict.MalformedPacket, false, false, false},
		{"ours", ipv4(lanMAC), 0, false, true, false},
		{"another's", ipv4(others), 0, true, false, false},
		{"another's, of no type that we know", eth(others, 0x88cc, 40), 0, true, false, false},
		{"to all", ipv4(all), verdict.Martian, false, false, false},
		{"to some", ipv4(multicast), verdict.Martian, false, false, false},
		{"IPv6", eth(lanMAC, 0x86dd, 40), verdict.IPv6Unsupported, false, false, false},
		{"IPv6 to some", eth(multicast, 0x86dd, 40), verdict.IPv6Unsupported, false, false, false},
		{"LLDP", eth(multicast, 0x88cc, 40), verdict.EtherTypeUnsupported, false, false, false},
		{"a length in place of a type", eth(lanMAC, 46, 46), verdict.EtherTypeUnsupported, false, false, false},
		{"type 0", eth(lanMAC, 0, 46), verdict.MalformedPacket, false, false, false},
		{"short ARP", eth(all, packet.TypeARP, 27), verdict.MalformedPacket, false, false, false},
		{"ARP", arpRequest(host, lanAddr), 0, false, false, true},
	} {
		l := newLab(t, "accept")
		l.one(lan, udp(host, 3000, web, 5000))
		before := l.e.c
		if n := len(x.frame); n > 0 || x.name == "nothing" {
			l.port[lan].in = append(l.port[lan].in, x.frame)
		}
		l.poll()
		c := &l.e.c
		drops := uint64(0)
		for i := range c.DropReasons {
			drops += c.DropReasons[i] - before.DropReasons[i]
		}
		crossed := len(l.port[wan].out)
		if x.why != 0 && (drops != 1 || c.DropReasons[x.why] != before.DropReasons[x.why]+1) || x.why == 0 && drops != 0 || (c.OtherHost[lan] == before.OtherHost[lan]+1) != x.other ||
			c.OtherHost[wan] != before.OtherHost[wan] || (crossed == 1) != x.passes || (c.ARPReceived[lan] == before.ARPReceived[lan]+1) != x.arp || (len(l.port[lan].out) == 1) != x.arp {
			t.Errorf("%s: drops %s, %d crossed, %+v", x.name, l.drops(), crossed, c)
		}
		if c.RxPackets[lan] != before.RxPackets[lan]+1 || c.RxBytes[lan] != before.RxBytes[lan]+uint64(len(x.frame)) || c.RxBytes[wan] != before.RxBytes[wan] {
			t.Errorf("%s: %d bytes received of %d", x.name, c.RxBytes[lan]-before.RxBytes[lan], len(x.frame))
		}
		l.buffers()
	}
}

func arpRequest(from, to string) []byte {
	f := make([]byte, 60)
	packet.PutARP(f, &broadcastMAC, &packet.ARPMessage{Op: packet.ARPRequest, SenderMAC: macOf(ip(from)), SenderAddr: ip(from), TargetAddr: ip(to)})
	return f
}

// TestBatchOfAllKinds: the packets of a batch that are usual and those that are not
// find their flows, whatever stands between them and whatever stood in their place
// in the batch before.
func TestBatchOfAllKinds(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT = nil; p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept", established)
	for i := range uint16(8) {
		l.served4(host, 4000+i, web)
		l.one(lan, echo(host, web, packet.EchoRequest, 4000+i))
	}
	l.taken0()
	inserts := l.e.flows.C.Inserts
	n := 0
	for round := range 8 {
		var fs [][]byte
		var want []uint16
		for i := range 8 {
			id := uint16(4000 + (i*3+round)%8)
			switch (i + round) % 4 {
			case 0, 2:
				fs, want = append(fs, udp(host, id, web, 5000).frame(lanMAC)), append(want, id)
			case 1:
				fs, want = append(fs, echo(host, web, packet.EchoRequest, id).frame(lanMAC)), append(want, id)
			case 3: // a hole, and a datagram with options
				fs = append(fs, make([]byte, 13))
				f := udp(host, id, web, 5000).frame(lanMAC)
				fs, want = append(fs, withOptions(f)), append(want, id)
			}
		}
		l.port[lan].in = append(l.port[lan].in, fs...)
		l.poll()
		got := l.taken(wan)
		if len(got) != len(want) {
			t.Fatalf("round %d: %d left, want %d; drops %s", round, len(got), len(want), l.drops())
		}
		for i, v := range got {
			if v.SrcPort != want[i] || v.Src != ip(host) || v.Dst != ip(web) {
				t.Errorf("round %d, place %d: %v, want port %d", round, i, v, want[i])
			}
			n++
		}
	}
	if l.e.flows.C.Inserts != inserts || n < 50 {
		t.Errorf("%d new flows of %d packets", l.e.flows.C.Inserts-inserts, n)
	}
	l.buffers()
}

// served4 is served where nothing is translated.
func (l *lab) served4(src string, port uint16, dst string) {
	l.t.Helper()
	l.one(lan, udp(src, port, dst, 5000))
	l.one(wan, udp(dst, 5000, src, port))
	l.one(lan, udp(src, port, dst, 5000))
}

// withOptions puts 4 bytes of options, which do nothing, into a datagram's header.
func withOptions(f []byte) []byte {
	g := append(append(append([]byte(nil), f[:packet.EthLen+20]...), 1, 1, 1, 0), f[packet.EthLen+20:]...)
	h := g[packet.EthLen:]
	h[0] = 0x46
	h[2], h[3] = byte((len(h))>>8), byte(len(h))
	h[10], h[11] = 0, 0
	s := ^packet.Sum(h[:24], 0)
	h[10], h[11] = byte(s>>8), byte(s)
	return g
}

// TestBroadcastFragments: fragments that came by link-layer broadcast are not put
// together, and those for another host not looked at.
func TestBroadcastFragments(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept")
	l.one(lan, udp(host, 3000, web, 5000))
	fs := fragments(large(udp(host, 4000, web, 5000), 900), broadcastMAC, 576, 1)
	for i, f := range fs {
		l.droppedRaw(lan, f, verdict.FragmentedIPv4)
		if l.e.frags.Held() != 0 {
			t.Fatalf("fragment %d is held", i)
		}
	}
	for _, f := range fragments(large(udp(host, 4000, web, 5000), 900), [6]byte{2, 0, 0, 0, 9, 9}, 576, 1) {
		l.raw(lan, f)
	}
	if l.e.frags.Held() != 0 || l.e.c.OtherHost[lan] != uint64(len(fs)) {
		t.Errorf("%d held, %d for another", l.e.frags.Held(), l.e.c.OtherHost[lan])
	}
	if vs := l.feed(lan, fragments(large(udp(host, 4000, web, 5000), 900), lanMAC, 576, 1)...); len(vs) != 1 {
		t.Errorf("%d passed", len(vs))
	}
	l.invariants()
}

// TestRemovedInItsBatch: a flow that the first packets of a batch remove does not
// forward the others of the batch.
func TestRemovedInItsBatch(t *testing.T) {
	// By a first message that may not pass.
	k := newTalk(t)
	m := k.evil
	fs := [][]byte{k.first(0, m).frame(lanMAC)}
	for i := range 5 {
		fs = append(fs, k.first(len(m)+i, []byte("x")).frame(lanMAC))
	}
	before := k.e.c.DropReasons[verdict.ConntrackInvalid]
	k.lab.port[lan].in = append(k.lab.port[lan].in, fs...)
	k.lab.poll()
	for _, v := range k.taken(wan) {
		if v.Payload > 0 || v.Flags&packet.RST == 0 {
			t.Errorf("%v crossed", v)
		}
	}
	if n := k.e.c.DropReasons[verdict.ConntrackInvalid] - before; n != 5 || k.e.flows.Len() != 0 {
		t.Errorf("%d segments of no flow, %d flows", n, k.e.flows.Len())
	}
	k.lab.run()
	k.taken(lan)
	k.taken(wan)
	k.ended("the batch")

	// By a new connection in the place of one that is over: what belongs to the old
	// one, and to the new one, in the same batch.
	l := newLab(t, "accept egress", established)
	ext := l.handshake(host, 4000, web, 80)
	l.one(wan, tcpSeg(web, 80, ours, ext, packet.RST, 5001, 0))
	again := tcpSeg(host, 4000, web, 80, packet.SYN, 90_000, 0)
	old := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	old.data = []byte("of before")
	for _, p := range []pkt{again, old, old} {
		l.port[lan].in = append(l.port[lan].in, p.frame(lanMAC))
	}
	l.poll()
	if vs := l.taken(wan); len(vs) != 1 || vs[0].Flags != packet.SYN || vs[0].Seq != 90_000 {
		t.Errorf("%v crossed", vs)
	}
	l.invariants()

	// By other flows that take its place in a full table.
	l = newLabWith(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = 64 }, "accept egress", established)
	l.one(lan, udp(host, 2999, web, 5000)) // the gateway is known
	for i := range uint16(400) {
		if across, _ := l.put(lan, syn("10.0.0.3", 3000+i, web, 80)); len(across) == 0 {
			break
		}
	}
	gone := 0
	for i := range l.e.flows.Cap() {
		d := l.e.flows.Dir(2 * conntrack.Ref(i))
		if d.State == 0 || d.Key.Proto != packet.TCP {
			continue
		}
		key, port := d.Key, d.Out.SrcPort
		// SYNs of a host that has nothing make room, and the victim's answer comes in
		// the WAN's batch of the same call; all of the LAN's are one batch.
		var fs [][]byte
		for j := range uint16(20) {
			fs = append(fs, syn("10.0.0.7", 5000+uint16(i)*20+j, web, 80).frame(lanMAC))
		}
		for range 3 {
			fs = append(fs, syn("10.0.0.3", key.SrcPort, web, 80).frame(lanMAC))
		}
		l.port[lan].in = append(l.port[lan].in, fs...)
		l.poll()
		for _, v := range l.taken(wan) {
			r := l.e.flows.Lookup(&packet.Tuple{Src: v.Dst, Dst: v.Src, SrcPort: v.DstPort, DstPort: v.SrcPort, Proto: uint32(v.Proto)}, l.now)
			if r == conntrack.None && v.SrcPort == port {
				t.Errorf("%v crossed without a flow", v)
			}
		}
		gone++
		l.invariants()
		if gone == 10 {
			break
		}
	}
}
