package policy

import (
	"fmt"
	"net/netip"

	"github.com/thurward/thurward/internal/segment"
)

// protocols are the IP protocol numbers of the words in rules.
var protocols = map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17}

// Compile turns a policy into the tables of a segment. A rule whose fields are
// lists becomes one match for each combination.
func Compile(p *Policy) (*segment.Policy, error) {
	c := &compiler{s: &segment.Policy{Digest: p.Digest}}
	s := c.s
	s.Settings = segment.Settings{DefaultAction: action(p.Defaults.Accept), MaxFlows: uint32(p.Defaults.MaxFlows)}
	for i, dst := range []*uint32{&s.Settings.TCPSynSent, &s.Settings.TCPSynRecv, &s.Settings.TCPEstablished, &s.Settings.TCPFinWait,
		&s.Settings.TCPCloseWait, &s.Settings.TCPLastAck, &s.Settings.TCPTimeWait, &s.Settings.TCPClose,
		&s.Settings.UDPUnreplied, &s.Settings.UDPIdle, &s.Settings.ICMPEcho} {
		t := Timeouts[i]
		*dst = uint32(t.Default)
		if v, ok := p.Defaults.Timeouts[t.Name]; ok {
			*dst = uint32(v)
		}
	}
	for _, f := range p.Interfaces {
		e := segment.Interface{Name: c.text(f.Name), Address: f.Prefix.Addr().As16(), PrefixLen: uint8(f.Prefix.Bits()), Role: segment.WAN, MTU: uint16(f.MTU)}
		if f.LAN {
			e.Role = segment.LAN
		}
		if f.Gateway.IsValid() {
			e.Gateway = f.Gateway.As16()
		}
		if f.HasMAC {
			e.HasMAC, e.MAC = 1, f.MAC
		}
		s.Interfaces = append(s.Interfaces, e)
	}
	for _, n := range p.SNAT {
		e := segment.SNAT{Interface: uint32(n.Interface), PortLo: uint16(n.PortLo), PortHi: uint16(n.PortHi)}
		e.Source, e.SourceMask = addrMask(n.Source)
		if n.External.IsValid() {
			e.External = n.External.As16()
		}
		s.SNAT = append(s.SNAT, e)
	}
	for i := range p.Rules {
		c.rule(&p.Rules[i])
	}
	if len(s.Matches) > segment.MaxMatches || len(s.Rules) > segment.MaxRules {
		return nil, fmt.Errorf("%s: %d rules make %d combinations; at most %d are supported (use fewer lists in one rule)", p.File, len(s.Rules), len(s.Matches), segment.MaxMatches)
	}
	return s, nil
}

type compiler struct{ s *segment.Policy }

func (c *compiler) text(t string) segment.Text {
	r := segment.Text{Off: uint32(len(c.s.Strings)), Len: uint32(len(t))}
	c.s.Strings = append(c.s.Strings, t...)
	return r
}

func action(accept bool) segment.Action {
	if accept {
		return segment.Accept
	}
	return segment.Deny
}

// rule adds a rule and its matches.
func (c *compiler) rule(r *Rule) {
	n := uint32(len(c.s.Rules))
	c.s.Rules = append(c.s.Rules, segment.Rule{ID: c.text(r.ID), Name: c.text(r.Name), Line: uint32(r.Line), Action: action(r.Accept)})
	m := segment.Match{Rule: n, Action: action(r.Accept)}
	switch r.Direction {
	case "egress":
		m.Direction = segment.Egress
	case "ingress":
		m.Direction = segment.Ingress
	}
	for _, s := range r.States {
		if s == "new" {
			m.State |= segment.StateNew
		} else {
			m.State |= segment.StateEstablished
		}
	}
	ports := r.Ports
	if len(ports) == 0 {
		ports = []PortRange{{0, 65535}}
	}
	protos := []uint8{0}
	if len(r.Protocols) > 0 {
		protos = nil
		for _, w := range r.Protocols {
			protos = append(protos, protocols[w])
		}
	}
	for _, src := range orAny(r.Source) {
		for _, dst := range orAny(r.Destination) {
			for _, proto := range protos {
				for _, q := range ports {
					m.Src, m.SrcMask = addrMask(src)
					m.Dst, m.DstMask = addrMask(dst)
					m.Proto, m.PortLo, m.PortHi = proto, uint16(q.Lo), uint16(q.Hi)
					c.s.Matches = append(c.s.Matches, m)
					if len(c.s.Matches) > segment.MaxMatches {
						return // Compile refuses
					}
				}
			}
		}
	}
}

func orAny(ps []netip.Prefix) []netip.Prefix {
	if len(ps) == 0 {
		return []netip.Prefix{{}}
	}
	return ps
}

// addrMask returns a network as an address and a mask; everything is zeros.
func addrMask(p netip.Prefix) (a, m segment.Addr) {
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
