package evasions

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// What alice may reach, she may by name: good.example and *.pages.example. The
// attacker owns evil.example and stolen, and wants alice's machine, where its
// program runs, to reach stolen; or a name that alice may use to lead there.
var names = slices.Concat(namesOfOthers, namesForged, namesWritten, namesWhen, namesRelayed)

// asks has alice ask for a name, and reports whether the rule by name then lets
// her connect to an address.
func asks(a *arena, name string, typ uint16, addr string) bool {
	a.ask(alice, name, typ)
	return a.connects(alice, addr, 8443)
}

// ownRecords: the answer to a question about a name of the attacker's, or, for
// the twin, about good.example itself.
func ownRecords(typ uint16, z answer) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		name := "evil.example"
		if legit {
			name = "good.example"
		}
		a.zone[name+". "+dns.TypeToString[typ]] = z
		return asks(a, name, typ, stolen)
	}
}

var namesOfOthers = []attack{
	{name: "names/binding-of-other", trick: "an HTTPS record of evil.example has good.example as its target, and a hint with the attacker's address", source: "RFC 9460 section 7.3",
		fate: "hints open nothing for a target that the question does not lead to",
		run:  ownRecords(dns.TypeHTTPS, answer{answer: []string{"@ 300 IN HTTPS 1 good.example. ipv4hint=" + stolen}})},
	{name: "names/svcb-of-other", trick: "the same with an SVCB record", source: "RFC 9460 section 7.3", fate: "as above",
		run: func(a *arena, legit bool) bool {
			name := "_dns.evil.example"
			if legit {
				name = "good.example"
			}
			a.zone[name+". SVCB"] = answer{answer: []string{"@ 300 IN SVCB 1 good.example. ipv4hint=" + stolen}}
			return asks(a, name, dns.TypeSVCB, stolen)
		}},
	{name: "names/binding-in-a", trick: "the HTTPS record of another's name comes in an answer to a question for addresses", source: "", fate: "bound only where it was asked for",
		run: func(a *arena, legit bool) bool {
			typ := uint16(dns.TypeA)
			if legit {
				typ = dns.TypeHTTPS
			}
			a.zone["good.example. "+dns.TypeToString[typ]] = answer{answer: []string{"good.example. 300 IN HTTPS 1 . ipv4hint=" + stolen}}
			return asks(a, "good.example", typ, stolen)
		}},
	{name: "names/binding-additional", trick: "the answer for evil.example has, as a help, an address of good.example beside its HTTPS record", source: "RFC 9460 section 4.2",
		fate: "additional records of names that the question does not lead to open nothing",
		run: ownRecords(dns.TypeHTTPS, answer{answer: []string{"@ 300 IN HTTPS 1 good.example. ipv4hint=" + stolen},
			additional: []string{"good.example. 300 IN A " + stolen}})},
	{name: "names/additional", trick: "an address of good.example in the additional section of an answer for evil.example", source: "Kashpureff 1997; RFC 2181 section 5.4.1",
		fate: "only the chain of the question is bound",
		run: func(a *arena, legit bool) bool {
			z := answer{answer: []string{"@ 300 IN A " + other}, additional: []string{"good.example. 300 IN A " + stolen}}
			if legit { // in the section where it belongs, of the question's own name
				a.zone["good.example. A"] = answer{answer: []string{"good.example. 300 IN A " + stolen}}
				return asks(a, "good.example", dns.TypeA, stolen)
			}
			a.zone["evil.example. A"] = z
			return asks(a, "evil.example", dns.TypeA, stolen)
		}},
	{name: "names/glue", trick: "good.example as the name server of evil.example, with its address as glue", source: "RFC 2181 section 5.4.1; Bernstein, \"in-bailiwick\"", fate: "the authority section and what belongs to it bind nothing",
		run: ownRecords(dns.TypeA, answer{answer: []string{"@ 300 IN A " + stolen}, authority: []string{"@ 300 IN NS good.example."}, additional: []string{"good.example. 300 IN A " + stolen}})},
	{name: "names/unasked-owner", trick: "the answer section for evil.example holds an address of good.example", source: "Klein 2007 and earlier: unrelated answers", fate: "only the chain of the question is bound",
		run: ownRecords(dns.TypeA, answer{answer: []string{"good.example. 300 IN A " + stolen}})},
	{name: "names/chain-backwards", trick: "good.example as an alias of evil.example, in the answer for evil.example", source: "RFC 1034 section 3.6.2", fate: "an alias is followed from the question, not towards it",
		run: func(a *arena, legit bool) bool {
			if legit {
				a.zone["good.example. A"] = answer{answer: []string{"good.example. 300 IN CNAME evil.example.", "evil.example. 300 IN A " + stolen}}
				return asks(a, "good.example", dns.TypeA, stolen)
			}
			a.zone["evil.example. A"] = answer{answer: []string{"good.example. 300 IN CNAME evil.example.", "evil.example. 300 IN A " + stolen}}
			return asks(a, "evil.example", dns.TypeA, stolen)
		}},
	{name: "names/chain-broken", trick: "an alias of good.example whose end is another record's owner", source: "RFC 1034 section 3.6.2", fate: "a chain that is not whole binds nothing",
		run: func(a *arena, legit bool) bool {
			owner := "elsewhere.example."
			if legit {
				owner = "cdn.example."
			}
			a.zone["good.example. A"] = answer{answer: []string{"@ 300 IN CNAME cdn.example.", owner + " 300 IN A " + stolen}}
			return asks(a, "good.example", dns.TypeA, stolen)
		}},
	{name: "names/chain-loop", trick: "aliases in a circle", source: "RFC 1034 section 3.6.2", fate: "binds nothing, and ends",
		run: func(a *arena, legit bool) bool {
			back := "good.example."
			if legit {
				back = "c.example."
			}
			a.zone["good.example. A"] = answer{answer: []string{"@ 300 IN CNAME b.example.", "b.example. 300 IN CNAME " + back, "c.example. 300 IN A " + stolen}}
			return asks(a, "good.example", dns.TypeA, stolen)
		}},
	{name: "names/blocked-alias", trick: "a blocked name behind an alias of an allowed one (CNAME cloaking)", source: "Dao, Mazel, Fukuda 2021", fate: "refused, extended error 15", set: "max_flows: 4096\ndns: { block: [tracker.example] }", local: "it is about a setting of the policy",
		run: func(a *arena, legit bool) bool {
			target := "tracker.example."
			if legit {
				target = "static.example."
			}
			a.zone["good.example. A"] = answer{answer: []string{"@ 300 IN CNAME " + target, target + " 300 IN A " + stolen}}
			return asks(a, "good.example", dns.TypeA, stolen)
		}},
	{name: "names/other-class", trick: "the address is of class CHAOS", source: "RFC 1035 section 3.2.4", fate: "binds nothing",
		run: func(a *arena, legit bool) bool {
			class := "CH"
			if legit {
				class = "IN"
			}
			a.zone["good.example. A"] = answer{raw: func(b []byte) []byte {
				q := new(dns.Msg)
				q.Unpack(b) //nolint:errcheck // it was read before
				m, _ := reply(q, answer{answer: []string{"@ 300 IN A " + stolen}}, true)
				if class == "CH" {
					at := strings.Index(string(m), "\xc0\x0c\x00\x01\x00\x01") // the answer's name, type and class
					m[at+5] = dns.ClassCHAOS
				}
				return m
			}}
			return asks(a, "good.example", dns.TypeA, stolen)
		}},
	{name: "names/of-other-client", trick: "an address that only bob has resolved", source: "", fate: "names are learned for each client by itself",
		run: func(a *arena, legit bool) bool {
			who := bob
			if legit {
				who = alice
			}
			a.learns(who, "good.example", cdn)
			return a.connects(alice, cdn, 8443)
		}},
	{name: "names/from-outside", trick: "mallory asks the firewall from the WAN, in alice's name", source: "RFC 2827", fate: "martian",
		run: func(a *arena, legit bool) bool {
			a.is("good.example", cdn)
			m := new(dns.Msg)
			m.SetQuestion("good.example.", dns.TypeA)
			b, _ := m.Pack()
			if legit {
				a.put(lan, udp(alice, a.next(), fwLAN, 53, string(b)))
			} else {
				a.put(wan, udp(alice, a.next(), fwLAN, 53, string(b)))
				a.put(wan, udp(alice, a.next(), fwWAN, 53, string(b)))
			}
			return a.connects(alice, cdn, 8443)
		}},
	{name: "names/open-resolver", trick: "mallory has the firewall resolve for the Internet, to amplify", source: "RFC 5358", fate: "nothing on the WAN is listened to",
		run: func(a *arena, legit bool) bool {
			a.is("good.example", cdn)
			m := new(dns.Msg)
			m.SetQuestion("good.example.", dns.TypeA)
			b, _ := m.Pack()
			s, host, to := wan, mallory, fwWAN
			if legit {
				s, host, to = lan, alice, fwLAN
			}
			port := a.next()
			a.put(s, udp(host, port, to, 53, string(b)))
			return slices.ContainsFunc(a.seen[s], func(v *view) bool { return v.dst == host && v.dport == port && v.proto == packet.UDP })
		}},
}

// forged: the upstream does not answer; what an attacker sends in its place is altered by
// f, or is the right answer for the twin.
func forged(times int, f func(p *pkt, m *dns.Msg)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		a.zone["good.example. A"] = answer{silent: true}
		a.ask(alice, "good.example", dns.TypeA)
		i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost && v.dport == 53 })
		if i < 0 {
			return false
		}
		v := a.seen[wan][i]
		q := new(dns.Msg)
		if q.Unpack(v.data) != nil {
			return false
		}
		for range times {
			m := new(dns.Msg)
			m.SetReply(q)
			rr, _ := dns.NewRR(q.Question[0].Name + " 300 IN A " + stolen)
			m.Answer = append(m.Answer, rr)
			p := udp(v.dst, v.dport, v.src, v.sport, "")
			if !legit {
				f(&p, m)
			}
			b, err := m.Pack()
			if err != nil {
				a.t.Fatal(err)
			}
			p.data = b
			a.put(wan, p)
		}
		return a.connects(alice, stolen, 8443)
	}
}

var namesForged = []attack{
	{name: "names/forged-id", trick: "forged answers with guessed identifiers", source: "Kaminsky 2008; RFC 5452 section 9.1", fate: "rejected and counted; after 8 it is asked by TCP",
		run: forged(40, func(_ *pkt, m *dns.Msg) { m.Id += 1 + uint16(len(m.Answer))*7 })},
	{name: "names/forged-port", trick: "a forged answer to another port", source: "RFC 5452 section 9.2", fate: "rejected", run: forged(1, func(p *pkt, _ *dns.Msg) { p.dport++ })},
	{name: "names/forged-source", trick: "an answer from another address", source: "RFC 5452 section 9.1", fate: "rejected", run: forged(1, func(p *pkt, _ *dns.Msg) { p.src = partner })},
	{name: "names/forged-source-port", trick: "an answer from another port of the server", source: "RFC 5452 section 9.1", fate: "rejected", run: forged(1, func(p *pkt, _ *dns.Msg) { p.sport = 5353 })},
	{name: "names/forged-question", trick: "an answer with all right but the question", source: "RFC 5452 section 9.1", fate: "rejected",
		run: forged(1, func(_ *pkt, m *dns.Msg) { m.Question[0].Name = "evil.example." })},
	{name: "names/forged-case", trick: "an answer that does not repeat the case of the letters of the question", source: "Dagon et al. 2008 (0x20)", fate: "not believed: it is asked again by TCP",
		run: forged(1, func(_ *pkt, m *dns.Msg) {
			m.Question[0].Name = swapCase(m.Question[0].Name)
		})},
	{name: "names/forged-late", trick: "a second answer, behind the right one", source: "RFC 5452 section 4.2", fate: "no query is outstanding any more",
		run: func(a *arena, legit bool) bool {
			a.is("good.example", cdn)
			if legit {
				a.is("good.example", cdn, stolen)
			}
			a.ask(alice, "good.example", dns.TypeA)
			i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost && v.dport == 53 })
			if i < 0 {
				return false
			}
			v, q := a.seen[wan][i], new(dns.Msg)
			q.Unpack(v.data) //nolint:errcheck // it was read before
			b, _ := reply(q, answer{answer: []string{"@ 300 IN A " + stolen}}, true)
			a.put(wan, udp(v.dst, v.dport, v.src, v.sport, string(b)))
			return a.connects(alice, stolen, 8443)
		}},
	{name: "names/forged-fragment", trick: "a forged second fragment of an answer, sent before the answer", source: "Herzberg, Shulman 2013", fate: "the datagram's checksum is wrong: malformed_packet",
		run: func(a *arena, legit bool) bool {
			a.zone["good.example. A"] = answer{silent: true}
			a.ask(alice, "good.example", dns.TypeA)
			i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost && v.dport == 53 })
			if i < 0 {
				return false
			}
			v, q := a.seen[wan][i], new(dns.Msg)
			q.Unpack(v.data) //nolint:errcheck // it was read before
			var rs []string
			for range 4 {
				rs = append(rs, "@ 300 IN TXT "+strings.Repeat("x", 60))
			}
			addr := cdn
			if legit {
				addr = stolen
			}
			b, _ := reply(q, answer{answer: []string{"@ 300 IN A " + addr}, additional: rs}, true)
			p := udp(v.dst, v.dport, v.src, v.sport, string(b))
			ps := p.cut(48)
			fs := a.fragments(wan, p, ps...)
			if !legit {
				// The one with the address comes with the attacker's in it.
				for i := range fs {
					if at := strings.Index(string(fs[i]), "\x0b\x16\x21\x50"); at > 0 {
						bad := slices.Clone(fs[i])
						copy(bad[at:], "\x06\x06\x06\x42")
						fs = append([][]byte{bad}, slices.Delete(fs, i, i+1)...)
						break
					}
				}
			}
			a.raw(wan, fs...)
			return a.connects(alice, stolen, 8443)
		}},
}

func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 32
		case r >= 'A' && r <= 'Z':
			return r + 32
		}
		return r
	}, s)
}

// written: a name that looks like one that a rule has, in place of it.
func written(bad, good string) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		name := bad
		if legit {
			name = good
		}
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), dns.TypeA)
		a.zone[strings.ToLower(q.Question[0].Name)+" A"] = answer{answer: []string{"@ 300 IN A " + stolen}}
		a.askMsg(alice, q)
		return a.connects(alice, stolen, 8443)
	}
}

var namesWritten = []attack{
	{name: "names/two-labels", trick: "a.b.pages.example for *.pages.example", source: "RFC 6125 section 6.4.3", fate: "a wildcard is one label", run: written("a.b.pages.example", "a.pages.example")},
	{name: "names/apex", trick: "pages.example for *.pages.example", source: "RFC 6125 section 6.4.3", fate: "not matched", run: written("pages.example", "www.pages.example")},
	{name: "names/suffix", trick: "notgood.example for good.example", source: "CWE-1023", fate: "names are compared whole", run: written("notgood.example", "good.example")},
	{name: "names/prefix", trick: "good.example.evil.example for good.example", source: "CWE-1023", fate: "names are compared whole", run: written("good.example.evil.example", "good.example")},
	{name: "names/dot-in-label", trick: `a label that contains a dot: "x\.pages" and "example" under another owner`, source: "Jeitner, Shulman 2021", fate: "labels are compared, not text", run: written(`good\.example`, "good.example")},
	{name: "names/dot-in-wildcard", trick: `the two labels "evil.pages" and "example"`, source: "Jeitner, Shulman 2021", fate: "labels are compared, not text", run: written(`evil\.pages.example`, "evil.pages.example")},
	{name: "names/nul", trick: `a label with a zero byte: "good.example\000.evil.example"`, source: "Jeitner, Shulman 2021; Marlinspike 2009", fate: "names are compared whole", run: written(`good.example\000.evil.example`, "good.example")},
}

var namesWhen = []attack{
	{name: "names/expired", trick: "an address is used after the answer's life", source: "", fate: "no new connections; name_expired",
		run: func(a *arena, legit bool) bool {
			a.zone["good.example. A"] = answer{answer: []string{"@ 2 IN A " + cdn}}
			a.ask(alice, "good.example", dns.TypeA)
			if !legit {
				a.pass(3500 * time.Millisecond)
			}
			return a.connects(alice, cdn, 8443)
		}},
	{name: "names/huge-ttl", trick: "a TTL with its highest bit set, to be open for 68 years", source: "RFC 2181 section 8", fate: "it counts as 0: one second",
		run: func(a *arena, legit bool) bool {
			ttl := "4294967295"
			if legit {
				ttl = "300"
			}
			a.zone["good.example. A"] = answer{answer: []string{"@ " + ttl + " IN A " + cdn}}
			a.ask(alice, "good.example", dns.TypeA)
			a.pass(2500 * time.Millisecond)
			return a.connects(alice, cdn, 8443)
		}},
	{name: "names/other-port", trick: "another port of an address that a name has opened", source: "", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			a.learns(alice, "good.example", cdn)
			port := uint16(22)
			if legit {
				port = 8443
			}
			return a.connects(alice, cdn, port)
		}},
	{name: "names/other-server", trick: "alice asks another name server", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			m := new(dns.Msg)
			m.SetQuestion("good.example.", dns.TypeA)
			b, _ := m.Pack()
			a.is("good.example", cdn)
			server := partner
			if legit {
				server = fwLAN
			}
			a.put(lan, udp(alice, a.next(), server, 53, string(b)))
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dport == 53 && v.proto == packet.UDP })
		}},
	{name: "names/dot", trick: "alice asks another name server over TLS", source: "RFC 7858", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			if legit {
				return a.ask(alice, "good.example", dns.TypeA) != nil
			}
			return a.connects(alice, "9.9.9.9", 853)
		}},
	{name: "names/doh", trick: "alice asks another name server over HTTPS", source: "RFC 8484", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			addr := "9.9.9.9"
			if legit {
				a.learns(alice, "good.example", cdn)
				addr = cdn
			}
			return a.connects(alice, addr, 443)
		}},
	{name: "names/transfer", trick: "alice asks for the whole zone", source: "RFC 5936", fate: "answered by the firewall: not implemented", run: kindOfQuestion(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR })},
	{name: "names/update", trick: "alice sends an update to the upstream", source: "RFC 2136", fate: "answered by the firewall: not implemented", run: kindOfQuestion(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })},
	{name: "names/notify", trick: "alice notifies the upstream", source: "RFC 1996", fate: "answered by the firewall: not implemented", run: kindOfQuestion(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify })},
	{name: "names/response", trick: "alice sends an answer in place of a question", source: "RFC 5625 section 6", fate: "dropped", run: kindOfQuestion(func(m *dns.Msg) { m.Response = true })},
	{name: "names/two-questions", trick: "two questions in one message: one is judged, the other answered", source: "RFC 9619", fate: "FORMERR",
		run: kindOfQuestion(func(m *dns.Msg) {
			m.Question = append(m.Question, dns.Question{Name: "evil.example.", Qtype: dns.TypeA, Qclass: 1})
		})},
}

// kindOfQuestion reports whether an odd message reaches the upstream.
func kindOfQuestion(f func(m *dns.Msg)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		m := new(dns.Msg)
		m.SetQuestion("good.example.", dns.TypeA)
		if !legit {
			f(m)
		}
		a.is("good.example", cdn)
		b, err := m.Pack()
		if err != nil {
			a.t.Fatal(err)
		}
		a.askRaw(alice, b)
		return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost })
	}
}
