package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
)

// write makes rules.yaml.
func (c *converter) write() (*Result, error) {
	root := []policy.Member{{Key: "interfaces", Value: policy.Mapping(false,
		policy.Member{Key: "lan0", Value: policy.Mapping(true, member("address", c.lanNet)), Comment: shorten(c.lan)},
		policy.Member{Key: "wan0", Value: policy.Mapping(true, member("address", c.wanNet), member("gateway", c.gateway)), Comment: shorten(c.wan)})}}
	action := "deny"
	if c.policy == "accept" {
		action = c.policy
	}
	root = append(root, policy.Member{Key: "defaults", Value: policy.Mapping(false, member("default_action", action))})
	if c.dns {
		c.assume("plain DNS of the LAN is answered by the firewall, as it was redirected: dns.upstreams is a placeholder")
		root = append(root, policy.Member{Key: "dns", Value: policy.Mapping(false,
			policy.Member{Key: "intercept", Value: policy.Plain(true)},
			policy.Member{Key: "upstreams", Value: policy.List(true, policy.Mapping(true, member("address", "192.0.2.53")))})})
	}
	var nat []policy.Member
	if len(c.snat) > 0 {
		nat = append(nat, policy.Member{Key: "snat", Value: list(c.snat, outSNAT.node)})
	}
	if len(c.dnat) > 0 {
		nat = append(nat, policy.Member{Key: "dnat", Value: list(c.dnat, func(d outDNAT) *policy.Node { return d.node(c.wanNet.Addr()) })})
	}
	if len(nat) > 0 {
		root = append(root, policy.Member{Key: "nat", Value: policy.Mapping(false, nat...)})
	}
	rules := policy.Member{Key: "rules", Value: list(c.rules, outRule.node)}
	if len(c.rules) > 0 {
		rules.Comment = "the first that matches decides"
	}
	root = append(root, rules)
	head := []string{fmt.Sprintf("Imported from %s. Review it, then thurward check and thurward explain.", shorten(c.o.File))}
	for _, a := range c.res.Assumptions {
		head = append(head, "assumed: "+a)
	}
	for _, n := range c.res.Notes {
		n.Place = shorten(n.Place)
		n.Why = shorten(n.Why)
		head = append(head, "not converted: "+n.String())
	}
	var err error
	if c.res.YAML, err = policy.Document(policy.Mapping(false, root...), head...); err != nil {
		return nil, fmt.Errorf("%s: writing the policy: %w", c.o.File, err)
	}
	// The result is a valid policy, or an error says why not.
	if p, ds := policy.Load("the result", c.res.YAML); p == nil {
		for _, d := range ds {
			if d.Severity == policy.Error {
				return &c.res, fmt.Errorf("the result is not a valid policy: %v", d)
			}
		}
	}
	return &c.res, nil
}

func member(key string, v any) policy.Member {
	return policy.Member{Key: key, Value: policy.Scalar(fmt.Sprint(v))}
}

func (s outSNAT) node() *policy.Node {
	m := []policy.Member{member("out_interface", "wan0")}
	if s.source.IsValid() && s.source.Bits() > 0 {
		m = append(m, member("source", prefix(s.source)))
	}
	if len(s.external) == 0 {
		m = append(m, policy.Member{Key: "masquerade", Value: policy.Plain(true)})
	} else {
		m = append(m, policy.Member{Key: "external_ip", Value: values(s.external, netip.Addr.String)})
	}
	if len(s.ports) == 1 {
		m = append(m, member("port_range", fmt.Sprintf("%d-%d", max(s.ports[0].lo, 1), s.ports[0].hi)))
	}
	return policy.Mapping(true, m...)
}

func (d outDNAT) node(wan netip.Addr) *policy.Node {
	if d.wan.IsValid() {
		wan = d.wan
	}
	m := []policy.Member{member("wan_ip", wan), {Key: "wan_port", Value: ports(d.ports)}, member("to", fmt.Sprintf("%v:%d", d.to, d.toPort)), member("proto", d.proto)}
	if d.from != nil {
		m = append(m, policy.Member{Key: "from", Value: values(d.from.prefixes(), prefix)})
	}
	if d.hairpin {
		m = append(m, policy.Member{Key: "hairpin", Value: policy.Plain(true)})
	}
	return policy.Mapping(true, m...)
}

func (r outRule) node() *policy.Node {
	m := []policy.Member{member("id", r.id)}
	if r.name != "" {
		m = append(m, member("name", shorten(strings.ToValidUTF8(r.name, "?"))))
	}
	m = append(m, member("action", r.action))
	if r.direction != "" {
		m = append(m, member("direction", r.direction))
	}
	if len(r.states) > 0 {
		m = append(m, policy.Member{Key: "state", Value: values(r.states, same)})
	}
	if len(r.protos) > 0 {
		m = append(m, policy.Member{Key: "protocol", Value: values(r.protos, same)})
	}
	if r.src != nil {
		m = append(m, policy.Member{Key: "source", Value: values(r.src.prefixes(), prefix)})
	}
	if r.dst != nil {
		m = append(m, policy.Member{Key: "destination", Value: values(r.dst.prefixes(), prefix)})
	}
	if r.ports != nil {
		m = append(m, policy.Member{Key: "destination_port", Value: policy.OneOrList(r.ports, ports)})
	}
	return policy.Mapping(true, m...)
}

// list returns a list with a line for each value.
func list[T any](vs []T, node func(T) *policy.Node) *policy.Node {
	l := make([]*policy.Node, len(vs))
	for i, v := range vs {
		l[i] = node(v)
	}
	return policy.List(false, l...)
}

// values returns one value alone, several as a list on one line.
func values[T any](vs []T, f func(T) string) *policy.Node {
	return policy.OneOrList(vs, func(v T) *policy.Node { return policy.Scalar(f(v)) })
}

func same(s string) string { return s }

func prefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func ports(p span) *policy.Node {
	if p.lo == p.hi {
		return policy.Plain(p.lo)
	}
	return policy.Scalar(fmt.Sprintf("%d-%d", p.lo, p.hi))
}

// addresses finds what the interfaces section needs. A rule set does not say
// it; the LAN's network is guessed from the sources that are translated.
func (c *converter) addresses() {
	lan, wan, gateway := c.o.LANAddress, c.o.WANAddress, c.o.Gateway
	c.lanKnown = lan.IsValid()
	if !lan.IsValid() {
		lan = netip.MustParsePrefix("10.0.0.1/24")
		why := "is a placeholder"
		for _, s := range c.snat {
			if p := s.source; p.IsValid() && p.Bits() >= 8 && p.Bits() <= 30 && p.Addr().IsPrivate() && (!c.lanKnown || p.Bits() < lan.Bits()) {
				lan, why = netip.PrefixFrom(p.Addr().Next(), p.Bits()), "is guessed from the sources that are translated"
				c.lanKnown = true
			}
		}
		if len(c.dnat) > 0 && !c.lanKnown {
			if p, err := c.dnat[0].to.Prefix(24); err == nil && p.Addr().IsPrivate() {
				lan, why = netip.PrefixFrom(p.Addr().Next(), 24), "is guessed from the first server that destination NAT leads to"
			}
		}
		c.assume("interfaces.lan0.address: %v %s (--lan-address says what it is)", lan, why)
	}
	if !wan.IsValid() {
		wan = netip.MustParsePrefix("192.0.2.2/24")
		why := "is a placeholder"
		for _, a := range c.external() {
			if p, err := a.Prefix(24); err == nil && !lan.Overlaps(p) && a.IsGlobalUnicast() && a != p.Addr() && a.As4()[3] != 255 {
				wan, why = netip.PrefixFrom(a, 24), "is guessed from an address that is translated"
				break
			}
		}
		c.assume("interfaces.wan0.address: %v %s (--wan-address says what it is)", wan, why)
	}
	if !gateway.IsValid() {
		gateway = wan.Masked().Addr().Next()
		if gateway == wan.Addr() {
			gateway = gateway.Next()
		}
		c.assume("interfaces.wan0.gateway: %v is a placeholder (--gateway says what it is)", gateway)
	}
	c.lanNet, c.wanNet, c.gateway = lan, wan, gateway
}

// external returns the firewall's addresses that the rule set names.
func (c *converter) external() (as []netip.Addr) {
	for _, d := range c.dnat {
		as = append(as, d.wan)
	}
	for _, s := range c.snat {
		as = append(as, s.external...)
	}
	return slices.DeleteFunc(as, func(a netip.Addr) bool { return !a.IsValid() })
}
