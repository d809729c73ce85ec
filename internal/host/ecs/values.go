package ecs

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// ClockJumped is the reason of ClockAdjusted.
const ClockJumped = "clock_jumped"

// LateBatch is the reason of PacketsLate.
const LateBatch = "late_batch"

// Actions returns the values of EventAction.
func Actions() []string {
	return []string{Accept, Drop, WouldAccept, WouldDrop, FlowEnd, DNSQuery, UpstreamFailed, ClockAdjusted, PacketsLate, LinesLost, EventsLost}
}

// Reasons returns the values of EventReason, sorted: of verdicts, of DNS queries, of
// upstreams that failed, of the clock and of the packet loop.
func Reasons() []string {
	all := []string{ClockJumped, LateBatch}
	for r := verdict.Reason(1); r < verdict.NumReasons; r++ {
		all = append(all, r.String())
	}
	for o := verdict.DNSOutcome(1); o < verdict.NumDNSOutcomes; o++ {
		all = append(all, o.String())
	}
	for c := verdict.TLSClass(1); c < verdict.NumTLSClasses; c++ {
		all = append(all, c.String())
	}
	slices.Sort(all)
	return slices.Compact(all)
}
