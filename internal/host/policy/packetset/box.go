// Package packetset is an algebra of sets of packets, as the first packet of each
// direction of a flow looks to rules: direction, state and protocol, source and
// destination address, destination port, and the names that the source knows the
// destination by. It is what warnings about rules that never decide, the
// comparison of two policies, and the compiler of the classifier have in common.
//
//	box.go     kinds and ranges: a Box, its intersection and containment
//	match.go   the Box of a match of a compiled policy
//	space.go   conditions on names, which a Space numbers
//	region.go  a Box with a condition on names: a Region; sets of them
//	merge.go   Regions that together are one
//	text.go    what a Region is in words
//
// A set is a list of Regions, each the product of its fields. What has been cut
// out of a list of disjoint Regions leaves disjoint ones.
package packetset

import (
	"math/bits"

	"github.com/thurward/thurward/internal/shared/ruleset"
)

// The ranges of a Box. They are numbered as the fields of a classifier's nodes.
const (
	Src       = ruleset.FieldSrc
	Dst       = ruleset.FieldDst
	Port      = ruleset.FieldPort // of the destination
	NumRanges = 3
)

// The classes of protocols that rules tell apart. Of ICMP it is the echo; Other
// stands for all that the firewall does not forward, of which rules only say
// whether they are rejected.
const (
	TCP = iota
	UDP
	ICMP
	Other
	NumClasses
)

// Kinds is a set of kinds of packets. A kind is a direction, a state and a class
// of protocols, numbered as ruleset.KindField does: the class, 4 for ingress and
// 8 for established.
type Kinds uint16

// Sets of kinds.
const (
	tcps, udps, icmps, others Kinds = 0x1111 << TCP, 0x1111 << UDP, 0x1111 << ICMP, 0x1111 << Other

	// AllKinds are all that a Box can hold.
	AllKinds = tcps | udps | icmps | others
	// OtherKinds are those of packets of protocols that are not forwarded. They
	// belong to no flow, so that none of them is an answer.
	OtherKinds = others & 0x00ff
	// Reaching are the kinds of packets that reach rules.
	Reaching = AllKinds&^others | OtherKinds
	// Portless are those without ports.
	Portless = icmps | others
	// Named are those whose destination can have a name: the source asks the DNS
	// proxy on the LAN before it begins a flow.
	Named = (tcps | udps | icmps) & 0x000f
)

// A Box is a set of packets: all combinations of its kinds with a value of each
// range. Lo must not exceed Hi. A Box without kinds is empty, whatever its ranges
// are; so is the zero Box.
type Box struct {
	Lo, Hi [NumRanges]uint32 // inclusive
	Kinds  Kinds
}

// maxValue is the largest value of each range.
var maxValue = [NumRanges]uint32{Src: ^uint32(0), Dst: ^uint32(0), Port: 65535}

// All returns the Box of all packets.
func All() Box { return Box{Hi: maxValue, Kinds: AllKinds} }

// RangesWithin reports whether each range of b lies in that of c.
func (b *Box) RangesWithin(c *Box) bool {
	return c.Lo[0] <= b.Lo[0] && b.Hi[0] <= c.Hi[0] && c.Lo[1] <= b.Lo[1] && b.Hi[1] <= c.Hi[1] && c.Lo[2] <= b.Lo[2] && b.Hi[2] <= c.Hi[2]
}

// Meets reports whether some packet of b is in c.
func (b *Box) Meets(c *Box) bool {
	return b.Kinds&c.Kinds != 0 &&
		c.Lo[0] <= b.Hi[0] && c.Hi[0] >= b.Lo[0] && c.Lo[1] <= b.Hi[1] && c.Hi[1] >= b.Lo[1] && c.Lo[2] <= b.Hi[2] && c.Hi[2] >= b.Lo[2]
}

// Weight grows with the number of packets in the Box.
func (b *Box) Weight() float64 {
	n := float64(bits.OnesCount16(uint16(b.Kinds)))
	for d := range b.Lo {
		n *= float64(b.Hi[d]-b.Lo[d]) + 1
	}
	return n
}
