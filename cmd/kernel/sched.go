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
	t.taker, t.passed, t.urgent = noTaker, 0, false
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
	t.taker, t.passed, t.urgent = noTaker, 0, true
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
		waiters[t.waiter%abi.MaxWaiters].thread = noThread
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
	t := &threads[cur()]
	t.f.rax = 0
	t.state = state
	setDeadline(cur(), deadline)
	return schedule()
}

// nextTimer returns when the timer must interrupt: at a deadline, or at the end
// of the slice when another thread is ready.
func nextTimer() uint64 {
	want := uint64(never)
	if timedHead != noThread {
		if want = threads[timedHead].deadline; processors != 1 && covered(want) {
			want = never
		}
	}
	if runHead != noThread {
		want = min(want, now()+slice)
	}
	return want
}

// rearm sets the timer. One whose time is over and that has not interrupted is lost, or about
// to: KVM does not save one that fires while the machine is stopped. In cooperative mode only a
// CPU that sleeps is interrupted: see sleep.
func rearm() {
	if cooperative {
		return
	}
	c := me()
	c.sliced = runHead != noThread
	if want := nextTimer(); want < c.armed || c.armed <= now() {
		c.armed = want
		monitor(monTimer, ticks(want), 0, 0, 0)
	}
}

// sleep halts the CPU until the next interrupt, the timer's among them: see rearm.
func sleep() {
	n, t := uint64(0), now()
	if want := nextTimer(); want < me().armed || me().armed <= t {
		me().armed = want
		n = ticks(want)
	}
	nap(n)
	stats.Halts++
	stats.IdleNS += now() - t
}

// schedule picks the next thread and returns its frame. When there is none for this
// processor it sleeps until an interrupt brings one.
func schedule() uint64 {
	n := take()
	for n == noThread {
		expire()
		if n = take(); n != noThread {
			break
		}
		if runHead == noThread && timedHead == noThread && nobodyWaits() && lastRunning() {
			crash("every thread waits for another (deadlock)")
		}
		sleep()
		takeInterrupts()
		n = take()
	}
	if n != cur() {
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
		my().resumeXS = my().curXS
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
	enter()
	frame := interrupted()
	leave()
	return frame
}

func interrupted() uint64 {
	takeInterrupts()
	expire()
	t := &threads[cur()]
	if runHead != noThread {
		t.preempted = true
		enqueue(cur())
		return schedule()
	}
	rearm()
	my().resumeXS = my().curXS
	return returnTo(t)
}

// takeInterrupts handles what the monitor noted. Those that it took in the
// kernel it has ended; the one that led here is ended now.
func takeInterrupts() {
	if sh := shared(); sh.OwesEOI != 0 {
		sh.OwesEOI = 0
		monitor(monEOI, 0, 0, 0, 0)
	}
	p := atomic.SwapUint32(&shared().Pending, 0)
	if p == 0 {
		return
	}
	stats.Interrupts++
	if p&1 != 0 {
		me().armed, me().sliced = never, false
		coming &^= 1 << my().number
	}
	bits := p >> 1
	if bits == 0 {
		return
	}
	if bits&(1<<abi.KeyBit) != 0 {
		for i := range cpus {
			cpus[i].armed = never // the machine may have been restored, and timers lost: see sleep
		}
		if !keyboardInterrupt() {
			bits &^= 1 << abi.KeyBit
		}
		if buttonPressed() {
			bits |= 1 << abi.ButtonBit
		}
	}
	deviceInterrupt(bits) // also with none: the program then looks for a restore
}
