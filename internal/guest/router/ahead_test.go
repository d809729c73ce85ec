package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/nat"
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

// TestExpect: of the packet two ahead the port is foretold; of one from the WAN, of a known flow,
// or behind the batch's end nothing.
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
		b.guess = [guesses]nat.Guess{}
	}
	foretold := func(what string, want ...uint16) {
		t.Helper()
		for i := range b.guess {
			port := uint16(0)
			if i < len(want) {
				port = want[i]
			}
			if b.guess[i].Port != port {
				t.Errorf("%s: of packet %d %+v, want port %d", what, i, b.guess[i], port)
			}
		}
	}
	batch(2001, 2002, 2003)
	l.e.expect(l.e.inside, 0)
	foretold("two ahead", 0, 0, 2003)
	l.e.expect(l.e.inside, 1)
	foretold("behind the end", 0, 0, 2003)
	batch(2001, 2002, 2003)
	l.e.expect(l.e.outside, 0)
	foretold("from the WAN")
	batch(2001, 2002, 4000)
	l.e.expect(l.e.inside, 0)
	foretold("of a known flow")
}

// TestNumbersAreDrawnAnew: what was guessed for a packet which needed nothing is not used by a
// later batch: a random number may be in it, and in between the machine may have been restored,
// and its twin with it. For a packet that needs one, and was foretold, one number is drawn.
func TestNumbersAreDrawnAnew(t *testing.T) {
	l := newLab(t, "accept egress udp")
	for p := uint16(5000); p < 5010; p++ {
		l.one(lan, udp(host, p, web, 443)) // takes the ports
	}
	a, b := udp("10.0.0.77", 5001, web, 443), udp("10.0.0.77", 5002, web, 443)
	if out := inLAN(l, a, b, a); len(out) != 3 || out[0].SrcPort != out[2].SrcPort {
		t.Fatalf("%v", out)
	}
	if l.e.b.guess[2].Port == 0 {
		t.Fatalf("nothing is left: %+v", l.e.b.guess)
	}
	l.e.Reseed([32]byte{7})
	rng := *l.e.rng
	var want nat.Guess
	l.e.nat.Foretell(&want, packet.UDP, ip("10.0.0.77"), 5003)
	if want.Port != 0 || !l.e.nat.Draw(&want, rng.Uint64()) {
		t.Fatalf("%+v", want)
	}
	out := inLAN(l, a, b, udp("10.0.0.77", 5003, web, 443))
	if len(out) != 3 || out[2].SrcPort != want.Port {
		t.Errorf("%v, want port %d", out, want.Port)
	}
	if x, y := l.e.random(), rng.Uint64(); x != y {
		t.Errorf("more than one number was drawn: the next is %x, not %x", x, y)
	}
	if l.e.nat.Take(&l.e.b.guess[2], packet.UDP, ip("10.0.0.77"), 5003) {
		t.Errorf("a guess is taken twice: %+v", l.e.b.guess)
	}
	if inLAN(l, a, b, a); l.e.b.guess != [guesses]nat.Guess{} {
		t.Errorf("of an earlier batch: %+v", l.e.b.guess)
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
