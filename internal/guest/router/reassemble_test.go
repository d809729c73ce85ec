package router

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// reassembling makes a lab whose policy reassembles fragments.
func reassembling(t testing.TB, rules ...rule) *lab {
	return newLabWith(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, rules...)
}

// fragments cuts a packet into fragments with mtu bytes at most, of
// identification id.
func fragments(p pkt, to [6]byte, mtu int, id uint16) [][]byte {
	f := p.frame(to)
	packet.SetID(f[packet.EthLen:], id)
	c := packet.NewCutter(f[packet.EthLen:], mtu)
	var out [][]byte
	for {
		b := make([]byte, packet.EthLen+mtu)
		n := c.Next(b[packet.EthLen:])
		if n == 0 {
			return out
		}
		copy(b, f[:packet.EthLen])
		out = append(out, b[:packet.EthLen+n])
	}
}

// large is a UDP packet with n bytes of data that are all different.
func large(p pkt, n int) pkt {
	p.data = make([]byte, n)
	for i := range p.data {
		p.data[i] = byte(i*7 + i>>8)
	}
	return p
}

// feed puts frames in and returns what crossed.
func (l *lab) feed(from int, frames ...[]byte) []*view {
	if l.helping() {
		l.t.Helper()
	}
	l.port[from].in = append(l.port[from].in, frames...)
	l.run()
	return l.taken(1 - from)
}

func TestRFC4787_REQ14_FragmentsInAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, size := range []int{1473, 3000, 8000, 65507} {
		for round := range 8 {
			l := reassembling(t, "accept egress udp :53", established)
			l.one(lan, udp("10.0.0.3", 4000, web, 53)) // takes the preserved port
			p := large(udp(host, 4000, web, 53), size)
			fs := fragments(p, lanMAC, 1500, 77)
			order := r.Perm(len(fs))
			if round == 0 {
				for i := range order {
					order[i] = i
				}
			}
			var in [][]byte
			for _, j := range order {
				in = append(in, fs[j])
			}
			got := l.feed(lan, in...)
			if len(got) != 1 || l.partial != 0 {
				t.Fatalf("%d bytes in order %v: %d datagrams and %d parts left; drops: %s", size, order, len(got), l.partial, l.drops())
			}
			v := got[0]
			if v.Src != ip(ours) || v.SrcPort == 4000 || v.DstPort != 53 || string(v.frame[len(v.frame)-size:]) != string(p.data) || v.TTL != 63 {
				t.Fatalf("%d bytes left as %v", size, v)
			}
			if len(v.sizes) != len(fs) {
				t.Fatalf("%d fragments became %d", len(fs), len(v.sizes))
			}
			// And back.
			p = large(udp(web, 53, ours, v.SrcPort), size)
			fs = fragments(p, wanMAC, 1500, 78)
			if got = l.feed(wan, fs...); len(got) != 1 || got[0].Dst != ip(host) || got[0].DstPort != 4000 || string(got[0].frame[len(got[0].frame)-size:]) != string(p.data) {
				t.Fatalf("%d bytes, the answer: %v; drops: %s", size, got, l.drops())
			}
			if c := l.e.c; c.Accepts[0] != uint64(1+len(fs)) || c.Reassembled != 2 {
				t.Fatalf("%d packets counted for %d fragments, %d datagrams", c.Accepts[0], len(fs), c.Reassembled)
			}
			l.invariants()
		}
	}
}

func TestRFC4787_REQ14_FragmentedPing(t *testing.T) {
	l := reassembling(t, "accept egress", established)
	p := large(echo(host, web, packet.EchoRequest, 9), 5000)
	got := l.feed(lan, fragments(p, lanMAC, 1500, 5)...)
	if len(got) != 1 || got[0].ICMPType != packet.EchoRequest {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	a := large(echo(web, ours, packet.EchoReply, got[0].SrcPort), 5000)
	if got = l.feed(wan, fragments(a, wanMAC, 576, 6)...); len(got) != 1 || got[0].SrcPort != 9 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestFragmentedPingOfTheFirewall: what fits a buffer is answered, and the
// answer leaves in fragments where it must.
func TestFragmentedPingOfTheFirewall(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Settings.Fragments, p.Interfaces[0].MTU = ruleset.FragmentsReassemble, 1000
	}, "accept egress icmp")
	p := large(echo(host, "10.0.0.1", packet.EchoRequest, 9), 1900)
	l.feed(lan, fragments(p, lanMAC, 1000, 5)...)
	back := l.taken(lan)
	if len(back) != 1 || back[0].ICMPType != packet.EchoReply || len(back[0].sizes) != 2 || string(back[0].frame[packet.EthLen+28:]) != string(p.data) {
		t.Fatalf("answer %v; drops: %s", back, l.drops())
	}
	l.feed(lan, fragments(large(echo(host, "10.0.0.1", packet.EchoRequest, 9), 4000), lanMAC, 1000, 6)...)
	if back = l.taken(lan); len(back) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 5 {
		t.Fatalf("answer %v; drops: %s", back, l.drops())
	}
	l.invariants()
}

// TestS36_ReassemblyIsOffByDefault: see also TestS36_FragmentsAreDropped.
func TestS36_ReassemblyIsOffByDefault(t *testing.T) {
	l := newLab(t, "accept")
	if got := l.feed(lan, fragments(large(udp(host, 4000, web, 53), 3000), lanMAC, 1500, 7)...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 3 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
}

// TestRFC1858_TinyFragments: the first fragment must have the whole transport
// header, so that no rule can be evaded by its parts.
func TestRFC1858_TinyFragments(t *testing.T) {
	l := reassembling(t, "accept")
	s := syn(host, 4000, web, 80)
	s.data = make([]byte, 100)
	for _, p := range []pkt{s, func() pkt { s := s; s.opts = []byte{2, 4, 5, 0xb4, 1, 3, 3, 7}; return s }()} {
		for _, mtu := range []int{28, 36} {
			f := p.frame(lanMAC)
			var in [][]byte
			for off := 0; off < len(f)-34; off += mtu - 20 {
				n := min(mtu-20, len(f)-34-off)
				b := append(append([]byte(nil), f[:34]...), f[34+off:34+off+n]...)
				binary.BigEndian.PutUint16(b[packet.EthLen+2:], uint16(20+n))
				in = append(in, shift(b, off, off+n < len(f)-34))
			}
			if got := l.feed(lan, in...); len(got) != 0 {
				t.Fatalf("MTU %d: passed as %v", mtu, got[0])
			}
		}
	}
	if l.e.c.DropReasons[verdict.MalformedPacket] == 0 || l.e.flows.Len() != 0 {
		t.Fatalf("drops: %s", l.drops())
	}
	l.invariants()
}

// TestFragmentsWithTOS: the service that fragments ask for changes nothing, and each keeps
// its own.
func TestFragmentsWithTOS(t *testing.T) {
	for tos := range 256 {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
		for j := 1; j < len(fs); j++ {
			packet.SetTOS(fs[j][packet.EthLen:], uint8(tos))
		}
		if l.feed(lan, fs...); l.e.c.Reassembled != 1 {
			t.Fatalf("TOS %#x: drops: %s", tos, l.drops())
		}
		l.invariants()
	}
}

// TestFragmentChecksums: a wrong bit in any fragment shows.
func TestFragmentChecksums(t *testing.T) {
	for _, p := range []pkt{large(udp(host, 4000, web, 53), 100), large(echo(host, web, packet.EchoRequest, 3), 100), large(syn(host, 4000, web, 80), 100)} {
		n := len(fragments(p, lanMAC, 60, 7))
		for j := range n {
			l := reassembling(t, "accept")
			fs := fragments(p, lanMAC, 60, 7)
			fs[j][len(fs[j])-1] ^= 4
			if got := l.feed(lan, fs...); len(got) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != uint64(n) {
				t.Fatalf("protocol %d, fragment %d: %v; drops: %s", p.proto, j, got, l.drops())
			}
			l.invariants()
		}
	}
}

// TestFragmentsThatCannotBe: no data, not a multiple of 8, beyond the largest
// datagram.
func TestFragmentsThatCannotBe(t *testing.T) {
	l := reassembling(t, "accept")
	fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
	empty := append([]byte(nil), fs[1][:34]...)
	binary.BigEndian.PutUint16(empty[packet.EthLen+2:], 20)
	odd := append([]byte(nil), fs[1][:34+13]...)
	binary.BigEndian.PutUint16(odd[packet.EthLen+2:], 33)
	for _, f := range [][]byte{shift(empty, 40, true), shift(odd, 40, true), shift(fs[1], 65528, false), shift(fs[1], 65504, true)} {
		l.droppedRaw(lan, f, verdict.MalformedPacket)
	}
	// Each fragment ends within 65535 bytes, but not behind the first one's header.
	fs = fragments(large(udp(host, 4000, web, 53), 65507), lanMAC, 1500, 7)
	f := append(append(append([]byte(nil), fs[0][:34]...), bytes.Repeat([]byte{1}, 40)...), fs[0][34:]...)
	f[packet.EthLen] = 0x4f
	binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
	resum(f[packet.EthLen:])
	fs[0] = f
	malformed := l.e.c.DropReasons[verdict.MalformedPacket]
	if got := l.feed(lan, fs...); len(got) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != malformed+uint64(len(fs)) {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	if l.e.frags.Len() != 0 {
		t.Fatal("something is held")
	}
	l.invariants()
}

// TestRFC4787_REQ14a_FragmentsAreBounded in number, per source and in time.
func TestRFC4787_REQ14a_FragmentsAreBounded(t *testing.T) {
	l := reassembling(t, "accept")
	first := func(src string, id uint16) []byte {
		return fragments(large(udp(src, 4000, web, 53), 100), lanMAC, 60, id)[0]
	}
	for i := range 500 {
		l.feed(lan, first(host, uint16(i)))
	}
	if l.e.frags.Held() != reassembly.MaxPerSource {
		t.Fatalf("%d fragments of one source held", l.e.frags.Held())
	}
	// Another source finds room all the same.
	if got := l.feed(lan, fragments(large(udp("10.0.0.3", 4000, web, 53), 100), lanMAC, 60, 7)...); len(got) != 1 {
		t.Fatalf("%d datagrams passed; drops: %s", len(got), l.drops())
	}
	for i := range 2000 {
		l.feed(lan, first(addr(ip("10.0.0.10")+packet.Addr(i%200)).String(), uint16(i)))
		if l.e.frags.Held() > reassembly.MaxFragments || l.e.frags.Len() > reassembly.MaxDatagrams {
			t.Fatalf("%d fragments of %d datagrams held", l.e.frags.Held(), l.e.frags.Len())
		}
	}
	if got := l.feed(lan, fragments(large(udp("10.0.0.3", 4000, web, 53), 100), lanMAC, 60, 8)...); len(got) != 1 {
		t.Fatalf("%d datagrams passed in the flood; drops: %s", len(got), l.drops())
	}
	// Few datagrams of many fragments each.
	for i := range 40 {
		for j := range 10 {
			fs := fragments(large(udp(addr(ip("10.0.0.20")+packet.Addr(j)).String(), 4000, web, 53), 1400), lanMAC, 52, 9)
			l.now += 1e3
			l.feed(lan, fs[i])
			if l.e.frags.Held() > reassembly.MaxFragments {
				t.Fatalf("%d fragments held", l.e.frags.Held())
			}
		}
	}
	if l.e.frags.Held() < reassembly.MaxFragments-40 {
		t.Fatalf("%d fragments held: the test does not reach the bound", l.e.frags.Held())
	}
	if d := l.e.NextDeadline(); d > l.now+30e9 {
		t.Fatalf("the next deadline is in %v s", float64(d-l.now)/1e9)
	}
	l.invariants()
	l.pass(31)
	if l.e.frags.Held() != 0 || l.e.frags.Len() != 0 {
		t.Fatalf("%d fragments held after 31 s", l.e.frags.Held())
	}
	l.invariants()
}

// TestFragmentsOfOneDatagramAreBounded.
func TestFragmentsOfOneDatagramAreBounded(t *testing.T) {
	l := reassembling(t, "accept")
	fs := fragments(large(udp(host, 4000, web, 53), 8*(reassembly.MaxPerDatagram+6)), lanMAC, 28, 7)
	if got := l.feed(lan, fs...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] != uint64(len(fs)) || l.e.frags.Held() != 0 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestRFC1122_S2_3_2_2_ADatagramWaitsWhole: while the next hop's link-layer
// address is being asked for, the latest datagram is kept with all its fragments,
// and where there is no room for more what waited before gives way: one that lost
// its first would be no use.
func TestRFC1122_S2_3_2_2_ADatagramWaitsWhole(t *testing.T) {
	for _, to := range []string{web, "203.0.113.77"} { // by the gateway, and on the link
		for _, before := range []int{0, 1, 20} {
			l := reassembling(t, "accept egress", established)
			for i := range before {
				l.port[lan].in = append(l.port[lan].in, udp(host, uint16(5000+i), to, 53).frame(lanMAC))
			}
			l.poll() // no answer yet
			p := large(udp(host, 4000, to, 53), 8*reassembly.MaxPerDatagram-packet.UDPLen)
			fs := fragments(p, lanMAC, 28, 7)
			if len(fs) != reassembly.MaxPerDatagram {
				t.Fatalf("%d fragments", len(fs))
			}
			lost := before
			if to == web {
				lost = 0
			}
			got := l.feed(lan, fs...)
			if len(got) != 1+before-lost || l.partial != 0 {
				t.Fatalf("behind %d packets: %v and %d parts left; drops: %s", before, got, l.partial, l.drops())
			}
			if v := got[len(got)-1]; len(v.sizes) != len(fs) || !bytes.HasSuffix(v.frame, p.data) {
				t.Fatalf("behind %d packets: the datagram is %v", before, v)
			}
			if n := l.e.c.DropReasons[verdict.NeighbourUnresolved]; n != uint64(lost) {
				t.Fatalf("behind %d packets: %d dropped", before, n)
			}
			l.invariants()
		}
	}
}

// TestFragmentsFollowThePolicy: the filter sees the ports of the whole datagram,
// and an answer quotes its first fragment.
func TestFragmentsFollowThePolicy(t *testing.T) {
	l := reassembling(t, "reject egress udp :54", "accept egress")
	for _, reverse := range []bool{false, true} {
		fs := fragments(large(udp(host, 4000, web, 54), 3000), lanMAC, 1500, 7)
		if reverse {
			fs[0], fs[2] = fs[2], fs[0]
		}
		if got := l.feed(lan, fs...); len(got) != 0 {
			t.Fatalf("passed as %v", got[0])
		}
		back := l.taken(lan)
		if len(back) != 1 {
			t.Fatalf("%d answers", len(back))
		}
		if q := back[0].quotes(t, packet.Unreachable, packet.Prohibited); q.SrcPort != 4000 || q.DstPort != 54 {
			t.Fatalf("about %+v", q)
		}
	}
	if l.e.c.Drops[0] != 6 {
		t.Fatalf("%d packets counted", l.e.c.Drops[0])
	}
	events := 0
	for _, r := range l.seen {
		if r.Action == verdict.Drop {
			events++
		}
	}
	if events != 2 {
		t.Fatalf("%d events for two datagrams", events)
	}
	l.invariants()
}

// TestFragmentedErrorsAreDropped: no router sends an ICMP error that needs
// fragments.
func TestFragmentedErrorsAreDropped(t *testing.T) {
	l := reassembling(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	e := embed(web, ours, packet.Unreachable, 3, v)
	e.data = append(e.data, make([]byte, 100)...)
	if got := l.feed(wan, fragments(e, wanMAC, 60, 7)...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] == 0 {
		t.Fatalf("%v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestFragmentsOfBothSidesAreApart: the same identification from the other side
// is another datagram.
func TestFragmentsOfBothSidesAreApart(t *testing.T) {
	l := reassembling(t, "accept")
	fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
	spoofed := append([]byte(nil), fs[1]...)
	copy(spoofed, wanMAC[:])
	l.feed(lan, fs[0])
	l.droppedRaw(wan, spoofed, verdict.Martian)
	if got := l.feed(lan, fs[1:]...); len(got) != 1 {
		t.Fatalf("%d passed; drops: %s", len(got), l.drops())
	}
	// So it is of another protocol.
	ping := fragments(large(echo(host, web, packet.EchoRequest, 9), 100), lanMAC, 60, 7)
	for i := range fs {
		if got := l.feed(lan, fs[i], ping[i]); len(got) != i/2*2 {
			t.Fatalf("%d passed with fragment %d; drops: %s", len(got), i, l.drops())
		}
	}
}

// TestFragmentTTL: no fragment leaves with a TTL of 0.
func TestFragmentTTL(t *testing.T) {
	for j := range 3 {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
		h := fs[j][packet.EthLen:]
		h[8] = 1
		copy(fs[j], shift(fs[j], int(binary.BigEndian.Uint16(h[6:])&0x1fff)*8, j < 2))
		if got := l.feed(lan, fs...); len(got) != 0 || l.e.c.DropReasons[verdict.TTLExpired] != 3 {
			t.Fatalf("%v; drops: %s", got, l.drops())
		}
		if back := l.taken(lan); (len(back) == 1) != (j == 0) {
			t.Fatalf("fragment %d: %d answers", j, len(back))
		}
		l.invariants()
	}
}

// TestRFC4787_REQ14_FragmentsOfServers: through destination translation both
// ways, last fragment first on the way back, with IP options in every fragment,
// and what a client reports that misses some (ICMP 11/1).
func TestRFC4787_REQ14_FragmentsOfServers(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		withDNAT(dnat(packet.UDP, ours, 5353, 5353, server, 53))(p)
		p.Settings.Fragments = ruleset.FragmentsReassemble
	}, "accept")
	for _, n := range []int{3000, 65507} {
		p := large(udp(client, 4000, ours, 5353), n)
		got := l.feed(wan, fragments(p, wanMAC, 1500, 77)...)
		if len(got) != 1 || got[0].Dst != ip(server) || got[0].DstPort != 53 || string(got[0].frame[42:]) != string(p.data) {
			t.Fatalf("%d bytes: %v; drops: %s", n, got, l.drops())
		}
		p = large(udp(server, 53, client, 4000), n)
		fs := fragments(p, lanMAC, 1500, 78)
		slices.Reverse(fs)
		if got = l.feed(lan, fs...); len(got) != 1 || got[0].Src != ip(ours) || got[0].SrcPort != 5353 || string(got[0].frame[42:]) != string(p.data) {
			t.Fatalf("%d bytes back: %v; drops: %s", n, got, l.drops())
		}
		first := fragments(large(udp(ours, 5353, client, 4000), n), wanMAC, 1500, 9)[0]
		e := l.one(wan, quoted(client, ours, packet.TimeExceeded, 1, first, 28, nil))
		if q := e.quotes(t, packet.TimeExceeded, 1); q.Src != ip(server) || q.SrcPort != 53 {
			t.Fatalf("about %+v", q)
		}
	}
	f := large(udp(client, 4000, ours, 5353), 1400).frame(wanMAC)
	o := []byte{148, 4, 0, 0, 0x9e, 8, 1, 2, 3, 4, 5, 6}
	f = append(append(append([]byte(nil), f[:34]...), o...), f[34:]...)
	f[packet.EthLen] = 0x48
	binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
	resum(f[packet.EthLen:])
	c := packet.NewCutter(f[packet.EthLen:], 576)
	for {
		b := make([]byte, packet.EthLen+576)
		n := c.Next(b[packet.EthLen:])
		if n == 0 {
			break
		}
		copy(b, f[:packet.EthLen])
		l.port[wan].in = append(l.port[wan].in, b[:packet.EthLen+n])
	}
	l.run()
	for _, f := range l.port[lan].out {
		if f[packet.EthLen] != 0x48 || string(f[34:46]) != string(o) {
			t.Fatalf("a fragment left with options %x", f[34:46])
		}
	}
	if got := l.taken(lan); len(got) != 1 || len(got[0].sizes) != 3 || got[0].DstPort != 53 {
		t.Fatalf("with options: %v; drops: %s", got, l.drops())
	}
	l.invariants()
}

// TestRFC1122_S3_3_2_FragmentsExpire: what comes later than 30 seconds after a
// datagram's first fragment completes nothing, also when nothing has happened
// meanwhile.
func TestRFC1122_S3_3_2_FragmentsExpire(t *testing.T) {
	l := reassembling(t, "accept")
	fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
	l.feed(lan, fs[0], fs[1])
	l.now += 29e9
	if got := l.feed(lan, fs[2:]...); len(got) != 1 {
		t.Fatalf("after 29 seconds: drops: %s", l.drops())
	}
	l.feed(lan, fs[0], fs[1])
	l.now += 31e9
	if got := l.feed(lan, fs[2:]...); len(got) != 0 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 2 {
		t.Fatalf("after 31 seconds: %v; drops: %s", got, l.drops())
	}
	if got := l.feed(lan, fs[0], fs[1]); len(got) != 1 { // of another datagram with this number
		t.Fatalf("drops: %s", l.drops())
	}
	l.invariants()
}
