package main

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/abi"
)

// Threads stay where their caches are. There is one queue, but a processor takes those of it
// first that are its own: that ran there last, or, of packet loops, whose devices interrupt it.
// No processor sleeps while there is a thread that nobody comes for.

// noTaker is the number of no processor.
const noTaker = 31

// maxPassed is how often a processor takes a thread of its own before another's that has
// waited longer.
const maxPassed = 1

// coming has bit i set when processor i was told to come for a thread, until it looks.
var coming uint32

// take takes the next thread for this processor out of the queue; noThread where there is
// none. Its own go first, unless one that is urgent, or was passed over, is before them. A
// packet loop whose processor comes for it is left to that.
func take() uint32 {
	if processors == 1 {
		return unlink(runHead, noThread)
	}
	p := my().number
	other, beforeOther := uint32(noThread), uint32(noThread)
	for n, before := runHead, uint32(noThread); n != noThread; before, n = n, threads[n].next {
		t := &threads[n]
		if t.home == p && (n != cur() || other == noThread) {
			threads[other].passed++ // where there is none, nobody's
			return unlink(n, before)
		}
		if other != noThread {
			continue
		}
		if t.loop && comes(n) {
			continue
		}
		other, beforeOther = n, before
		if t.urgent || t.passed >= maxPassed {
			break
		}
	}
	if other != noThread {
		stats.Moves++
		if t := &threads[other]; !t.loop {
			t.home = p
		}
	}
	return unlink(other, beforeOther)
}

// unlink takes a thread out of the queue, given the one before it.
func unlink(n, before uint32) uint32 {
	if n == noThread {
		return noThread
	}
	next := threads[n].next
	if before == noThread {
		runHead = next
	} else {
		threads[before].next = next
	}
	if next == noThread {
		runTail = before
	}
	return n
}

// comes reports whether a packet loop's own processor comes for it: it was told to within a
// slice, or sleeps and is told now. One that the host does not run holds it up no longer: a
// processor that sleeps while threads are ready looks again after a slice.
func comes(n uint32) bool {
	p := threads[n].home
	if idle>>p&1 != 0 {
		ask(n, p)
	}
	return coming>>p&1 != 0 && now()-cpus[p].told < slice
}

// ask interrupts processor p so that it comes for thread n.
func ask(n, p uint32) {
	idle &^= 1 << p
	coming |= 1 << p
	threads[n].taker, cpus[p].told = p, now()
	send(p, abi.SendWake)
}

// summon interrupts a processor that sleeps for each ready thread that none comes for, its
// own one where that sleeps. For a packet loop it interrupts its own, also if that runs another
// thread.
func summon() {
	for n := runHead; n != noThread; n = threads[n].next {
		t := &threads[n]
		if idle == 0 && !t.urgent {
			return // the urgent ones are first
		}
		p := t.home
		if coming>>t.taker&1 != 0 || t.loop && coming>>p&1 != 0 {
			continue
		}
		if idle>>p&1 == 0 {
			switch {
			case t.urgent && p != my().number && !threads[cpus[p].thread].loop:
			case idle != 0:
				p = uint32(bits.TrailingZeros32(idle))
			default:
				continue
			}
		}
		ask(n, p)
	}
}
