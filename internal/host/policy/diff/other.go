package diff

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// otherChanges returns what differs beside the decisions of rules.
func otherChanges(a, b *policy.Policy) []OtherChange {
	out := []OtherChange{}
	x, y := facts(a), facts(b)
	for i := range x {
		if x[i].value != y[i].value {
			out = append(out, OtherChange{x[i].path, x[i].value, y[i].value})
		}
	}
	for _, l := range [...]struct {
		path string
		a, b []string
	}{
		{"nat.snat", snatLines(a), snatLines(b)},
		{"nat.dnat", dnatLines(a), dnatLines(b)},
		{"shadow rules", shadowLines(a), shadowLines(b)},
	} {
		out = append(out, listChanges(l.path, l.a, l.b)...)
	}
	return out
}

type fact struct{ path, value string }

// facts returns the settings, in a fixed order.
func facts(p *policy.Policy) []fact {
	d, n := &p.Defaults, &p.DNS
	fs := []fact{
		{"defaults.default_action", d.Action.String()},
		{"defaults.max_flows", fmt.Sprint(d.MaxFlows)},
		{"defaults.max_flows_per_source", fmt.Sprint(d.SourceFlows)},
		{"defaults.new_flows_per_source", fmt.Sprint(d.SourceRate)},
		{"defaults.fragments", map[bool]string{true: "reassemble", false: "drop"}[d.Reassemble]},
		{"defaults.icmp_time_exceeded", fmt.Sprint(!d.NoTimeExceeded)},
		{"defaults.tcp_mss_clamp", map[bool]string{true: "off", false: "auto"}[d.NoMSSClamp]},
		{"defaults.tcp_reset_unknown", fmt.Sprint(!d.NoResetUnknown)},
		{"defaults.flow_end_events", fmt.Sprint(!d.NoFlowEnd)},
		{"log: reasons without events", all(p.Log.Quiet)},
		{"log.multicast", fmt.Sprint(!p.Log.QuietGroups)},
		{"rules with log: false", quietRules(p)},
		{"defaults.flow_trace_sample_accept", fmt.Sprint(d.SampleAccept)},
		{"defaults.flow_trace_sample_drop", fmt.Sprint(d.SampleDrop)},
		{"defaults.dns_qps_per_client", fmt.Sprint(d.DNSRate)},
		{"nat: hosts that the wan reaches by their own addresses, where rules accept it", all(p.Untranslated())},
	}
	for _, t := range policy.Timeouts {
		v, ok := d.Timeouts[t.Name]
		if !ok {
			v = t.Default
		}
		fs = append(fs, fact{"defaults.conntrack_timeouts." + t.Name, fmt.Sprint(v)})
	}
	var up []string
	for _, u := range n.Upstreams {
		s := fmt.Sprintf("%v:%d", u.Address, u.Port)
		if u.ServerName != "" {
			s += " tls " + u.ServerName
		}
		if u.CA != "" {
			sum := sha256.Sum256([]byte(u.CA))
			s += fmt.Sprintf(" ca sha256:%x", sum[:4])
		}
		up = append(up, s)
	}
	fs = append(fs,
		fact{"dns.upstreams", strings.Join(up, ", ")},
		fact{"dns.plain_fallback", fmt.Sprint(n.PlainFallback)},
		fact{"dns.resolvers", all(n.Resolvers)},
		fact{"dns.queries", map[bool]string{true: "policy", false: "all"}[n.Follow]},
		fact{"dns.intercept", fmt.Sprint(n.Intercept)},
		fact{"dns.block", strings.Join(n.Block, ", ")},
		fact{"dns.private_names", strings.Join(n.Private, ", ")},
		fact{"dns.ttl_floor", fmt.Sprint(n.TTLFloor)},
		fact{"dns.ttl_grace", fmt.Sprint(n.TTLGrace)},
		fact{"dns.max_names", fmt.Sprint(n.MaxNames)},
	)
	for _, side := range [...]struct {
		name string
		i    *policy.Interface
	}{{"lan", p.LAN()}, {"wan", p.WAN()}} {
		i, path := side.i, "interfaces."+side.name
		gateway, mac, mtu := "", "", ""
		if i.Gateway.IsValid() {
			gateway = i.Gateway.String()
		}
		if i.HasMAC {
			mac = fmt.Sprintf("% x", i.MAC)
		}
		if i.MTU != 0 {
			mtu = fmt.Sprint(i.MTU)
		}
		fs = append(fs, fact{path + ".name", i.Name}, fact{path + ".address", i.Prefix.String()}, fact{path + ".gateway", gateway},
			fact{path + ".mac", strings.ReplaceAll(mac, " ", ":")}, fact{path + ".mtu", mtu})
	}
	return fs
}

// quietRules returns the rules that cause no events.
func quietRules(p *policy.Policy) string {
	var ids []string
	for i := range p.Rules {
		if p.Rules[i].Quiet {
			ids = append(ids, p.Rules[i].ID)
		}
	}
	return strings.Join(ids, ", ")
}

// all joins values for comparison.
func all[T any](vs []T) string {
	var s []string
	for _, v := range vs {
		s = append(s, fmt.Sprint(v))
	}
	return strings.Join(s, ", ")
}

func snatLines(p *policy.Policy) (s []string) {
	for i := range p.SNAT {
		n := &p.SNAT[i]
		from, to := "any", "masquerade"
		if n.Source.IsValid() && n.Source.Bits() > 0 {
			from = n.Source.String()
		}
		if len(n.External) > 0 {
			to = all(n.External)
		}
		s = append(s, fmt.Sprintf("source %s to %s, ports %v", from, to, policy.PortRange{Lo: n.PortLo, Hi: n.PortHi}))
	}
	return s
}

func dnatLines(p *policy.Policy) (s []string) {
	for i := range p.DNAT {
		d := &p.DNAT[i]
		from := "any"
		if len(d.From) > 0 {
			from = all(d.From)
		}
		var protos []string
		for _, v := range d.Protocols {
			protos = append(protos, v.String())
		}
		slices.Sort(protos)
		line := fmt.Sprintf("%s %v:%v to %v:%s from %s", strings.Join(protos, ", "), d.WAN, d.Ports, d.To, d.ToPorts(), from)
		if d.Hairpin {
			line += ", hairpin"
		}
		s = append(s, line)
	}
	return s
}

func shadowLines(p *policy.Policy) (s []string) {
	any := func(v string) string {
		if v == "" {
			return "any"
		}
		return v
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		direction := "any"
		if r.Direction != verdict.Either {
			direction = r.Direction.String()
		}
		if r.Shadow {
			s = append(s, fmt.Sprintf("%s: %s %s %s, state %s, from %s to %s, port %s, names %s", r.ID, r.Action, direction, any(all(r.Protocols)),
				any(all(r.States)), any(all(r.Source)), any(all(r.Destination)), any(all(r.Ports)), any(all(r.Names))))
		}
	}
	return s
}

// listChanges returns the entries that are in one list only, or in another
// place: their order matters.
func listChanges(path string, a, b []string) (out []OtherChange) {
	// The lists are short: the longest common sequence in the plain way.
	n := make([][]int, len(a)+1)
	for i := range n {
		n[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				n[i][j] = n[i+1][j+1] + 1
			} else {
				n[i][j] = max(n[i+1][j], n[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && n[i+1][j] >= n[i][j+1]:
			out = append(out, OtherChange{What: fmt.Sprintf("%s[%d]", path, i), Old: a[i]})
			i++
		default:
			out = append(out, OtherChange{What: fmt.Sprintf("%s[%d]", path, j), New: b[j]})
			j++
		}
	}
	return out
}
