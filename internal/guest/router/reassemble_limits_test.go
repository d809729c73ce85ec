package router

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/reassembly"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestFragmentsAtTheLimits: a datagram of just so many fragments, and one more; of
// just so many bytes with its header, and one more; one that lives for 30 seconds,
// and a nanosecond longer.
func TestFragmentsAtTheLimits(t *testing.T) {
	for n, want := range map[int]int{reassembly.MaxPerDatagram - 1: 1, reassembly.MaxPerDatagram: 1, reassembly.MaxPerDatagram + 1: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), 8*n-packet.UDPLen), lanMAC, 28, 7)
		if got := l.feed(lan, fs...); len(fs) != n || len(got) != want {
			t.Errorf("%d fragments: %d passed; drops: %s", len(fs), len(got), l.drops())
		}
		l.invariants()
	}
	// The first one's header is longer than the others'.
	for n, want := range map[int]int{65507 - 8: 1, 65507 - 7: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(udp(host, 4000, web, 53), n), lanMAC, 1500, 7)
		f := append(append(bytes.Clone(fs[0][:34]), 1, 1, 1, 1, 1, 1, 1, 1), fs[0][34:]...)
		f[packet.EthLen] = 0x47
		binary.BigEndian.PutUint16(f[packet.EthLen+2:], uint16(len(f)-packet.EthLen))
		resum(f[packet.EthLen:])
		fs[0] = f
		if got := l.feed(lan, fs...); len(l.port[wan].out) != 0 || want == 0 && (len(got) != 0 || l.e.c.DropReasons[verdict.MalformedPacket] != uint64(len(fs))) || want == 1 && l.e.c.Reassembled != 1 {
			t.Errorf("%d bytes: %d passed; drops: %s", n, len(got), l.drops())
		}
		l.buffers()
	}
	for late, want := range map[int64]int{-1: 1, 0: 0, 1: 0} {
		l := reassembling(t, "accept")
		l.one(lan, udp(host, 4000, web, 53))
		l.now += 100 * second
		fs := fragments(large(udp(host, 4000, web, 53), 100), lanMAC, 60, 7)
		l.feed(lan, fs[0], fs[1])
		if d := l.e.frags.Due(); d != l.now+reassembly.Timeout {
			t.Errorf("due in %d", d-l.now)
		}
		l.now += reassembly.Timeout + late
		if got := l.feed(lan, fs[2:]...); len(got) != want {
			t.Errorf("%d ns after 30 seconds: %d passed; drops: %s", late, len(got), l.drops())
		}
		l.pass(60)
		l.invariants()
	}
}

// TestFragmentEvents: an abandoned datagram is one event, with its addresses and the side
// that it came from.
func TestFragmentEvents(t *testing.T) {
	for _, from := range []int{lan, wan} {
		l := reassembling(t, "accept")
		src, dst, mac, dir := host, web, lanMAC, verdict.Egress
		if from == wan {
			src, dst, mac, dir = web, ours, wanMAC, verdict.Ingress
		}
		fs := fragments(large(udp(src, 4000, dst, 53), 200), mac, 60, 7)
		l.feed(from, fs[1], fs[2], fs[0])
		l.seen = nil
		l.pass(31)
		if len(l.seen) != 1 || l.e.c.DropReasons[verdict.FragmentedIPv4] != 3 {
			t.Fatalf("%d events; drops: %s", len(l.seen), l.drops())
		}
		r := l.seen[0]
		if r.Time != l.now || r.Kind != event.Verdict || r.Action != verdict.Drop || r.Reason != verdict.FragmentedIPv4 || r.Direction != dir ||
			r.Rule != 1 || r.Src != ip(src).To16() || r.Dst != ip(dst).To16() || r.Proto != packet.UDP || r.EtherType != packet.TypeIPv4 || r.Truncated {
			t.Errorf("event %+v", r)
		}
		l.invariants()
	}
}

// TestJoinedFragmentsFit: what the firewall itself reads is copied together when it
// just fits a buffer, in order and with every byte, and not when it is longer by one.
func TestJoinedFragmentsFit(t *testing.T) {
	const most = framebuf.MaxLen - packet.EthLen - packet.MinIPv4 - packet.ICMPLen
	for n, want := range map[int]int{most - 1: 1, most: 1, most + 1: 0} {
		l := reassembling(t, "accept")
		fs := fragments(large(echo(host, lanAddr, packet.EchoRequest, 9), n), lanMAC, 500, 7)
		slices.Reverse(fs)
		l.feed(lan, fs...)
		back := l.taken(lan)
		if len(back) != want {
			t.Fatalf("%d bytes: %d answers; drops: %s", n, len(back), l.drops())
		}
		if want == 1 && (l.e.c.Joined != uint64(len(fs)-1) || !bytes.Equal(back[0].frame[packet.EthLen+28:], large(pkt{}, n).data)) {
			t.Errorf("%d bytes: %d joined of %d", n, l.e.c.Joined, len(fs))
		}
		if want == 0 && l.e.c.DropReasons[verdict.FragmentedIPv4] != uint64(len(fs)) {
			t.Errorf("%d bytes: drops: %s", n, l.drops())
		}
		l.invariants()
	}
}
