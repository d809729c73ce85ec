package compile

import (
	"fmt"
	"math"
	"net/netip"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// Compile turns a policy into the tables of a ruleset, the classifier's among
// them. A rule whose fields are lists becomes one match for each combination.
func Compile(p *policy.Policy) (*ruleset.Policy, error) {
	s, err := Tables(p)
	if err != nil {
		return nil, err
	}
	if err := Classifier(s); err != nil {
		return nil, fmt.Errorf("%s: %w", p.File, err)
	}
	return s, nil
}

// Tables returns the tables of a policy but for the classifier's.
func Tables(p *policy.Policy) (*ruleset.Policy, error) {
	c := &compiler{s: &ruleset.Policy{Digest: p.Digest}, texts: map[string]ruleset.Text{}, names: map[string]uint32{}}
	c.settings(p)
	for _, f := range p.Interfaces {
		e := ruleset.Interface{Name: c.text(f.Name), Address: f.Prefix.Addr().As16(), PrefixLen: uint8(f.Prefix.Bits()), Role: ruleset.WAN, MTU: uint16(f.MTU)}
		if f.LAN {
			e.Role = ruleset.LAN
		}
		if f.Gateway.IsValid() {
			e.Gateway = f.Gateway.As16()
		}
		if f.HasMAC {
			e.HasMAC, e.MAC = 1, f.MAC
		}
		c.s.Interfaces = append(c.s.Interfaces, e)
	}
	c.nat(p)
	c.dns(&p.DNS)
	for i := range p.Rules {
		if c.combined += p.Rules[i].Combinations(); c.combined > policy.MaxMatches {
			return nil, fmt.Errorf("%s:%d: the lists of the rules up to this one make more than %d combinations", p.File, p.Rules[i].Line, policy.MaxMatches)
		}
		c.rule(&p.Rules[i])
	}
	return c.s, nil
}

type compiler struct {
	s     *ruleset.Policy
	texts map[string]ruleset.Text
	names map[string]uint32 // 1 + index into Names

	combined int // matches so far
}

// text adds a string to the table, or finds it there.
func (c *compiler) text(t string) ruleset.Text {
	if r, ok := c.texts[t]; ok {
		return r
	}
	r := ruleset.Text{Off: uint32(len(c.s.Strings)), Len: uint32(len(t))}
	c.s.Strings = append(c.s.Strings, t...)
	c.texts[t] = r
	return r
}

func (c *compiler) settings(p *policy.Policy) {
	d, s := &p.Defaults, &c.s.Settings
	*s = ruleset.Settings{
		DefaultAction: d.Action, MaxFlows: uint32(d.MaxFlows), SourceFlows: uint32(d.SourceFlows), SourceRate: uint32(d.SourceRate),
		SampleAccept: uint32(d.SampleAccept * math.MaxUint32), SampleDrop: uint32(d.SampleDrop * math.MaxUint32),
		DNSRate: uint32(d.DNSRate), DNSNames: uint32(p.DNS.MaxNames), DNSFloor: uint32(p.DNS.TTLFloor), DNSGrace: uint32(p.DNS.TTLGrace),
	}
	if d.Reassemble {
		s.Fragments = ruleset.FragmentsReassemble
	}
	for _, f := range []struct {
		on   bool
		flag uint32
	}{{d.NoTimeExceeded, ruleset.FlagNoTimeExceeded}, {d.NoMSSClamp, ruleset.FlagNoMSSClamp}, {p.DNS.Follow, ruleset.FlagDNSFollow},
		{p.DNS.Intercept, ruleset.FlagDNSIntercept}, {d.NoFlowEnd, ruleset.FlagNoFlowEnd}, {p.Log.QuietGroups, ruleset.FlagQuietGroups},
		{!d.NoResetUnknown, ruleset.FlagResetUnknown}} {
		if f.on {
			s.Flags |= f.flag
		}
	}
	for _, r := range p.Log.Quiet {
		s.Quiet |= 1 << r
	}
	for i, dst := range []*uint32{&s.TCPSynSent, &s.TCPSynRecv, &s.TCPEstablished, &s.TCPFinWait, &s.TCPCloseWait, &s.TCPLastAck,
		&s.TCPTimeWait, &s.TCPClose, &s.UDPUnreplied, &s.UDPIdle, &s.ICMPEcho} {
		t := policy.Timeouts[i]
		*dst = uint32(t.Default)
		if v, ok := d.Timeouts[t.Name]; ok {
			*dst = uint32(v)
		}
	}
}

// nat adds the entries of both kinds. The external addresses of an entry of
// source translation follow each other.
func (c *compiler) nat(p *policy.Policy) {
	for _, n := range p.SNAT {
		e := ruleset.SNAT{Interface: uint32(n.Interface), PortLo: uint16(n.PortLo), PortHi: uint16(n.PortHi)}
		e.Source, e.SourceMask = addrMask(n.Source)
		if len(n.External) == 0 {
			c.s.SNAT = append(c.s.SNAT, e)
		}
		for _, a := range n.External {
			e.External = a.As16()
			c.s.SNAT = append(c.s.SNAT, e)
		}
	}
	for i := range p.DNAT {
		d := &p.DNAT[i]
		e := ruleset.DNAT{External: d.WAN.As16(), To: d.To.As16(), PortLo: uint16(d.Ports.Lo), PortHi: uint16(d.Ports.Hi), ToPort: uint16(d.ToPort), Line: uint32(d.Line)}
		if d.Hairpin {
			e.Hairpin = 1
		}
		for _, proto := range d.Protocols {
			e.Proto = uint8(proto)
			for _, from := range policy.OrAny(d.From) {
				e.From, e.FromMask = addrMask(from)
				c.s.DNAT = append(c.s.DNAT, e)
			}
		}
	}
}

func (c *compiler) dns(d *policy.DNS) {
	// Those with TLS come first: the others are for when they are down.
	for _, tls := range [...]bool{true, false} {
		for _, u := range d.Upstreams {
			if tls != (u.ServerName != "") {
				continue
			}
			e := ruleset.Upstream{Address: u.Address.As16(), Port: uint16(u.Port)}
			if tls {
				e.TLS, e.ServerName = 1, c.text(u.ServerName)
			}
			if u.CA != "" {
				e.CA = c.text(u.CA)
			}
			c.s.Upstreams = append(c.s.Upstreams, e)
		}
	}
	for _, a := range d.Resolvers {
		c.s.Resolvers = append(c.s.Resolvers, ruleset.Resolver{Address: a.As16()})
	}
	for _, n := range d.Block {
		c.s.Blocked = append(c.s.Blocked, c.pattern(n))
	}
	for _, n := range d.Private {
		c.s.Private = append(c.s.Private, c.pattern(n))
	}
}

// pattern returns a name, or a wildcard "*.name", as the tables hold it.
func (c *compiler) pattern(s string) ruleset.Name {
	var n ruleset.Name
	if parent, ok := strings.CutPrefix(s, "*."); ok {
		n.Wildcard, s = 1, parent
	}
	n.Text = c.text(s)
	return n
}

// name returns the number of a pattern for matches, 1 + its index.
func (c *compiler) name(s string) uint32 {
	if n, ok := c.names[s]; ok {
		return n
	}
	c.s.Names = append(c.s.Names, c.pattern(s))
	c.names[s] = uint32(len(c.s.Names))
	return c.names[s]
}

// rule adds a rule and its matches.
func (c *compiler) rule(r *policy.Rule) {
	n := uint32(len(c.s.Rules))
	e := ruleset.Rule{ID: c.text(r.ID), Name: c.text(r.Name), Line: uint32(r.Line), Action: r.Action}
	if r.Shadow {
		e.Mode = ruleset.Shadow
	}
	if r.SNI {
		e.SNI = 1
	}
	if r.Quiet {
		e.Quiet = 1
	}
	c.s.Rules = append(c.s.Rules, e)
	m := ruleset.Match{Rule: n, Action: e.Action, Direction: r.Direction}
	for _, s := range r.States {
		m.State |= uint8(s)
	}
	ports := r.Ports
	if len(ports) == 0 {
		ports = []policy.PortRange{{Lo: 0, Hi: 65535}} // with protocols that have none
	}
	protos := r.Protocols
	if len(protos) == 0 {
		protos = []policy.Protocol{0} // any
	}
	wanted := []uint32{0}
	if len(r.Names) > 0 {
		wanted = nil
		for _, s := range r.Names {
			wanted = append(wanted, c.name(s))
		}
	}
	for _, src := range policy.OrAny(r.Source) {
		for _, dst := range policy.OrAny(r.Destination) {
			for _, proto := range protos {
				m.Proto = uint8(proto)
				for _, q := range ports {
					for _, m.Name = range wanted {
						m.Src, m.SrcMask = addrMask(src)
						m.Dst, m.DstMask = addrMask(dst)
						m.PortLo, m.PortHi = uint16(q.Lo), uint16(q.Hi)
						c.s.Matches = append(c.s.Matches, m)
					}
				}
			}
		}
	}
}

// addrMask returns a network as an address and a mask; everything is zeros.
func addrMask(p netip.Prefix) (a, m ruleset.Addr) {
	if !p.IsValid() || p.Bits() == 0 {
		return a, m
	}
	a = p.Masked().Addr().As16()
	ones := p.Bits()
	if p.Addr().Is4() {
		ones += 96
	}
	for i := range ones {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return a, m
}

// Patterns returns all name patterns of a policy's rules.
func Patterns(rs *ruleset.Policy) (all []string) {
	for i := range rs.Names {
		all = append(all, Pattern(rs, &rs.Names[i]))
	}
	return all
}

// Pattern returns a name pattern as a policy has it.
func Pattern(rs *ruleset.Policy, n *ruleset.Name) string {
	if n.Wildcard == 1 {
		return "*." + rs.Text(n.Text)
	}
	return rs.Text(n.Text)
}
