// Package verdict is the vocabulary of decisions: what was done with a packet,
// which way it travelled, why, and how a DNS query ended. Events, metrics, spans,
// the policy's tools and the documentation take their words from here.
package verdict

// A Reason says why a packet was accepted or dropped. One enumeration feeds
// events, metrics, spans and the documentation; zero is never a valid reason.
type Reason uint8

// The reasons. Their names on the wire are given by String.
const (
	_                       Reason = iota
	RuleAccept                     // an accept rule matched
	DefaultAction                  // no rule matched and the default action is accept
	NoMatchingAllowRule            // no rule matched and the default action is deny
	ExplicitDeny                   // a deny rule matched
	MalformedPacket                // a header is truncated, over-long, inconsistent or fails its checksum
	FragmentedIPv4                 // an IPv4 fragment
	IPv6Unsupported                // an IPv6 frame
	EtherTypeUnsupported           // neither IPv4, IPv6 nor ARP
	Martian                        // a source or destination that cannot be right on that interface
	TTLExpired                     // the TTL would reach zero
	ConntrackFull                  // no room for a new flow
	ConntrackInvalid               // belongs to no flow and cannot start one, or violates its flow's state
	NATPortPoolExhausted           // no free external port
	DNATNoBackend                  // a DNAT entry has no usable backend
	HairpinUnsupported             // a LAN host addressed the WAN address
	RateLimitDNS                   // too many DNS queries of one client
	RateLimitFlows                 // too many new flows of one source
	NeighbourUnresolved            // the next hop's link-layer address is not known in time
	TxFull                         // the transmit queue had no room
	NoLocalService                 // accepted by policy, but addressed to the firewall, which offers no such service
	PacketTooBig                   // longer than the outgoing interface carries
	SNIRefused                     // a TLS connection's first message does not name a server that the rule and the client's names allow
	SNIRepeated                    // a segment of a connection whose server's name is not settled: it repeats what is held, or comes out of order
	UntranslatedDestination        // accepted by policy, but sent from the WAN straight to a LAN host whose network is translated
	NumReasons                     // number of values, valid or not
)

var reasonNames = [NumReasons]string{
	RuleAccept:              "rule",
	DefaultAction:           "default_action",
	NoMatchingAllowRule:     "no_matching_allow_rule",
	ExplicitDeny:            "explicit_deny",
	MalformedPacket:         "malformed_packet",
	FragmentedIPv4:          "fragmented_ipv4",
	IPv6Unsupported:         "ipv6_unsupported",
	EtherTypeUnsupported:    "ethertype_unsupported",
	Martian:                 "martian",
	TTLExpired:              "ttl_expired",
	ConntrackFull:           "conntrack_full",
	ConntrackInvalid:        "conntrack_invalid",
	NATPortPoolExhausted:    "nat_port_pool_exhausted",
	DNATNoBackend:           "dnat_no_backend",
	HairpinUnsupported:      "hairpin_unsupported",
	RateLimitDNS:            "rate_limit_dns",
	RateLimitFlows:          "rate_limit_flows",
	NeighbourUnresolved:     "neighbour_unresolved",
	TxFull:                  "tx_full",
	NoLocalService:          "no_local_service",
	PacketTooBig:            "packet_too_big",
	SNIRefused:              "sni_refused",
	SNIRepeated:             "sni_repeated",
	UntranslatedDestination: "untranslated_destination",
}

// String returns the reason's name as it appears in events and metrics, or
// "invalid" for a value that is not a reason.
func (r Reason) String() string {
	if r == 0 || r >= NumReasons {
		return "invalid"
	}
	return reasonNames[r]
}
