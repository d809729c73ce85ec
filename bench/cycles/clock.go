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

// cycles returns how many cycles of polls there are for a packet: the median of some turns,
// each with a machine of its own where flows begin or end.
func (s *scenario) cycles(turns int) (float64, error) {
	const chain = 3 << 20
	var got []float64
	var m *machine
	for range max(turns, 1) {
		if m == nil || s.fresh || s.end {
			var err error
			if m, err = s.prepare(); err != nil {
				return 0, err
			}
		}
		const looks = 1000
		start := threadTime()
		for range looks {
			threadTime()
		}
		look := (threadTime() - start) / looks
		start = threadTime()
		sink = spin(chain, sink|1)
		clock := chain * multiplyCycles / float64(threadTime()-start) // GHz
		m.timed, m.spent, m.polls = true, 0, 0
		if err := s.run(m); err != nil {
			return 0, err
		}
		m.timed = false
		took := m.spent - time.Duration(m.polls)*look
		got = append(got, float64(took)*clock/float64(s.packets))
	}
	slices.Sort(got)
	return got[len(got)/2], nil
}

var sink uint64
