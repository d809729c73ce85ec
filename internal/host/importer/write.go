package importer

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
)

// write makes rules.yaml.
func (c *converter) write() (*Result, error) {
	root := []policy.Member{{Key: "interfaces", Value: policy.Mapping(false,
		policy.Member{Key: "lan0", Value: policy.Mapping(true, member("address", c.lanNet)), Comment: shorten(c.lan)},
		policy.Member{Key: "wan0", Value: policy.Mapping(true, member("address", c.wanNet), member("gateway", c.gateway)), Comment: shorten(c.wan)})}}
	root = append(root, policy.Member{Key: "defaults", Value: policy.Mapping(false, member("default_action", c.action))})
	if c.upstream {
		root = append(root, policy.Member{Key: "dns", Value: policy.Mapping(false, c.resolving()...)})
	}
	if c.repairs == 0 {
		c.plainer()
		var top []outRule
		for i := range c.top {
			c.become(&top, &c.top[i])
		}
		c.rules = slices.Concat(c.first, c.front, top, c.rules)
	}
	var nat []policy.Member
	if len(c.snat) > 0 {
		nat = append(nat, policy.Member{Key: "snat", Value: list(c.snat, outSNAT.node)})
	}
	if len(c.dnat) > 0 {
		nat = append(nat, policy.Member{Key: "dnat", Value: list(c.dnat, outDNAT.node)})
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
	for _, l := range Lines(c.res.Notes) {
		head = append(head, "not converted: "+l)
	}
	for _, d := range c.res.Designs {
		if d.Rules == 0 {
			continue
		}
		head = append(head, "by design: "+d.String())
	}
	var err error
	if c.res.YAML, err = policy.Document(policy.Mapping(false, root...), head...); err != nil {
		return nil, fmt.Errorf("%s: writing the policy: %w", c.o.File, err)
	}
	if n := len(c.res.YAML); n > policy.MaxBytes {
		return nil, fmt.Errorf("%s: the policy has %d bytes when all rules and sets are written out; at most %d are read", c.o.File, n, policy.MaxBytes)
	}
	// The result is a valid policy, or an error says why not.
	if p, ds := policy.Load("the result", c.res.YAML); p == nil {
		for _, d := range ds {
			if d.Severity != policy.Error {
				continue
			}
			if c.repairs++; c.repairs < maxRepairs && c.repair(d) {
				return c.write()
			}
			return &c.res, fmt.Errorf("the result is not a valid policy: %v", d)
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

func (d outDNAT) node() *policy.Node {
	m := []policy.Member{member("wan_ip", d.wan), {Key: "wan_port", Value: ports(d.ports)},
		member("to", fmt.Sprintf("%v:%d", d.to, d.toPort)), member("proto", protoName(d.proto))}
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

// resolving returns what dns has: whom the firewall asks, which a rule set does not
// say.
func (c *converter) resolving() (m []policy.Member) {
	if c.dns {
		m = append(m, policy.Member{Key: "intercept", Value: policy.Plain(true)})
	}
	upstreams := c.o.DNS
	if len(upstreams) == 0 {
		upstreams = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
		why := "as the router did"
		if c.dns {
			why = "as it was redirected"
		}
		c.assume("DNS of the LAN is answered by the firewall, %s: dns.upstreams is a placeholder (--dns says whom it asks)", why)
	}
	nodes := make([]*policy.Node, len(upstreams))
	for i, a := range upstreams {
		nodes[i] = policy.Mapping(true, member("address", a))
	}
	return append(m, policy.Member{Key: "upstreams", Value: policy.List(true, nodes...)})
}

// slug returns what can be an id of a text, "rule" if nothing can.
func slug(text string) string {
	base := strings.Map(func(v rune) rune {
		if v >= 'a' && v <= 'z' || v >= 'A' && v <= 'Z' || v >= '0' && v <= '9' || v == '-' || v == '_' {
			return v
		}
		return -1
	}, strings.ReplaceAll(strings.ToLower(text), " ", "-"))
	for strings.Contains(base, "--") {
		base = strings.ReplaceAll(base, "--", "-")
	}
	base = strings.Trim(base, "-_")
	if base == "" || len(base) > 40 || strings.HasPrefix(base, "default-") {
		return "rule"
	}
	return base
}

// plainer leaves out of entries who may use them where that is everybody, and no
// other entry is for the same address and ports.
func (c *converter) plainer() {
	all := spans{prefixSpan(c.lanNet)}.not(maxAddr).minus(offLink, maxAddr)
	for i := range c.dnat {
		d := &c.dnat[i]
		if d.hairpin || d.from == nil || !d.from.holds(all, maxAddr) {
			continue
		}
		if !slices.ContainsFunc(c.dnat, func(e outDNAT) bool {
			return e.from != nil && !slices.Equal(e.from, d.from) && e.wan == d.wan && e.proto == d.proto && e.ports.lo <= d.ports.hi && d.ports.lo <= e.ports.hi
		}) {
			d.from = nil
		}
	}
}

const maxRepairs = 64

var faulty = regexp.MustCompile(`^(nat\.dnat|nat\.snat|rules)\[(\d+)\]`)

// repair leaves an entry out that cannot be in a policy, unless it is a rule that
// denies.
func (c *converter) repair(d policy.Diagnostic) bool {
	m := faulty.FindStringSubmatch(d.Path)
	if m == nil {
		return false
	}
	n, err := strconv.Atoi(m[2])
	r := &rule{place: d.Path, text: "an entry of the result"}
	switch {
	case err != nil:
		return false
	case m[1] == "nat.dnat" && n < len(c.dnat):
		c.note(c.dnat[n].rule, c.dnat[n].box(), "it cannot be in a policy: "+d.Message, Stricter)
		c.dnat = slices.Delete(c.dnat, n, n+1)
	case m[1] == "nat.snat" && n < len(c.snat):
		// Hosts that are not translated are reached by their own addresses.
		c.note(r, cond{}, "it cannot be in a policy: "+d.Message, Permissive)
		c.snat = slices.Delete(c.snat, n, n+1)
	case m[1] == "rules" && n < len(c.rules) && c.rules[n].action == "accept":
		r.text = "rule " + c.rules[n].id + ", " + c.rules[n].name
		c.note(r, cond{}, "it cannot be in a policy: "+d.Message, Stricter)
		c.rules = slices.Delete(c.rules, n, n+1)
	default:
		return false
	}
	return true
}
