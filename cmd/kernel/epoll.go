package main

// The one event counter and the one epoll instance that Go's network poller
// makes to wake itself. There are no other files.

const (
	fdEpoll = 4
	fdEvent = 5
)

var (
	eventOpen  bool
	epollOpen  bool
	eventCount uint64
	epollData  uint64
	epollOn    bool   // the counter is registered
	epollMask  uint32 // for these events
)

const epollIn = 1

func sysEventfd(n uint64) uint64 {
	if eventOpen {
		return errno(eNOMEM)
	}
	eventOpen, eventCount = true, n
	return fdEvent
}

func sysEpollCreate() uint64 {
	if epollOpen {
		return errno(eNOMEM)
	}
	epollOpen = true
	return fdEpoll
}

func sysEpollCtl(ep, op, fd, ev uint64) uint64 {
	if ep != fdEpoll || fd != fdEvent || !epollOpen || !eventOpen {
		return errno(ePERM) // what Linux says of files that cannot be polled
	}
	switch op {
	case 1, 3: // EPOLL_CTL_ADD, EPOLL_CTL_MOD
		if !readable(ev, 12) {
			return errno(eFAULT)
		}
		epollMask, epollData, epollOn = *at[uint32](ev), *at[uint64](ev + 4), true
	case 2: // EPOLL_CTL_DEL
		epollOn = false
	default:
		return errno(eINVAL)
	}
	return 0
}

// epollReady fills in the event at ev when the counter can be read.
func epollReady(ev uint64) uint64 {
	if !epollOn || eventCount == 0 || epollMask&epollIn == 0 {
		return 0
	}
	*at[uint32](ev) = epollIn
	*at[uint64](ev + 4) = epollData
	return 1
}

func sysEpollWait(ep, ev, n, timeout uint64) (result uint64, blocked bool) {
	if ep != fdEpoll || !epollOpen || int32(n) <= 0 {
		return errno(eINVAL), false
	}
	if !writable(ev, 12) {
		return errno(eFAULT), false
	}
	if r := epollReady(ev); r != 0 || int32(timeout) == 0 {
		return r, false
	}
	deadline := uint64(never)
	if int32(timeout) > 0 {
		deadline = later(uint64(int32(timeout)) * 1_000_000)
	}
	threads[cur()].events = ev
	return block(waitEpoll, deadline), true
}

func eventRead(p, n uint64) uint64 {
	if n < 8 {
		return errno(eINVAL)
	}
	if !writable(p, 8) {
		return errno(eFAULT)
	}
	if eventCount == 0 {
		return errno(eAGAIN)
	}
	*at[uint64](p) = eventCount
	eventCount = 0
	return 8
}

func eventWrite(p, n uint64) uint64 {
	if n < 8 {
		return errno(eINVAL)
	}
	if !readable(p, 8) {
		return errno(eFAULT)
	}
	v := *at[uint64](p)
	if v > never-1-eventCount {
		return errno(eAGAIN)
	}
	eventCount += v
	for n := uint32(1); n < maxThreads; n++ {
		if t := &threads[n]; t.state == waitEpoll && epollReady(t.events) != 0 {
			wake(n, 1)
			break
		}
	}
	return 8
}
