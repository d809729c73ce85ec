package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/thurward/thurward/internal/vmm"
)

// A result is what one scenario gave.
type result struct {
	perCPU  float64 // packets that arrived, per second of the guest's processor time
	wall    float64 // the same per second
	arrived float64 // share of what the guest was given
	share   float64 // of its processor that the guest had
	busy    float64 // of that, what it did not only look for packets; 0: it does not tell
}

var errInterrupted = errors.New("interrupted")

// measure boots the guest of a scenario, makes its flows known, and counts.
func measure(q *vmm.QEMU, p *parts, s scenario, kvm bool, d time.Duration, dir string, ports [2]*port, stop chan os.Signal) (r result, err error) {
	program, table, memory := p.firewall, 1<<17, 128
	if s.wire {
		program, table = p.wire, 1<<10
	} else if s.flows > table {
		table, memory = 2*s.flows, 1024
	}
	img := filepath.Join(dir, "bench.img")
	if err := p.link(img, program, table); err != nil {
		return r, err
	}
	var c *counters
	var vsock vmm.Vsock
	if !s.wire {
		if c, err = newCounters(dir); err != nil {
			return r, err
		}
		defer c.close()
		vsock = c.vsock()
	}
	g, err := boot(q, img, kvm, memory, 1, ports, vsock)
	if err != nil {
		return r, err
	}
	defer g.stop()
	for until := time.Now().Add(10 * time.Second); !ports[0].up() || !ports[1].up(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			return r, errors.New("the guest does not use its devices")
		}
	}
	st := newStream(s.flows, s.size, s.fresh, ports[0].mac, guestMAC[0])
	if err := st.prime(ports, s, stop); err != nil {
		return r, err
	}

	received := uint64(0)
	sink := func(f []byte) {
		if isUDP(f) {
			received++
		}
	}
	turns := func(until time.Time) error {
		for n := 0; ; n++ {
			if err := errors.Join(ports[0].turn(nil, st.fill), ports[1].turn(sink, nil)); err != nil {
				return err
			}
			if n%64 == 0 {
				select {
				case <-stop:
					return errInterrupted
				default:
				}
				if time.Now().After(until) {
					return nil
				}
			}
		}
	}
	// count takes the guest's counters, under load.
	count := func() (shot snapshot, err error) {
		if c == nil {
			return shot, nil
		}
		c.ask()
		for until := time.Now().Add(20 * time.Second); time.Now().Before(until); {
			if err := turns(time.Now().Add(10 * time.Millisecond)); err != nil {
				return shot, err
			}
			select {
			case shot = <-c.shots:
				return shot, nil
			default:
			}
		}
		return shot, errors.New("the guest sends no metrics")
	}
	if err := turns(time.Now().Add(300 * time.Millisecond)); err != nil { // the emulator compiles
		return r, err
	}
	before, err := count()
	if err != nil {
		return r, err
	}
	sent0, recv0, begin := st.next, received, time.Now()
	cpu0, err := g.cpuTime()
	if err != nil {
		return r, err
	}
	if err := turns(begin.Add(d)); err != nil {
		return r, err
	}
	cpu1, err := g.cpuTime()
	if err != nil {
		return r, err
	}
	wall, cpu, n := time.Since(begin), cpu1-cpu0, float64(received-recv0)
	if n == 0 || cpu <= 0 {
		return r, errors.New("nothing arrived")
	}
	r = result{perCPU: n / cpu.Seconds(), wall: n / wall.Seconds(), arrived: n / float64(st.next-sent0), share: cpu.Seconds() / wall.Seconds()}
	after, err := count()
	if err != nil {
		return r, err
	}
	if c != nil {
		r.busy = (after.busy - before.busy) / (after.uptime - before.uptime)
	}
	return r, nil
}

// window is how many frames of the priming may be under way.
const window = 64

// prime sends one frame of every flow and answers what arrives on the WAN, so
// that the flows are established as their packets are measured.
func (s *stream) prime(ports [2]*port, sc scenario, stop chan os.Signal) error {
	flows := uint64(sc.flows)
	if sc.wire || sc.fresh {
		flows = 16
	}
	size, fresh := s.size, s.fresh
	s.size, s.fresh = 60, false
	back, lost, last := uint64(0), uint64(0), time.Now()
	for back+lost < flows {
		err := ports[0].turn(func(f []byte) {
			if isUDP(f) {
				back++
				last = time.Now()
			}
		}, func(b []byte) int {
			if s.next >= flows || s.next-back-lost >= window {
				return 0
			}
			return s.fill(b)
		})
		if err == nil {
			err = ports[1].turn(func(f []byte) {
				if isUDP(f) {
					ports[1].own = append(ports[1].own, answer(f))
				}
			}, nil)
		}
		if err != nil {
			return err
		}
		if time.Since(last) > 200*time.Millisecond { // some got lost, as while a neighbour was asked for
			lost, last = s.next-back, time.Now()
		}
		select {
		case <-stop:
			return errInterrupted
		default:
		}
	}
	s.size, s.fresh = size, fresh
	if lost*50 > flows && !sc.wire && flows > 1000 {
		return errors.New("more than 2 % of the flows got no answer")
	}
	return nil
}
