package main

import (
	"math"
	"testing"

	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// aTeam is one of n workers that forward nothing.
func aTeam(n int) *team {
	var rings event.Rings
	var engines []*router.Engine
	var pairs []*pair
	for range n {
		rings, engines, pairs = append(rings, event.NewRing(8)), append(engines, &router.Engine{}), append(pairs, &pair{})
	}
	t := &team{resume: make(chan struct{}), rouse: func(uint64) {}}
	for k := range n {
		t.all = append(t.all, newWorker(k, engines[k], pairs[k], rings[k], sys.Generations{}))
	}
	return t
}

// TestStandingWorker: a worker that has not polled for two seconds stands still, unless it sleeps
// and its deadline is to come, and after six the firewall has failed; the watchdog is not fed
// meanwhile. Time in which the first worker did not run does not count.
func TestStandingWorker(t *testing.T) {
	m := aTeam(4)
	now := int64(10e9)
	m.looked = now
	// pass passes time, in which some of the workers poll.
	pass := func(s float64, polling ...int) (any, dead bool) {
		for range int(10 * s) {
			now += 1e8
			for _, k := range polling {
				m.all[k].moving(now)
			}
			any, dead = m.standing(now)
		}
		return any, dead
	}
	if any, _ := pass(30, 1, 2, 3); any {
		t.Fatal("all poll")
	}
	if any, _ := pass(1.8, 1, 2); any {
		t.Error("less than two seconds are too long")
	}
	if any, dead := pass(0.4, 1, 2); !any || dead || !m.patience[3].told || m.patience[1].told || m.patience[2].told {
		t.Error("worker 3 has not polled")
	}
	if any, _ := pass(0.1, 1, 2, 3); any || m.patience[3].told {
		t.Error("it has polled again")
	}
	if _, dead := pass(5.8, 1, 2); dead {
		t.Error("less than six seconds are too long")
	}
	if _, dead := pass(0.4, 1, 2); !dead {
		t.Error("worker 3 has not polled for six seconds")
	}
	pass(0.1, 1, 2, 3)
	m.lieDown(m.all[1], now+60e9)
	if any, _ := pass(60, 2, 3); any {
		t.Error("a worker sleeps until its deadline")
	}
	if any, _ := pass(2.2, 2, 3); !any || !m.patience[1].told {
		t.Error("it has slept through its deadline")
	}
	pass(0.1, 1, 2, 3)
	if now += 60e9; true {
		if any, _ := m.standing(now); any {
			t.Error("the machine stood still as a whole")
		}
	}
	one := aTeam(1)
	if one.watch(100e9); one.still || one.looks != math.MaxInt64 {
		t.Error("there is no other worker")
	}
	d := &watchdog{}
	if d.starves(false, 5e9) || d.next != 0 || !d.starves(true, 5e9) || d.next != 5e9+feedEvery/10 {
		t.Errorf("fed next at %d", d.next)
	}
}

// TestSwept: who acknowledges an interrupt that stands for all pairs of queues wakes the others that
// sleep, and nobody where each has its own.
func TestSwept(t *testing.T) {
	m := aTeam(4)
	var woken uint64
	m.rouse = func(set uint64) { woken |= set }
	for _, w := range m.all {
		w.nics.lanBit, w.nics.wanBit, w.nics.shared = 1, 2, true
	}
	m.lieDown(m.all[0], 9)
	m.lieDown(m.all[1], 9)
	m.lieDown(m.all[2], 9)
	for _, c := range []struct {
		who        int
		bits, want uint64
		own        bool
	}{{1, 2, 1 | 4, false}, {0, 1, 2 | 4, false}, {3, 3, 7, false}, {1, 4, 0, false}, {1, sys.Woken, 0, false}, {1, 3, 0, true}} {
		w := m.all[c.who]
		woken, w.nics.shared = 0, !c.own
		if m.swept(w, c.bits); woken != c.want {
			t.Errorf("%+v: woken %b", c, woken)
		}
	}
}

// TestLieDown: a worker does not sleep when somebody wants something of it.
func TestLieDown(t *testing.T) {
	m := aTeam(2)
	one, other := m.all[0], m.all[1]
	if !m.lieDown(other, 9) || !other.asleep.Load() || other.until.Load() != 9 {
		t.Fatal("it sleeps")
	}
	m.getUp(other, 10)
	if other.asleep.Load() || other.until.Load() != 10 {
		t.Fatal("it is awake")
	}
	for name, want := range map[string]func(){
		"to stand still": func() { m.hold.Store(true) },
		"a snapshot":     func() { m.hold.Store(false); m.shots.Add(1) },
		"a restore":      func() { other.shots = m.shots.Load(); m.moves.Add(1) },
	} {
		m.hold.Store(false)
		other.shots, other.moves = m.shots.Load(), m.moves.Load()
		if want(); m.lieDown(other, 9) || other.asleep.Load() {
			t.Errorf("%s is wanted", name)
		}
	}
	m.hold.Store(false)
	if !m.lieDown(one, 9) {
		t.Error("the first worker does not sleep")
	}
	other.events.Put(&event.Record{})
	if m.lieDown(one, 9) {
		t.Error("another worker's event waits")
	}
}

// TestCollect: a snapshot is whole once all other workers have made theirs.
func TestCollect(t *testing.T) {
	m := aTeam(4)
	for range 2 {
		if m.collect() {
			t.Fatal("nobody has made one")
		}
	}
	m.all[0].asleep.Store(true)
	woken := uint64(0)
	m.rouse = func(set uint64) { woken |= set }
	for _, w := range m.all[1:] {
		if m.collect() {
			t.Fatal("not all have made one")
		}
		m.shoot(w, m.shots.Load())
	}
	if woken != 1 {
		t.Errorf("%b are woken, want the first, which sleeps", woken)
	}
	if !m.collect() {
		t.Error("all have made one")
	}
	if m.collect() {
		t.Error("one snapshot is one")
	}
	if !aTeam(1).collect() {
		t.Error("the only worker waits for others")
	}
}

// TestNumberOfWorkers: a power of two, no more than processors, pairs of queues and memory allow.
func TestNumberOfWorkers(t *testing.T) {
	for n, want := range map[int]int{-1: 1, 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 7: 4, 8: 8, 100: 8} {
		if got := atMost(n); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
	all := func(n int) int { return n }
	for _, c := range []struct {
		most       int
		affordable func(int) int
		want       int
	}{{1, all, 1}, {2, all, 1}, {8, all, 1}} {
		ss := &sides{}
		for i := range ss {
			ss[i].NetDevice, ss[i].name = &virtio.NetDevice{}, "lan"
		}
		if got := ss.workers(c.most, c.affordable); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	p := &ruleset.Policy{Interfaces: []ruleset.Interface{{Role: ruleset.LAN}, {Role: ruleset.WAN}}, Settings: ruleset.Settings{MaxFlows: 4096}}
	one, two, four := memoryNeeded(p, 1500, 1), memoryNeeded(p, 1500, 2), memoryNeeded(p, 1500, 4)
	if one >= two || two >= four {
		t.Fatalf("%d, %d and %d bytes", one, two, four)
	}
	for free, want := range map[uint64]int{one - 1: 1, one: 1, two - 1: 1, two: 2, four - 1: 2, four: 4, 1 << 40: 4} {
		if got := affordable(p, 1500, 4, free); got != want {
			t.Errorf("with %d bytes %d workers, want %d", free, got, want)
		}
	}
}
