package ruleset

// What applies where a policy does not say otherwise, and, but for MaxFlows, where
// a field of Settings is 0. Timeouts are in seconds.
const (
	DefaultMaxFlows       = 65536
	DefaultTCPEstablished = 7440 // RFC 5382 REQ-5: at least 2 h 4 min
	DefaultTCPTransitory  = 240  // RFC 5382 REQ-5: at least 4 min; for every other state of TCP
	DefaultUDPUnreplied   = 30
	DefaultUDPIdle        = 300 // RFC 4787 REQ-5: 5 min or more is recommended
	DefaultICMPEcho       = 60  // RFC 5508 REQ-2
	DefaultDNSRate        = 100
	DefaultDNSNames       = 16384
	DefaultMTU            = 1500 // of an interface whose device does not report any
)

// MaxMTU is the largest MTU of an interface: the payload of the largest frames that switches
// commonly pass on.
const MaxMTU = 9216

// String returns the action's word in policies.
func (a Action) String() string {
	switch a {
	case Accept:
		return "accept"
	case Deny:
		return "deny"
	case Reject:
		return "reject"
	}
	return "invalid"
}

// DefaultRuleID returns the id that stands for the default action a in events,
// metrics and what the host prints, in place of a rule's.
func (a Action) DefaultRuleID() string {
	switch a {
	case Accept:
		return "default-accept"
	case Reject:
		return "default-reject"
	}
	return "default-deny"
}

// DefaultRuleName returns the name that stands for the default action a, as
// DefaultRuleID its id.
func (a Action) DefaultRuleName() string {
	switch a {
	case Accept:
		return "Default action: accept"
	case Reject:
		return "Default action: reject"
	}
	return "Default action: deny"
}
