package main

import (
	"math/bits"
	"sync/atomic"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Several processors in one kernel: there is one lock, which who runs kernel code holds.
// It is taken and left in the functions that the assembly files call, and left while a
// processor sleeps. A thread's frame is complete before the lock is taken, and belongs to
// the processor that runs the thread after it was left. Where there is one processor
// nothing is locked.
//
// Ring 3 has interrupts on, also in the kernel: a processor that waits for the lock
// takes part in what another one waits for (shootdown).

// A cpu is what the kernel knows of a processor. Its index is the processor's number.
type cpu struct {
	thread   uint32 // that it runs, or noThread
	state    uint32 // see startProcessor
	stale    bool   // it must forget cached translations before it goes on
	sliced   bool   // that is within a slice, since other threads were ready
	told     uint64 // when it was last told to come: see coming
	armed    uint64 // when its timer interrupts; or never
	trapPage uint64 // where its TrapPage is in the window
}

var (
	cpus       [abi.MaxProcessors]cpu
	processors uint32 = 1 // that run
	idle       uint32     // bit i: processor i sleeps, or is about to
	kernelLock uint32 = 1
)

// me returns the present processor's.
func me() *cpu { return &cpus[my().number%abi.MaxProcessors] }

// cur returns the number of the thread that the processor runs, or noThread.
func cur() uint32 { return me().thread }

func pause()

// enter takes the kernel's lock, leave gives it back.
func enter() {
	if processors != 1 {
		lock()
	}
}

func leave() {
	if processors != 1 {
		unlock()
	}
}

func lock() {
	for !atomic.CompareAndSwapUint32(&kernelLock, 0, 1) {
		for atomic.LoadUint32(&kernelLock) != 0 {
			pause()
		}
	}
}

// unlock gives the lock back. Threads that are ready by then and have no processor get
// those that sleep.
func unlock() {
	if runHead != noThread {
		summon()
	}
	atomic.StoreUint32(&kernelLock, 0)
}

// send interrupts processor n.
func send(n uint32, what uint64) {
	if monitor(monSend, uint64(n), what, 0, 0) != 0 {
		crash("the monitor refused to interrupt a processor")
	}
}

// interruptThread has a thread that runs on another processor look at its signals.
func interruptThread(n uint32) {
	for i := range processors {
		if i != my().number && cpus[i].thread == n {
			send(i, abi.SendWake)
		}
	}
}

// answerWithin is how long another processor may take to forget its translations, in
// nanoseconds: only a host that has stopped it takes as long.
const answerWithin = 10_000_000_000

// shootdown makes removed mappings take effect on the other processors. Those that sleep
// see to it themselves when they go on.
func shootdown() {
	var before [abi.MaxProcessors]uint32
	asked := uint32(0)
	for i := range processors {
		switch {
		case i == my().number:
		case idle>>i&1 != 0:
			cpus[i].stale = true
		default:
			before[i] = atomic.LoadUint32(&mon().Flushed[i])
			asked |= 1 << i
			stats.Shootdowns++
			send(i, abi.SendFlush)
		}
	}
	t := uint64(0)
	for n := 0; asked != 0; n++ {
		i := uint32(bits.TrailingZeros32(asked))
		if atomic.LoadUint32(&mon().Flushed[i]) != before[i] {
			asked &^= 1 << i
			continue
		}
		pause()
		if n&0xffff != 0xffff {
			continue
		}
		if t == 0 {
			t = now()
		} else if now()-t > answerWithin {
			crash("a processor does not answer")
		}
	}
}

// lastRunning reports whether no other processor runs a thread.
func lastRunning() bool {
	for i := range processors {
		if i != my().number && cpus[i].thread != noThread {
			return false
		}
	}
	return true
}

// covered reports whether another processor's timer interrupts by a time.
func covered(want uint64) bool {
	t := now()
	for i := range processors {
		if a := cpus[i].armed; i != my().number && a <= want && a > t {
			return true
		}
	}
	return false
}

// nap leaves the lock while the processor sleeps, with the timer set to n ticks unless
// that is 0.
func nap(n uint64) {
	if processors == 1 {
		monitor(monHalt, n, 0, 0, 0)
		return
	}
	c, bit := me(), uint32(1)<<my().number
	c.thread = noThread
	idle |= bit
	atomic.StoreUint32(&kernelLock, 0)
	monitor(monHalt, n, 0, 0, 0)
	lock()
	idle &^= bit
	coming &^= bit
	if c.stale {
		c.stale = false
		monitor(monFlush, 0, 0, 0, 0)
	}
}

// stopWithin is how long a report waits for the other processors to stand still.
const stopWithin = 1_000_000_000

// stopOthers makes the other processors stand still, so that nothing is forwarded and
// nothing changes while a report is made. It does not return where another processor has
// done so already.
func stopOthers() {
	monitor(monStop, 0, 0, 0, 0)
	if processors == 1 {
		return
	}
	t := now()
	for i := range processors {
		for i != my().number && atomic.LoadUint32(&mon().StoppedAt[i]) == 0 && now()-t < stopWithin {
			pause()
		}
	}
}

// userFrom is the first address that the program may map: processors' tables differ below
// it.
func userFrom() uint64 {
	if info().Processors > 1 {
		return rootEntry
	}
	return userBase()
}

// rootEntry is how much an entry of the root table covers.
const rootEntry = 512 << 30
