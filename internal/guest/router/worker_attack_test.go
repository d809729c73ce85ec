package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// Attacks on several workers, each with a legitimate twin.

// TestWorkersFlowsOfOnePart: a host that chooses its ports so that all of its flows are one
// worker's does not keep others from beginning theirs, at that worker and at others.
func TestWorkersFlowsOfOnePart(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, nil, "accept egress", established)
		evil := 0
		for i := range 4000 {
			across, _ := l.put(lan, udp(host, uint16(4096+16*(i%3000)), addr(ip(web)+packet.Addr(i/3000)).String(), 53))
			evil += len(across)
		}
		for i := range 64 {
			l.one(lan, tcpSeg("10.0.0.3", uint16(3000+i), web, 80, packet.SYN, 1, 0))
		}
		if evil < 4096/n/2 {
			t.Errorf("%d workers: the first host had %d flows", n, evil)
		}
		l.invariants()
	}
}

// TestWorkersFragmentFlood: fragments of datagrams that are never complete, which are all the
// first worker's, from one host; datagrams in fragments of another host pass, whichever
// worker's they are, and so does what is not in fragments.
func TestWorkersFragmentFlood(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, func(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }, "accept egress", established)
		for i := range 5000 {
			p := udp(host, uint16(4000+i), web, 53)
			p.data = make([]byte, 1000)
			f := fragments(p, lanMAC, 600, uint16(i))
			if l.port[lan].in = append(l.port[lan].in, f[i%len(f)]); i%256 == 0 {
				l.run()
			}
		}
		l.run()
		for i := range 16 {
			p := udp("10.0.0.3", uint16(5000+i), web, 53)
			p.data = make([]byte, 1000)
			l.port[lan].in = append(l.port[lan].in, fragments(p, lanMAC, 600, uint16(i))...)
			if l.run(); len(l.taken(wan)) != 1 {
				t.Fatalf("%d workers: datagram %d did not pass; drops: %s", n, i, l.drops())
			}
			l.one(lan, udp("10.0.0.3", uint16(6000+i), web, 53))
		}
		if l.e.c.DropReasons[verdict.HandoverFull] != 0 {
			t.Errorf("%d workers: drops: %s", n, l.drops())
		}
		l.pass(60)
		l.invariants()
	}
}

// TestWorkersAnswers: packets that are to be answered, of all workers at once, get no more
// answers than with one; those of another host are answered.
func TestWorkersAnswers(t *testing.T) {
	alone := uint64(0)
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, nil, "accept egress", established)
		for i := range 2000 {
			p := udp(host, uint16(4000+i), web, 53)
			p.ttl = 1
			l.port[lan].in = append(l.port[lan].in, p.frame(lanMAC))
		}
		l.run()
		l.taken(lan)
		if n == 1 {
			alone = l.e.c.ICMPErrorsSent
		}
		if l.e.c.ICMPErrorsSent > alone || l.e.c.ICMPErrorsSent == 0 {
			t.Errorf("%d workers: %d answers, with one %d", n, l.e.c.ICMPErrorsSent, alone)
		}
		l.pass(2)
		p := udp("10.0.0.3", 4002, web, 53)
		p.ttl = 1
		if _, back := l.put(lan, p); len(back) != 1 {
			t.Errorf("%d workers: another host gets %d answers", n, len(back))
		}
		l.invariants()
	}
}

// TestWorkersErrorsOfOthers: errors that quote flows of other workers reach these and nobody
// else, wherever they arrive; those that quote what there is not are dropped, from the WAN and
// from the LAN.
func TestWorkersErrorsOfOthers(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, nil, "accept egress", established)
		var flows []*view
		for i := range 32 {
			flows = append(flows, l.one(lan, udp(host, uint16(4000+i), web, 53)))
		}
		for i, v := range flows {
			if got := l.one(wan, quoted("192.0.2.1", ours, packet.Unreachable, 1, v.frame, 28, nil)); got.Dst != ip(host) {
				t.Errorf("%d workers: flow %d: %v", n, i, got)
			}
			l.dropped(wan, quoted("192.0.2.1", ours, packet.Unreachable, 1, v.frame, 28, func(q []byte) {
				q[21] ^= 64 // another external port, which nobody has
				resum(q)
			}), verdict.ConntrackInvalid)
			l.dropped(lan, quoted("10.0.0.3", ours, packet.Unreachable, 1, v.frame, 28, nil), verdict.ConntrackInvalid)
		}
		l.invariants()
	}
}
