package main

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/thurward/thurward/internal/guest/kernel/clock"
	"github.com/thurward/thurward/internal/guest/sys"
	"github.com/thurward/thurward/internal/shared/event"
)

// oldest is a time in the past: a clock that shows an earlier time has not been set.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clockSet reports whether the time of day appears to be known.
func clockSet() bool {
	_, source := sys.WallBase()
	return source != "none" && timeOfDay().After(oldest)
}

func timeOfDay() time.Time {
	base, _ := sys.WallBase()
	return time.Unix(0, base+sys.Nanotime())
}

const (
	// wallEvery is the interval of readings of kvmclock's wall clock in nanoseconds.
	wallEvery = int64(1e9)
	// jumped is the least correction that is an event, in nanoseconds.
	jumped = int64(1e9)
	// slight is the largest error that is not corrected, in nanoseconds: less than what two
	// readings of a real-time clock differ by.
	slight = int64(10e6)
)

// A wallClock keeps the time of day right while the machine runs: it stands still while the
// machine is stopped, and the host may set its own. The packet loop owns it.
type wallClock struct {
	next   int64 // when step is due, in monotonic nanoseconds
	source string
	base   int64 // in use
	keeper clock.Keeper
	away   clock.Away
	slept  func(int64) // is told of time that Nanotime did not count, in nanoseconds
	events *event.Ring
	set    atomic.Int64 // when the base was last corrected
}

func newWallClock(events *event.Ring, slept func(int64)) *wallClock {
	w := &wallClock{events: events, slept: slept}
	if w.base, w.source = sys.WallBase(); w.source == "none" {
		w.next = math.MaxInt64
	}
	w.away.Passed(w.base)
	return w
}

// stopEvery is the shortest interval of readings because the machine was stopped.
const stopEvery = int64(100e6)

// due reports whether step is to be called: at intervals, and before the next packets where
// the hypervisor says that it has stopped the machine.
func (w *wallClock) due(now int64) bool {
	return now >= w.next || now >= w.next-wallEvery+stopEvery && sys.Stopped()
}

// step reads the machine's clock once and corrects the time of day by it.
func (w *wallClock) step(now int64) {
	w.next = now + wallEvery
	v, ok := sys.ReadClock()
	if !ok {
		return
	}
	if w.source == "rtc" {
		after := sys.Nanotime()
		w.next = w.keeper.Add(now, after, v)
		if v, ok = w.keeper.Base(); !ok {
			return
		}
	}
	w.correct(v, now)
}

// coarse is the error, in nanoseconds, from which on one reading of a real-time clock in
// whole seconds is better than what was known before.
const coarse = int64(1500e6)

// restored corrects the time of day at once, since what comes next may depend on it:
// whether a name has expired, or a certificate. A real-time clock gives it to half a second;
// step goes on from there.
func (w *wallClock) restored(now int64) {
	if w.source == "none" {
		return
	}
	w.next = now
	v, ok := sys.ReadClock()
	if !ok {
		return
	}
	if w.source == "rtc" {
		v = v*1e9 + 500e6 - now
		if by := v - w.base; by > -coarse && by < coarse {
			return
		}
	}
	w.correct(v, now)
}

// correct sets the base.
func (w *wallClock) correct(base, now int64) {
	if d := w.away.Passed(base); d > 0 {
		w.slept(d)
	}
	by := base - w.base
	if w.source == "rtc" && by >= -slight && by <= slight {
		return
	}
	w.base = base
	sys.SetWallBase(base)
	w.set.Store(now)
	if by <= -jumped || by >= jumped {
		w.events.Put(&event.Record{Time: now, Kind: event.ClockAdjusted, Duration: by})
	}
}
