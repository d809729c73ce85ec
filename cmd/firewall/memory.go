package main

import (
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
	// buffers is the number of packet buffers: two full queues for each of two devices, and
	// as many again in the data plane.
	buffers = 2048
	// ringSize is the number of events that may wait to be printed.
	ringSize = 4096
	// tlsHeap is the memory of TLS in Go's heap beside the links, in bytes: certificates of
	// authorities, and handshakes.
	tlsHeap = 4 << 20
	// heapFloor is the least memory for Go's heap in bytes.
	heapFloor = 8 << 20
)

// memoryNeeded returns the memory of the policy's tables and of the buffers, with the least
// heap, in bytes.
func memoryNeeded(p *ruleset.Policy) uint64 {
	tables := router.MemoryOf(p)
	heap := heapFloor
	if tables.Links > 0 {
		heap += tlsHeap
	}
	return uint64(tables.Total()+event.RingBytes(ringSize)+export.StreamBytes+virtio.VsockBytes+heap) + 2*(2<<20) + buffers*framebuf.Size
}

// alloc returns memory for the flow table. memoryNeeded has checked that there is enough; a
// failure is a bug.
func alloc(n int, zeroed bool) []byte {
	mem, _, err := sys.DMA(n, zeroed)
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
