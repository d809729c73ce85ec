package router

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// withMTU makes a lab whose interfaces have these MTUs.
func withMTU(t *testing.T, in, out int, edit func(p *ruleset.Policy), rules ...rule) *lab {
	return newLabWith(t, func(p *ruleset.Policy) {
		p.Interfaces[0].MTU, p.Interfaces[1].MTU = uint16(in), uint16(out)
		if edit != nil {
			edit(p)
		}
	}, rules...)
}

// TestMTU: the policy's and the device's count, the smaller one where both say something.
func TestMTU(t *testing.T) {
	p := plainPolicy()
	for _, c := range [][3]int{{0, 0, 1500}, {0, 1400, 1400}, {0, 9000, 9000}, {0, 65535, ruleset.MaxMTU}, {9000, 0, 9000}, {9000, 1500, 1500},
		{1500, 9000, 1500}, {576, 0, 576}, {9000, 9000, 9000}} {
		p.Interfaces[0].MTU = uint16(c[0])
		if got := MTU(p, ruleset.LAN, c[1]); got != c[2] {
			t.Errorf("policy %d, device %d: %d, want %d", c[0], c[1], got, c[2])
		}
		if got, want := LargestMTU(p, c[1], 1500), max(c[2], 1500); got != want {
			t.Errorf("policy %d, device %d, and 1500: %d, want %d", c[0], c[1], got, want)
		}
	}
	if got := LargestMTU(p, 0, 9001); got != 9001 {
		t.Errorf("the wan's is %d", got)
	}
}

// TestJumboFrames: packets of 9000 bytes pass with DF, in both directions, by the first packet's
// way and the fast one, with every byte; one of 9001 is answered with the MTU.
func TestJumboFrames(t *testing.T) {
	l := withMTU(t, 9000, 9000, nil, "accept egress", established)
	for i, n := range []int{8972, 8971, 8972, 8972} {
		p := large(udp(host, 4000, web, 5000), n)
		p.df = true
		v := l.one(lan, p)
		if !bytes.Equal(v.frame[packet.EthLen+28:], p.data) || len(v.frame) != 14+28+n {
			t.Fatalf("%d bytes out: %v", n, v)
		}
		q := large(udp(web, 5000, ours, v.SrcPort), n)
		q.df = true
		if v := l.one(wan, q); !bytes.Equal(v.frame[packet.EthLen+28:], q.data) {
			t.Fatalf("%d bytes back, time %d: %v", n, i, v)
		}
	}
	p := large(udp(host, 4000, web, 5000), 8972)
	p.df = true
	if n := l.quick(lan, p.frame(lanMAC)); n != 1 {
		t.Error("a long datagram does not take the fast path")
	}
	l.taken(wan)
	p = large(p, 8973)
	q := l.answered(lan, p, verdict.PacketTooBig)
	q.quotes(t, packet.Unreachable, packet.FragNeeded)
	if mtu := binary.BigEndian.Uint16(q.frame[int(q.L4)+6:]); mtu != 9000 {
		t.Errorf("an MTU of %d is answered", mtu)
	}
	l.invariants()
}

// TestJumboToNarrow: between 9000 and 1500 a packet with DF is answered with 1500, one without is
// cut into fragments of it, a handshake's MSS is 1460, in both directions, and the way to the
// wider side carries whatever comes.
func TestJumboToNarrow(t *testing.T) {
	for _, wide := range []int{lan, wan} {
		mtu := [2]int{1500, 1500}
		mtu[wide] = 9000
		l := withMTU(t, mtu[lan], mtu[wan], func(p *ruleset.Policy) {
			p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 5000, 5000, server, 5000)}
		}, "accept", established)
		from := udp(host, 4000, web, 5000)
		if wide == wan {
			from = udp(web, 4000, ours, 5000)
		}
		p := large(from, 8972)
		v := l.one(wide, p)
		if !bytes.Equal(v.frame[packet.EthLen+28:], p.data) || len(v.sizes) != 7 || slices.Max(v.sizes) > 1500 {
			t.Errorf("%v wide: fragments of %v", wide, v.sizes)
		}
		p.df = true
		a := l.answered(wide, p, verdict.PacketTooBig)
		a.quotes(t, packet.Unreachable, packet.FragNeeded)
		if got := binary.BigEndian.Uint16(a.frame[int(a.L4)+6:]); got != 1500 {
			t.Errorf("%v wide: an MTU of %d is answered", wide, got)
		}
		s := syn(host, 4001, web, 80)
		s.opts = []byte{2, 4, 8960 >> 8, 8960 & 255}
		o := l.one(lan, s)
		if got := binary.BigEndian.Uint16(o.frame[int(o.L4)+22:]); got != 1460 {
			t.Errorf("%v wide: an MSS of %d", wide, got)
		}
		l.invariants()
	}
}

// TestJumboFragments: a datagram of 60,000 bytes in fragments of 9000 is put together, and leaves in
// the same, or in ones of 1500; for the firewall itself as much is put together as a buffer holds.
func TestJumboFragments(t *testing.T) {
	for mtu, want := range map[int]int{9000: 7, 1500: 47} {
		l := withMTU(t, 9000, mtu, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept", established)
		p := large(udp(host, 4000, web, 5000), 60_000)
		got := l.feed(lan, fragments(p, lanMAC, 9000, 7)...)
		if len(got) != 1 || !bytes.Equal(got[0].frame[packet.EthLen+28:], p.data) || len(got[0].sizes) != want || slices.Max(got[0].sizes) > mtu {
			t.Errorf("MTU %d: %v; drops: %s", mtu, got, l.drops())
		}
		l.invariants()
	}
	const most = 5*framebuf.Size - framebuf.Headroom - packet.EthLen - packet.MinIPv4 - packet.ICMPLen
	for n, want := range map[int]int{8972: 1, most: 1, most + 1: 0} {
		l := withMTU(t, 9000, 9000, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept")
		p := large(echo(host, lanAddr, packet.EchoRequest, 9), n)
		if got := l.feed(lan, fragments(p, lanMAC, 1500, 7)...); len(got) != 0 {
			t.Fatalf("%d bytes: %v", n, got)
		}
		if back := l.taken(lan); len(back) != want || want == 1 && !bytes.Equal(back[0].frame[packet.EthLen+28:], p.data) {
			t.Errorf("%d bytes: %d answers; drops: %s", n, len(back), l.drops())
		}
		l.invariants()
	}
}

// TestJumboWaiting: however many packets wait for neighbours that do not answer, on both sides,
// they leave half of the long buffers, too, and packets of others pass.
func TestJumboWaiting(t *testing.T) {
	p := plainPolicy()
	p.Interfaces[0].MTU, p.Interfaces[1].MTU = 9000, 9000
	c := plainConfig(t, p)
	n, span := Buffers(9000)
	c.Pool = framebuf.NewPoolOf(make([]byte, n*span*framebuf.Size), 0, span)
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range e.port {
		for hop := range packet.Addr(100) {
			for range 64 {
				if b, ok := c.Pool.Get(); ok {
					e.resolve(&e.port[i], e.port[i].net+10+hop, framebuf.Frame{Buf: b, Len: 60}, 1)
				}
			}
		}
		if got := e.port[i].neigh.Waiting(); got != n/4 {
			t.Errorf("port %d: %d frames wait, want %d", i, got, n/4)
		}
	}
	if c.Pool.Free() < n/2-2*100 { // a request for each hop is under way
		t.Errorf("%d of %d buffers are free", c.Pool.Free(), n)
	}
}
