package router

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const github = "140.82.112.3"

// githubLab: tcp/443 to github.com and to names below githubusercontent.com.
func githubLab(t testing.TB, edit func(p *ruleset.Policy)) *dnsLab {
	return newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "github.com", "*.githubusercontent.com")
		if edit != nil {
			edit(p)
		}
	}, "accept egress tcp any -> any :443", established)
}

func TestS24_ResolvedNameOpens(t *testing.T) {
	l := githubLab(t, nil)
	if l.connects(host, github, 443) {
		t.Fatal("reached before it was resolved")
	}
	r := l.resolve(host, "GitHub.com", "@ 60 IN A "+github)
	if len(r.Answer) != 1 || r.Id != l.id || r.Question[0].Name != "GitHub.com." {
		t.Fatalf("the client got %v", r)
	}
	if !l.connects(host, github, 443) {
		t.Fatalf("not reached after it was resolved; drops %s", l.drops())
	}
	if e := l.last(); e.Action != verdict.Accept || e.Rule != 2 || e.Lookup != 1 || l.lastName() != "github.com" {
		t.Fatalf("event %+v, name %q", e, l.lastName())
	}
	if l.connects(host, github, 22) {
		t.Fatal("another port than the rule's was opened")
	}
	if l.connects("10.0.0.3", github, 443) {
		t.Fatal("another client uses what it has not resolved")
	}
	if e := l.last(); e.Hint != verdict.OtherClient || e.Reason != verdict.NoMatchingAllowRule || l.lastName() != "github.com" {
		t.Fatalf("nothing explains why: %+v", e)
	}
	l.buffers()
}

func TestS25_UnresolvedAddressDoesNotMatch(t *testing.T) {
	l := githubLab(t, nil)
	l.resolve(host, "github.com", "@ 60 IN A "+github)
	l.resolve(host, "example.com", "@ 60 IN A 192.0.2.7")
	if l.connects(host, "140.82.112.4", 443) || l.connects(host, "192.0.2.7", 443) {
		t.Fatal("reached an address that no rule's name has")
	}
	if e := l.last(); e.Reason != verdict.NoMatchingAllowRule || l.lastName() != "example.com" {
		t.Fatalf("event %+v, name %q", e, l.lastName())
	}
}

func TestS26_WildcardIsOneLabel(t *testing.T) {
	l := githubLab(t, nil)
	for i, c := range []struct {
		name string
		want bool
	}{{"raw.githubusercontent.com", true}, {"RAW2.GithubUserContent.com", true}, {"githubusercontent.com", false}, {"a.b.githubusercontent.com", false}} {
		a := fmt.Sprintf("192.0.2.%d", 10+i)
		l.resolve(host, c.name, "@ 60 IN A "+a)
		if l.connects(host, a, 443) != c.want {
			t.Errorf("%s: want %v", c.name, c.want)
		}
	}
}

// TestS27_AliasChain: every link is bound to the leaf's address for the leaf's
// lifetime; what is not part of the chain is not.
func TestS27_AliasChain(t *testing.T) {
	for name, rule := range map[string]string{"asked": "www.example.com", "middle": "x.cdn.test", "leaf": "y.cdn.test"} {
		t.Run(name, func(t *testing.T) {
			l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, rule) }, "accept egress tcp any -> any :443", established)
			l.resolve(host, "www.example.com", "@ 3600 IN CNAME x.cdn.test.", "x.cdn.test. 5 IN CNAME y.cdn.test.", "y.cdn.test. 60 IN A 192.0.2.1",
				"elsewhere.test. 60 IN A 192.0.2.2")
			if !l.connects(host, "192.0.2.1", 443) || l.connects(host, "192.0.2.2", 443) {
				t.Fatal("the chain's address is not the one that is open")
			}
			l.pass(59.9)
			if !l.connects(host, "192.0.2.1", 443) {
				t.Fatal("closed before the leaf's lifetime")
			}
			l.pass(0.2)
			if l.connects(host, "192.0.2.1", 443) {
				t.Fatal("open beyond the leaf's lifetime")
			}
		})
	}
	t.Run("order", func(t *testing.T) { // records may come in any order
		l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "www.example.com") }, "accept egress tcp any -> any :443", established)
		l.resolve(host, "www.example.com", "y.cdn.test. 60 IN A 192.0.2.1", "x.cdn.test. 5 IN CNAME y.cdn.test.", "@ 3600 IN CNAME x.cdn.test.")
		if !l.connects(host, "192.0.2.1", 443) {
			t.Fatal("not reached")
		}
	})
	t.Run("broken", func(t *testing.T) { // no link from the asked name to the address
		l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "www.example.com", "y.cdn.test") }, "accept egress tcp any -> any :443", established)
		l.resolve(host, "www.example.com", "@ 60 IN CNAME x.cdn.test.", "y.cdn.test. 60 IN A 192.0.2.1")
		l.resolve(host, "www.example.com", "@ 60 IN CNAME x.test.", "x.test. 60 IN CNAME @", "y.cdn.test. 60 IN A 192.0.2.1")
		if l.connects(host, "192.0.2.1", 443) {
			t.Fatal("an address that the chain does not lead to was opened")
		}
	})
}

func TestS28_ExpiryAndPinnedFlows(t *testing.T) {
	l := githubLab(t, nil)
	l.resolve(host, "github.com", "@ 30 IN A "+github)
	port := l.handshake(host, 5000, github, 443)
	l.pass(31)
	if l.connects(host, github, 443) {
		t.Fatal("a new connection after the name has expired")
	}
	if e := l.last(); e.Hint != verdict.NameExpired || l.lastName() != "github.com" {
		t.Fatalf("nothing explains why: %+v", e)
	}
	for range 10 { // the old connection is pinned
		l.pass(60)
		l.one(lan, tcpSeg(host, 5000, github, 443, packet.ACK, 1001, 5001))
		l.one(wan, tcpSeg(github, 443, ours, port, packet.ACK, 5001, 1001))
	}
	// Several names at one address, each with its own time.
	l.resolve(host, "a.githubusercontent.com", "@ 10 IN A 192.0.2.9")
	l.resolve(host, "github.com", "@ 100 IN A 192.0.2.9")
	l.pass(50)
	if !l.connects(host, "192.0.2.9", 443) {
		t.Fatal("one name's end ended the other's")
	}
	// Several addresses of one name, each with its own time.
	l.resolve(host, "github.com", "@ 10 IN A 192.0.2.20", "@ 100 IN A 192.0.2.21")
	l.pass(11)
	if l.connects(host, "192.0.2.20", 443) || !l.connects(host, "192.0.2.21", 443) {
		t.Fatal("the lifetime of an address is not its own")
	}
}

func TestS28_FloorAndGrace(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSFloor, p.Settings.DNSGrace = 60, 10 })
	l.resolve(host, "github.com", "@ 5 IN A "+github)
	l.pass(69)
	if !l.connects(host, github, 443) {
		t.Fatal("closed before floor and grace are over")
	}
	l.pass(2)
	if l.connects(host, github, 443) {
		t.Fatal("open after floor and grace")
	}
}

func TestS31_ErrorsPassUnchanged(t *testing.T) {
	l := githubLab(t, nil)
	l.resolve(host, "github.com", "@ 60 IN A "+github)
	for rcode, want := range map[int]verdict.DNSOutcome{dns.RcodeNameError: verdict.DNSNXDomain, dns.RcodeServerFailure: verdict.DNSServFail, dns.RcodeRefused: verdict.DNSRefused} {
		for range 2 { // nothing is cached: each time the upstream is asked
			q := l.query("github.com", dns.TypeA)
			q.SetEdns0(4096, true)
			v, got := l.asked(host, q)
			r := reply(got)
			r.Rcode = rcode
			soa, _ := dns.NewRR("com. 900 IN SOA a. b. 1 2 3 4 5")
			r.Ns = append(r.Ns, soa)
			r.IsEdns0().Option = append(r.IsEdns0().Option, &dns.EDNS0_EDE{InfoCode: 22, ExtraText: "no reach"})
			c := l.answers(v, r)
			if c.Rcode != rcode || len(c.Ns) != 1 || c.Ns[0].String() != soa.String() || c.IsEdns0() == nil || len(c.IsEdns0().Option) != 1 {
				t.Fatalf("the client got %v", c)
			}
			if e := l.lastQuery(); e.DNS != want {
				t.Fatalf("outcome %v, want %v", e.DNS, want)
			}
		}
	}
	if !l.connects(host, github, 443) {
		t.Fatal("an error took what was bound")
	}
}

func TestS32_RateLimit(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSRate = 10 })
	for range 10 {
		l.resolve(host, "example.com", "@ 60 IN A 192.0.2.1")
	}
	across, back := l.ask(host, l.query("github.com", dns.TypeA))
	if len(across) != 0 || len(back) != 1 || l.message(back[0]).Rcode != dns.RcodeServerFailure {
		t.Fatalf("%d to the upstream, %d back", len(across), len(back))
	}
	if l.e.c.DropReasons[verdict.RateLimitDNS] != 1 || l.lastQuery().DNS != verdict.DNSRateLimited || l.e.host.DNS().Counters().Outcomes[verdict.DNSRateLimited] != 1 {
		t.Fatal("not counted")
	}
	if l.e.Names().Len() != 1 {
		t.Fatalf("%d bindings", l.e.Names().Len())
	}
	l.resolve("10.0.0.3", "github.com", "@ 60 IN A "+github) // others are not affected
	l.pass(1)
	l.resolve(host, "github.com", "@ 60 IN A "+github)
	l.buffers()
}

func TestS33_ClientSubnetIsRemoved(t *testing.T) {
	l := githubLab(t, nil)
	q := l.query("github.com", dns.TypeA)
	q.SetEdns0(4096, true)
	o := q.IsEdns0()
	o.Option = append(o.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{10, 0, 0, 0}},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "24a5ac1223344556"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, &dns.EDNS0_PADDING{Padding: make([]byte, 20)})
	_, got := l.asked(host, q)
	e := got.IsEdns0()
	if e == nil || !e.Do() || e.UDPSize() != 1232 || len(e.Option) != 1 || e.Option[0].Option() != dns.EDNS0NSID {
		t.Fatalf("the upstream got %v", got)
	}
}

func TestS34_FullSetEvictsItsOldest(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSNames = 3; p.Settings.DNSRate = 1000 })
	a := func(i int) string { return fmt.Sprintf("192.0.2.%d", 100+i) }
	for i := range 4 {
		l.resolve(host, fmt.Sprintf("n%d.githubusercontent.com", i), "@ 600 IN A "+a(i))
		l.pass(0.1)
	}
	if l.connects(host, a(0), 443) || !l.connects(host, a(1), 443) || !l.connects(host, a(3), 443) {
		t.Fatal("not the oldest gave way")
	}
	if l.e.Names().Counters().EvictedFull != 1 {
		t.Fatalf("%+v", l.e.Names().Counters())
	}
}

// TestS35n_OnlyTheAnswerIsTaken: what differs in anything from the answer to the
// question that was asked is not it.
func TestS35n_OnlyTheAnswerIsTaken(t *testing.T) {
	l := githubLab(t, nil)
	good := func() (*view, *dns.Msg) {
		v, q := l.asked(host, l.query("github.com", dns.TypeA))
		return v, reply(q, "@ 60 IN A 192.0.2.66")
	}
	for what, change := range map[string]func(v *view, m *dns.Msg){
		"address":  func(v *view, _ *dns.Msg) { v.Dst++ },
		"port":     func(v *view, _ *dns.Msg) { v.DstPort++ },
		"our port": func(v *view, _ *dns.Msg) { v.SrcPort ^= 1 },
		"id":       func(_ *view, m *dns.Msg) { m.Id++ },
		"name":     func(_ *view, m *dns.Msg) { m.Question[0].Name = "gitlab.com." },
		"type":     func(_ *view, m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"class":    func(_ *view, m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"query":    func(_ *view, m *dns.Msg) { m.Response = false },
		"opcode":   func(_ *view, m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
	} {
		w, m := good()
		change(w, m)
		if l.answersRaw(w, m) != nil || l.e.Names().Len() != 0 {
			t.Fatalf("an answer with another %s was taken", what)
		}
	}
	w, m := good()
	if l.answers(w, m); l.e.Names().Len() != 1 {
		t.Fatal("the answer was not taken")
	}
	if l.answersRaw(w, m) != nil {
		t.Fatal("the answer was taken twice")
	}
	l.buffers()
}

// TestS35n_Unpredictable: identifiers, ports and the case of the name differ
// from query to query. Weak by nature: it finds counters and constants.
func TestS35n_Unpredictable(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSRate = 10000 })
	ids, ports, names := map[uint16]bool{}, map[uint16]bool{}, map[string]bool{}
	near, last := 0, [2]uint16{}
	const n = 120
	for range n {
		q := l.query("www.github.com", dns.TypeA)
		q.Id = 7
		v, m := l.asked(host, q)
		l.answers(v, reply(m, "@ 60 IN A 192.0.2.1"))
		if v.SrcPort-last[0]+16 < 32 || m.Id-last[1]+16 < 32 {
			near++
		}
		last = [2]uint16{v.SrcPort, m.Id}
		ids[m.Id], ports[v.SrcPort], names[m.Question[0].Name] = true, true, true
	}
	if len(ids) < n-3 || len(ports) < n-3 || len(names) < n*9/10 || near > 5 {
		t.Fatalf("of %d queries: %d identifiers, %d ports, %d spellings, %d near the one before", n, len(ids), len(ports), len(names), near)
	}
}

// TestIntercept: a question to another server is answered in its place.
func TestS29_Intercept(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.Flags |= ruleset.FlagDNSIntercept })
	q := l.query("github.com", dns.TypeA)
	b, _ := q.Pack()
	p := udp(host, 3333, "8.8.8.8", 53)
	p.data = b
	across, back := l.put(lan, p)
	if len(across) != 1 || len(back) != 0 || addr(across[0].Dst).String() != upstreamAddr {
		t.Fatalf("%v, %v; drops %s", across, back, l.drops())
	}
	v := l.answersRaw(across[0], reply(l.message(across[0]), "@ 60 IN A "+github))
	if v == nil || addr(v.Src).String() != "8.8.8.8" || v.SrcPort != 53 || v.DstPort != 3333 || !l.connects(host, github, 443) {
		t.Fatalf("the answer came as %v", v)
	}
	// The policy decides it as a question to the firewall.
	l = newDNSLab(t, func(p *ruleset.Policy) {
		p.Settings.Flags |= ruleset.FlagDNSIntercept
		p.Matches[0].Src, p.Matches[0].SrcMask = ip("10.0.0.3").To16(), mask(32)
	}, "accept egress udp any -> 8.8.8.8")
	l.dropped(lan, p, verdict.NoMatchingAllowRule)
}

// TestS29_BypassIsVisible: flows that may resolve names past the proxy have a hint.
func TestS29_BypassIsVisible(t *testing.T) {
	l := newDNSLab(t, nil, "accept egress")
	for _, c := range []struct {
		p    pkt
		want verdict.Hint
	}{
		{udp(host, 1000, "8.8.4.4", 53), verdict.BypassDNS},
		{syn(host, 1001, "192.0.2.1", 53), verdict.BypassDNS},
		{syn(host, 1002, "192.0.2.1", 853), verdict.BypassDoT},
		{udp(host, 1003, "192.0.2.1", 853), verdict.BypassDoQ},
		{syn(host, 1004, "1.1.1.1", 443), verdict.BypassDoH},
		{udp(host, 1005, "9.9.9.9", 443), verdict.BypassDoH},
		{syn(host, 1006, "192.0.2.1", 443), 0},
		{syn(host, 1007, "1.1.1.1", 80), 0},
	} {
		l.one(lan, c.p)
		if e := l.last(); e.Hint != c.want {
			t.Errorf("%+v: note %d, want %d", c.p, e.Hint, c.want)
		}
	}
}

// TestResolver: what a name server on the LAN learns is for everyone.
func TestS24_ResolverBindsForEveryone(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Resolvers = []ruleset.Resolver{{Address: ip("10.0.0.53").To16()}} })
	l.resolve("10.0.0.53", "github.com", "@ 60 IN A "+github)
	if !l.connects(host, github, 443) || !l.connects("10.0.0.3", github, 443) {
		t.Fatal("not for everyone")
	}
}

// TestBlocked: names on the block list, those below them, and aliases to them.
func TestBlockedNames(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Blocked = []ruleset.Name{nameOf(p, "ads.example")} })
	for _, name := range []string{"ads.example", "x.y.ADS.example"} {
		q := l.query(name, dns.TypeA)
		q.SetEdns0(1400, false)
		across, back := l.ask(host, q)
		if len(across) != 0 || len(back) != 1 {
			t.Fatalf("%s: %d to the upstream, %d back", name, len(across), len(back))
		}
		blocked(t, l.message(back[0]))
	}
	q := l.query("github.com", dns.TypeA)
	q.SetEdns0(1400, false)
	v, m := l.asked(host, q)
	blocked(t, l.answers(v, reply(m, "@ 60 IN CNAME a.ads.example.", "a.ads.example. 60 IN A "+github)))
	if l.connects(host, github, 443) || l.lastQuery().DNS != verdict.DNSBlockedList {
		t.Fatal("bound, or not told")
	}
	l.resolve(host, "bads.example", "@ 60 IN A 192.0.2.1")
}

func blocked(t *testing.T, m *dns.Msg) {
	t.Helper()
	o := m.IsEdns0()
	if m.Rcode != dns.RcodeRefused || len(m.Answer) != 0 || o == nil || len(o.Option) != 1 {
		t.Fatalf("not refused with a reason: %v", m)
	}
	if e, ok := o.Option[0].(*dns.EDNS0_EDE); !ok || e.InfoCode != dns.ExtendedErrorCodeBlocked {
		t.Fatalf("reason %v", o.Option[0])
	}
}

// TestQueriesFollowPolicy: names that no rule of the client's could use are not
// asked for; a link of a chain that it may use is.
func TestQueriesFollowPolicy(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.Flags |= ruleset.FlagDNSFollow })
	q := l.query("secret-data.evil.test", dns.TypeTXT)
	q.SetEdns0(1232, false)
	across, back := l.ask(host, q)
	if len(across) != 0 || len(back) != 1 {
		t.Fatalf("%d to the upstream, %d back", len(across), len(back))
	}
	blocked(t, l.message(back[0]))
	l.resolve(host, "github.com", "@ 60 IN CNAME x.cdn.test.", "x.cdn.test. 60 IN A "+github)
	l.resolve(host, "x.cdn.test", "@ 60 IN A "+github)
	if across, _ := l.ask("10.0.0.3", l.query("x.cdn.test", dns.TypeA)); len(across) != 0 {
		t.Fatal("another client's chain")
	}
	l.pass(61)
	if across, _ := l.ask(host, l.query("x.cdn.test", dns.TypeA)); len(across) != 0 {
		t.Fatal("a chain that has expired")
	}
	// A rule for another source does not count.
	l = newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "github.com"); p.Settings.Flags |= ruleset.FlagDNSFollow }, "accept egress tcp 10.0.0.3 -> any :443")
	if across, _ := l.ask(host, l.query("github.com", dns.TypeA)); len(across) != 0 {
		t.Fatal("asked for a name that only another client may use")
	}
	l.asked("10.0.0.3", l.query("github.com", dns.TypeA))
}

// TestUpstreamsFail: dead ones cost a client a bounded time, and are back at
// once.
func TestUpstreamsFail(t *testing.T) {
	const second = "198.51.100.54"
	l := githubLab(t, func(p *ruleset.Policy) {
		p.Settings.DNSRate = 1000
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip(second).To16(), Port: 53})
	})
	to := func(vs []*view) string {
		t.Helper()
		if len(vs) != 1 {
			t.Fatalf("%d packets to upstreams", len(vs))
		}
		return addr(vs[0].Dst).String()
	}
	// The first does not answer: the second is tried, from another port.
	across, _ := l.ask(host, l.query("github.com", dns.TypeA))
	if to(across) != upstreamAddr {
		t.Fatal("not the first one is asked first")
	}
	old := across[0]
	l.pass(1.3)
	again := l.taken(wan)
	if to(again) != second || again[0].SrcPort == old.SrcPort {
		t.Fatalf("then %v", again)
	}
	if l.answersRaw(old, reply(l.message(old), "@ 60 IN A 192.0.2.66")) != nil {
		t.Fatal("the late answer of the first was taken after the second was asked")
	}
	l.answers(again[0], reply(l.message(again[0]), "@ 60 IN A "+github))
	// No answer: SERVFAIL after 5 seconds, and meanwhile nothing stalls.
	l.ask(host, l.query("github.com", dns.TypeA))
	var got []*view
	waited := 0.0
	for ; len(got) == 0 && waited < 10; waited += 0.25 {
		l.pass(0.25)
		l.taken(wan)
		got = l.taken(lan)
	}
	if len(got) != 1 || l.message(got[0]).Rcode != dns.RcodeServerFailure || waited > 5.5 || l.lastQuery().DNS != verdict.DNSTimeout {
		t.Fatalf("%d answers after %v s", len(got), waited)
	}
	// The first counts as down now. It is asked beside, and is back at once.
	l.ask(host, l.query("a.test", dns.TypeA))
	l.pass(5)
	l.taken(wan)
	l.taken(lan)
	var probe, asked *view
	across, _ = l.ask(host, l.query("b.test", dns.TypeA))
	for _, v := range across {
		if addr(v.Dst).String() == upstreamAddr {
			probe = v
		} else {
			asked = v
		}
	}
	if probe == nil {
		t.Fatalf("the first is not asked again: %v", across)
	}
	if asked != nil {
		l.answers(asked, reply(l.message(asked), "@ 60 IN A 192.0.2.2"))
	}
	l.answersRaw(probe, reply(l.message(probe), "@ 60 IN A 192.0.2.2"))
	across, _ = l.ask(host, l.query("c.test", dns.TypeA))
	if to(across) != upstreamAddr {
		t.Fatal("the first is not back")
	}
	l.answers(across[0], reply(l.message(across[0]), "@ 60 IN A 192.0.2.3"))
	l.pass(10)
	if n := l.e.host.DNS().Outstanding(); n != 0 {
		t.Fatalf("%d queries are under way", n)
	}
	for _, q := range l.e.Pools() {
		if n := q.InUse(packet.UDP); n != 0 {
			t.Fatalf("%d ports are held", n)
		}
	}
	l.buffers()
}
