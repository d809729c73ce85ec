package main

import (
	"fmt"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns the processor time of this thread. Two of its results have a difference
// that means something where the goroutine is locked to a thread only.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // cannot fail with these arguments
	return time.Duration(t.Nano())
}

// multiplyCycles is the latency of a multiplication, on Intel's and AMD's processors alike.
const multiplyCycles = 3

// spin does n multiplications, each of the last one's result by itself: of several by a
// constant the compiler makes one.
//
//go:noinline
func spin(n int, x uint64) uint64 {
	for ; n > 0; n -= 4 {
		x *= x
		x *= x
		x *= x
		x *= x
	}
	return x
}

// undisturbed is the quantile of times that is taken: a twentieth of them is shorter. A
// neighbour of this machine on the same core takes half of its units for milliseconds at a
// time, but none from the chain, which waits for each multiplication.
const undisturbed = 20

// A pace is what packets cost: undisturbed, and in the median.
type pace struct{ cycles, median, GHz float64 }

// cycles returns how many cycles of polls there are for a packet, in some turns, each with a
// machine of its own where flows begin or end. All times are of short runs: what a machine
// that is one of several on its processor loses now and then is not counted.
//
// It locks its goroutine to a thread: each thread has a clock of its own, and Go moves a
// goroutine to another wherever it is preempted.
func (s *scenario) cycles(turns int) (pace, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const chain = 64 << 10
	var polls, clock, look []time.Duration
	var m *machine
	for range max(turns, 1) {
		if m == nil || s.fresh || s.end {
			var err error
			if m, err = s.prepare(); err != nil {
				return pace{}, err
			}
		}
		for range 50 {
			start := threadTime()
			sink = spin(chain, sink|1)
			mid := threadTime()
			clock, look = append(clock, mid-start), append(look, threadTime()-mid)
		}
		m.timed, m.spent = true, m.spent[:0]
		if err := s.run(m); err != nil {
			return pace{}, err
		}
		m.timed = false
		polls = append(polls, m.spent...)
	}
	none := quantile(look, 2)
	GHz := chain * multiplyCycles / float64(quantile(clock, undisturbed)-none)
	if GHz < slowest || GHz > fastest {
		return pace{}, fmt.Errorf("%d multiplications say that the clock has %.1f GHz, which no processor has", chain, GHz)
	}
	if d := slices.Min(polls); d <= 0 {
		return pace{}, fmt.Errorf("a poll took %v: times of several threads", d)
	}
	per := func(n int) float64 {
		return float64(quantile(polls, n)-none) * GHz * float64(len(polls)) / float64(max(turns, 1)*s.packets)
	}
	return pace{per(undisturbed), per(2), GHz}, nil
}

// Clocks of processors, in GHz, are between these.
const slowest, fastest = 0.5, 7

// quantile sorts d, and returns what one in n of it is shorter than.
func quantile(d []time.Duration, n int) time.Duration {
	slices.Sort(d)
	return d[len(d)/n]
}

var sink uint64
