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
	events *event.Ring
	set    atomic.Int64 // when the base was last corrected
}

func newWallClock(events *event.Ring) *wallClock {
	w := &wallClock{events: events}
	if w.base, w.source = sys.WallBase(); w.source == "none" {
		w.next = math.MaxInt64
	}
	return w
}

// soon makes step due.
func (w *wallClock) soon() {
	if w.source != "none" {
		w.next = 0
	}
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

// correct sets the base.
func (w *wallClock) correct(base, now int64) {
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
