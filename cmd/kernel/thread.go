package main

import (
	"github.com/thurward/thurward/internal/shared/abi"
)

// maxThreads bounds the number of threads; number 0 is none. Go makes one for
// each processor, each blocked system call and each goroutine that is locked to
// its thread, and a few of its own.
const maxThreads = 256

// noThread is the thread number that means none.
const noThread = 0

// What a thread is doing.
const (
	free = iota
	ready
	running
	waitFutex
	waitTime
	waitEpoll
	waitDevice
)

// never is a deadline that does not come.
const never = ^uint64(0)

// A thread is one of the program's threads. Links are thread numbers.
type thread struct {
	f         frame // must come first: see curTop
	fsbase    uint64
	deadline  uint64 // when to give up waiting, clock time; or never
	futex     uint64 // address waited for
	events    uint64 // epoll_pwait's result buffer
	mask      uint64 // blocked signals; bit n-1 is signal n
	pending   uint64 // signals to deliver
	altStack  uint64
	altSize   uint64
	xs        uint64 // its XSAVE area, a page that is never given back; 0: none yet
	next      uint32 // in the run queue or in the futex's bucket
	later     uint32 // in the list of deadlines
	state     uint32
	waiter    uint32 // that it waits as
	home      uint32 // processor on which it should run: see take
	taker     uint32 // processor that was told to come for it; or noTaker
	passed    uint8  // how often another was taken before it
	loop      bool   // it waits for devices: a packet loop
	urgent    bool   // it goes before all others
	preempted bool   // its vector registers are in its XSAVE area
}

var (
	threads   [maxThreads]thread
	runHead   uint32
	runTail   uint32
	timedHead uint32 // threads with a deadline, soonest first
	nThreads  uint64
)

// initThread prepares a thread, whose registers the caller then fills in.
func initThread(t *thread) {
	*t = thread{deadline: never, state: running, xs: t.xs, home: my().number}
	if t.xs == 0 {
		t.xs = abi.DirectBase + takeFrame("a thread")
	}
	clear(bytesAt(t.xs+512, 64)) // XRSTOR refuses what XSAVE leaves unwritten here
	nThreads++
}

// setCurrent makes thread n the one that the entry code works for.
func setCurrent(n uint32) {
	me().thread = n
	t := &threads[n]
	t.state = running
	p := my()
	p.curTop = uintptr(addr(&t.f)) + frameSize
	p.curXS = uintptr(t.xs)
	p.userFS = t.fsbase
}

// Linux's clone flags that Go passes: threads that share everything.
const (
	cloneThread = 0x00000100 | 0x00000200 | 0x00000400 | 0x00000800 | 0x00010000
	cloneTLS    = 0x00080000
)

// sysClone starts a thread; f is the caller's frame, which it copies.
func sysClone(f *frame, flags, stack, tls uint64) uint64 {
	if flags&cloneThread != cloneThread {
		return errno(eINVAL)
	}
	for n := uint32(1); n < maxThreads; n++ {
		t := &threads[n]
		if t.state != free {
			continue
		}
		initThread(t)
		t.f = *f
		t.f.rax, t.f.rsp = 0, stack
		t.fsbase = threads[cur()].fsbase
		if flags&cloneTLS != 0 {
			t.fsbase = tls
		}
		t.mask = threads[cur()].mask
		enqueue(n)
		return uint64(n)
	}
	puts("thurward: kernel: out of threads: all ")
	putu(maxThreads - 1)
	puts(" are in use\n")
	return errno(eAGAIN)
}

// sysExit ends the current thread.
func sysExit() uint64 {
	threads[cur()].state = free
	nThreads--
	me().thread = noThread
	return schedule()
}
