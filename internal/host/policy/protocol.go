package policy

import (
	"slices"
	"strconv"
)

// The firewall passes TCP, UDP and ICMP, which rules name. Packets of all other
// protocols are dropped, or rejected where the rules say so: those without a
// protocol are about them, too.

// otherProtocols are names of the IANA's list for some of them. The others go by
// their numbers.
var otherProtocols = map[string]uint8{"igmp": 2, "ipip": 4, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136}

const wantProtocol = "want tcp, udp, icmp (an echo), or another IP protocol by its number or as gre, esp or sctp"

// ParseProtocol returns a protocol's name, or its number where it has no name
// here, of either.
func ParseProtocol(s string) (string, bool) {
	if _, ok := protocols[s]; ok {
		return s, true
	}
	if _, ok := otherProtocols[s]; ok {
		return s, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return "", false
	}
	for _, m := range []map[string]uint8{protocols, otherProtocols} {
		for name, v := range m {
			if uint64(v) == n {
				return name, true
			}
		}
	}
	return s, true
}

// protocolNumber returns the number of what ParseProtocol has returned.
func protocolNumber(name string) uint8 {
	for _, m := range []map[string]uint8{protocols, otherProtocols} {
		if v, ok := m[name]; ok {
			return v
		}
	}
	n, _ := strconv.ParseUint(name, 10, 8) // ParseProtocol has read it
	return uint8(n)
}

// other reports whether a flow is of a protocol that the firewall does not pass.
func (f *Flow) other() bool { return protocols[f.Protocol] == 0 }

// hasPorts reports whether packets of a flow have ports.
func (f *Flow) hasPorts() bool { return slices.Contains([]string{"tcp", "udp"}, f.Protocol) }
