package main

import (
	"math/bits"

	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
)

// mostWorkers returns how many workers the machine's processors, and the boot arguments, allow.
func mostWorkers(args arguments) int {
	n, _ := sys.Processors()
	if args.workers > 0 {
		n = min(n, args.workers)
	}
	return atMost(n)
}

// atMost returns the largest number of workers up to n: a power of two.
func atMost(n int) int {
	return 1 << (bits.Len(uint(min(max(n, 1), virtio.MaxPairs))) - 1)
}

// workers returns how many workers there are: most at most, as many as both devices have pairs of
// queues, and as there is memory for by affordable. It says what is not used, and why.
func (ss *sides) workers(most int, affordable func(n int) int) int {
	n := most
	for i := range ss {
		if k := ss[i].Pairs(); k < n {
			n = atMost(k)
			say("note: " + fewer(n, most) + ": the " + ss[i].name + " interface has " + itoa(k) + " pair(s) of queues (QEMU: queues=" + itoa(most) + " and mq=on)")
		}
	}
	if k := affordable(n); k < n {
		say("note: " + fewer(k, most) + ": there is no memory for more (give the machine more with --memory, or lower defaults.max_flows)")
		n = k
	}
	return n
}

func fewer(n, most int) string {
	return itoa(n) + " worker(s) forward packets, and the machine has processors for " + itoa(most)
}
