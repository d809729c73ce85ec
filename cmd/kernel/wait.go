package main

import "github.com/thurward/thurward/internal/shared/abi"

// A waiter is what one packet loop waits as: see abi.SysWait.
type waiter struct {
	came   uint64 // bits of what came since it got any
	wanted uint64 // of them, those that end its wait
	thread uint32 // that waits; or noThread
}

var (
	waiters  [abi.MaxWaiters]waiter
	nWaiters uint32 = 1 // those below this number have waited, or are the first
)

// deviceBits are those of the result of SysWait that are devices'.
const deviceBits = 1<<abi.MaxDevices - 1

// deviceInterrupt tells waiters what interrupted this processor. Waiter 0 is also told that
// nothing did.
func deviceInterrupt(bits uint32) {
	if nWaiters == 1 {
		post(0, uint64(bits))
		return
	}
	p, in := my().number, info()
	for n := range nWaiters {
		var mine uint32
		for d := uint32(0); d < devices; d++ {
			if v := in.Devices[d].Vectors; bits>>d&1 != 0 && v != 0 && n%v == p {
				mine |= 1 << d
			}
		}
		if n == 0 {
			mine |= bits &^ deviceBits
		}
		if mine != 0 || bits == 0 && n == 0 {
			post(n, uint64(mine))
		}
	}
}

// post notes what came for waiter n, and wakes its thread if it waits for that, or nothing
// came.
func post(n uint32, bits uint64) {
	w := &waiters[n%abi.MaxWaiters]
	w.came |= bits
	if w.thread == noThread {
		return
	}
	if b := w.came & w.wanted; b != 0 || bits == 0 {
		w.came &^= b
		wake(w.thread, b)
	}
}

// sysWait: see abi.SysWait.
func sysWait(deadline, number, bits uint64) (result uint64, blocked bool) {
	if number >= abi.MaxWaiters {
		return errno(eINVAL), false
	}
	if bits == 0 {
		bits = never
	}
	n, w, t := uint32(number), &waiters[number], &threads[cur()]
	nWaiters = max(nWaiters, n+1)
	if w.thread != noThread {
		return errno(eAGAIN), false
	}
	t.waiter, t.home, t.loop = n, n%processors, true
	if b := w.came & bits; b != 0 {
		w.came &^= b
		return b, false
	}
	if deadline <= now() {
		return 0, false
	}
	w.thread, w.wanted = cur(), bits
	return block(waitDevice, deadline), true
}

// sysWake: see abi.SysWake.
func sysWake(set uint64) uint64 {
	if set == 0 || set>>abi.MaxWaiters != 0 {
		return errno(eINVAL)
	}
	for n := range uint32(abi.MaxWaiters) {
		if set>>n&1 != 0 {
			post(n, 1<<abi.WakeBit)
		}
	}
	return 0
}

// nobodyWaits reports whether no thread waits for devices.
func nobodyWaits() bool {
	for n := range nWaiters {
		if waiters[n%abi.MaxWaiters].thread != noThread {
			return false
		}
	}
	return true
}
