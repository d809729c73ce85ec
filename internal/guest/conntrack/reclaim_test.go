package conntrack

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestS15_WhatAFullTableGivesUp: of any mixture of flows a full table evicts one that has
// expired or is over, else one that is half-open, else one in a handshake, and never one
// that is established or answered or being closed.
func TestS15_WhatAFullTableGivesUp(t *testing.T) {
	rank := map[State]int{TimeWait: 3, Close: 3, SynSent: 2, UDPUnreplied: 2, UDPBrief: 2, UDPQuery: 2, SynRecv: 1, UDPAnswered: 1, Echo: 1}
	const n = 64
	for set := range 1 << (NumStates - 1) { // which states there are
		if set == 0 {
			continue
		}
		for _, expired := range []bool{false, true} {
			var states []State
			best := 0
			for s := State(1); s < NumStates; s++ {
				if set>>(s-1)&1 != 0 {
					states = append(states, s)
					best = max(best, rank[s])
				}
			}
			if expired && len(states) > 6 {
				continue // enough of them
			}
			tab := New(n, [2]uint64{1, 7}, udpTimeouts(), nil)
			victim, why := State(0), NumRemovals
			tab.Removed = func(r Ref, w Removal) { victim, why = tab.Dir(r).State, w }
			for i := range n {
				k, out := flow(i)
				at := int64(1000)
				if expired && i == 3 {
					at = 1
				}
				if tab.Insert(&k, &out, states[i%len(states)], outward, at) == None {
					t.Fatal("does not fit")
				}
			}
			k := Key{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4, Proto: packet.UDP}
			r := tab.Insert(&k, &packet.Rewrite{Src: 1, Dst: 2, SrcPort: 3, DstPort: 4}, SynSent, outward, 1001)
			switch {
			case expired && why == Expired:
			case best == 0 && !expired && r == None && why == NumRemovals && tab.C.Full == 1:
			case best > 0 && r != None && why == Reclaimed && (rank[victim] == best || rank[victim] > 0 && len(states) > reclaimGood):
			default:
				t.Fatalf("of %v, expired %v: %v was %v, inserted %v", states, expired, victim, why, r != None)
			}
		}
	}
}
