package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// inLAN puts packets into the LAN's port at once, so that they are one batch, and returns what
// comes out on the WAN.
func inLAN(l *lab, ps ...pkt) []*view {
	for _, p := range ps {
		l.port[lan].in = append(l.port[lan].in, p.frame(lanMAC))
	}
	l.run()
	l.taken(lan)
	return l.taken(wan)
}

// TestExpect: for the packet that is foretold a random number is drawn, and kept for it; for
// packets from the WAN, of known flows and behind the batch's end none.
func TestExpect(t *testing.T) {
	l := newLab(t, "accept egress udp")
	l.one(lan, udp(host, 4000, web, 443)) // a known flow
	b := &l.e.b
	batch := func(ports ...uint16) {
		b.keys.Reset()
		for _, p := range ports {
			b.keys.Next().Set(ip(host), ip(web), p, 443, packet.UDP)
			b.keys.Add()
		}
		l.e.flows.Prepare(&b.keys)
		b.rnd = [distance + 1]uint64{}
	}
	batch(1, 2, 3)
	l.e.expect(l.e.inside, 0)
	if b.rnd[0] != 0 || b.rnd[1] != 0 || b.rnd[2] == 0 {
		t.Errorf("%x", b.rnd)
	}
	if l.e.expect(l.e.inside, 1); b.rnd[0] != 0 {
		t.Errorf("behind the end: %x", b.rnd)
	}
	batch(1, 2, 3)
	if l.e.expect(l.e.outside, 0); b.rnd != [distance + 1]uint64{} {
		t.Errorf("from the WAN: %x", b.rnd)
	}
	batch(1, 2, 4000)
	if l.e.expect(l.e.inside, 0); b.rnd != [distance + 1]uint64{} {
		t.Errorf("of a known flow: %x", b.rnd)
	}
}

// TestNumbersAreDrawnAnew: a random number that was drawn ahead for a packet which needed none is
// not used by a later batch: in between the machine may have been restored, and its twin with it.
func TestNumbersAreDrawnAnew(t *testing.T) {
	l := newLab(t, "accept egress udp")
	for p := uint16(5000); p < 5010; p++ {
		l.one(lan, udp(host, p, web, 443)) // takes the ports
	}
	a, b := udp("10.0.0.77", 5001, web, 443), udp("10.0.0.77", 5002, web, 443)
	if out := inLAN(l, a, b, a); len(out) != 3 || out[0].SrcPort != out[2].SrcPort {
		t.Fatalf("%v", out)
	}
	if l.e.b.rnd[2] == 0 || l.e.drawn != 0 {
		t.Fatalf("nothing was drawn ahead: %x, %x", l.e.b.rnd, l.e.drawn)
	}
	l.e.Reseed([32]byte{7})
	rng := *l.e.rng
	want, _, _ := l.e.nat.Foretell(packet.UDP, ip("10.0.0.77"), 5003, rng.Uint64())
	out := inLAN(l, a, b, udp("10.0.0.77", 5003, web, 443))
	if len(out) != 3 || out[2].SrcPort != want.Port {
		t.Errorf("%v, want port %d", out, want.Port)
	}
}

// TestManyAtOnce: flows that begin in one batch, whose ports are taken, all get other ports, and
// those of flows that are in the batch twice are the same.
func TestManyAtOnce(t *testing.T) {
	l := newLab(t, "accept egress udp")
	var ps []pkt
	for i := range uint16(30) {
		l.one(lan, udp(host, 5000+i, web, 443))
		ps = append(ps, udp("10.0.0.77", 5000+i, web, 443), udp("10.0.0.77", 5000+i/2, web, 443))
	}
	got, ports := map[uint16]uint16{}, map[uint16]bool{}
	for i, v := range inLAN(l, ps...) {
		from := ps[i].sport
		if was, ok := got[from]; ok && was != v.SrcPort {
			t.Fatalf("port %d became %d and %d", from, was, v.SrcPort)
		} else if !ok && (ports[v.SrcPort] || v.SrcPort >= 5000 && v.SrcPort < 5030 || (v.SrcPort^from)&1 != 0) {
			t.Fatalf("port %d became %d", from, v.SrcPort)
		}
		got[from], ports[v.SrcPort] = v.SrcPort, true
	}
	if len(got) != 30 {
		t.Errorf("%d flows", len(got))
	}
}
