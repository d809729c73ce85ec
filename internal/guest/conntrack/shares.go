package conntrack

import "github.com/thurward/thurward/internal/shared/packet"

// No source takes the whole table. Flows that are never given up for a new one
// are firm; what these leave is room. A source may begin a flow as long as it has
// fewer than evenShare times as many as there is room for (dynamic thresholds,
// Choudhury and Hahne 1998): alone it gets to seven eighths of the table, two get
// to seven fifteenths each, and there is always something left for who has little.
// The same holds for all sources of the WAN together, whose number anybody can
// make up.
const evenShare = 7

// fewFlows are anybody's, so that a small table can be used to the last.
const fewFlows = 16

// A source that has more than one in largePart of the table is a large holder,
// whose flows are the first to be given up.
const largePart = 16

// holders counts flows by source, in two rows of cells that a keyed hash chooses.
// The lower of a source's two cells is what it has; it may be more, if both are
// shared with others, and is never less.
type holders [2][1 << holderBits]uint32

const holderBits = 11

func (t *Table) cells(a packet.Addr) (*uint32, *uint32) {
	h := mix(uint64(a) ^ t.k[0])
	return &t.holders[0][h%(1<<holderBits)], &t.holders[1][h>>32%(1<<holderBits)]
}

// Share returns how many flows a source has, or a few more.
func (t *Table) Share(a packet.Addr) int {
	x, y := t.cells(a)
	return int(min(*x, *y))
}

// hold counts n more flows of a source; ^0 is one less.
func (t *Table) hold(a packet.Addr, n uint32) {
	x, y := t.cells(a)
	*x += n
	*y += n
}

// Admits reports whether a source may begin a flow. What it refuses is counted.
func (t *Table) Admits(a packet.Addr, fromWAN bool) bool {
	room := len(t.shared) - int(t.firm[0]+t.firm[1])
	if room >= len(t.shared)/(evenShare+1) {
		return true // whatever it has
	}
	limit := evenShare*room + fewFlows
	if t.Share(a) < limit && (!fromWAN || int(t.firm[1]) < limit) {
		return true
	}
	t.C.Full++
	return false
}

// turn counts a flow's change from one state to another.
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

// firm is 1 for states of flows that are never given up.
var firm = func() (f [maxStates]uint32) {
	for s := State(1); s < NumStates; s++ {
		if s.spare() == 0 {
			f[s] = 1
		}
	}
	return f
}()
