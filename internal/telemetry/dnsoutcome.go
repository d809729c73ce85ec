package telemetry

// A DNSOutcome says how the DNS proxy dealt with a query. Zero is invalid. One
// enumeration feeds events and thurward_dns_queries_total.
type DNSOutcome uint8

// The outcomes.
const (
	_              DNSOutcome = iota
	DNSAnswered               // relayed an answer with RCODE NOERROR
	DNSNXDomain               // relayed NXDOMAIN
	DNSServFail               // relayed another error of the upstream server
	DNSTimeout                // no upstream server answered in time: SERVFAIL
	DNSRateLimited            // more than the client may ask: SERVFAIL
	DNSBlocked                // the policy blocks the name
	DNSMalformed              // the query could not be read
	DNSOverload               // no room for another query under way: SERVFAIL
	NumDNSOutcomes
)

var dnsNames = [NumDNSOutcomes]string{
	DNSAnswered:    "answered",
	DNSNXDomain:    "nxdomain",
	DNSServFail:    "servfail",
	DNSTimeout:     "timeout",
	DNSRateLimited: "rate_limited",
	DNSBlocked:     "blocked",
	DNSMalformed:   "malformed",
	DNSOverload:    "overload",
}

// String returns the outcome's name in events and metrics.
func (o DNSOutcome) String() string {
	if o == 0 || o >= NumDNSOutcomes {
		return "invalid"
	}
	return dnsNames[o]
}

// rcode returns the response code that the client saw (RFC 1035 4.1.1).
func (o DNSOutcome) rcode() string {
	switch o {
	case DNSAnswered:
		return "NOERROR"
	case DNSNXDomain, DNSBlocked:
		return "NXDOMAIN"
	case DNSMalformed:
		return "FORMERR"
	}
	return "SERVFAIL"
}
