package importing

import (
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A class is what thurward does by design for every policy, whatever was imported.
type class struct {
	name string
	why  string
	is   func(c *comparison, s *step) bool
}

// classes are tried in order for what is different. Each looks at what both did, at the packet,
// and at thurward's own reason: a difference that a rule makes is in none of them.
var classes = []class{
	{"other protocols", "protocols other than TCP, UDP and ICMP, such as GRE and ESP, are dropped, or refused",
		func(_ *comparison, s *step) bool {
			p := s.sent.proto
			return (s.kind == stricter || s.kind == answer) && p != packet.TCP && p != packet.UDP && p != packet.ICMP
		}},
	{"fragments", "fragments are dropped where the policy does not say `fragments: reassemble`",
		func(_ *comparison, s *step) bool {
			return s.kind == stricter && (s.sent.more || s.sent.offset > 0) && s.t.reason == verdict.FragmentedIPv4
		}},
	{"ICMP of no flow", "of ICMP, echo is forwarded, and errors about packets of a flow",
		func(_ *comparison, s *step) bool {
			return s.kind != permissive && s.sent.proto == packet.ICMP && s.loose && s.sent.typ != packet.EchoRequest
		}},
	{"ICMP errors of flows", "errors about packets of a flow pass, whatever the rules say",
		func(_ *comparison, s *step) bool {
			return s.kind == permissive && s.sent.proto == packet.ICMP && s.about
		}},
	{"no connection", "TCP segments other than a SYN begin nothing",
		func(_ *comparison, s *step) bool {
			return s.loose && s.sent.proto == packet.TCP && s.sent.flags&(syn|ack|rst) != syn && s.t.fate != forwarded &&
				(s.kind == answer || s.kind == stricter && s.t.reason == verdict.ConntrackInvalid)
		}},
	{"own services", "the firewall itself answers ping, and DNS at its address on the LAN, and has no other service",
		func(c *comparison, s *step) bool {
			if !c.a.own(s.sent.dst) {
				return false
			}
			elsewhere := c.a.behind(s.sent.dst) != c.g.lan
			return s.kind == answer && !c.dns(s) || s.kind == stricter && s.k.fate == arrived && elsewhere
		}},
	{"martians", "a packet whose source or destination cannot be at its interface is dropped",
		func(c *comparison, s *step) bool {
			elsewhere := c.a.behind(s.sent.src) != s.in
			inside := s.in == c.g.wan && c.a.behind(s.sent.dst) != c.g.wan && c.a.own(s.sent.dst)
			return s.kind != permissive && (s.t.reason == verdict.Martian || s.t.none) && (elsewhere || inside)
		}},
	{"hosts behind translation", "from the WAN, a host that source NAT covers is reached by destination NAT only",
		func(c *comparison, s *step) bool {
			return (s.kind == stricter || s.kind == answer) && s.in == c.g.wan && s.t.reason == verdict.UntranslatedDestination
		}},
	{"third interfaces", "what Linux refuses from or to a third interface is dropped, and its sender not told",
		func(c *comparison, s *step) bool {
			to := c.a.behind(s.sent.dst)
			third := s.t.none || to != c.g.lan && to != c.g.wan
			return s.kind == answer && s.k.fate == refused && s.t.fate == dropped && third
		}},
}
