package importing

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A pair is what became of a packet with Linux and with thurward.
type pair struct{ linux, thurward fate }

func (p pair) String() string { return p.linux.String() + " → " + p.thurward.String() }

// A class is what thurward does by design for every policy, whatever was imported.
type class struct {
	name  string
	why   string
	pairs []pair // the only ones that it excuses
	is    func(c *comparison, s *step) bool
}

// silently are the pairs of what is dropped here, and was forwarded, taken or refused.
var silently = []pair{{forwarded, dropped}, {arrived, dropped}, {refused, dropped}}

// classes are tried in order for what is different. Each looks at what both did, at the packet,
// and at thurward's own reason: a difference that a rule makes is in none of them. Of a third
// interface nothing is excused unless the import has named it.
var classes = []class{
	{"other protocols", "protocols other than TCP, UDP and ICMP, such as GRE and ESP, are dropped, or refused",
		append([]pair{{forwarded, refused}, {arrived, refused}, {dropped, refused}}, silently...),
		func(_ *comparison, s *step) bool {
			p := s.sent.proto
			return p != packet.TCP && p != packet.UDP && p != packet.ICMP
		}},
	{"fragments", "fragments are dropped where the policy does not say `fragments: reassemble`",
		[]pair{{forwarded, dropped}, {arrived, dropped}},
		func(_ *comparison, s *step) bool {
			return (s.sent.more || s.sent.offset > 0) && s.t.reason == verdict.FragmentedIPv4
		}},
	{"ICMP of no flow", "of ICMP, echo is forwarded, and errors about packets of a flow",
		append([]pair{{arrived, refused}, {dropped, refused}}, silently...),
		func(c *comparison, s *step) bool {
			return s.sent.proto == packet.ICMP && s.loose && s.sent.typ != packet.EchoRequest
		}},
	{"ICMP errors of flows", "errors about packets of a flow pass, whatever the rules say",
		[]pair{{dropped, forwarded}},
		func(_ *comparison, s *step) bool {
			return s.about && s.sent.proto == packet.ICMP && s.sent.typ == packet.Unreachable
		}},
	{"no connection", "TCP segments other than a SYN begin nothing",
		append([]pair{{forwarded, refused}, {arrived, refused}, {dropped, refused}}, silently...),
		func(_ *comparison, s *step) bool {
			return s.loose && s.sent.proto == packet.TCP && s.sent.flags&(syn|ack|rst) != syn &&
				(s.k.fate != forwarded || s.t.reason == verdict.ConntrackInvalid)
		}},
	{"third interfaces", "nothing comes from an interface that the import has named as a third one",
		[]pair{{arrived, dropped}, {refused, dropped}},
		func(_ *comparison, s *step) bool { return s.t.none && s.kind == answer }},
	{"networks behind third interfaces", "nor goes there, and what Linux refused is dropped",
		[]pair{{refused, dropped}},
		func(c *comparison, s *step) bool { return c.third(c.a.behind(s.sent.dst)) && !c.a.own(s.sent.dst) }},
	{"martian sources", "a source that cannot be at the interface where the packet arrives is dropped",
		[]pair{{forwarded, dropped}, {refused, dropped}},
		func(c *comparison, s *step) bool {
			return c.a.behind(s.sent.src) != s.in && (s.t.reason == verdict.Martian || s.t.none)
		}},
	{"martian destinations", "from the WAN, the firewall has its addresses there alone",
		silently,
		func(c *comparison, s *step) bool {
			return s.in == c.g.wan && c.a.own(s.sent.dst) && c.a.behind(s.sent.dst) != c.g.wan &&
				s.t.reason == verdict.Martian
		}},
	{"ports without a service", "the firewall's own address, a TCP or UDP port: it has DNS at its LAN address, and no other service",
		[]pair{{arrived, dropped}, {arrived, refused}, {refused, dropped}},
		func(c *comparison, s *step) bool {
			d := &s.sent
			if d.proto != packet.TCP && d.proto != packet.UDP || !c.atOwnPort(s) || s.loose {
				return false
			}
			// What Linux was asked for and what its rules let arrive are one address and port, unless it redirects.
			return s.k.fate != arrived || s.k.port == d.dport || s.k.port != 53
		}},
	{"packets of no connection to itself", "segments and fragments of no connection to its own address end there",
		[]pair{{arrived, dropped}, {arrived, refused}, {refused, dropped}},
		func(c *comparison, s *step) bool {
			return s.loose && c.atOwnPort(s) && (s.sent.proto == packet.TCP || s.sent.proto == packet.UDP)
		}},
	{"ping of other own addresses", "ping is answered at the address of the side that it comes from",
		[]pair{{arrived, dropped}, {arrived, refused}, {refused, dropped}},
		func(c *comparison, s *step) bool {
			return s.sent.proto == packet.ICMP && s.sent.typ == packet.EchoRequest && c.a.own(s.sent.dst) &&
				c.a.behind(s.sent.dst) != s.in
		}},
	{"services that tell", "a rule that rejects what the LAN sends does so for the firewall's own addresses, too",
		[]pair{{dropped, refused}},
		func(c *comparison, s *step) bool { return s.in == c.g.lan && c.a.own(s.sent.dst) && !c.service(s) }},
	{"addresses of a pool", "which of several external addresses a host gets is the choice of each",
		[]pair{{forwarded, forwarded}},
		func(c *comparison, s *step) bool {
			other := s.k.d
			other.src, other.sport = s.t.d.src, s.t.d.sport
			return s.k.out == s.t.out && other.String() == s.t.d.String() &&
				c.g.sameEntry(s.sent.src, s.k.d.src, s.t.d.src)
		}},
	{"hosts behind translation", "from the WAN, a host that source NAT covers is reached by destination NAT only",
		[]pair{{forwarded, dropped}, {refused, dropped}},
		func(c *comparison, s *step) bool {
			straight := s.k.fate == refused || s.k.d.dst == s.sent.dst
			return s.in == c.g.wan && straight && s.t.reason == verdict.UntranslatedDestination &&
				c.g.translated(s.sent.dst)
		}},
}

// service reports whether a packet is for a service that thurward offers where the policy says so.
func (c *comparison) service(s *step) bool {
	here := c.a.behind(s.sent.dst) == s.in
	switch s.sent.proto {
	case packet.ICMP:
		return here && s.sent.typ == packet.EchoRequest
	case packet.TCP, packet.UDP:
		return s.in == c.g.lan && (here && s.sent.dport == 53 || s.k.port == 53)
	}
	return false
}

// atOwnPort reports whether a packet is for an address of the firewall's, and there for a port at which it has
// no service: any but that of DNS at the address of the LAN, asked from there.
func (c *comparison) atOwnPort(s *step) bool {
	return c.a.own(s.sent.dst) && !c.service(s)
}

// translated reports whether source NAT covers a host.
func (g *guard) translated(host netip.Addr) bool {
	return slices.ContainsFunc(g.snat, func(s policy.SNAT) bool { return s.Source.Contains(host) })
}

// sameEntry reports whether the entry of source NAT that covers a host has both addresses.
func (g *guard) sameEntry(host, a, b netip.Addr) bool {
	return slices.ContainsFunc(g.snat, func(s policy.SNAT) bool {
		return s.Source.Contains(host) && slices.Contains(s.External, a) && slices.Contains(s.External, b)
	})
}

// third reports whether an interface is neither the LAN's nor the WAN's.
func (c *comparison) third(i int) bool { return i != c.g.lan && i != c.g.wan }

var reThird = regexp.MustCompile(`^(\S+) is a third interface`)

// named reports whether the import has named the third interface that a packet comes from or is for.
func (c *comparison) named(i int) bool {
	if !c.third(i) {
		return true
	}
	for _, n := range c.notes {
		if m := reThird.FindStringSubmatch(n.Why); m != nil {
			if p, any := strings.CutSuffix(m[1], "*"); m[1] == c.a.Interfaces[i].Name ||
				any && strings.HasPrefix(c.a.Interfaces[i].Name, p) {
				return true
			}
		}
	}
	return false
}

// excuse returns the class of a difference, "" if there is none.
func (c *comparison) excuse(s *step) string {
	if !c.named(s.in) || !c.named(c.a.behind(s.sent.dst)) {
		return ""
	}
	at := pair{s.k.fate, s.t.fate}
	for i := range c.excuses {
		if x := &c.excuses[i]; slices.Contains(x.pairs, at) && x.is(c, s) {
			return x.row(at)
		}
	}
	return ""
}

// row names a pair of a class, as the table has it.
func (x *class) row(p pair) string { return x.name + " | " + p.String() }

// TestClassesForgiveNothingMore: but for errors about flows, which is one of the importer's
// designs, no class excuses what passes here and did not with Linux.
func TestClassesForgiveNothingMore(t *testing.T) {
	for _, x := range classes {
		for _, p := range x.pairs {
			if p == (pair{forwarded, forwarded}) && x.name == "addresses of a pool" {
				continue
			}
			if p.thurward == forwarded || p.thurward == arrived {
				if x.name != "ICMP errors of flows" {
					t.Errorf("%s excuses %v", x.name, p)
				}
			}
			if p.linux == p.thurward {
				t.Errorf("%s excuses what is no difference", x.name)
			}
		}
	}
}
