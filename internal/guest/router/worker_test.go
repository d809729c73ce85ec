package router

import (
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/handover"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestWorkersRunScenarios runs scenarios, the model (TestOracle) and the properties of this
// package with four workers, whose queues get frames by no rule that the firewall knows: the
// same packets leave, for the same reasons, with the same events and counters. All tests but
// those in oneOnly pass so: go test ./internal/guest/router -workers 4.
func TestWorkersRunScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	out, err := exec.Command(os.Args[0], "-workers", "4", "-test.timeout", "300s", "-rapid.nofailfile", "-test.v",
		"-test.run", "^Test(Oracle|Properties|S[0-9]+_.*|RFC4787.*|ARP_.*)$").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-4000):])
	}
	if passed := strings.Count(string(out), "\n--- PASS:"); passed < 80 {
		t.Errorf("%d tests were run\n%s", passed, out[max(0, len(out)-2000):])
	}
}

// withWorkers makes a lab of n workers.
func withWorkers(t testing.TB, n int, edit func(p *ruleset.Policy), rules ...rule) *lab {
	was := workers
	workers = n
	defer func() { workers = was }()
	return newLabWith(t, edit, rules...)
}

// TestWorkersLimits: what one source may have is counted over all workers, exactly, and its
// oldest half-open flow gives way to a new one whichever worker has it.
func TestWorkersLimits(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		const limit = 10
		l := withWorkers(t, n, func(p *ruleset.Policy) { p.Settings.SourceFlows = limit }, "accept egress", established)
		begin := func(i int) int {
			l.now += 1e6
			across, _ := l.put(lan, syn(host, uint16(4000+2*i), web, 80))
			return len(across)
		}
		for i := range limit {
			if begin(i) != 1 {
				t.Fatalf("%d workers: flow %d of %d: drops: %s", n, i, limit, l.drops())
			}
		}
		if l.now += 5e6; begin(20) != 1 { // the oldest is 15 ms old
			t.Fatalf("%d workers: the oldest flow does not give way; drops: %s", n, l.drops())
		}
		flows := 0
		for _, e := range l.engines() {
			flows += e.flows.Len()
		}
		if flows != limit || l.e.sources.Flows(ip(host)) != limit {
			t.Errorf("%d workers: %d flows, %d counted", n, flows, l.e.sources.Flows(ip(host)))
		}
		if l.e.c.Decisions != limit+1 {
			t.Errorf("%d workers: %d decisions about %d packets", n, l.e.c.Decisions, limit+1)
		}
		// Of connections that stand none gives way.
		l = withWorkers(t, n, func(p *ruleset.Policy) { p.Settings.SourceFlows = limit }, "accept egress", established)
		for i := range limit {
			l.handshake(host, uint16(4000+2*i), web, 80)
		}
		l.now += 1e9
		for i := range 8 {
			l.dropped(lan, syn(host, uint16(5000+2*i), web, 80), verdict.RateLimitFlows)
		}
		if _, ok := l.e.sources.Oldest(ip(host)); ok && n > 1 {
			t.Errorf("%d workers: flows that stand are still looked at", n)
		}
		l.one(lan, syn("10.0.0.3", 4000, web, 80)) // the twin
		l.invariants()
	}
}

// TestWorkersRate: new flows a second are counted over all workers.
func TestWorkersRate(t *testing.T) {
	for _, n := range []int{1, 2, 4, 8} {
		l := withWorkers(t, n, func(p *ruleset.Policy) { p.Settings.SourceRate = 25 }, "accept egress", established)
		passed := 0
		for i := range 100 {
			across, _ := l.put(lan, udp(host, uint16(4000+2*i), web, 80))
			passed += len(across)
		}
		if passed != 25 || l.e.c.DropReasons[verdict.RateLimitFlows] != 75 {
			t.Errorf("%d workers: %d of 100 flows at once, want 25; drops: %s", n, passed, l.drops())
		}
	}
}

// TestWorkersSayNothingOfEachOther: the ports that one worker chooses, and its
// identifications, are not those of another, although all began with one secret.
func TestWorkersSayNothingOfEachOther(t *testing.T) {
	l := withWorkers(t, 4, nil, "accept")
	check := func(when string) {
		seen := map[uint64]int{}
		ids := map[uint16]int{}
		for k, e := range l.engines() {
			for range 100 {
				v := e.random()
				if was, ok := seen[v]; ok {
					t.Fatalf("%s: workers %d and %d draw the same", when, was, k)
				}
				seen[v] = k
			}
			for i := range uint16(500) {
				first := e.nextIDs(1, 2, 17, 1+i%40)
				for j := range 1 + i%40 {
					if was, ok := ids[first+j]; ok && was != k {
						t.Fatalf("%s: identification %d is workers' %d and %d", when, first+j, was, k)
					}
					ids[first+j] = k
				}
			}
		}
	}
	check("at first")
	for _, e := range l.engines() {
		e.Reseed([32]byte{5})
	}
	check("seeded anew")
}

// TestWorkersFull: what finds the way to its worker full is dropped, counted under its own
// reason and reported with its addresses, and nothing is lost; afterwards all goes on.
func TestWorkersFull(t *testing.T) {
	l := withWorkers(t, 2, nil, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53)) // the neighbours
	l.one(lan, udp(host, 4002, web, 53))
	a := l.e
	if l.others[0].w.steer.FromLAN(&packet.Tuple{Src: ip(host), Dst: ip(web), SrcPort: 4002, DstPort: 53, Proto: packet.UDP}) != 1 {
		t.Fatal("port 4002 is not worker 1's")
	}
	b := l.others[0]
	p := udp(host, 4002, web, 53).frame(lanMAC)
	ours := a.port[lan].Port
	// More than there are buffers go that way, and the buffers come back.
	feed := &loop{pool: a.pool, size: len(p), frames: p, left: 3 * a.pool.Cap()}
	all := feed.left
	for a.port[lan].Port = feed; feed.left > 0; {
		a.Poll(l.now)
		b.Poll(l.now)
	}
	l.run()
	if n := len(l.taken(wan)); n != all || l.e.c.DropReasons[verdict.HandoverFull] != 0 {
		t.Fatalf("%d of %d crossed; drops: %s", n, all, l.drops())
	}
	l.invariants()
	for a.w.out[1].Put(&handover.Item{Kind: handover.Lost}) {
	}
	before := a.c.DropReasons[verdict.HandoverFull]
	a.port[lan].Port = &loop{pool: a.pool, size: len(p), frames: p, left: 3}
	a.Poll(l.now)
	if n := a.c.DropReasons[verdict.HandoverFull] - before; n != 3 {
		t.Fatalf("%d dropped, want 3; drops: %s", n, l.drops())
	}
	a.port[lan].Port = ours
	l.run()
	if r := l.last(); r.Reason != verdict.HandoverFull || r.SrcPort != 4002 || r.Action != verdict.Drop {
		t.Errorf("event %+v", r)
	}
	l.taken(wan)
	l.invariants()
	l.one(lan, udp(host, 4002, web, 53))
}

// TestWorkersLargeFrames: large frames that arrive at another worker's queue, in long buffers or
// in ordinary ones, pass whole, more of them than the queue's worker has buffers: those that went
// with them come back as what they are.
func TestWorkersLargeFrames(t *testing.T) {
	l := withWorkers(t, 2, nil, "accept egress", established)
	for _, e := range l.engines() {
		for i := range e.port {
			e.port[i].large, e.port[i].burst = true, 2*Batch
		}
	}
	l.handshake(host, 4002, web, 80) // worker 1's
	if l.others[0].flows.Len() != 1 {
		t.Fatal("the flow is not worker 1's")
	}
	seq := uint32(1001)
	for i := range 10 * labLong {
		p := tcpSeg(host, 4002, web, 80, packet.ACK, seq, 5001)
		p.data, p.df, p.win = make([]byte, 2896-i%2), true, 60000 // an even length is in a long buffer
		seq += uint32(len(p.data))
		l.port[lan].large = append(l.port[lan].large, largeOf(p, lanMAC, 1448))
		l.run()
		if n := len(l.taken(wan)); n != 2 {
			t.Fatalf("frame %d: %d segments; drops: %s", i, n, l.drops())
		}
		l.one(wan, tcpSeg(web, 80, ours, 4002, packet.ACK, 5001, seq))
		l.buffersOfWorkers()
	}
	if l.e.c.LargeForwarded != 10*labLong || l.e.c.HandedOver < 10*labLong {
		t.Errorf("%d passed whole, %d were handed over", l.e.c.LargeForwarded, l.e.c.HandedOver)
	}
}

// TestWorkersTell: who is to be woken is told once, and a worker with something waiting knows it.
func TestWorkersTell(t *testing.T) {
	l := withWorkers(t, 4, nil, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53)) // the neighbours
	l.run()
	for _, e := range l.engines() {
		e.Told()
	}
	a, b := l.e, l.others[2]
	p := udp(host, 4006, web, 53).frame(lanMAC) // worker 3's
	ours := a.port[lan].Port
	a.port[lan].Port = &loop{pool: a.pool, size: len(p), frames: p, left: 1}
	if a.Poll(l.now); a.Told() != 1<<3 || a.Told() != 0 || !b.Waiting() || l.others[0].Waiting() {
		t.Errorf("worker 3 has something waiting: %v", b.Waiting())
	}
	if b.Poll(l.now); b.Waiting() || b.Told()&(1<<3) != 0 {
		t.Error("it has taken it, and does not know")
	}
	a.port[lan].Port = ours
	one := newLab(t, "accept")
	if one.e.Poll(one.now); one.e.Told() != 0 || one.e.Waiting() {
		t.Error("the only worker has others")
	}
}

// TestSumOfCounters: Add adds every counter.
func TestSumOfCounters(t *testing.T) {
	fill := func(c *Counters) {
		c.Accepts, c.Drops, c.Shadows = make([]uint64, 3), make([]uint64, 3), make([]uint64, 3)
		n := uint64(0)
		each(reflect.ValueOf(c).Elem(), func(v reflect.Value) { n++; v.SetUint(n) })
	}
	var a, b Counters
	fill(&a)
	fill(&b)
	a.Add(&b)
	n := uint64(0)
	each(reflect.ValueOf(&a).Elem(), func(v reflect.Value) {
		if n++; v.Uint() != 2*n {
			t.Errorf("counter %d is %d", n, v.Uint())
		}
	})
}

// each calls f with every number in v.
func each(v reflect.Value, f func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			each(v.Field(i), f)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			each(v.Index(i), f)
		}
	case reflect.Uint64:
		f(v)
	default:
		panic(fmt.Sprint("a counter of kind ", v.Kind()))
	}
}

// TestNumberOfWorkers: other numbers are refused.
func TestNumberOfWorkers(t *testing.T) {
	for _, n := range []int{0, 3, 5, 16} {
		pools := framebuf.NewPool(make([]byte, 64*framebuf.Size), 0).Split(max(n, 1))
		var each []Worker
		for k := range n {
			each = append(each, Worker{Pool: pools[k]})
		}
		if _, err := NewWorkers(Config{}, each); err == nil {
			t.Errorf("%d workers", n)
		}
	}
}
