package importer

import (
	"fmt"
	"strconv"
)

// protocolNames are the names that nft and iptables write (IANA's protocol
// numbers).
var protocolNames = map[string]uint32{"icmp": 1, "igmp": 2, "ipencap": 4, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "ipv6-icmp": 58, "icmpv6": 58,
	"ospf": 89, "ospfigp": 89, "pim": 103, "ipcomp": 108, "comp": 108, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136, "carp": 112, "pfsync": 240}

func protoName(n uint32) string {
	switch n {
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case 132:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", n)
}

// protoNumber reads a protocol's name or number.
func protoNumber(s string) (uint32, bool) {
	if n, ok := protocolNames[s]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint32(n), err == nil
}

// icmpNames are the names of ICMP types.
var icmpNames = map[string]uint32{"echo-reply": 0, "pong": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8, "ping": 8, "router-advertisement": 9,
	"router-solicitation": 10, "time-exceeded": 11, "ttl-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
	"address-mask-request": 17, "address-mask-reply": 18}

// icmpType reads an ICMP type. A code is left out: no echo has one.
func icmpType(s string) (uint32, bool) {
	if n, ok := icmpNames[s]; ok {
		return n, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint32(n), err == nil
}
