package main

import (
	"math"
	"runtime"
	"strconv"
	"sync/atomic"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
)

// Several workers (ADR 0044 and 0056): each forwards the packets of its own queues in a thread of
// its own. The first one has, beside that, what the firewall has once: the devices as a whole,
// the clock, the stream, the watchdog.

// A worker forwards packets of its own queues.
type worker struct {
	k       int
	e       *router.Engine
	nics    *pair
	gaps    gaps
	events  *event.Ring
	metrics export.Metrics  // of a worker but the first: what the first one adds to its own
	gen     sys.Generations // the restores that it has seen
	moves   uint64          // of team.moves
	shots   uint64          // of team.shots

	// These others read, or write.
	_      [64]byte
	asleep atomic.Bool  // or about to be: it is to be woken
	until  atomic.Int64 // by when it polls again, unless it stands still, in monotonic nanoseconds
	_      [64]byte
}

// A team is all workers, and how the first one has the others do something. Only it calls pause,
// halt, collect and watch.
type team struct {
	all           []*worker
	hold          atomic.Bool      // they are to stand still
	parked        atomic.Int32     // how many do
	resume        chan struct{}    // one for each goes on
	rouse         func(set uint64) // sys.Wake; another one for tests
	moves         atomic.Uint64    // restores that the hypervisor has told by a device
	shots         atomic.Uint64    // snapshots of metrics that were asked for
	missing       atomic.Int32     // how many workers have not made the last one yet
	asked         bool             // one is being made
	still         bool             // some worker stands still
	looks, looked int64            // times of the next and of the last look at them
	patience      [virtio.MaxPairs]patience
}

// newTeam makes workers of engines, each with its queues and its ring.
func newTeam(engines []*router.Engine, nics []*pair, rings event.Rings, gen sys.Generations) *team {
	t := &team{resume: make(chan struct{}), rouse: sys.Wake}
	for k, e := range engines {
		w := newWorker(k, e, nics[k], rings[k], gen)
		if k > 0 {
			w.metrics.Add(w.families(len(engines))...)
		}
		t.all = append(t.all, w)
	}
	return t
}

// families returns the metrics that each of n workers has.
func (w *worker) families(n int) []export.Family { return append(w.e.Metrics(), w.own(n)...) }

// own are those of its loop and its queues.
func (w *worker) own(n int) []export.Family {
	per := func(kind export.MetricType, name, help string, scale uint64, of func() uint64) export.Family {
		return export.Family{Name: name, Help: help, Type: kind, N: n, Scale: scale,
			Labels: export.LabelOf("worker", strconv.Itoa), Fill: func(v []uint64) { v[w.k] = of() }}
	}
	return append(append(w.nics.metrics(), w.gaps.metrics()...),
		per(export.Counter, "thurward_worker_busy_seconds_total", "Time in which a worker had work.", 1e9, func() uint64 { return w.gaps.busy }),
		per(export.Counter, "thurward_worker_handed_over_total",
			"Frames that came to a worker and were another one's.", 1, func() uint64 { return w.e.Counters().HandedOver }),
		per(export.Counter, "thurward_worker_ports_lent_total",
			"External ports that a worker lent to another one that had none left.", 1, func() uint64 { return w.e.Counters().PortsLent }),
		per(export.Gauge, "thurward_worker_conntrack_entries",
			"Flows in a worker's part of the table.", 1, func() uint64 { return uint64(w.e.Flows().Len()) }))
}

// count returns how many workers there are, as a metric.
func (t *team) count() export.Family {
	return export.Family{Name: "thurward_workers", Help: "Workers that forward packets, each with a pair of queues of both devices.",
		Type: export.Gauge, Fill: func(v []uint64) { v[0] = uint64(len(t.all)) }}
}

func newWorker(k int, e *router.Engine, nics *pair, events *event.Ring, gen sys.Generations) *worker {
	return &worker{k: k, e: e, nics: nics, events: events, gen: gen}
}

// begin starts all workers but the first.
func (t *team) begin() {
	now := sys.Nanotime()
	for _, w := range t.all[1:] {
		w.until.Store(now)
		go t.work(w)
	}
}

// parts are the metrics of all workers but the first.
func (t *team) parts() (ms []*export.Metrics) {
	for _, w := range t.all[1:] {
		ms = append(ms, &w.metrics)
	}
	return ms
}

// several reports whether there is more than one worker.
func (t *team) several() bool { return len(t.all) > 1 }

// wake wakes those of a set of workers who sleep.
func (t *team) wake(set uint64) {
	asleep := uint64(0)
	for k, w := range t.all {
		if set>>k&1 != 0 && w.asleep.Load() {
			asleep |= 1 << k
		}
	}
	if asleep != 0 {
		t.rouse(asleep)
	}
}

// others are all workers but the first, as a set.
func (t *team) others() uint64 { return 1<<len(t.all) - 2 }

// tell wakes the workers to whom w has handed something over.
func (t *team) tell(w *worker) {
	if set := w.e.Told(); set != 0 {
		t.wake(set)
	}
}

// lieDown announces that w is about to sleep until deadline. It reports false, and has not, if there
// is something to do: whoever asks for something after that wakes it.
func (t *team) lieDown(w *worker, deadline int64) bool {
	if !t.several() {
		return true
	}
	w.asleep.Store(true)
	if w.e.Waiting() || w.k > 0 && (t.hold.Load() || t.shots.Load() != w.shots || t.moves.Load() != w.moves) ||
		w.k == 0 && (t.asked && t.missing.Load() == 0 || t.events() > 0) {
		w.asleep.Store(false)
		return false
	}
	w.until.Store(deadline)
	return true
}

// getUp is the end of lieDown.
func (t *team) getUp(w *worker, now int64) {
	if t.several() {
		w.asleep.Store(false)
		w.until.Store(now)
	}
}

// events returns how many events wait for the stream.
func (t *team) events() (n int) {
	for _, w := range t.all {
		n += w.events.Len()
	}
	return n
}

// moving takes note that w polls.
func (w *worker) moving(now int64) {
	if now-w.until.Load() > int64(1e6) {
		w.until.Store(now)
	}
}

// After stillAfter without a poll of its own a worker stands still, which is reported, and after
// deadAfter the firewall has failed, in nanoseconds. On a host that is far overloaded a processor is
// not run for some tenths of a second.
const (
	stillAfter = int64(2e9)
	deadAfter  = int64(6e9)
	// mostMissed is the longest time between two looks that counts: in what is beyond, the first
	// worker may not have run either.
	mostMissed = int64(1100e6)
)

// A patience is how long a worker has not polled although it should have.
type patience struct {
	until  int64 // of the worker, at the last look
	silent int64
	told   bool
}

// standing reports whether a worker stands still: then the firewall has failed, although the first
// one runs. Each time is reported once.
func (t *team) standing(now int64) (any, dead bool) {
	d := min(now-t.looked, mostMissed)
	t.looked = now
	for k, w := range t.all[1:] {
		p, until := &t.patience[k+1], w.until.Load()
		if until != p.until || now < until {
			*p = patience{until: until}
			continue
		}
		if p.silent += d; p.silent < stillAfter {
			continue
		}
		if any = true; !p.told {
			p.told = true
			say("note: worker " + itoa(k+1) + " has not polled for " + itoa(int(p.silent/1e6)) + " ms: the host gave its processor no time, or report it")
		}
		dead = dead || p.silent >= deadAfter
	}
	return any, dead
}

// watch looks at the other workers, and ends the firewall when one stands still for good.
func (t *team) watch(now int64) {
	if t.looks = now + lookEvery; !t.several() {
		t.looks = math.MaxInt64
		return
	}
	dead := false
	if t.still, dead = t.standing(now); dead {
		say("crash: a worker stands still, as the note says: its packets do not pass")
		sys.ResetReporting()
	}
}

// park holds a worker up while the first one does what no other may be busy for.
func (t *team) park() {
	t.parked.Add(1)
	<-t.resume
}

// pause does something while all other workers stand still.
func (t *team) pause(do func()) {
	if !t.several() {
		do()
		return
	}
	t.halt(math.MaxInt64)
	do()
	t.parked.Store(0)
	t.hold.Store(false)
	now := sys.Nanotime()
	for _, w := range t.all[1:] {
		w.until.Store(now)
		t.resume <- struct{}{}
	}
}

// halt has all other workers stand still, and waits for it until limit at most.
func (t *team) halt(limit int64) {
	t.hold.Store(true)
	t.wake(t.others())
	for int(t.parked.Load()) < len(t.all)-1 && sys.Nanotime() < limit {
		runtime.Gosched()
	}
}

// collect has all other workers make a snapshot of their metrics, and reports whether they have.
func (t *team) collect() bool {
	switch {
	case !t.several():
		return true
	case t.hold.Load(): // for ever: see end
		for _, w := range t.all[1:] {
			w.metrics.Fill()
		}
		return true
	case !t.asked:
		t.asked = true
		t.missing.Store(int32(len(t.all) - 1))
		t.shots.Add(1)
		t.wake(t.others())
		return false
	case t.missing.Load() > 0:
		return false
	}
	t.asked = false
	return true
}

// shoot makes a worker's snapshot.
func (t *team) shoot(w *worker, shots uint64) {
	w.shots = shots
	w.metrics.Fill()
	if t.missing.Add(-1) == 0 {
		t.wake(1)
	}
}

// work is the packet loop of a worker but the first.
func (t *team) work(w *worker) {
	runtime.LockOSThread()
	w.wait(0) // from now on the kernel keeps what comes for it
	g, idle, busy := &w.gaps, 0, 0
	g.last = sys.Nanotime()
	for {
		now := sys.Nanotime()
		g.poll(now)
		w.moving(now)
		if g.late.due(now) {
			s, r := g.late.report(now)
			say(s)
			w.events.Put(&r)
		}
		if t.hold.Load() {
			t.park()
			g.last = sys.Nanotime()
			continue
		}
		if n := t.shots.Load(); n != w.shots {
			t.shoot(w, n)
		}
		if n := t.moves.Load(); w.gen.Changed() || n != w.moves {
			w.moves = n
			reseed(w.e)
			w.e.Moved()
		}
		n := w.e.Poll(now)
		t.tell(w)
		if n > 0 {
			idle, g.found = 0, true
			if busy++; busy%yieldEvery == 0 {
				t.look(w, now)
			}
			continue
		}
		if idle++; idle < spin {
			continue
		}
		t.sleep(w, now)
		idle = 0
	}
}

// sleep waits until there is something to do for a worker but the first.
func (t *team) sleep(w *worker, now int64) {
	if w.events.Len() > 0 {
		t.wake(1) // the stream is the first one's
	}
	deadline := min(now+longWait, w.e.NextDeadline())
	if t.lieDown(w, deadline) {
		if !w.nics.arm() {
			bits := w.wait(deadline)
			now = sys.Nanotime()
			w.gaps.woke(now, deadline)
			t.acked(w, bits)
		}
		w.nics.disarm()
		t.getUp(w, now)
	}
	t.look(w, now)
}

// look does at intervals what a worker that never sleeps must not forget.
func (t *team) look(w *worker, now int64) {
	if w.events.Len() > 0 {
		t.wake(1)
	}
	if w.nics.due(now) {
		t.acked(w, w.wait(0))
		w.nics.kick()
	}
}

// wait waits until the worker's queues interrupt or it is woken, until deadline at most; the first
// one's, for what the machine has once, too.
func (w *worker) wait(deadline int64) uint64 {
	bits := uint64(0) // all
	if w.k > 0 {
		bits = w.nics.lanBit | w.nics.wanBit | sys.Woken
	}
	return sys.WaitAs(w.k, bits, deadline)
}

// acked acknowledges the interrupts of a worker but the first.
func (t *team) acked(w *worker, bits uint64) {
	if w.nics.ack(bits) {
		t.rouse(1)
	}
	t.swept(w, bits)
}

// swept is what follows an acknowledgement by w. Where one interrupt stands for all pairs of queues
// the device may have used another one's between the reading of its status and the writing, and
// that does not interrupt any more: who sleeps has to look.
func (t *team) swept(w *worker, bits uint64) {
	if w.nics.shared && bits&(w.nics.lanBit|w.nics.wanBit) != 0 {
		t.wake((1<<len(t.all) - 1) &^ (1 << w.k))
	}
}

// lost returns how many frames were lost by renewals of a device, 0 LAN and 1 WAN. The other
// workers' counts are as of their last renewal, before which they stood still.
func (t *team) lost(side int) (n uint64) {
	for _, w := range t.all {
		n += [...]*virtio.Net{w.nics.lan, w.nics.wan}[side&1].Lost()
	}
	return n
}
