package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// fewPorts gives the pool so many ports, which hosts of a large network share.
func fewPorts(ports int) func(p *ruleset.Policy) {
	return func(p *ruleset.Policy) {
		p.Settings.MaxFlows = 64 << 10
		p.Interfaces[0].PrefixLen = 16
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2048, uint16(2048+ports-1)
		p.SNAT[0].SourceMask = mask(16)
	}
}

// guests returns how many ports workers have that are at home with others.
func (l *lab) guests() (n int) {
	for _, e := range l.engines() {
		for _, q := range e.Pools() {
			for _, proto := range nat.Protocols {
				n += q.Guests(proto)
			}
		}
	}
	return n
}

// TestWorkersPortsOfOnePart: hosts that all use one port, as IPsec does, are all one worker's.
// There is a port for each of them while the pool has any, as with one worker, whose answers and
// errors find it. When they have gone the ports return, and are preserved as before.
func TestWorkersPortsOfOnePart(t *testing.T) {
	const hosts, ports = 1500, 2048
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, fewPorts(ports), "accept egress", established)
		seen := map[uint16]bool{}
		for i := range hosts {
			h := addr(ip("10.0.1.0") + packet.Addr(i)).String()
			v := l.one(lan, udp(h, 4500, web, 4500))
			if seen[v.SrcPort] {
				t.Fatalf("%d workers: two hosts have port %d", n, v.SrcPort)
			}
			seen[v.SrcPort] = true
			if i%8 != 0 {
				continue
			}
			if a := l.one(wan, udp(web, 4500, ours, v.SrcPort)); a.Dst != ip(h) || a.DstPort != 4500 {
				t.Fatalf("%d workers: an answer to host %d came as %v", n, i, a)
			}
			if again := l.one(lan, udp(h, 4500, "192.0.2.7", 4500)); again.SrcPort != v.SrcPort {
				t.Fatalf("%d workers: host %d has ports %d and %d (RFC 4787 REQ-1)", n, i, v.SrcPort, again.SrcPort)
			}
			if across, _ := l.put(wan, quoted("192.0.2.1", ours, packet.Unreachable, 1, v.frame, 28, nil)); len(across) != 1 || across[0].Dst != ip(h) {
				t.Fatalf("%d workers: an error about host %d's packet: %v; drops: %s", n, i, across, l.drops())
			}
		}
		if l.e.c.PortsReclaimed != 0 || l.e.c.Decisions == 0 {
			t.Errorf("%d workers: %d ports were reclaimed", n, l.e.c.PortsReclaimed)
		}
		if n > 1 && l.guests() < hosts-ports/n {
			t.Errorf("%d workers: %d ports were lent", n, l.guests())
		}
		lent := 0
		for _, e := range l.engines() {
			lent += int(e.c.PortsLent)
		}
		if lent != l.guests() { // and none has returned
			t.Errorf("%d workers: %d ports were lent, counted %d", n, l.guests(), lent)
		}
		l.invariants()
		l.pass(600)
		for range 200 {
			l.pass(0.1)
		}
		if l.guests() != 0 {
			t.Errorf("%d workers: %d ports did not return", n, l.guests())
		}
		for p := uint16(2048); p < 2048+64; p++ {
			if v := l.one(lan, udp(host, p, web, 53)); v.SrcPort != p {
				t.Errorf("%d workers: port %d has become %d", n, p, v.SrcPort)
			}
		}
		l.invariants()
	}
}

// TestWorkersPortsOfAClient: a client all of whose ports are one worker's gets nearly as many
// external ones as with one worker; as there, some remain for others, of every worker.
func TestWorkersPortsOfAClient(t *testing.T) {
	const ports = 4096
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, fewPorts(ports), "accept egress", established)
		got := 0
		for i := range 4096 {
			across, _ := l.put(lan, udp(host, uint16(16*i+i/4096), web, 53))
			got += len(across)
			if i%64 == 0 {
				l.now += 1e8 // who was refused asks again
			}
		}
		// With one worker fifteen sixteenths of the pool, but for the ports kept for the firewall.
		if least := (ports - ports/64) * 15 / (15 + n); got < least {
			t.Errorf("%d workers: the client has %d ports, want %d", n, got, least)
		}
		// The twin: others, whatever their ports.
		for i := range 64 {
			h := addr(ip("10.0.1.0") + packet.Addr(i)).String()
			l.one(lan, udp(h, uint16(3001+2*i), web, 53))
		}
		l.invariants()
	}
}

// TestWorkersPortsAreGone: when there is no port anywhere, the packets that find none do not
// travel: but for the first, each ends where it came.
func TestWorkersPortsAreGone(t *testing.T) {
	for _, n := range []int{2, 4, 8} {
		l := withWorkers(t, n, fewPorts(2048), "accept egress", established)
		host := func(i int) string { return addr(ip("10.0.1.0") + packet.Addr(i)).String() }
		for i := range 2048 {
			l.put(lan, tcpSeg(host(i%512), uint16(3000+i/512*2), web, 53, packet.SYN, 1, 0))
		}
		free := 0
		for _, e := range l.engines() {
			free += e.Pools()[0].Size(packet.TCP) - e.Pools()[0].InUse(packet.TCP)
		}
		if free > 2048/64+n {
			t.Fatalf("%d workers: %d ports are free (the firewall keeps 32)", n, free)
		}
		over, refused := l.e.c.HandedOver, l.e.c.DropReasons[verdict.NATPortPoolExhausted]
		for i := range 1000 {
			f := tcpSeg(host(i%512), 4500, web, 53, packet.SYN, 1, 0).frame(lanMAC)
			l.port[lan].in = append(l.port[lan].in, f)
		}
		l.run()
		l.taken(wan)
		refused = l.e.c.DropReasons[verdict.NATPortPoolExhausted] - refused
		// One hand-over each to its worker, and tours of the first batch.
		if over = l.e.c.HandedOver - over; refused < 900 || over > 1000+uint64(2*Batch*n) {
			t.Errorf("%d workers: %d refused, %d handed over", n, refused, over)
		}
		l.invariants()
	}
}
