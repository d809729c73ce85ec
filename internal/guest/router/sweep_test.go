package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestSweepCatchesUp: as many steps of the sweep are made as thousandths of a second
// have passed, one at least and 64 at most.
func TestSweepCatchesUp(t *testing.T) {
	const step, ms = 1024, second / 1000 // records that a step looks at
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = 70_000 }, "accept")
	l.e.events = nil
	l.pass(3)
	for i := range uint32(70_000) {
		k := conntrack.Key{Src: packet.Addr(10<<24 | i), Dst: 9, SrcPort: 1, DstPort: 2, Proto: packet.UDP}
		r := l.e.flows.Insert(&k, &packet.Rewrite{Src: k.Src, Dst: 9, SrcPort: 1, DstPort: 2}, conntrack.UDPReplied, outward, l.now)
		if r != conntrack.Ref(2*i) {
			t.Fatalf("flow %d is %d", i, r)
		}
		l.e.flows.Shared(r).Pool = -1
	}
	hand := 0 // where the sweep is
	for _, x := range []struct {
		after int64 // since timers were due
		steps int
	}{{0, 1}, {ms - 1, 1}, {ms, 1}, {2*ms - 1, 1}, {2 * ms, 2}, {3 * ms, 3}, {64*ms - 1, 63}, {64 * ms, 64}, {65 * ms, 64}, {200 * ms, 64}, {0, 1}} {
		at := (hand + x.steps*step) % 70_000
		old := [2]int{(at + 69_999) % 70_000, at} // the last that is looked at, and the next
		for _, i := range old {
			l.e.flows.Dir(conntrack.Ref(2 * i)).LastSeen = l.now - 1000*second
			l.e.flows.Dir(conntrack.Ref(2*i + 1)).LastSeen = l.now - 1000*second
		}
		l.now = l.e.tick + x.after
		l.poll()
		gone := [2]bool{l.e.flows.Dir(conntrack.Ref(2*old[0])).State == 0, l.e.flows.Dir(conntrack.Ref(2*old[1])).State == 0}
		if gone != [2]bool{true, false} {
			t.Fatalf("after %d ns: record %d is gone %v, %d is gone %v; the sweep was at %d", x.after, old[0], gone[0], old[1], gone[1], hand)
		}
		l.e.flows.Dir(conntrack.Ref(2 * old[1])).LastSeen = l.now
		// The free record is where it was, so that the others keep their places.
		k := conntrack.Key{Src: packet.Addr(11<<24 | old[0]), Dst: 9, SrcPort: 1, DstPort: 2, Proto: packet.UDP}
		r := l.e.flows.Insert(&k, &packet.Rewrite{Src: k.Src, Dst: 9, SrcPort: 1, DstPort: 2}, conntrack.UDPReplied, outward, l.now)
		l.e.flows.Shared(r).Pool = -1
		hand = at
	}
}

// TestLANAnswersNoQuestion: a LAN host that sends to the port of a question of the proxy's
// is ignored, whatever its source: upstreams are on the WAN.
func TestLANAnswersNoQuestion(t *testing.T) {
	l := githubLab(t, nil)
	v, q := l.asked(host, l.query("github.com", 1))
	b, err := reply(q, "@ 300 IN A 192.0.2.66").Pack()
	if err != nil {
		t.Fatal(err)
	}
	for from, why := range map[string]verdict.Reason{host: verdict.HairpinUnsupported, upstreamAddr: verdict.Martian} {
		p := udp(from, 53, ours, v.SrcPort)
		p.data = b
		l.dropped(lan, p, why)
	}
	if c := l.e.host.DNS().Counters(); c.Mismatched != 0 || c.Malformed != 0 || c.WrongCase != 0 || l.e.host.DNS().Outstanding() != 1 {
		t.Errorf("%+v", c)
	}
	l.answers(v, reply(q, "@ 300 IN A "+github))
	if !l.connects(host, github, 443) {
		t.Error("the true answer is not taken")
	}
}
