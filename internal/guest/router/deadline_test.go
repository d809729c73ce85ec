package router

import (
	"math"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// quietLab polls until nothing is due any more but what a test begins.
func quietLab(l *lab) *lab {
	for range 20 {
		l.pass(1)
	}
	l.taken(lan)
	l.taken(wan)
	return l
}

// TestNextDeadline: the engine is to be called again when something is due, and
// not before.
func TestNextDeadline(t *testing.T) {
	in := func(what string, l *lab, low, high int64) {
		t.Helper()
		if d := l.e.NextDeadline(); d < l.now+low || d > l.now+high {
			t.Errorf("%s: in %d ns, want %d to %d", what, d-l.now, low, high)
		}
	}
	never := func(what string, l *lab) {
		t.Helper()
		if d := l.e.NextDeadline(); d != math.MaxInt64 {
			t.Errorf("%s: in %d ns", what, d-l.now)
		}
	}
	const ms = second / 1000

	l := newLab(t, "accept", established)
	l.e.Announce()
	l.run()
	in("the gateway is to be asked for again", l, askEvery, askEvery)
	l.e.gate.due = false
	in("its addresses are to be announced again", l, announceEvery, announceEvery)
	quietLab(l)
	never("nothing to do", l)
	l.one(lan, syn(host, 4000, web, 80))
	in("a flow", l, second, second+2*ms)
	for range 60 {
		l.pass(30)
	}
	if l.e.flows.Len() != 0 {
		t.Fatal("the flow is still there")
	}
	never("the flow is over", l)

	l = quietLab(newLab(t, "accept egress"))
	l.put(lan, syn(host, 4000, "10.0.0.99", 80)) // dropped: the same side
	never("nothing waits", l)
	l = quietLab(newLabWith(t, routed, "accept ingress"))
	l.put(wan, syn("203.0.113.50", 4000, "10.0.0.99", 80))
	in("a neighbour is asked for", l, second-ms, second)
	l.pass(0.7)
	in("and again in a second from the first", l, 3*second/10-ms, 3*second/10)
	for range 9 {
		l.pass(1)
	}
	l.e.flows.Remove(0, 0)
	never("the neighbour is given up", l)

	l = quietLab(newLabWith(t, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept"))
	l.raw(lan, fragments(large(udp(host, 4000, web, 53), 900), lanMAC, 576, 1)[0])
	in("a fragment", l, second, 60*second)

	l = quietLab(newLab(t, "reject"))
	l.put(wan, syn(web, 4000, ours, 80))
	in("an answer is held", l, icmperr.Delay, icmperr.Delay)
	l.now += icmperr.Delay - 1
	l.run()
	in("a nanosecond before", l, 1, 1)
	l.pass(0.1)
	never("it was sent", l)

	d := githubLab(t, nil)
	quietLab(d.lab)
	never("no question", d.lab)
	d.asked(host, d.query("github.com", dns.TypeA))
	in("a question", d.lab, second/2, 2*second)
	d.lab.now += 10 * second
	if at := d.e.NextDeadline(); at > d.lab.now || at < d.e.tick {
		t.Errorf("a question that is late: at %d, the tick is %d", at, d.e.tick)
	}
	quietLab(d.lab)
	d.put(lan, syn(host, 4000, lanAddr, 53))
	if n := d.e.host.Conns().Len(); n != 1 {
		t.Fatalf("%d connections", n)
	}
	in("a connection", d.lab, 1, 30*second)

	s := sniLab(t)
	quietLab(s.lab)
	s.handshake(host, 4000, cdn, 443)
	s.says(4000, 1001, clientHello(t, "github.com")[:50])
	if !s.e.sni.Any() {
		t.Fatal("the message is not held")
	}
	in("a first message", s.lab, second, second+2*ms)
}

// TestDeadlinesExactly: what is not urgent is due a second after the next tick.
func TestDeadlinesExactly(t *testing.T) {
	l := quietLab(newLab(t, "accept", established))
	l.one(lan, syn(host, 4000, web, 80))
	if d := l.e.NextDeadline() - l.e.tick; d != second {
		t.Errorf("a flow: %d ns after the tick", d)
	}
	s := sniLab(t)
	quietLab(s.lab)
	s.handshake(host, 4000, cdn, 443)
	s.says(4000, 1001, clientHello(t, "github.com")[:50])
	s.e.flows.Removed = nil
	s.e.flows.Remove(0, 0) // which would be due as soon
	if d := s.e.NextDeadline() - s.e.tick; !s.e.sni.Any() || d != second {
		t.Errorf("a first message: %d ns after the tick", d)
	}
}

// TestTimersByThousandths: timers are looked at once in a millisecond, however
// often the engine is called.
func TestTimersByThousandths(t *testing.T) {
	l := quietLab(newLab(t, "accept"))
	const ms = second / 1000
	at := l.e.tick
	if at <= l.now || at > l.now+ms {
		t.Fatalf("the next tick is at %d, now %d", at, l.now)
	}
	l.now = at - 1
	l.poll()
	if l.e.tick != at {
		t.Fatal("too early")
	}
	l.now = at
	l.poll()
	if l.e.tick != at+ms {
		t.Fatalf("the next tick is at %d, want %d", l.e.tick, at+ms)
	}
	// A loop that was away for long makes up for it, in bounded work: a record
	// is looked at in 64 steps.
	for i := range uint16(600) {
		l.put(lan, syn(host, 2000+i, web, 80))
	}
	n := l.e.flows.Len()
	l.now += 10 * second // nothing has expired
	l.poll()
	if l.e.flows.Len() != n || l.e.tick != l.now+ms {
		t.Fatalf("%d flows of %d", l.e.flows.Len(), n)
	}
	l.now += 1000 * second // all has
	polls := 0
	for ; l.e.flows.Len() > 0; polls++ {
		before := l.e.flows.Len()
		l.poll()
		if l.e.flows.Len() == before && l.e.tick <= l.now {
			t.Fatal("nothing was removed, and it is not over")
		}
		if l.e.flows.Len() > 0 && l.e.tick > l.now {
			l.now = l.e.tick
		}
		if polls > 1000 {
			t.Fatal("it never ends")
		}
	}
	if polls < 2 {
		t.Error("all at once: that takes too long")
	}
}

// TestPollCountsFrames: Poll's result tells whether there may be more.
func TestPollCountsFrames(t *testing.T) {
	l := quietLab(newLab(t, "accept egress"))
	l.one(lan, udp(host, 3000, web, 53)) // so that the gateway is known
	if n := l.poll(); n != 0 {
		t.Fatalf("%d frames of none", n)
	}
	rx := l.e.c.RxPackets
	for i := range Batch + 3 {
		l.port[lan].in = append(l.port[lan].in, udp(host, uint16(4000+i), web, 53).frame(lanMAC))
	}
	for range 5 {
		l.port[wan].in = append(l.port[wan].in, make([]byte, 60))
	}
	if n := l.poll(); n != Batch+5 {
		t.Fatalf("%d frames, want %d", n, Batch+5)
	}
	if n := l.poll(); n != 3 {
		t.Fatalf("%d frames, want 3", n)
	}
	if got := l.e.c.RxPackets; got[lan] != rx[lan]+Batch+3 || got[wan] != rx[wan]+5 {
		t.Errorf("received %v after %v", got, rx)
	}
	// Each port sends what the other has brought, in the same call.
	if len(l.taken(wan)) != Batch+3 || l.e.port[wan].ntx != 0 || l.e.port[lan].ntx != 0 {
		t.Error("not all has left")
	}
	l.invariants()
}

// TestReceiveWaitsForRoom: frames stay where they are while the other port has no
// room, each side by itself.
func TestReceiveWaitsForRoom(t *testing.T) {
	l := quietLab(newLab(t, "accept egress", established))
	v := l.one(lan, udp(host, 4000, web, 53))
	l.one(wan, udp(web, 53, ours, v.SrcPort))
	for side := range 2 {
		l.port[1-side].room = 1 // less than a batch
		p, back := udp(host, 4000, web, 53), udp(web, 53, ours, v.SrcPort)
		if side == wan {
			p, back = back, p
		}
		l.port[side].in = append(l.port[side].in, p.frame([...][6]byte{lanMAC, wanMAC}[side]))
		if n := l.poll(); n != 0 || len(l.port[side].in) != 1 {
			t.Fatalf("side %d: %d frames were taken, and there is no room for them", side, n)
		}
		l.port[1-side].in = append(l.port[1-side].in, back.frame([...][6]byte{wanMAC, lanMAC}[side]))
		if n := l.poll(); n != 1 || len(l.taken(side)) != 1 {
			t.Fatalf("side %d: the other way waits, too", side)
		}
		l.port[1-side].room = 0
		if n := l.poll(); n != 1 || len(l.taken(1-side)) != 1 {
			t.Fatalf("side %d: there is room", side)
		}
	}
	if l.e.c.Holds != [2]uint64{1, 1} {
		t.Errorf("%v holds", l.e.c.Holds)
	}
	l.invariants()
}
