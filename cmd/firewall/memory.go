package main

import (
	"runtime/debug"
	"strconv"

	"github.com/thurward/thurward/internal/conntrack"
	"github.com/thurward/thurward/internal/dataplane"
	"github.com/thurward/thurward/internal/frame"
	"github.com/thurward/thurward/internal/machine"
	"github.com/thurward/thurward/internal/nat"
	"github.com/thurward/thurward/internal/segment"
	"github.com/thurward/thurward/internal/telemetry"
	"github.com/thurward/thurward/internal/virtio"
)

const (
	// buffers is the number of packet buffers: two full queues for each of
	// two devices, and as many again in hand or waiting for a neighbour.
	buffers = 2048
	// ringSize is the number of events that may wait to be printed.
	ringSize = 4096
	// tlsHeap is what TLS takes of Go's heap beside the links: the authorities'
	// certificates, and handshakes.
	tlsHeap = 4 << 20
	// heapFloor is what Go's heap gets at least.
	heapFloor = 8 << 20
)

// memoryNeeded returns the memory that the policy's tables and the buffers
// take, with the least heap that works.
func memoryNeeded(p *segment.Policy) uint64 {
	links := dataplane.LinkBytes(p)
	if links > 0 {
		links += tlsHeap
	}
	return uint64(links) + uint64(conntrack.Bytes(int(p.Settings.MaxFlows))+conntrack.SourcesBytes(int(p.Settings.MaxFlows), p.Settings.SourceFlows, p.Settings.SourceRate)+nat.Bytes(p)+dataplane.NameBytes(p)) + 2*(2<<20) + buffers*frame.Size +
		uint64(telemetry.RingBytes(ringSize)+telemetry.StreamBytes+virtio.VsockBytes) + heapFloor
}

// alloc returns memory for the flow table. Whether there is enough has been
// checked (memoryNeeded); what is missing nevertheless is a broken promise.
func alloc(n int, zeroed bool) []byte {
	mem, _, err := machine.DMA(n, zeroed)
	if err != nil {
		say("crash: no memory for tables of " + strconv.Itoa(n) + " bytes, though it had been counted")
		machine.Reset()
	}
	return mem
}

// setMemoryLimit tells Go how much memory is left for its heap, now that the
// tables have theirs, keeping some for stacks and page tables.
func setMemoryLimit() {
	s := machine.Stats()
	debug.SetMemoryLimit(int64(max(heapFloor, s.FreeFrames*4096*3/4)))
}

func mega(n uint64) string { return strconv.FormatUint((n+1<<20-1)>>20, 10) }

func itoa(n int) string { return strconv.Itoa(n) }
