package main

// Futexes: threads that wait for a word in memory, in buckets by its address.

const futexBuckets = 64

// futexQ holds each bucket's first waiter, longest waiting first.
var futexQ [futexBuckets]uint32

func futexBucket(a uint64) *uint32 {
	return &futexQ[(a*0x9e3779b97f4a7c15)>>58]
}

// leaveFutex takes thread n out of its bucket.
func leaveFutex(n uint32) {
	for p := futexBucket(threads[n].futex); *p != noThread; p = &threads[*p].next {
		if *p == n {
			*p = threads[n].next
			return
		}
	}
}

// Linux's futex operations; Go uses the private ones without other flags.
const (
	futexWait    = 0
	futexWake    = 1
	futexPrivate = 128
)

// sysFutex returns a result, or blocked and the frame to continue with.
func sysFutex(a, op, val, timeout uint64) (result uint64, blocked bool) {
	if a&3 != 0 {
		return errno(eINVAL), false
	}
	if !readable(a, 4) {
		return errno(eFAULT), false
	}
	switch op &^ futexPrivate {
	case futexWait:
		deadline := uint64(never)
		if timeout != 0 {
			d, ok := timespec(timeout)
			if !ok {
				return errno(eFAULT), false
			}
			deadline = later(d)
		}
		if *at[uint32](a) != uint32(val) {
			return errno(eAGAIN), false
		}
		t := &threads[cur()]
		t.futex, t.next = a, noThread
		p := futexBucket(a)
		for *p != noThread {
			p = &threads[*p].next
		}
		*p = cur()
		return block(waitFutex, deadline), true
	case futexWake:
		n := uint64(0)
		for p := futexBucket(a); *p != noThread && n < uint64(uint32(val)); {
			w := *p
			if threads[w].futex != a {
				p = &threads[w].next
				continue
			}
			*p = threads[w].next
			wake(w, 0)
			n++
		}
		return n, false
	}
	return errno(eNOSYS), false
}
