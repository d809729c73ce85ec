package router

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestS27n_ForeignService: the owner of one name cannot open his addresses under
// the name of a rule, and the owner of the rule's name can.
func TestS27n_ForeignService(t *testing.T) {
	const evil = "192.0.2.66"
	ask := func(l *dnsLab, name string, typ uint16, records ...string) {
		v, q := l.asked(host, l.query(name, typ))
		l.answers(v, reply(q, records...))
	}
	for _, sni := range []uint8{0, 1} {
		for _, typ := range []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeA, dns.TypeTXT, dns.TypeANY} {
			l := githubLab(t, func(p *ruleset.Policy) { p.Rules[2].SNI = sni })
			ask(l, "evil.example", typ, "@ 604800 IN HTTPS 1 github.com. ipv4hint="+evil, "@ 604800 IN SVCB 1 github.com. ipv4hint="+evil)
			if l.connects(host, evil, 443) {
				t.Errorf("sni %d, asked for %s: an address is open by the name of a rule", sni, dns.TypeToString[typ])
			}
			ask(l, "github.com", dns.TypeHTTPS, "@ 60 IN HTTPS 1 . ipv4hint="+github)
			if !l.connects(host, github, 443) {
				t.Error("a hint of the name's owner does not open")
			}
		}
	}
}

// TestS27n_Rebinding: a name of a rule that leads to what is beside the firewall, or shared
// with the provider, opens it only where the policy permits it; the event has the address.
func TestS27n_Rebinding(t *testing.T) {
	for _, listed := range []bool{false, true} {
		for _, inside := range []string{"203.0.113.1", "203.0.113.77", "100.64.0.9", "172.16.0.9", "192.168.1.9"} {
			l := githubLab(t, func(p *ruleset.Policy) {
				if listed {
					p.Private = []ruleset.Name{nameOf(p, "github.com")}
				}
			})
			m := l.resolve(host, "github.com", "@ 60 IN A "+github, "@ 60 IN A "+inside)
			e := l.lastQuery()
			if listed != (m.Rcode == 0) || listed != (len(m.Answer) == 2) || listed != (e.DNS == verdict.DNSAnswered) {
				t.Errorf("%s, listed %v: %v, %v", inside, listed, e.DNS, m)
			}
			if !listed && (m.Rcode != dns.RcodeRefused || e.DNS != verdict.DNSBlockedPrivate || e.XlatAddr != ip(inside).To16() || l.lastName() != "github.com") {
				t.Errorf("%s: %v, event %+v", inside, m, e)
			}
			if n := l.e.host.DNS().Counters().Outcomes[verdict.DNSBlockedPrivate]; (n == 1) == listed {
				t.Errorf("%s: counted %d times", inside, n)
			}
			for _, dst := range []string{inside, github} {
				if l.connects(host, dst, 443) != listed {
					t.Errorf("%s, listed %v: %s open: %v", inside, listed, dst, !listed)
				}
			}
		}
	}
}

// TestDNSNotOnTheWAN: the proxy is for the LAN. Who asks from the WAN, whatever
// the rules accept and whichever address it asks, gets nothing, and no upstream
// hears of it; nor does a host of the LAN that asks an external address.
func TestDNSNotOnTheWAN(t *testing.T) {
	for _, intercept := range []uint32{0, ruleset.FlagDNSIntercept} {
		for _, from := range []string{"198.51.100.9", "203.0.113.9", upstreamAddr} {
			for _, to := range []string{"203.0.113.10", lanAddr} {
				for _, tcpOnes := range []bool{false, true} {
					what := fmt.Sprintf("%s asks %s, TCP %v, flags %d", from, to, tcpOnes, intercept)
					l := newDNSLab(t, func(p *ruleset.Policy) { p.Settings.Flags |= intercept }, "accept any any -> any", established)
					p := tcpSeg(from, 4000, to, 53, packet.SYN, 1, 0)
					if !tcpOnes {
						b, err := l.query("github.com", dns.TypeA).Pack()
						if err != nil {
							t.Fatal(err)
						}
						p = udp(from, 4000, to, 53)
						p.data = b
					}
					across, back := l.put(wan, p)
					for _, v := range append(across, back...) {
						if v.SrcPort == 53 || v.DstPort == 53 {
							t.Errorf("%s: %v:%d to %v:%d leaves", what, addr(v.Src), v.SrcPort, addr(v.Dst), v.DstPort)
						}
					}
					if c := l.e.host.DNS().Counters(); c.Queries != 0 || c.Asked != 0 || l.e.host.Conns().Len() != 0 {
						t.Errorf("%s: %d queries, %d connections", what, c.Queries, l.e.host.Conns().Len())
					}
				}
			}
		}
	}
	l := newDNSLab(t, nil, "accept any any -> any", established)
	if across, _ := l.ask(host, l.query("github.com", dns.TypeA)); len(across) != 1 {
		t.Error("a host of the LAN is not heard")
	}
}

// TestTCPAnswerToAnother: what comes over the TCP connection of a question and is
// the answer to another one is none, with a valid answer's identifier or without.
func TestTCPAnswerToAnother(t *testing.T) {
	for _, c := range []struct {
		what string
		edit func(m *dns.Msg)
		good bool
	}{
		{"another identifier", func(m *dns.Msg) { m.Id++ }, false},
		{"another name", func(m *dns.Msg) { m.Question[0].Name = "other.example."; m.Answer[0].Header().Name = "other.example." }, false},
		{"another type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }, false},
		{"another class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, false},
		{"no question", func(m *dns.Msg) { m.Question = nil }, false},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, false},
		{"a query", func(m *dns.Msg) { m.Response = false }, false},
		{"an update", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, false},
		{"the answer", func(*dns.Msg) {}, true},
	} {
		l := githubLab(t, nil)
		up := l.tcpHost(wan)
		up.answer = func(q *dns.Msg) *dns.Msg {
			m := reply(q, "@ 60 IN A "+github)
			c.edit(m)
			return m
		}
		v, _ := l.asked(host, l.query("github.com", dns.TypeA))
		l.truncated(v)
		grams := l.exchange(up)
		if got := len(grams[lan]) == 1 && len(l.message(grams[lan][0]).Answer) == 1; got != c.good || l.connects(host, github, 443) != c.good {
			t.Errorf("%s: passed on %v, want %v", c.what, got, c.good)
		}
		if n := l.e.host.DNS().Counters().Mismatched; (n > 0) == c.good {
			t.Errorf("%s: counted %d times", c.what, n)
		}
	}
}

// TestS28_LateIsSaid: the use of an address after its name has expired is reported in an
// event with the name and the time since then: exactly so much of ttl_grace would have been
// enough.
func TestS28_LateIsSaid(t *testing.T) {
	for _, after := range []int64{1, 30*second - 1, 30 * second, 30*second + 1, 45 * second, 3600 * second} {
		for _, how := range []string{"client", "resolver"} {
			lab := func(grace uint32) *dnsLab {
				l := githubLab(t, func(p *ruleset.Policy) {
					p.Settings.DNSGrace = grace
					if how == "resolver" {
						p.Resolvers = []ruleset.Resolver{{Address: ip("10.0.0.53").To16()}}
					}
				})
				who := host
				if how == "resolver" {
					who = "10.0.0.53"
				}
				l.resolve(who, "github.com", "@ 30 IN A "+github)
				l.resolve(who, "plain.example", "@ 30 IN A "+github) // which no rule has
				l.now += after
				l.run()
				return l
			}
			l := lab(0)
			if open := after < 30*second; l.connects(host, github, 443) != open {
				t.Fatalf("after %d ns: open %v", after, !open)
			} else if open {
				if e := l.last(); e.Hint != 0 || e.Ago != 0 {
					t.Fatalf("of what passes: %+v", e)
				}
				continue
			}
			e := l.last()
			if e.Hint != verdict.NameExpired || l.lastName() != "github.com" || e.Lookup != 1 || e.Ago == 0 {
				t.Fatalf("%s, after %d ns: %+v %q", how, after, e, l.lastName())
			}
			if !lab(e.Ago).connects(host, github, 443) || lab(e.Ago-1).connects(host, github, 443) {
				t.Errorf("after %d ns: %d seconds are not what would have helped", after, e.Ago)
			}
			if l.connects(host, github, 22) && l.last().Hint != 0 {
				t.Error("a port that no name would have opened is reported as expired")
			}
			if l.connects(host, "192.0.2.200", 443) || l.last().Hint != 0 || l.last().Ago != 0 {
				t.Error("an address that nobody has resolved is reported as expired")
			}
		}
	}
}

// TestS28_LateInBoundedMemory: what has expired is remembered where there is room,
// and gives way to everything else.
func TestS28_LateInBoundedMemory(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.DNSNames = 8 })
	l.resolve(host, "github.com", "@ 1 IN A "+github)
	for range 20 { // long enough for every entry to have been looked at
		l.pass(60)
	}
	if l.e.Names().Len() != 0 {
		t.Fatal("it has not expired")
	}
	if l.connects(host, github, 443) || l.last().Hint != verdict.NameExpired || l.last().Ago != 1200 {
		t.Fatalf("not remembered: %+v", l.last())
	}
	for i := range 8 {
		l.resolve(host, fmt.Sprintf("n%d.example", i), fmt.Sprintf("@ 60 IN A 192.0.2.%d", 100+i))
	}
	if l.connects(host, github, 443) || l.last().Hint != 0 {
		t.Fatalf("remembered at the cost of others: %+v", l.last())
	}
	if c := l.e.Names().Counters(); c.EvictedFull != 0 || l.e.Names().Len() != 8 {
		t.Fatalf("%d others gave way, %d are there", c.EvictedFull, l.e.Names().Len())
	}
}

// TestHintsAreOfRulesByName: a packet that a rule by name denies is not said to need the
// name of another client, or one that has expired, which no rule has: without any name it
// would be accepted, and that is no way for it.
func TestHintsAreOfRulesByName(t *testing.T) {
	const at = "192.0.2.77"
	for _, expired := range []bool{false, true} {
		l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "evil.example"); p.Settings.DNSGrace = 3600 },
			"deny egress tcp any -> any :443", "accept egress tcp any -> any :443")
		if expired {
			l.resolve(host, "plain.example", "@ 1 IN A "+at)
			l.pass(4000)
		} else {
			l.resolve("10.0.0.3", "plain.example", "@ 300 IN A "+at)
		}
		l.resolve(host, "evil.example", "@ 300 IN A "+at)
		if l.connects(host, at, 443) {
			t.Fatal("reached what is denied")
		}
		if r := l.last(); r.Reason != verdict.ExplicitDeny || r.Rule != 2 || r.Hint != 0 || l.lastName() != "evil.example" {
			t.Errorf("expired %v: name %q, event %+v", expired, l.lastName(), r)
		}
	}
}

// TestPingsAreNoQueries: an identifier is not a port: no ping is said to go round the
// firewall's resolver.
func TestPingsAreNoQueries(t *testing.T) {
	l := newLab(t, "deny")
	for _, id := range []uint16{53, 443, 853} {
		l.dropped(lan, echo(host, "9.9.9.9", packet.EchoRequest, id), verdict.ExplicitDeny)
		if h := l.last().Hint; h != 0 {
			t.Errorf("identifier %d: hint %v", id, h)
		}
		l.dropped(lan, pkt{src: host, dst: "9.9.9.9", proto: 47, data: []byte{0, byte(id), byte(id >> 8), byte(id), 0, 0, 0, 0}}, verdict.ConntrackInvalid)
		if h := l.last().Hint; h != 0 {
			t.Errorf("another protocol: hint %v", h)
		}
	}
	l.dropped(lan, udp(host, 4000, "9.9.9.9", 53), verdict.ExplicitDeny)
	if h := l.last().Hint; h != verdict.BypassDNS {
		t.Errorf("a query: hint %v", h)
	}
}

// TestNoHintsFromTheWAN: a packet from the WAN that a rule by name would accept from the LAN
// is not said to want a name.
func TestNoHintsFromTheWAN(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		routed(p)
		named(p, 2, "inside.example")
		p.Private = []ruleset.Name{nameOf(p, "inside.example")}
	}, "accept tcp any -> any :443", established)
	l.resolve(host, "inside.example", "@ 300 IN A 10.0.0.5")
	l.dropped(wan, syn(client, 4000, "10.0.0.5", 443), verdict.NoMatchingAllowRule)
	if r := l.last(); r.Hint != 0 || r.Lookup != 0 || l.lastName() != "" {
		t.Errorf("name %q, event %+v", l.lastName(), r)
	}
}

// TestHintsOfOtherClients: who uses a name that another client has resolved is told so, with
// no time since it expired.
func TestHintsOfOtherClients(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "github.com") }, "accept egress tcp any -> any :443", established)
	l.resolve("10.0.0.3", "github.com", "@ 300 IN A "+github)
	if l.connects(host, github, 443) {
		t.Fatal("reached")
	}
	if r := l.last(); r.Hint != verdict.OtherClient || r.Ago != 0 || r.Lookup != 1 || l.lastName() != "github.com" {
		t.Errorf("name %q, event %+v", l.lastName(), r)
	}
}
