package migrate

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/thurward/thurward/internal/policy"
)

// write makes rules.yaml.
func (c *carrier) write() (*Result, error) {
	lan, wan, gateway := c.lanNet, c.wanNet, c.gateway
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("interfaces:")
	line("  lan0: { address: %v }%s", lan, remark(c.lan))
	line("  wan0: { address: %v, gateway: %v }%s", wan, gateway, remark(c.wan))
	line("defaults:")
	line("  default_action: %s", map[string]string{"accept": "accept"}[c.policy]+map[bool]string{true: "", false: "deny"}[c.policy == "accept"])
	if c.dns {
		c.assume("plain DNS of the LAN is answered by the firewall, as it was redirected: dns.upstreams is a placeholder")
		line("dns:\n  intercept: true\n  upstreams: [ { address: 192.0.2.53 } ]")
	}
	if len(c.snat)+len(c.dnat) > 0 {
		line("nat:")
	}
	if len(c.snat) > 0 {
		line("  snat:")
	}
	for _, s := range c.snat {
		f := []string{"out_interface: wan0"}
		if s.source.IsValid() && s.source.Bits() > 0 {
			f = append(f, "source: "+prefix(s.source))
		}
		switch len(s.external) {
		case 0:
			f = append(f, "masquerade: true")
		case 1:
			f = append(f, "external_ip: "+s.external[0].String())
		default:
			f = append(f, "external_ip: "+list(s.external, netip.Addr.String))
		}
		if len(s.ports) == 1 {
			f = append(f, fmt.Sprintf("port_range: %d-%d", max(s.ports[0].lo, 1), s.ports[0].hi))
		}
		line("    - { %s }", strings.Join(f, ", "))
	}
	if len(c.dnat) > 0 {
		line("  dnat:")
	}
	for _, d := range c.dnat {
		if !d.wan.IsValid() {
			d.wan = wan.Addr()
		}
		f := []string{"wan_ip: " + d.wan.String(), "wan_port: " + ports(d.ports), fmt.Sprintf(`to: "%v:%d"`, d.to, d.toPort), "proto: " + d.proto}
		if d.from != nil {
			f = append(f, "from: "+list(d.from.prefixes(), prefix))
		}
		if d.hairpin {
			f = append(f, "hairpin: true")
		}
		line("    - { %s }", strings.Join(f, ", "))
	}
	if len(c.rules) == 0 {
		line("rules: []")
	} else {
		line("rules: # the first that matches decides")
	}
	for _, r := range c.rules {
		f := []string{"id: " + r.id}
		if r.name != "" {
			f = append(f, "name: "+quote(r.name))
		}
		f = append(f, "action: "+r.action)
		if r.direction != "" {
			f = append(f, "direction: "+r.direction)
		}
		if len(r.states) > 0 {
			f = append(f, "state: "+list(r.states, same))
		}
		if len(r.protos) > 0 {
			f = append(f, "protocol: "+list(r.protos, same))
		}
		if r.src != nil {
			f = append(f, "source: "+list(r.src.prefixes(), prefix))
		}
		if r.dst != nil {
			f = append(f, "destination: "+list(r.dst.prefixes(), prefix))
		}
		if r.ports != nil {
			f = append(f, "destination_port: "+list(r.ports, ports))
		}
		line("  - { %s }", strings.Join(f, ", "))
	}
	head := fmt.Sprintf("# Imported from %s. Review it, then thurward check and thurward explain.\n", shorten(c.o.File))
	for _, a := range c.res.Assumptions {
		head += "# assumed: " + shorten(a) + "\n"
	}
	for _, n := range c.res.Notes {
		n.Place = shorten(n.Place)
		n.Why = shorten(n.Why)
		head += "# not carried: " + n.String() + "\n"
	}
	c.res.YAML = []byte(head + b.String())
	// What comes out is a policy, or it is said why not.
	if p, ds := policy.Load("the result", c.res.YAML); p == nil {
		for _, d := range ds {
			if d.Severity == policy.Error {
				return &c.res, fmt.Errorf("the result is not a valid policy: %v", d)
			}
		}
	}
	return &c.res, nil
}

func same(s string) string { return s }

// list writes values as YAML: one alone, several in brackets.
func list[T any](vs []T, f func(T) string) string {
	var s []string
	for _, v := range vs {
		s = append(s, f(v))
	}
	if len(s) == 1 {
		return s[0]
	}
	return "[" + strings.Join(s, ", ") + "]"
}

func prefix(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func ports(p span) string {
	if p.lo == p.hi {
		return fmt.Sprint(p.lo)
	}
	return fmt.Sprintf("%d-%d", p.lo, p.hi)
}

// quote writes a name as YAML in double quotes.
func quote(s string) string {
	s = shorten(strings.ToValidUTF8(s, "?"))
	return strconv.QuoteToASCII(s)
}

func remark(name string) string {
	if name == "" {
		return ""
	}
	return " # " + shorten(name)
}

// addresses finds what the interfaces section needs. A rule set does not say
// it; the LAN's network is guessed from the sources that are translated.
func (c *carrier) addresses() {
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
func (c *carrier) external() (as []netip.Addr) {
	for _, d := range c.dnat {
		as = append(as, d.wan)
	}
	for _, s := range c.snat {
		as = append(as, s.external...)
	}
	return slices.DeleteFunc(as, func(a netip.Addr) bool { return !a.IsValid() })
}
