package conntrack

import "github.com/thurward/thurward/internal/shared/packet"

// No source can fill the table. Flows that are never evicted for a new one are firm; the
// rest of the table is room. A source may begin a flow while it has fewer flows than
// evenShare times that room (dynamic thresholds, Choudhury and Hahne 1998): a single source
// gets seven eighths of the table, two get seven fifteenths each, and some room always
// remains for sources with few flows. The same limit applies to all sources on the WAN
// together, since their addresses can be forged.
const evenShare = 7

// fewFlows is how many flows every source may have, so that a small table can be used
// completely.
const fewFlows = 16

// A source with more than 1/largePart of the table is a large holder, whose flows are
// evicted first.
const largePart = 16

// holders counts flows by source, in two rows of counters chosen by a keyed hash. The lower
// of a source's two counters is its count: too high if both are shared with other sources,
// never too low.
type holders [2][1 << holderBits]uint32

const holderBits = 11

func (t *Table) cells(a packet.Addr) (*uint32, *uint32) {
	h := mix(uint64(a) ^ t.k[0])
	return &t.holders[0][h%(1<<holderBits)], &t.holders[1][h>>32%(1<<holderBits)]
}

// Share returns how many flows a source has, or a higher number: see holders.
func (t *Table) Share(a packet.Addr) int {
	x, y := t.cells(a)
	return int(min(*x, *y))
}

// count adds n to a source's number of flows; ^0 subtracts one.
func (t *Table) count(a packet.Addr, n uint32) {
	x, y := t.cells(a)
	*x += n
	*y += n
}

// Admits reports whether a source may begin a flow, and counts refusals.
func (t *Table) Admits(a packet.Addr, fromWAN bool) bool {
	room := len(t.shared) - int(t.firm[0]+t.firm[1])
	if room >= len(t.shared)/(evenShare+1) {
		return true // whatever its share
	}
	limit := evenShare*room + fewFlows
	if t.Share(a) < limit && (!fromWAN || int(t.firm[1]) < limit) {
		return true
	}
	t.C.Full++
	return false
}

// turn updates the counts when a flow changes from one state to another.
func (t *Table) turn(r Ref, from, to State) {
	was, is := firm[from&(maxStates-1)], firm[to&(maxStates-1)]
	if was != is {
		side := 0
		if t.Dir(r &^ 1).Path.FromWAN() {
			side = 1
		}
		t.firm[side] += is - was
	}
}

// firm is 1 for states in which a flow is never evicted.
var firm = func() (f [maxStates]uint32) {
	for s := State(1); s < NumStates; s++ {
		if s.spare() == 0 {
			f[s] = 1
		}
	}
	return f
}()
