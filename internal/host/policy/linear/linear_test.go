package linear

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/filter"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func addr(a, b, c, d uint32) packet.Addr { return packet.Addr(a<<24 | b<<16 | c<<8 | d) }

func pkt(src, dst packet.Addr, port uint16, proto uint8, d verdict.Direction, state uint8) filter.Packet {
	return filter.Packet{Src: src, Dst: dst, DstPort: port, Proto: proto, Direction: d, State: state}
}

func decided(a ruleset.Action, rule, shadow uint32) filter.Verdict {
	return filter.Verdict{Action: a, Rule: rule, Shadow: shadow}
}

// policy has a rule for each condition, and a default of deny.
func policy() *ruleset.Policy {
	net := func(a packet.Addr, bits int) (ruleset.Addr, ruleset.Addr) {
		m := packet.Addr(uint32(uint64(0xffffffff) << (32 - bits))).To16()
		for i := range m[:10] {
			m[i] = 0xff
		}
		return a.To16(), m
	}
	any := ruleset.Match{PortHi: 65535, Action: ruleset.Accept}
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}}
	add := func(m ruleset.Match) {
		m.Rule = uint32(len(p.Rules))
		p.Rules = append(p.Rules, ruleset.Rule{Action: m.Action})
		p.Matches = append(p.Matches, m)
	}
	m := any // 0: one host is denied
	m.Src, m.SrcMask = net(addr(10, 0, 0, 66), 32)
	m.Action = ruleset.Deny
	add(m)
	m = any // 1: a network may go to web servers
	m.Src, m.SrcMask = net(addr(10, 0, 0, 0), 24)
	m.Proto, m.PortLo, m.PortHi, m.Direction, m.State = packet.TCP, 80, 443, verdict.Egress, ruleset.StateNew
	add(m)
	m = any // 2: anybody may ask one server
	m.Dst, m.DstMask = net(addr(8, 8, 8, 8), 32)
	m.Proto, m.PortLo, m.PortHi = packet.UDP, 53, 53
	add(m)
	m = any // 3: what comes back
	m.Direction, m.State = verdict.Ingress, ruleset.StateEstablished
	add(m)
	m = any // 4: an address of another family matches nothing
	m.Src[0], m.SrcMask[0] = 0x20, 0xff
	add(m)
	m = any // 5: ping
	m.Proto = packet.ICMP
	add(m)
	return p
}

func TestLinear(t *testing.T) {
	const (
		def = 6
		e   = verdict.Egress
		i   = verdict.Ingress
		n   = ruleset.StateNew
		est = ruleset.StateEstablished
	)
	host, other, bad, web, dns := addr(10, 0, 0, 2), addr(10, 0, 1, 2), addr(10, 0, 0, 66), addr(198, 51, 100, 80), addr(8, 8, 8, 8)
	f := New(policy())
	for _, c := range []struct {
		p      filter.Packet
		action ruleset.Action
		rule   uint32
	}{
		// first match wins
		{pkt(bad, web, 80, packet.TCP, e, n), ruleset.Deny, 0},
		{pkt(bad, dns, 53, packet.UDP, e, n), ruleset.Deny, 0},
		// source, port range, protocol, direction, state
		{pkt(host, web, 80, packet.TCP, e, n), ruleset.Accept, 1},
		{pkt(host, web, 443, packet.TCP, e, n), ruleset.Accept, 1},
		{pkt(host, web, 79, packet.TCP, e, n), ruleset.Deny, def},
		{pkt(host, web, 444, packet.TCP, e, n), ruleset.Deny, def},
		{pkt(other, web, 80, packet.TCP, e, n), ruleset.Deny, def},
		{pkt(host, web, 80, packet.UDP, e, n), ruleset.Deny, def},
		{pkt(host, web, 80, packet.TCP, i, n), ruleset.Deny, def},
		{pkt(host, web, 80, packet.TCP, e, est), ruleset.Deny, def},
		// destination
		{pkt(other, dns, 53, packet.UDP, e, n), ruleset.Accept, 2},
		{pkt(web, dns, 53, packet.UDP, i, n), ruleset.Accept, 2},
		{pkt(other, web, 53, packet.UDP, e, n), ruleset.Deny, def},
		// state
		{pkt(web, host, 4000, packet.TCP, i, est), ruleset.Accept, 3},
		{pkt(web, host, 4000, packet.TCP, i, n), ruleset.Deny, def},
		// no ports
		{pkt(host, web, 0, packet.ICMP, e, n), ruleset.Accept, 5},
	} {
		if v := f.Decide(&c.p); v != (decided(c.action, c.rule, filter.NoRule)) {
			t.Errorf("%+v: %+v, want action %d by rule %d", c.p, v, c.action, c.rule)
		}
	}
}

func TestDefaultAccept(t *testing.T) {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Accept}}
	if v := New(p).Decide(&filter.Packet{}); v != (decided(ruleset.Accept, 0, filter.NoRule)) {
		t.Fatalf("%+v", v)
	}
}

// TestShadowAndNames: a shadow rule is reported only where it would decide, and
// a rule by name matches whoever knows the destination by that name.
func TestShadowAndNames(t *testing.T) {
	p := &ruleset.Policy{Settings: ruleset.Settings{DefaultAction: ruleset.Deny}, Names: make([]ruleset.Name, 2)}
	add := func(a ruleset.Action, mode ruleset.Mode, lo, hi uint16, name uint32) {
		p.Matches = append(p.Matches, ruleset.Match{PortLo: lo, PortHi: hi, Action: a, Rule: uint32(len(p.Rules)), Name: name})
		p.Rules = append(p.Rules, ruleset.Rule{Action: a, Mode: mode})
	}
	add(ruleset.Accept, ruleset.Enforce, 1, 10, 0)
	add(ruleset.Deny, ruleset.Shadow, 5, 20, 0)
	add(ruleset.Accept, ruleset.Shadow, 15, 30, 0)
	add(ruleset.Accept, ruleset.Enforce, 20, 40, 2)
	add(ruleset.Deny, ruleset.Enforce, 30, 40, 0)
	f := New(p)
	for _, c := range []struct {
		port  uint16
		names []uint32
		want  filter.Verdict
	}{
		{5, nil, decided(ruleset.Accept, 0, filter.NoRule)},
		{11, nil, decided(ruleset.Deny, 5, 1)},
		{15, nil, decided(ruleset.Deny, 5, 1)},
		{25, nil, decided(ruleset.Deny, 5, 2)},
		{25, []uint32{0}, decided(ruleset.Deny, 5, 2)},
		{25, []uint32{0, 1}, decided(ruleset.Accept, 3, 2)},
		{35, []uint32{1}, decided(ruleset.Accept, 3, filter.NoRule)},
		{35, nil, decided(ruleset.Deny, 4, filter.NoRule)},
	} {
		if v := f.Decide(&filter.Packet{DstPort: c.port, State: ruleset.StateNew, Names: c.names}); v != c.want {
			t.Errorf("port %d, names %v: %+v, want %+v", c.port, c.names, v, c.want)
		}
	}
}
