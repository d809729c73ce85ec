package policy

import (
	"strconv"

	"github.com/thurward/thurward/internal/shared/packet"
)

// A Protocol is the number of an IP protocol (IANA, Assigned Internet Protocol
// Numbers). The firewall forwards TCP, UDP and ICMP, which rules name. Packets of
// all other protocols are dropped, or rejected where a rule without a protocol
// says so.
type Protocol uint8

// The protocols that rules name; of ICMP it is the echo.
const (
	ICMP Protocol = packet.ICMP
	TCP  Protocol = packet.TCP
	UDP  Protocol = packet.UDP
)

// protocols are those that rules name, in the order in which they are listed.
var protocols = []Protocol{TCP, UDP, ICMP}

// protocolNames are the keywords of the IANA's list for some protocols. The
// others go by their numbers.
var protocolNames = map[string]Protocol{"icmp": ICMP, "tcp": TCP, "udp": UDP,
	"igmp": 2, "ipip": 4, "dccp": 33, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115, "sctp": 132, "udplite": 136}

var protocolWords = func() map[Protocol]string {
	m := map[Protocol]string{}
	for w, p := range protocolNames {
		m[p] = w
	}
	return m
}()

// WantProtocol says what ParseProtocol reads, for messages.
const WantProtocol = "want tcp, udp, icmp (an echo), or another IP protocol by its number or as gre, esp or sctp"

// ParseProtocol reads a protocol's keyword or number.
func ParseProtocol(s string) (Protocol, bool) {
	if p, ok := protocolNames[s]; ok {
		return p, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return Protocol(n), err == nil && strconv.FormatUint(n, 10) == s
}

// String returns the protocol's keyword, or its number where it has none here.
func (p Protocol) String() string {
	if w, ok := protocolWords[p]; ok {
		return w
	}
	return strconv.Itoa(int(p))
}

// Forwarded reports whether the firewall forwards packets of the protocol.
func (p Protocol) Forwarded() bool { return p == TCP || p == UDP || p == ICMP }

// HasPorts reports whether its packets have ports.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP }
