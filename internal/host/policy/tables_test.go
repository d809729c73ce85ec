package policy_test

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/host/policy/compile"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

var (
	directionNames = map[verdict.Direction]string{verdict.Egress: "egress", verdict.Ingress: "ingress"}
	stateNames     = map[uint8]string{1: "new", 2: "established", 3: "new or established"}
)

func addr(a ruleset.Addr) string { return netip.AddrFrom16(a).Unmap().String() }

func network(a, m ruleset.Addr) string {
	if m == (ruleset.Addr{}) {
		return "any"
	}
	n := 0
	for _, v := range m {
		n += bits.OnesCount8(v)
	}
	return fmt.Sprintf("%s/%d", addr(a), n-96)
}

// tables prints compiled tables for people. What is as in a policy that says
// nothing of it is left out.
func tables(p *ruleset.Policy) string {
	var b strings.Builder
	s := p.Settings
	fmt.Fprintf(&b, "default %s, flows %d", s.DefaultAction, s.MaxFlows)
	for _, v := range []struct {
		name     string
		n, usual uint32
	}{{"of one source", s.SourceFlows, 0}, {"new a second of one source", s.SourceRate, 0}, {"fragments", uint32(s.Fragments), 0},
		{"DNS queries a second", s.DNSRate, ruleset.DefaultDNSRate}, {"names", s.DNSNames, ruleset.DefaultDNSNames}, {"TTL floor", s.DNSFloor, 0}, {"TTL grace", s.DNSGrace, 0}} {
		if v.n != v.usual {
			fmt.Fprintf(&b, ", %s %d", v.name, v.n)
		}
	}
	for i, name := range []string{"no time exceeded", "no MSS clamp", "DNS for rules only", "DNS intercepted", "no flow ends"} {
		if s.Flags>>i&1 == 1 {
			fmt.Fprintf(&b, ", %s", name)
		}
	}
	if s.Flags&ruleset.FlagResetUnknown == 0 {
		b.WriteString(", no resets of the unknown")
	}
	if s.SampleAccept != 0 || s.SampleDrop != 0 {
		fmt.Fprintf(&b, ", spans of %.4f of the accepted, %.4f of the dropped", float64(s.SampleAccept)/math.MaxUint32, float64(s.SampleDrop)/math.MaxUint32)
	}
	if usual := uint32(1<<verdict.IPv6Unsupported | 1<<verdict.EtherTypeUnsupported); s.Quiet != usual {
		fmt.Fprintf(&b, ", quiet %x", s.Quiet)
	}
	if s.Flags&ruleset.FlagQuietGroups == 0 {
		b.WriteString(", multicast told")
	}
	fmt.Fprintf(&b, "\ntimeouts %d %d %d %d %d %d %d %d udp %d %d icmp %d\n", s.TCPSynSent, s.TCPSynRecv, s.TCPEstablished, s.TCPFinWait,
		s.TCPCloseWait, s.TCPLastAck, s.TCPTimeWait, s.TCPClose, s.UDPUnreplied, s.UDPIdle, s.ICMPEcho)
	for _, f := range p.Interfaces {
		fmt.Fprintf(&b, "interface %s role %d %s/%d", p.Text(f.Name), f.Role, addr(f.Address), f.PrefixLen)
		if f.Gateway != (ruleset.Addr{}) {
			fmt.Fprintf(&b, " via %s", addr(f.Gateway))
		}
		if f.HasMAC == 1 {
			fmt.Fprintf(&b, " mac %x", f.MAC)
		}
		if f.MTU != 0 {
			fmt.Fprintf(&b, " mtu %d", f.MTU)
		}
		b.WriteByte('\n')
	}
	for _, u := range p.Upstreams {
		fmt.Fprintf(&b, "upstream %s port %d tls %d %q", addr(u.Address), u.Port, u.TLS, p.Text(u.ServerName))
		if u.CA.Len > 0 {
			fmt.Fprintf(&b, ", %d bytes of certificates", u.CA.Len)
		}
		b.WriteByte('\n')
	}
	for _, r := range p.Resolvers {
		fmt.Fprintf(&b, "resolver %s\n", addr(r.Address))
	}
	for i := range p.Blocked {
		fmt.Fprintf(&b, "blocked %s\n", compile.Pattern(p, &p.Blocked[i]))
	}
	for i := range p.Private {
		fmt.Fprintf(&b, "private %s\n", compile.Pattern(p, &p.Private[i]))
	}
	for _, n := range p.SNAT {
		fmt.Fprintf(&b, "snat %s by interface %d", network(n.Source, n.SourceMask), n.Interface)
		if n.External != (ruleset.Addr{}) {
			fmt.Fprintf(&b, " as %s", addr(n.External))
		}
		fmt.Fprintf(&b, ", ports %d-%d\n", n.PortLo, n.PortHi)
	}
	for _, d := range p.DNAT {
		fmt.Fprintf(&b, "dnat %s %s ports %d-%d of %s -> %s from port %d, hairpin %d, line %d\n", policy.Protocol(d.Proto), addr(d.External), d.PortLo, d.PortHi,
			network(d.From, d.FromMask), addr(d.To), d.ToPort, d.Hairpin, d.Line)
	}
	for _, m := range p.Matches {
		r := p.Rules[m.Rule]
		fmt.Fprintf(&b, "%s %s", m.Action, p.Text(r.ID))
		for _, word := range []string{directionNames[m.Direction], map[uint8]string{1: "icmp", 6: "tcp", 17: "udp"}[m.Proto]} {
			if word != "" {
				b.WriteString(" " + word)
			}
		}
		fmt.Fprintf(&b, " %s -> %s", network(m.Src, m.SrcMask), network(m.Dst, m.DstMask))
		if m.PortLo != 0 || m.PortHi != 65535 {
			fmt.Fprintf(&b, " ports %d-%d", m.PortLo, m.PortHi)
		}
		if m.Name != 0 {
			fmt.Fprintf(&b, " named %s", compile.Pattern(p, &p.Names[m.Name-1]))
		}
		if m.State != 0 {
			fmt.Fprintf(&b, " %s", stateNames[m.State])
		}
		if r.Mode == ruleset.Shadow {
			b.WriteString(" shadow")
		}
		if r.SNI == 1 {
			b.WriteString(" sni")
		}
		if r.Quiet == 1 {
			b.WriteString(" quiet")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
