package verdict

// A DNSOutcome says how the DNS proxy dealt with a query. Zero is invalid. One
// enumeration feeds events and thurward_dns_queries_total.
type DNSOutcome uint8

// The outcomes.
const (
	_                 DNSOutcome = iota
	DNSAnswered                  // relayed an answer with RCODE NOERROR
	DNSNXDomain                  // relayed NXDOMAIN
	DNSServFail                  // relayed SERVFAIL
	DNSRefused                   // relayed REFUSED
	DNSOther                     // relayed another error of the upstream server
	DNSTimeout                   // no upstream server answered in time: SERVFAIL
	DNSRateLimited               // more than the client may ask: SERVFAIL
	DNSOverload                  // no room for another query under way: SERVFAIL
	DNSBlockedList               // the name is on the policy's block list: REFUSED
	DNSBlockedPolicy             // no rule could use the name: REFUSED
	DNSMalformed                 // the query could not be parsed: FORMERR, or BADVERS
	DNSNotImplemented            // an operation other than a query, or a zone transfer: NOTIMP
	DNSBlockedPrivate            // the answer leads to a private address, and the policy does not list the name: REFUSED
	NumDNSOutcomes
)

var dnsNames = [NumDNSOutcomes]string{
	DNSAnswered:       "answered",
	DNSNXDomain:       "nxdomain",
	DNSServFail:       "servfail",
	DNSRefused:        "refused",
	DNSOther:          "other",
	DNSTimeout:        "timeout",
	DNSRateLimited:    "rate_limited",
	DNSOverload:       "overload",
	DNSBlockedList:    "blocked_list",
	DNSBlockedPolicy:  "blocked_policy",
	DNSMalformed:      "malformed",
	DNSNotImplemented: "not_implemented",
	DNSBlockedPrivate: "blocked_private",
}

// String returns the outcome's name in events and metrics.
func (o DNSOutcome) String() string {
	if o == 0 || o >= NumDNSOutcomes {
		return "invalid"
	}
	return dnsNames[o]
}

// RCode returns the response code in the client's answer (RFC 1035 section 4.1.1), "" where
// the outcome does not determine it.
func (o DNSOutcome) RCode() string {
	switch o {
	case DNSAnswered:
		return "NOERROR"
	case DNSNXDomain:
		return "NXDOMAIN"
	case DNSRefused, DNSBlockedList, DNSBlockedPolicy, DNSBlockedPrivate:
		return "REFUSED"
	case DNSMalformed:
		return "FORMERR"
	case DNSNotImplemented:
		return "NOTIMP"
	case DNSOther:
		return ""
	}
	return "SERVFAIL"
}
