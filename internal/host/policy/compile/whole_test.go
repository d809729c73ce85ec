package compile

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"

	"github.com/thurward/thurward/internal/host/policy"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// whole is a policy in which each field is set, to values that are all different.
func whole() *policy.Policy {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	return &policy.Policy{
		File: "p.yaml", Digest: [32]byte{1, 2, 3},
		Interfaces: []policy.Interface{{Name: "lan0", LAN: true, Prefix: p("10.0.0.1/24"), MTU: 1400},
			{Name: "wan0", Prefix: p("203.0.113.10/25"), Gateway: a("203.0.113.1"), HasMAC: true, MAC: [6]byte{2, 3, 4, 5, 6, 7}}},
		Defaults: policy.Defaults{Action: ruleset.Reject, MaxFlows: 4096, SourceFlows: 11, SourceRate: 12, SampleAccept: 1, SampleDrop: 0.5, DNSRate: 13, Reassemble: true,
			Timeouts: map[string]int{"tcp_established": 1000, "icmp_echo": 7}},
		DNS: policy.DNS{Upstreams: []policy.Upstream{{Address: a("9.9.9.9"), Port: 53}, {Address: a("1.1.1.1"), Port: 853, ServerName: "one.example", CA: "ca"}},
			Resolvers: []netip.Addr{a("10.0.0.53")}, Block: []string{"bad.example", "*.worse.example"}, Private: []string{"*.lan.example"}, TTLFloor: 14, TTLGrace: 15, MaxNames: 16},
		Log: policy.Log{Quiet: []verdict.Reason{verdict.Martian, verdict.TTLExpired}},
		SNAT: []policy.SNAT{{Interface: 1, Source: p("10.0.0.0/25"), PortLo: 1024, PortHi: 2047},
			{Interface: 1, External: []netip.Addr{a("203.0.113.11"), a("203.0.113.12")}, PortLo: 3000, PortHi: 4000}},
		DNAT: []policy.DNAT{{WAN: a("203.0.113.10"), Ports: policy.PortRange{Lo: 8000, Hi: 8001}, To: a("10.0.0.5"), ToPort: 80, Protocols: []policy.Protocol{6, 17}, Hairpin: true, Line: 21},
			{WAN: a("203.0.113.13"), Ports: policy.PortRange{Lo: 53, Hi: 53}, To: a("10.0.0.6"), ToPort: 53, Protocols: []policy.Protocol{17},
				From: []netip.Prefix{p("198.51.100.0/24"), p("192.0.2.1/32")}, Line: 22}},
		Rules: []policy.Rule{{ID: "one", Name: "first", Line: 31, Action: ruleset.Accept, Direction: verdict.Egress, Source: []netip.Prefix{p("10.0.0.0/24")}, Ports: []policy.PortRange{{Lo: 443, Hi: 444}, {Lo: 80, Hi: 80}},
			Names: []string{"a.example", "*.b.example"}, Protocols: []policy.Protocol{6}, States: []policy.State{1}, SNI: true},
			{ID: "two", Line: 32, Action: ruleset.Deny, Destination: []netip.Prefix{p("192.0.2.0/24")}, Names: []string{"*.b.example"}, Protocols: []policy.Protocol{6, 17}, Shadow: true, Quiet: true},
			{ID: "one", Line: 33, Action: ruleset.Accept, States: []policy.State{1, 2}}},
	}
}

// TestTablesHoldThePolicy: each field of a policy stands in its table, and nothing else.
func TestTablesHoldThePolicy(t *testing.T) {
	got, err := Tables(whole())
	if err != nil {
		t.Fatal(err)
	}
	text := func(x ruleset.Text) string { return got.Text(x) }
	a := func(s string) ruleset.Addr { return netip.MustParseAddr(s).As16() }
	net := func(s string) (ruleset.Addr, ruleset.Addr) { return addrMask(netip.MustParsePrefix(s)) }
	s := ruleset.Settings{DefaultAction: ruleset.Reject, Flags: ruleset.FlagResetUnknown, MaxFlows: 4096, SourceFlows: 11, SourceRate: 12, SampleAccept: 0xffffffff, SampleDrop: 0x7fffffff,
		DNSRate: 13, DNSNames: 16, DNSFloor: 14, DNSGrace: 15, Fragments: ruleset.FragmentsReassemble, Quiet: 1<<verdict.Martian | 1<<verdict.TTLExpired,
		TCPSynSent: ruleset.DefaultTCPTransitory, TCPSynRecv: ruleset.DefaultTCPTransitory, TCPEstablished: 1000, TCPFinWait: ruleset.DefaultTCPTransitory,
		TCPCloseWait: ruleset.DefaultTCPTransitory, TCPLastAck: ruleset.DefaultTCPTransitory, TCPTimeWait: ruleset.DefaultTCPTransitory, TCPClose: ruleset.DefaultTCPTransitory,
		UDPUnreplied: ruleset.DefaultUDPUnreplied, UDPIdle: ruleset.DefaultUDPIdle, ICMPEcho: 7}
	if got.Settings != s {
		t.Errorf("settings %+v\nwant %+v", got.Settings, s)
	}
	for i, w := range []struct {
		name string
		f    ruleset.Interface
	}{{"lan0", ruleset.Interface{Role: ruleset.LAN, Address: a("10.0.0.1"), PrefixLen: 24, MTU: 1400}},
		{"wan0", ruleset.Interface{Role: ruleset.WAN, Address: a("203.0.113.10"), PrefixLen: 25, Gateway: a("203.0.113.1"), HasMAC: 1, MAC: [6]byte{2, 3, 4, 5, 6, 7}}}} {
		f := got.Interfaces[i]
		name := text(f.Name)
		if f.Name = (ruleset.Text{}); name != w.name || f != w.f {
			t.Errorf("interface %s %+v", name, f)
		}
	}
	inside, insideMask := net("10.0.0.0/25")
	if want := []ruleset.SNAT{{Interface: 1, PortLo: 1024, PortHi: 2047, Source: inside, SourceMask: insideMask},
		{Interface: 1, PortLo: 3000, PortHi: 4000, External: a("203.0.113.11")}, {Interface: 1, PortLo: 3000, PortHi: 4000, External: a("203.0.113.12")}}; !reflect.DeepEqual(got.SNAT, want) {
		t.Errorf("snat %+v", got.SNAT)
	}
	web := ruleset.DNAT{External: a("203.0.113.10"), To: a("10.0.0.5"), PortLo: 8000, PortHi: 8001, ToPort: 80, Line: 21, Hairpin: 1, Proto: 6}
	dns := ruleset.DNAT{External: a("203.0.113.13"), To: a("10.0.0.6"), PortLo: 53, PortHi: 53, ToPort: 53, Line: 22, Proto: 17}
	dnat := []ruleset.DNAT{web, web, dns, dns}
	dnat[1].Proto = 17
	dnat[2].From, dnat[2].FromMask = net("198.51.100.0/24")
	dnat[3].From, dnat[3].FromMask = net("192.0.2.1/32")
	if !reflect.DeepEqual(got.DNAT, dnat) {
		t.Errorf("dnat %+v", got.DNAT)
	}
	up := got.Upstreams
	if len(up) != 2 || up[0].Address != a("1.1.1.1") || up[0].Port != 853 || up[0].TLS != 1 || text(up[0].ServerName) != "one.example" || text(up[0].CA) != "ca" ||
		up[1] != (ruleset.Upstream{Address: a("9.9.9.9"), Port: 53}) {
		t.Errorf("upstreams %+v", up)
	}
	if len(got.Resolvers) != 1 || got.Resolvers[0].Address != a("10.0.0.53") {
		t.Errorf("resolvers %+v", got.Resolvers)
	}
	patterns := func(l []ruleset.Name) (all []string) {
		for i := range l {
			all = append(all, Pattern(got, &l[i]))
		}
		return all
	}
	if b, p, n := patterns(got.Blocked), patterns(got.Private), Patterns(got); !reflect.DeepEqual(b, []string{"bad.example", "*.worse.example"}) ||
		!reflect.DeepEqual(p, []string{"*.lan.example"}) || !reflect.DeepEqual(n, []string{"a.example", "*.b.example"}) {
		t.Errorf("blocked %q, private %q, names %q", b, p, n)
	}
	for i, w := range []struct {
		id, name string
		r        ruleset.Rule
	}{{"one", "first", ruleset.Rule{Line: 31, Action: ruleset.Accept, SNI: 1}}, {"two", "", ruleset.Rule{Line: 32, Action: ruleset.Deny, Mode: ruleset.Shadow, Quiet: 1}}, {"one", "", ruleset.Rule{Line: 33, Action: ruleset.Accept}}} {
		r := got.Rules[i]
		id, name := text(r.ID), text(r.Name)
		if r.ID, r.Name = (ruleset.Text{}), (ruleset.Text{}); id != w.id || name != w.name || r != w.r {
			t.Errorf("rule %q %q %+v", id, name, r)
		}
	}
	var want []ruleset.Match
	one := ruleset.Match{Rule: 0, Action: ruleset.Accept, Direction: verdict.Egress, State: 1, Proto: 6}
	one.Src, one.SrcMask = net("10.0.0.0/24")
	for _, ports := range [][2]uint16{{443, 444}, {80, 80}} {
		for n := range uint32(2) {
			one.PortLo, one.PortHi, one.Name = ports[0], ports[1], n+1
			want = append(want, one)
		}
	}
	two := ruleset.Match{Rule: 1, Action: ruleset.Deny, Name: 2, PortHi: 65535}
	two.Dst, two.DstMask = net("192.0.2.0/24")
	for _, proto := range []uint8{6, 17} {
		two.Proto = proto
		want = append(want, two)
	}
	want = append(want, ruleset.Match{Rule: 2, Action: ruleset.Accept, State: 3, PortHi: 65535})
	if !reflect.DeepEqual(got.Matches, want) {
		t.Errorf("matches\n%+v\nwant\n%+v", got.Matches, want)
	}
	if got.Rules[0].ID != got.Rules[2].ID || got.Digest != [32]byte{1, 2, 3} {
		t.Error("a text that stands twice, or another digest")
	}
}

// TestFlagsOfSettings: each flag is that of its setting.
func TestFlagsOfSettings(t *testing.T) {
	for flag, set := range map[uint32]func(p *policy.Policy){
		0:                          func(p *policy.Policy) {},
		ruleset.FlagNoTimeExceeded: func(p *policy.Policy) { p.Defaults.NoTimeExceeded = true },
		ruleset.FlagNoMSSClamp:     func(p *policy.Policy) { p.Defaults.NoMSSClamp = true },
		ruleset.FlagNoFlowEnd:      func(p *policy.Policy) { p.Defaults.NoFlowEnd = true },
		ruleset.FlagDNSFollow:      func(p *policy.Policy) { p.DNS.Follow = true },
		ruleset.FlagDNSIntercept:   func(p *policy.Policy) { p.DNS.Intercept = true },
		ruleset.FlagQuietGroups:    func(p *policy.Policy) { p.Log.QuietGroups = true },
		ruleset.FlagResetUnknown:   func(p *policy.Policy) { p.Defaults.NoResetUnknown = false },
	} {
		p := &policy.Policy{Defaults: policy.Defaults{NoResetUnknown: true}}
		set(p)
		s, err := Tables(p)
		if err != nil || s.Settings.Flags != flag || s.Settings.Fragments != 0 || s.Settings.Quiet != 0 {
			t.Errorf("%#x: %+v, %v", flag, s.Settings, err)
		}
	}
}

// TestEncodedIsOpened: what Open returns of an encoded policy is that policy, and each table
// begins at a multiple of 16.
func TestEncodedIsOpened(t *testing.T) {
	p, err := Compile(whole())
	if err != nil {
		t.Fatal(err)
	}
	b := Encode(p)
	for i := range ruleset.NumTables {
		if off := binary.LittleEndian.Uint32(b[ruleset.OffTables+8*i:]); off%16 != 0 || off < ruleset.HeaderSize {
			t.Errorf("table %d begins at %d", i, off)
		}
	}
	got, err := ruleset.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := 0, reflect.TypeOf(*p); i < name.NumField(); i++ {
		f := name.Field(i)
		g, w := reflect.ValueOf(*got).Field(i), reflect.ValueOf(*p).Field(i)
		if f.IsExported() && !reflect.DeepEqual(g.Interface(), w.Interface()) && (g.Kind() != reflect.Slice || g.Len()+w.Len() > 0) {
			t.Errorf("%s: %+v\nwant %+v", f.Name, g.Interface(), w.Interface())
		}
	}
	if string(b[:len(ruleset.Magic)]) != ruleset.Magic || binary.LittleEndian.Uint32(b[ruleset.OffSize:]) != uint32(len(b)) {
		t.Error("the header")
	}
}
