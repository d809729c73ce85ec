// Package filter decides, for the first packet of a flow's direction, which
// rule of the policy applies.
//
//	filter.go      what is asked and answered
//	linear.go      the definition: one match after the other
//	classifier.go  the same answer from decision trees, at a cost that hardly
//	               depends on the number of rules
//	build.go       makes the trees; runs on the host, as a part of the compiler
//	cut.go         how a node of a tree divides its matches
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
	State     uint8    // segment.StateNew or segment.StateEstablished
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

// hasName reports whether the source knows the destination by pattern n.
func (p *Packet) hasName(n uint32) bool {
	for _, v := range p.Names {
		if v == n {
			return true
		}
	}
	return false
}
