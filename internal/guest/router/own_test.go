package router

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestSpecialAddresses: what spares a search of the firewall's own addresses, and of the ends
// of its links' networks, never hides one.
func TestSpecialAddresses(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{dnat(packet.UDP, "203.0.113.77", 5000, 5000, server, 5000), dnat(packet.UDP, "198.51.100.9", 5000, 5000, server, 5000)}
	}, "accept")
	e := l.e
	special := map[packet.Addr]bool{ip("10.0.0.1"): true, ip("203.0.113.10"): true, ip("203.0.113.77"): true, ip("198.51.100.9"): true}
	for a := range special {
		if !e.ownAddr(a) {
			t.Errorf("%v is the firewall's own", a)
		}
	}
	ends := map[packet.Addr]bool{ip("10.0.0.0"): true, ip("10.0.0.255"): true, ip("203.0.113.0"): true, ip("203.0.113.255"): true}
	for a := range ends {
		p := received{in: e.inside}
		if p.Src, p.Dst = ip(host), a; !e.martian(&p) {
			t.Errorf("%v is no martian as destination", a)
		}
		if p.Src, p.Dst = a, ip(web); !e.martian(&p) {
			t.Errorf("%v is no martian as source", a)
		}
	}
	r := rand.New(rand.NewPCG(1, 9))
	hidden := 0
	for range 100_000 {
		a := ip("203.0.113.0") + packet.Addr(r.Uint32N(512))
		if r.IntN(2) == 0 {
			a = packet.Addr(r.Uint32())
		}
		if e.ownAddr(a) != special[a] {
			t.Fatalf("%v: own %v", a, e.ownAddr(a))
		}
		if !e.special.mayHave(a) {
			hidden++
		}
	}
	if hidden < 90_000 {
		t.Errorf("%d of 100,000 searches are spared", hidden)
	}
}
