package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/thurward/thurward/bench/parts"
	"github.com/thurward/thurward/internal/host/vmm"
)

// A result is what one scenario gave.
type result struct {
	perCPU  float64 // packets that arrived, per second of the guest's processor time
	wire    float64 // what a guest that is only a wire did with the same frames, by turns
	wall    float64 // packets that arrived, per second
	arrived float64 // share of what the guest was given
	share   float64 // of its processor that the guest had
	busy    float64 // of that, what it did not only look for packets; 0: it does not tell
}

var errInterrupted = errors.New("interrupted")

// A side is a guest with its generator.
type side struct {
	g        *guest
	c        *counters // nil: the guest has none
	ports    [2]*port
	st       []*stream // one for each pair of queues
	astray   bool      // each pair gets the other one's
	large    bool
	stop     chan os.Signal
	received uint64
	total    tally
}

// A tally is what some slices of time gave.
type tally struct {
	sent, received uint64
	wall, cpu      time.Duration
}

func (t *tally) perCPU() float64 { return float64(t.received) / t.cpu.Seconds() }

// begin boots the guest of a scenario and makes its flows known. The guest is
// halted then.
func begin(q *vmm.QEMU, p *parts.Parts, s scenario, kvm bool, dir string, ports [2]*port, stop chan os.Signal) (x *side, err error) {
	program, table, memory := p.Firewall, 1<<17, 128
	if s.wire {
		program, table = p.Wire, 1<<10
	} else if s.flows > table {
		table, memory = 2*s.flows, 1024
	}
	if s.pairs > 1 {
		memory *= s.pairs
	}
	img := filepath.Join(dir, filepath.Base(ports[0].path)+".img")
	if err := p.Link(img, program, fmt.Sprintf(rules, table)); err != nil {
		return nil, err
	}
	x = &side{ports: ports, stop: stop, astray: s.astray, large: s.large}
	for _, p := range ports {
		p.offer(kind{pairs: max(s.pairs, 1), large: s.large})
	}
	begun := x
	defer func() {
		if err != nil {
			begun.end()
		}
	}()
	var vsock vmm.Vsock
	if !s.wire {
		if x.c, err = newCounters(dir); err != nil {
			return nil, err
		}
		vsock = x.c.vsock()
	}
	if x.g, err = boot(q, img, kvm, memory, 1, ports, vsock, s); err != nil {
		return nil, err
	}
	for until := time.Now().Add(10 * time.Second); !ports[0].up() || !ports[1].up(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			return nil, errors.New("the guest does not use its devices")
		}
	}
	pairs := max(s.pairs, 1)
	for k := range pairs {
		st := newStream(s.flows/pairs, s.size, s.fresh, ports[0].mac, guestMAC[0])
		st.tcp, st.pair, st.pairs = s.large, k, pairs
		x.st = append(x.st, st)
	}
	if err := x.prime(s); err != nil {
		return nil, err
	}
	if err := x.turns(300 * time.Millisecond); err != nil { // the emulator compiles
		return nil, err
	}
	return x, x.g.halt()
}

func (x *side) end() {
	if x.g != nil {
		x.g.stop()
	}
	if x.c != nil {
		x.c.close()
	}
}

// turns sends and receives for a time.
func (x *side) turns(d time.Duration) error {
	arrived := func(_ int, f []byte, _ int) {
		if isUDP(f) {
			x.received++
		}
	}
	if x.large { // whole
		arrived = func(_ int, f []byte, total int) {
			if total == largeLen && isTCP(f) {
				x.received++
			}
		}
	}
	next := x.next
	if len(x.st) == 1 && !x.large {
		s := x.st[0]
		next = func(_ int, _ *[netHeader]byte, b []byte) int { return s.fill(b) }
	}
	until := time.Now().Add(d)
	for n := 0; ; n++ {
		if err := errors.Join(x.ports[0].turn(nil, next), x.ports[1].turn(arrived, nil)); err != nil {
			return err
		}
		if n%64 == 0 {
			select {
			case <-x.stop:
				return errInterrupted
			default:
			}
			if time.Now().After(until) {
				return nil
			}
		}
	}
}

// stream is that of which pair k of the queues gets the frames.
func (x *side) stream(k int) *stream {
	if x.astray {
		k = len(x.st) - 1 - k
	}
	return x.st[k]
}

// next is a fill.
func (x *side) next(k int, h *[netHeader]byte, b []byte) int {
	s := x.stream(k)
	if s.tcp {
		return s.large(h, b, s.flow())
	}
	return s.fill(b)
}

// sent returns how many frames have been made.
func (x *side) sent() (n uint64) {
	for _, s := range x.st {
		n += s.next
	}
	return n
}

// busy returns the share of a time in which the guest had packets, by its own
// counters. It is not halted in between, which it would take for work.
func (x *side) busy(d time.Duration) (float64, error) {
	if x.c == nil || len(x.st) > 1 { // several workers take turns at the guest's processor
		return 0, nil
	}
	if err := x.g.resume(); err != nil {
		return 0, err
	}
	before, err := x.snapshot()
	if err != nil {
		return 0, err
	}
	if err := x.turns(d); err != nil {
		return 0, err
	}
	after, err := x.snapshot()
	if err != nil {
		return 0, err
	}
	return (after.busy - before.busy) / (after.uptime - before.uptime), x.g.halt()
}

// snapshot takes the guest's counters, under load.
func (x *side) snapshot() (shot snapshot, err error) {
	x.c.ask()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); {
		if err := x.turns(10 * time.Millisecond); err != nil {
			return shot, err
		}
		select {
		case shot = <-x.c.shots:
			return shot, nil
		default:
		}
	}
	return shot, errors.New("the guest sends no metrics")
}

// The guests of a scenario and its wire are measured by turns, one halted while
// the other runs: a machine's speed changes from second to second. Of each slice
// the first part is not counted, in which caches are filled.
const (
	slice   = 100 * time.Millisecond
	settles = 10 * time.Millisecond
)

// slice measures a guest for a short time.
func (x *side) slice() error {
	if err := x.g.resume(); err != nil {
		return err
	}
	if err := x.turns(settles); err != nil {
		return err
	}
	sent0, recv0, begin := x.sent(), x.received, time.Now()
	cpu0, err := x.g.cpuTime()
	if err != nil {
		return err
	}
	if err := x.turns(slice); err != nil {
		return err
	}
	cpu1, err := x.g.cpuTime()
	if err != nil {
		return err
	}
	x.total.sent += x.sent() - sent0
	x.total.received += x.received - recv0
	x.total.wall += time.Since(begin)
	x.total.cpu += cpu1 - cpu0
	return x.g.halt()
}

// measure counts what the guest of a scenario does in a time, and a wire beside
// it.
func measure(q *vmm.QEMU, p *parts.Parts, s scenario, kvm bool, d time.Duration, dir string, ports [2][2]*port, stop chan os.Signal) (r result, err error) {
	x, err := begin(q, p, s, kvm, dir, ports[0], stop)
	if err != nil {
		return r, err
	}
	defer x.end()
	w := x
	if !s.wire {
		s.wire = true
		if w, err = begin(q, p, s, kvm, dir, ports[1], stop); err != nil {
			return r, fmt.Errorf("the wire: %w", err)
		}
		defer w.end()
	}
	busy, err := x.busy(d / 2)
	if err != nil {
		return r, err
	}
	for x.total.wall < d {
		if err := x.slice(); err != nil {
			return r, err
		}
		if w == x {
			continue
		}
		if err := w.slice(); err != nil {
			return r, err
		}
	}
	t := &x.total
	if t.received == 0 || t.cpu <= 0 || w.total.received == 0 || w.total.cpu <= 0 {
		return r, errors.New("nothing arrived")
	}
	return result{perCPU: t.perCPU(), wire: w.total.perCPU(), wall: float64(t.received) / t.wall.Seconds(),
		arrived: float64(t.received) / float64(t.sent), share: t.cpu.Seconds() / t.wall.Seconds(), busy: busy}, nil
}

// window is how many frames of the priming may be under way at a pair of queues.
const window = 64

// prime sends one frame of every flow and answers what arrives on the WAN, so
// that the flows are established as their packets are measured.
func (x *side) prime(sc scenario) error {
	ports, flows := x.ports, uint64(sc.flows)
	if sc.wire || sc.fresh {
		flows = 16
	}
	each := flows / uint64(len(x.st))
	for _, s := range x.st {
		s.size, s.fresh = 60, false
	}
	under := uint64(window)
	if len(x.st) > 1 { // a worker but the first has its neighbours asked for by that, and few frames wait meanwhile
		under /= 8
	}
	var back, lost [maxPairs]uint64 // by the worker whose flow it is
	left, last := true, time.Now()
	for left {
		err := ports[0].turn(func(k int, f []byte, _ int) {
			if isTCP(f) {
				a := handshake(f)
				if a == nil {
					return
				}
				ports[0].own[k] = append(ports[0].own[k], a)
			} else if !isUDP(f) {
				return
			}
			back[k]++
			last = time.Now()
		}, func(k int, _ *[netHeader]byte, b []byte) int {
			s := x.stream(k)
			if s.next >= each || s.next-back[s.pair]-lost[s.pair] >= under {
				return 0
			}
			if s.tcp {
				return s.syn(b, s.flow())
			}
			return s.fill(b)
		})
		if err == nil {
			err = ports[1].turn(func(k int, f []byte, _ int) {
				if isUDP(f) {
					ports[1].own[k] = append(ports[1].own[k], answer(f))
				} else if isTCP(f) {
					if a := handshake(f); a != nil {
						ports[1].own[k] = append(ports[1].own[k], a)
					}
				}
			}, nil)
		}
		if err != nil {
			return err
		}
		some := time.Since(last) > 500*time.Millisecond // got lost, as while a neighbour was asked for
		left = false
		for k, s := range x.st {
			if some {
				lost[k], last = s.next-back[k], time.Now()
			}
			left = left || back[k]+lost[k] < each
		}
		select {
		case <-x.stop:
			return errInterrupted
		default:
		}
	}
	for _, s := range x.st {
		s.size, s.fresh = sc.size, sc.fresh
	}
	if gone := lost[0] + lost[1]; gone*50 > flows && !sc.wire && flows > 1000 {
		return fmt.Errorf("%d and %d of %d flows got no answer: more than 2 %%", lost[0], lost[1], flows)
	}
	return nil
}
