package main

import (
	"sync/atomic"

	"github.com/thurward/thurward/internal/shared/abi"
)

// slice is how long a thread may run while others are ready, in nanoseconds.
const slice = 10_000_000

// enqueue makes thread n ready, last in the queue.
func enqueue(n uint32) {
	t := &threads[n]
	t.state, t.next = ready, noThread
	if runHead == noThread {
		runHead = n
	} else {
		threads[runTail].next = n
	}
	runTail = n
}

// enqueueFirst makes thread n ready, before all others.
func enqueueFirst(n uint32) {
	t := &threads[n]
	t.state, t.next = ready, runHead
	if runHead == noThread {
		runTail = n
	}
	runHead = n
}

// wake ends thread n's wait with the given result of its system call.
func wake(n uint32, result uint64) {
	t := &threads[n]
	cancelDeadline(n)
	t.f.rax = result
	if t.state == waitDevice {
		devWaiter = noThread
		enqueueFirst(n) // packets come first
		return
	}
	enqueue(n)
}

// setDeadline puts thread n into the list of deadlines.
func setDeadline(n uint32, at uint64) {
	t := &threads[n]
	t.deadline = at
	if at == never {
		return
	}
	p := &timedHead
	for *p != noThread && threads[*p].deadline <= at {
		p = &threads[*p].later
	}
	t.later = *p
	*p = n
}

func cancelDeadline(n uint32) {
	t := &threads[n]
	if t.deadline == never {
		return
	}
	for p := &timedHead; *p != noThread; p = &threads[*p].later {
		if *p == n {
			*p = t.later
			break
		}
	}
	t.deadline, t.later = never, noThread
}

// expire wakes the threads whose deadline has come.
func expire() {
	if timedHead == noThread {
		return
	}
	t := now()
	for timedHead != noThread && threads[timedHead].deadline <= t {
		n := timedHead
		if late := t - threads[n].deadline; late > stats.MaxLateNS {
			stats.MaxLateNS = late
		}
		var result uint64
		if threads[n].state == waitFutex {
			leaveFutex(n)
			result = errno(eTIME)
		}
		wake(n, result)
	}
}

// block makes the current thread wait and runs another. Its system call will
// return 0 unless wake says otherwise.
func block(state uint32, deadline uint64) uint64 {
	t := &threads[cur]
	t.f.rax = 0
	t.state = state
	setDeadline(cur, deadline)
	return schedule()
}

// rearm sets the timer for whatever comes first: a deadline, or the end of
// the slice when another thread is ready.
func rearm() {
	want := uint64(never)
	if timedHead != noThread {
		want = threads[timedHead].deadline
	}
	if runHead != noThread {
		want = min(want, now()+slice)
	}
	if want < armed {
		armTimer(want)
	}
}

// schedule picks the next thread and returns its frame. When none is ready it
// sleeps until an interrupt brings one.
func schedule() uint64 {
	for runHead == noThread {
		expire()
		if runHead != noThread {
			break
		}
		if timedHead == noThread && devWaiter == noThread {
			crash("every thread waits for another (deadlock)")
		}
		rearm()
		t := now()
		monitor(monHalt, 0, 0)
		stats.Halts++
		stats.IdleNS += now() - t
		takeInterrupts()
	}
	n := runHead
	runHead = threads[n].next
	if runHead == noThread {
		runTail = noThread
	}
	if n != cur {
		stats.Switches++
	}
	setCurrent(n)
	rearm()
	if cooperative {
		sliceEnd = now() + slice
	}
	t := &threads[n]
	if t.preempted {
		t.preempted = false
		resumeXS = curXS
	}
	return returnTo(t)
}

// returnTo delivers a waiting signal, if any, and returns t's frame.
func returnTo(t *thread) uint64 {
	if t.pending&^t.mask != 0 {
		deliverPending(t)
	}
	return addr(&t.f)
}

// kpending is called when an interrupt came while the program ran; its
// registers are saved.
func kpending() uint64 {
	takeInterrupts()
	expire()
	t := &threads[cur]
	if runHead != noThread {
		t.preempted = true
		enqueue(cur)
		return schedule()
	}
	rearm()
	resumeXS = curXS
	return returnTo(t)
}

// takeInterrupts handles what the monitor noted. All vectors are of one
// priority, so none comes between the exchange and the end of interrupt.
func takeInterrupts() {
	p := atomic.SwapUint32(&pending, 0)
	if p == 0 {
		return
	}
	stats.Interrupts++
	if p&1 != 0 {
		armed = never
	}
	bits := p >> 1
	if bits&(1<<abi.KeyBit) != 0 && !keyboardInterrupt() {
		bits &^= 1 << abi.KeyBit
	}
	if bits != 0 {
		deviceInterrupt(bits)
	}
	endInterrupt()
}
