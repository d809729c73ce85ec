package main

import (
	"math"

	"github.com/thurward/thurward/internal/shared/event"
)

// batchLimit is how long a batch may take, from one poll to the next, in nanoseconds. Of what
// a receive queue holds, 256 frames, none is lost as long as no more than 12,800 a second
// come; a batch of both interfaces takes under a millisecond on an emulated processor. What
// takes longer is a fault of the firewall, or a host that gave it no processor.
const batchLimit = 20e6

// tellEvery is the interval in which late batches are reported on the console, in nanoseconds.
const tellEvery = int64(60e9)

// lateness counts batches that took too long. The packet loop owns it.
type lateness struct {
	total uint64
	told  uint64 // of them, reported
	worst uint64 // of those that were not, in nanoseconds
	next  int64  // when the next report may come
}

func (l *lateness) add(d uint64) {
	l.total++
	l.worst = max(l.worst, d)
}

// due reports whether there is something to report.
func (l *lateness) due(now int64) bool { return l.total != l.told && now >= l.next }

// report returns the report, as a line of the console and as an event, and begins the next one.
func (l *lateness) report(now int64) (string, event.Record) {
	r := event.Record{Time: now, Kind: event.PacketsLate, Packets: l.total - l.told, Duration: int64(min(l.worst, math.MaxInt64))}
	s := "note: " + itoa(int(l.total-l.told)) + " batch(es) of packets took longer than " + itoa(batchLimit/1e6) +
		" ms, the longest " + itoa(int(l.worst/1e6)) + " ms: the host was busy, or else please report it"
	l.told, l.worst, l.next = l.total, 0, now+tellEvery
	return s, r
}
