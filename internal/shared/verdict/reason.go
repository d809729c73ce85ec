// Package verdict is the vocabulary of decisions: actions, directions, reasons, and the
// outcomes of DNS queries. Events, metrics, spans, the policy's tools and the documentation
// use its names.
package verdict

// A Reason is why a packet was accepted or dropped. Zero is invalid.
type Reason uint8

// The reasons. String returns their names.
const (
	_                       Reason = iota
	RuleAccept                     // an accept rule matched
	DefaultAction                  // no rule matched and the default action is accept
	NoMatchingAllowRule            // no rule matched and the default action is deny
	ExplicitDeny                   // a deny rule matched
	MalformedPacket                // a header is truncated, too long or inconsistent, or a checksum is wrong
	FragmentedIPv4                 // an IPv4 fragment
	IPv6Unsupported                // an IPv6 frame
	EtherTypeUnsupported           // neither IPv4, IPv6 nor ARP
	Martian                        // the source or destination cannot be right on that interface
	TTLExpired                     // the TTL would reach zero
	ConntrackFull                  // no room for a new flow
	ConntrackInvalid               // belongs to no flow and cannot begin one, or violates its flow's state
	NATPortPoolExhausted           // no free external port
	DNATNoBackend                  // a DNAT entry has no usable backend
	HairpinUnsupported             // sent by a LAN host to the WAN address, without hairpinning
	RateLimitDNS                   // too many DNS queries from one client
	RateLimitFlows                 // too many new flows from one source
	NeighbourUnresolved            // the next hop did not answer ARP in time
	TxFull                         // the transmit queue was full
	NoLocalService                 // accepted by policy, but the firewall, which it is addressed to, has no such service
	PacketTooBig                   // longer than the MTU of the outgoing interface
	SNIRefused                     // the server name of a TLS ClientHello is missing, or not accepted for this client
	SNIRepeated                    // before the server name is known: a segment that repeats held data, or is out of order
	UntranslatedDestination        // accepted by policy, but sent from the WAN to a translated host's internal address
	HandoverFull                   // arrived at a worker other than its own, and the way there was full
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
	HandoverFull:            "handover_full",
}

// String returns the reason's name as it appears in events and metrics, or
// "invalid" for a value that is not a reason.
func (r Reason) String() string {
	if r == 0 || r >= NumReasons {
		return "invalid"
	}
	return reasonNames[r]
}
