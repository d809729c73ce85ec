package router

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestFragmentedQueryToTheFirewall: what fits a buffer is read, what does not is dropped,
// and not reported as accepted.
func TestFragmentedQueryToTheFirewall(t *testing.T) {
	const most = framebuf.MaxLen - packet.EthLen - packet.MinIPv4 - packet.UDPLen // of data
	for size, fits := range map[int]bool{most - 4: true, most: true, most + 1: false, 4000: false} {
		l := newDNSLab(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble })
		fs := fragments(large(udp(host, 4000, lanAddr, 53), size), lanMAC, 1500, 7)
		l.feed(lan, fs...)
		r, c := l.last(), &l.e.c
		if fits && (c.Local != 1 || c.Joined != 1 || c.Accepts[0] != 1 || l.e.host.DNS().Counters().Queries != 1) {
			t.Errorf("%d bytes: %d taken, %d joined, accepted %v; drops: %s", size, c.Local, c.Joined, c.Accepts, l.drops())
		}
		if !fits && (c.Local != 0 || c.DropReasons[verdict.FragmentedIPv4] != uint64(len(fs)) || c.Accepts[0] != 0 ||
			r.Action != verdict.Drop || r.Reason != verdict.FragmentedIPv4 || l.e.host.DNS().Counters().Queries != 0) {
			t.Errorf("%d bytes: %d taken, accepted %v, event %+v; drops: %s", size, c.Local, c.Accepts, r, l.drops())
		}
		l.invariants()
	}
}

// TestOwnMessagesWithoutBuffers: that one of the proxy's messages found no buffer is
// counted, and that it found one is not.
func TestOwnMessagesWithoutBuffers(t *testing.T) {
	l := newDNSLab(t, nil)
	l.asked(host, l.query("github.com", dns.TypeA))
	if l.e.c.NoBuffer != 0 {
		t.Errorf("%d times no buffer, and there were many", l.e.c.NoBuffer)
	}
	var taken []uint32
	for l.pool.Free() > 1 {
		b, _ := l.pool.Get()
		taken = append(taken, b)
	}
	if across, _ := l.ask(host, l.query("example.com", dns.TypeA)); len(across) != 0 || l.e.c.NoBuffer == 0 || l.e.c.NoBuffer > 10 {
		t.Errorf("%d asked, %d times no buffer", len(across), l.e.c.NoBuffer)
	}
	for _, b := range taken {
		l.pool.Put(b)
	}
	l.invariants()
}

// TestOwnMessagesHolders: a frame that waits is its sender's, and one of the firewall's own its
// destination's and its query's, whatever was sent before.
func TestOwnMessagesHolders(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	own := func(p pkt) uint64 {
		fr := l.load(lan, p, lanMAC).frame
		f := append([]byte(nil), l.pool.Bytes(fr)...)
		l.e.emitOwn(l.e.outside, fr.Buf, int(fr.Len), ip(p.dst), l.now)
		return l.e.holder(f)
	}
	if got := l.e.holder(nil); got != uint64(ip(host)) {
		t.Errorf("a host's frame is held by %#x", got)
	}
	if got := own(udp(ours, 5000, web, 53)); got != 5000<<32|uint64(ip(web)) {
		t.Errorf("a query is held by %#x", got)
	}
	if got := own(udp(ours, 5001, web, 53)); got != 5001<<32|uint64(ip(web)) {
		t.Errorf("another is held by %#x", got)
	}
	if got := own(tcpSeg(ours, 5001, web, 53, packet.SYN, 1, 0)); got != uint64(ip(web)) {
		t.Errorf("a segment is held by %#x", got)
	}
	l.e.flush(l.e.outside)
	l.taken(wan)
	l.one(lan, udp("10.0.0.3", 4000, web, 53))
	if got := l.e.holder(nil); got != uint64(ip("10.0.0.3")) {
		t.Errorf("the next host's frame is held by %#x", got)
	}
}

// TestFragmentedSYNToTheFirewall: of a SYN whose fragments fit no buffer the first has all
// that is looked at.
func TestFragmentedSYNToTheFirewall(t *testing.T) {
	for _, size := range []int{100, 3000} {
		l := newDNSLab(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble })
		p := syn(host, 4000, lanAddr, 53)
		p.data = make([]byte, size)
		fs := fragments(p, lanMAC, 1500, 7)
		if size == 100 {
			fs = fragments(p, lanMAC, 60, 7)
		}
		l.feed(lan, fs...)
		if c := &l.e.c; l.e.host.Conns().Len() != 1 || c.Local != 1 || c.Joined != uint64(len(fs)-1) {
			t.Errorf("%d bytes: %d connections, %d taken, %d joined; drops: %s", size, l.e.host.Conns().Len(), c.Local, c.Joined, l.drops())
		}
		l.taken(lan)
		l.invariants()
	}
}
