package router

import (
	"sync/atomic"
	"testing"

	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// village is a large network without translation.
func village(p *ruleset.Policy) {
	wide(16)(p)
	p.Settings.MaxFlows = 128 << 10
}

// house returns the address of a host of it.
func house(i int) string { return addr(ip("10.0.1.0") + packet.Addr(i)).String() }

// portOfWorker returns a source port whose packets from web to port 53 of a host are a worker's.
func (l *lab) portOfWorker(k, host int) uint16 {
	for p := uint16(4000); ; p++ {
		t := packet.Tuple{Src: ip(web), Dst: ip(house(host)), SrcPort: p, DstPort: 53, Proto: packet.UDP}
		if l.e.w.steer.FromWAN(&t) == k {
			return p
		}
	}
}

// TestWorkersNewHosts: packets for many hosts arrive before any of these has answered, and wait for
// their answers, at one worker or at all. Of 500 none is lost, or waits for another request; of
// more no more than with one worker.
func TestWorkersNewHosts(t *testing.T) {
	for _, hosts := range []int{200, 500, 1000, 2000} {
		alone := 0
		for _, c := range []struct{ n, ports int }{{1, 1}, {2, 1}, {2, 500}, {4, 1}, {4, 500}, {8, 1}, {8, 500}} {
			n := c.n
			l := withWorkers(t, n, village, "accept")
			for i := range hosts {
				l.port[wan].in = append(l.port[wan].in, udp(addr(ip(web)+packet.Addr(i%16)).String(), uint16(4000+i%c.ports), house(i), 53).frame(wanMAC))
			}
			for range 40 { // all arrive, nobody answers
				l.poll()
			}
			if asked := l.e.c.ARPSent[lan]; asked > uint64(hosts) {
				t.Errorf("%d workers: %d requests for %d hosts", n, asked, hosts)
			}
			l.run() // now they do
			for range 10 {
				l.pass(0.002)
			}
			got := len(l.taken(lan))
			if hosts <= 500 && got < hosts {
				t.Errorf("%d workers: %d of %d packets arrived at once; drops: %s", n, got, hosts, l.drops())
			}
			for range 3 {
				l.pass(1)
			}
			if got += len(l.taken(lan)); n == 1 {
				alone = got
			}
			if got < alone*99/100 { // a slot for which two ask may be another's
				t.Errorf("%d workers, %d ports: %d of %d packets arrived, with one worker %d; drops: %s", n, c.ports, got, hosts, alone, l.drops())
			}
			l.buffers()
		}
	}
}

// TestWorkersScanOfTheLAN: somebody scans a network of 65 k addresses. Who is known stays known,
// to all workers; no more is asked for than with one worker; and a host that has just come is
// found, whichever worker its packets are for.
func TestWorkersScanOfTheLAN(t *testing.T) {
	const known = 16
	requests := uint64(0)
	for _, n := range []int{1, 2, 4} {
		l := withWorkers(t, n, village, "accept")
		for i := range known {
			for j := range 8 { // of each worker
				l.one(wan, udp(web, uint16(5000+j), house(i), 53))
			}
		}
		before := l.e.c.ARPSent[lan]
		asked := map[packet.Addr]int{}
		for i := range 1 << 16 {
			a := ip("10.0.0.0") + packet.Addr(i)
			if a == ip("10.0.0.1") || a-ip(house(0)) < known {
				continue
			}
			f := udp(web, uint16(6000+i), addr(a).String(), 53).frame(wanMAC)
			if l.port[wan].in = append(l.port[wan].in, f); i%256 != 0 {
				continue
			}
			l.now += 2e7 // 12,800 addresses a second: five seconds
			for range 4 {
				l.poll()
			}
			for _, f := range l.port[lan].out { // nobody answers
				var m packet.ARPMessage
				if packet.Type(f) == packet.TypeARP && packet.ParseARP(f, &m) {
					asked[m.TargetAddr]++
				}
			}
			l.port[lan].out, l.port[wan].out = nil, nil // ARP, and host unreachable
		}
		sent := l.e.c.ARPSent[lan] - before
		if n == 1 {
			requests = sent
		}
		if sent > requests*5/4 {
			t.Errorf("%d workers: %d requests, with one worker %d", n, sent, requests)
		}
		for i := range known {
			if asked[ip(house(i))] != 0 {
				t.Errorf("%d workers: %s was asked for again", n, house(i))
			}
			for j := range 8 {
				across, _ := l.put(wan, udp("192.0.2.7", uint16(5000+j), house(i), 53))
				for len(across) > 1 { // of hosts that have been asked for and answer now
					across = across[1:]
				}
				if len(across) != 1 || across[0].Dst != ip(house(i)) && l.e.port[lan].neigh.Find(ip(house(i))) == nil {
					t.Fatalf("%d workers: %s is not known any more; drops: %s", n, house(i), l.drops())
				}
			}
		}
		for j := range 8 { // the twin: new hosts
			a := addr(ip("10.0.240.1") + packet.Addr(j)).String()
			if l.one(wan, udp("192.0.2.7", uint16(5000+j), a, 53)); l.e.port[lan].neigh.Find(ip(a)) == nil {
				t.Errorf("%d workers: %s is not known", n, a)
			}
		}
		l.buffers()
	}
}

// TestWorkersARPFlood: a host that asks for the firewall all the time does not fill the ways
// between the workers: frames go on being handed over. The twin: what is new about it is told.
func TestWorkersARPFlood(t *testing.T) {
	l := withWorkers(t, 2, village, "accept")
	l.one(wan, udp(web, l.portOfWorker(0, 0), house(0), 53))
	l.one(wan, udp(web, l.portOfWorker(1, 0), house(0), 53))
	a := l.e
	for range 5000 {
		l.port[lan].in = append(l.port[lan].in, arp(packet.ARPRequest, house(0), macOf(ip(house(0))), "10.0.0.1"))
	}
	for range 5000/Batch + 100 { // worker 1 is busy meanwhile
		a.Poll(l.now)
	}
	if !a.w.out[1].Room(ringItems - ringWords) {
		t.Error("the flood has filled the way to worker 1")
	}
	l.run()
	l.pass(2)
	l.raw(lan, arp(packet.ARPRequest, house(0), macOf(ip(house(0))), "10.0.0.1"))
	for k, e := range l.engines() {
		if n := e.port[lan].neigh.Find(ip(house(0))); n == nil || n.Expires != l.now+neigh.Lifetime {
			t.Errorf("worker %d: %+v", k, n)
		}
	}
}

// TestWorkersWordsAreDue: a word for which the way was full is said when it is not, within a
// millisecond: a request, and an answer.
func TestWorkersWordsAreDue(t *testing.T) {
	l := withWorkers(t, 2, village, "accept")
	b := l.others[0]
	fill := func(r *handover.Ring) {
		for r.Put(&handover.Item{Kind: handover.Lost}) {
		}
	}
	send := func(host int) {
		l.port[wan].in = append(l.port[wan].in, udp(web, l.portOfWorker(1, host), house(host), 53).frame(wanMAC))
	}
	arrived := func(what string) {
		t.Helper()
		for range 20 {
			l.pass(0.002)
		}
		if got := l.taken(lan); len(got) != 1 || l.e.port[lan].neigh.Owing() || b.port[lan].neigh.Owing() {
			t.Fatalf("%s: %d arrived after 40 ms; drops: %s", what, len(got), l.drops())
		}
	}
	// The request finds the way full.
	send(1)
	l.e.Poll(l.now) // may hand it over
	fill(b.w.out[0])
	b.Poll(l.now)
	if !b.port[lan].neigh.Owing() || b.NextDeadline() > l.now+tickEvery {
		t.Fatal("nothing is due")
	}
	arrived("a request")
	// The answer does.
	send(2)
	l.poll()
	fill(l.e.w.out[1])
	l.port[lan].out = nil
	reply := arp(packet.ARPReply, house(2), macOf(ip(house(2))), "10.0.0.1")
	ours := l.e.port[lan].Port
	l.e.port[lan].Port = &loop{pool: l.e.pool, size: len(reply), frames: reply, left: 1}
	l.e.Poll(l.now)
	if l.e.port[lan].Port = ours; !l.e.port[lan].neigh.Owing() {
		t.Fatal("nothing is due")
	}
	arrived("an answer")
	l.buffersOfWorkers()
}

// TestWorkersFramesLeaveRoom: frames that nobody takes leave room for words.
func TestWorkersFramesLeaveRoom(t *testing.T) {
	l := withWorkers(t, 2, village, "accept")
	p := udp(web, l.portOfWorker(1, 1), house(1), 53).frame(wanMAC)
	a := l.e
	ours := a.port[wan].Port
	a.port[wan].Port = &loop{pool: a.pool, size: len(p), frames: p, left: ringItems + 2*Batch}
	for range ringItems/Batch + 4 {
		a.Poll(l.now)
	}
	a.port[wan].Port = ours
	if r := a.w.out[1]; !r.Room(ringWords) || r.Room(ringWords+1) {
		t.Error("frames have taken more, or less, than they may")
	}
	if n := a.c.DropReasons[verdict.HandoverFull]; n != 2*Batch+ringWords {
		t.Errorf("%d dropped", n)
	}
}

// TestWorkersProbedNeighbour: a neighbour that is asked whether it is still there is used
// meanwhile, by a worker that did not know it as well.
func TestWorkersProbedNeighbour(t *testing.T) {
	for _, n := range []int{1, 2, 4} {
		l := withWorkers(t, n, village, "accept")
		l.one(wan, udp(web, 4000, house(0), 53))
		l.now += 61e9
		for j := range 8 {
			l.port[wan].in = append(l.port[wan].in, udp(web, uint16(4002+2*j), house(0), 53).frame(wanMAC))
		}
		for range 4 {
			l.poll()
		}
		got := 0
		for _, f := range l.port[lan].out {
			if packet.Type(f) == packet.TypeIPv4 {
				got++
			}
		}
		if got != 8 {
			t.Errorf("%d workers: %d of 8 packets left before the neighbour had answered", n, got)
		}
	}
}

// TestWorkersMeetHosts: packets for many new hosts, of four workers at once: none is lost.
func TestWorkersMeetHosts(t *testing.T) {
	const n, hosts, each = 4, 200, 4
	was := workers
	workers = n
	defer func() { workers = was }()
	l := newLabIn(t, heap, village, "accept")
	var arrived atomic.Uint64
	w := newFloor(t, l, func(_ *floor, side int, f []byte) {
		var p packet.Packet
		if _, why := packet.ParseIPv4(f, &p); why != 0 || side != lan {
			t.Errorf("the firewall sent %x", f)
		}
		arrived.Add(1)
	})
	w.run(nil)
	for i := range hosts {
		for j := range each {
			w.give(wan, udp(web, uint16(4000+2*j), house(i), 53).frame(wanMAC))
		}
	}
	w.wait(&arrived, hosts*each, "packets for new hosts")
	if took := w.now() - 1e9; took > 20*second {
		t.Errorf("it took %d ms", took/1e6)
	}
	sum := w.sum(l)
	for why, n := range sum.DropReasons {
		if n != 0 {
			t.Errorf("%v: %d", verdict.Reason(why), n)
		}
	}
	l.buffersOfWorkers()
}
