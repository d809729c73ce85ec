package main

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // cannot fail with these arguments
	return time.Duration(t.Nano())
}

// multiplyCycles is the latency of a multiplication, on Intel's and AMD's processors alike.
const multiplyCycles = 3

// spin does n multiplications, each of the last one's result.
//
//go:noinline
func spin(n int, x uint64) uint64 {
	for ; n > 0; n -= 4 {
		x *= 0x9e3779b97f4a7c15
		x *= 0x9e3779b97f4a7c15
		x *= 0x9e3779b97f4a7c15
		x *= 0x9e3779b97f4a7c15
	}
	return x
}

// cycles returns how many cycles of polls there are for a packet, in some turns, each with a
// machine of its own where flows begin or end. All times are medians of short ones: what a
// machine that is one of several on its processor loses now and then is not counted.
func (s *scenario) cycles(turns int) (float64, error) {
	const chain = 64 << 10
	var polls, clock, look []time.Duration
	var m *machine
	for range max(turns, 1) {
		if m == nil || s.fresh || s.end {
			var err error
			if m, err = s.prepare(); err != nil {
				return 0, err
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
			return 0, err
		}
		m.timed = false
		polls = append(polls, m.spent...)
	}
	none := median(look)
	GHz := chain * multiplyCycles / float64(median(clock)-none)
	all := float64(median(polls)-none) * float64(len(polls)/max(turns, 1))
	return all * GHz / float64(s.packets), nil
}

// median sorts d.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

var sink uint64
