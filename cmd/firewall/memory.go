package main

import (
	"errors"
	"runtime/debug"
	"strconv"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/router"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/guest/virtio"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

const (
	// longBuffers is the number of those for large frames, of a worker: as many as its receive
	// queues have of them, and half as many on their way. A machine without memory for them has none.
	longBuffers = 48
	// ringSize is the number of events that may wait to be printed.
	ringSize = 4096
	// tlsHeap is the memory of TLS in Go's heap beside the links, in bytes: certificates of
	// authorities, and handshakes.
	tlsHeap = 4 << 20
	// heapFloor is the least memory for Go's heap in bytes.
	heapFloor = 8 << 20
)

// memoryNeeded returns the memory of the policy's tables and of the buffers for packets of at
// most mtu bytes, of a number of workers, with the least heap, in bytes.
func memoryNeeded(p *ruleset.Policy, mtu, workers int) uint64 {
	tables := router.MemoryOf(p, mtu, workers)
	heap := heapFloor
	if tables.Links > 0 {
		heap += tlsHeap
	}
	return uint64(tables.Total()+workers*event.RingBytes(ringSize)+export.StreamBytes+virtio.VsockBytes+heap) + 2*(2<<20)
}

// affordable returns how many workers there is memory for, n at most.
func affordable(p *ruleset.Policy, mtu, n int, free uint64) int {
	for n > 1 && memoryNeeded(p, mtu, n) > free {
		n /= 2
	}
	return n
}

// fits returns the MTU that buffers are made for, with free bytes of memory, and devices that
// report the MTUs lan and wan. A policy may need more memory than there is: that is reported
// before anything is allocated. Large buffers for which only a device asks are not made where
// there is no memory for them.
func fits(p *ruleset.Policy, lan, wan int, free uint64) (mtu int, err error) {
	mtu = router.LargestMTU(p, lan, wan)
	if memoryNeeded(p, mtu, 1) <= free {
		return mtu, nil
	}
	mtu = min(mtu, router.LargestMTU(p, 0, 0))
	if need := memoryNeeded(p, mtu, 1); need > free {
		return 0, errors.New("the policy needs " + mega(need) + " MB of memory for " + itoa(int(p.Settings.MaxFlows)) +
			" flows and its buffers for packets of " + itoa(mtu) + " bytes, and " + mega(free) + " MB are free " +
			"(give the machine more with --memory, or lower defaults.max_flows" + lowerMTU(mtu) + ")")
	}
	return mtu, nil
}

// lowerMTU is a remedy for buffers that are larger than usual.
func lowerMTU(mtu int) string {
	if _, span := router.Buffers(mtu); span > 1 {
		return " or the interfaces' mtu"
	}
	return ""
}

// addLong adds the long buffers of all workers, if there is memory for them beside what is needed.
func addLong(pool *framebuf.Pool, workers int, needed uint64) {
	n := workers * longBuffers * framebuf.LongSize
	if needed+uint64(n) > sys.FreeBytes() {
		return
	}
	if mem, phys, err := sys.DMA(n, false); err == nil {
		pool.AddLong(mem, phys)
	}
}

// alloc returns memory for the flow table. memoryNeeded has checked that there is enough; a
// failure is a bug.
func alloc(n int, zeroed bool) []byte {
	mem, err := sys.Memory(n, zeroed)
	if err != nil {
		say("crash: no memory for tables of " + strconv.Itoa(n) + " bytes, though it had been counted")
		sys.Reset()
	}
	return mem
}

// setMemoryLimit sets the limit of Go's heap: the memory that the tables leave, less a
// reserve for stacks and page tables.
func setMemoryLimit() {
	s := sys.Stats()
	debug.SetMemoryLimit(int64(max(heapFloor, s.FreeFrames*4096*3/4)))
}

func mega(n uint64) string { return strconv.FormatUint((n+1<<20-1)>>20, 10) }

func itoa(n int) string { return strconv.Itoa(n) }
