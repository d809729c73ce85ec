package main

import "github.com/thurward/thurward/internal/guest/export"

// Activities of the packet loop between two polls.
const (
	polling  = iota // handled a batch, or found none
	yielding        // let other goroutines run
	sleeping        // slept; only the delay of its waking is counted
	occupations
)

// gapBounds are the upper bounds of the gaps' histogram, in nanoseconds.
var gapBounds = [...]uint64{1e6, 2e6, 5e6, 10e6, 20e6, 50e6, 100e6, 200e6, 500e6, 1e9}

// gaps measures how long packets wait for the packet loop: the time between two polls while
// it is awake, and how late it wakes up. The cause of a long gap is the firewall itself, or
// a host that gave the machine no processor; the activity narrows it down. It is owned by
// the packet loop and costs a few instructions per poll.
type gaps struct {
	last    int64 // when the loop last began a poll, or should have
	doing   int   // its activity since then
	counts  [len(gapBounds) + 2]uint64
	longest [occupations]uint64 // since the last snapshot, in nanoseconds
	found   bool                // the last poll had packets
	late    lateness            // batches that took too long
	busy    uint64              // nanoseconds with something to do
}

// poll records that a poll begins now, in nanoseconds since boot.
func (g *gaps) poll(now int64) {
	d := uint64(max(now-g.last, 0))
	g.last = now
	i := 0
	for i < len(gapBounds) && d > gapBounds[i] {
		i++
	}
	g.counts[i]++
	g.counts[len(gapBounds)+1] += d
	g.longest[g.doing] = max(g.longest[g.doing], d)
	if g.found || g.doing == yielding {
		g.busy += d
	}
	if g.found && d > batchLimit {
		g.late.add(d)
	}
	g.doing, g.found = polling, false
}

// woke records that the loop slept, was to wake at deadline at the latest, and woke now.
// The delay of an interrupt cannot be measured here.
func (g *gaps) woke(now, deadline int64) { g.last, g.doing = min(now, deadline), sleeping }

func (g *gaps) metrics() []export.Family {
	names := [...]string{"poll", "yield", "sleep"}
	return []export.Family{
		{Name: "thurward_packet_loop_busy_seconds_total",
			Help:  "Time in which the packet loop had work, of all workers. Its rate, divided by their number, is the utilization of the processors; polls without packets do not count.",
			Type:  export.Counter,
			Scale: 1e9, Fill: func(v []uint64) { v[0] = g.busy }},
		{Name: "thurward_packet_loop_gap_seconds",
			Help:   "Time between two polls of the packet loop while it is awake, and how late it wakes up.",
			Type:   export.Histogram,
			Bounds: gapBounds[:], Scale: 1e9, Fill: func(v []uint64) { copy(v, g.counts[:]) }},
		{Name: "thurward_packet_loop_gap_longest_seconds",
			Help: "The longest gap since the last snapshot, by what the loop did.",
			Type: export.Gauge, N: occupations, Most: true,
			Labels: export.LabelOf("during", func(i int) string { return names[i%occupations] }), Scale: 1e9,
			Fill: func(v []uint64) { copy(v, g.longest[:]); g.longest = [occupations]uint64{} }},
		{Name: "thurward_packet_loop_late_batches_total",
			Help: "Batches of packets that took longer than 20 milliseconds.",
			Type: export.Counter, Fill: func(v []uint64) { v[0] = g.late.total }},
	}
}
