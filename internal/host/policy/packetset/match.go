package packetset

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// FromMatch returns the Box of a match, without its condition on the name. It
// reports false when no packet matches: for addresses of another family, or bits
// of an address that its mask leaves out.
//
// A mask that is no prefix, or a protocol that is one of the class Other, make the
// match smaller than the Box. The match has all packets of the Box that are of the
// kinds exact. What the policy language can say is exact.
func FromMatch(m *ruleset.Match) (b Box, exact Kinds, ok bool) {
	b.Lo[Port], b.Hi[Port] = uint32(m.PortLo), uint32(m.PortHi)
	prefixes := true
	for d, a := range [...]struct{ addr, mask ruleset.Addr }{{m.Src, m.SrcMask}, {m.Dst, m.DstMask}} {
		var v, mask uint32
		if a.mask != (ruleset.Addr{}) {
			n, family := packet.AddrFrom16(a.addr)
			v, mask = uint32(n), uint32(packet.Mask(a.mask))
			if !family || v&^mask != 0 {
				return Box{}, 0, false
			}
		}
		b.Lo[d], b.Hi[d] = v, v|^mask
		prefixes = prefixes && ^mask&(^mask+1) == 0
	}
	for class, proto := range [NumClasses]uint8{TCP: packet.TCP, UDP: packet.UDP, ICMP: packet.ICMP, Other: 0xff} {
		other := class == Other && ruleset.KindField(m.Proto, 0, 0) == Other
		if m.Proto != 0 && m.Proto != proto && !other {
			continue
		}
		for _, d := range []verdict.Direction{verdict.Egress, verdict.Ingress} {
			for _, s := range []uint8{ruleset.StateNew, ruleset.StateEstablished} {
				if m.Direction != verdict.Either && m.Direction != d || m.State != 0 && m.State&s == 0 {
					continue
				}
				kind := Kinds(1) << ruleset.KindField(proto, d, s)
				b.Kinds |= kind
				if prefixes && (class != Other || m.Proto == 0) {
					exact |= kind
				}
			}
		}
	}
	return b, exact, true
}
