// Package filter decides which rule of the policy applies to the first packet of
// each direction of a flow. It looks the packet up in the tables that package
// compile makes on the host (docs/classifier.md); package linear is the
// definition of what it must answer.
package filter

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A Packet is what rules look at. Addresses are the internal ones: after
// destination translation and before source translation on the way out, after
// its reversal on the way in.
type Packet struct {
	Src, Dst  packet.Addr
	DstPort   uint16 // 0 for protocols without ports
	Proto     uint8
	Direction verdict.Direction
	State     uint8    // ruleset.StateNew or ruleset.StateEstablished
	Names     []uint32 // the patterns of Policy.Names that the source knows Dst by, as indexes
}

// NoRule stands for no rule at all.
const NoRule = ^uint32(0)

// A Verdict is what a policy says about a packet.
type Verdict struct {
	Action ruleset.Action
	Rule   uint32 // that decides; the number of rules stands for the default action
	Shadow uint32 // the shadow rule that would decide if all were enforced, or NoRule
}
