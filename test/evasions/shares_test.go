package evasions

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// One host, or one that gives itself out for many, takes what all need. The
// attacker got what it was after when another host is not served any more; the
// twin does the same a few times, and the other host is served. Limits are as
// they are by default, unless an entry says otherwise; tables are small, so that
// the test is quick.

const small = "max_flows: 1024"

// flood does something many times, or a few times for the twin.
func flood(many, few int, do func(a *arena, i int), served func(a *arena) bool) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		n := many
		if legit {
			n = few
		}
		for i := range n {
			do(a, i)
			if i%50 == 0 {
				a.run()
			}
		}
		a.run()
		return served(a) == legit
	}
}

// forgedHost is one of many addresses on the Internet.
func forgedHost(i int) string { return fmt.Sprintf("198.51.%d.%d", 101+i/250%100, 1+i%250) }

func bobConnects(a *arena) bool { return a.connects(bob, site, 80) }

var shares = []attack{
	{name: "shares/syn-from-wan", trick: "SYNs under many addresses to the published server, whose answers go nowhere, to fill the table of flows", source: "CERT CA-1996-21; RFC 4987", fate: "half-open entries give way first", set: small,
		run: flood(3000, 30, func(a *arena, i int) {
			a.fw.put(wan, a.frame(wan, tcp(fmt.Sprintf("198.51.100.%d", 110+i%100), uint16(2000+i), fwWAN, 8080, packet.SYN, 1, 0)))
		}, bobConnects)},
	{name: "shares/syn-from-lan", trick: "a program on alice's machine begins connections without end", source: "CERT CA-1996-21; RFC 4987", fate: "half-open entries give way first", set: small,
		run: flood(3000, 30, func(a *arena, i int) {
			a.away[site] = true
			a.fw.put(lan, a.frame(lan, tcp(alice, uint16(2000+i), site, 80, packet.SYN, 1, 0)))
		}, func(a *arena) bool {
			a.away[site] = false
			return bobConnects(a)
		})},
	{name: "shares/syn-and-open", trick: "the same, to have bob's open connection forgotten", source: "RFC 4987", fate: "established connections never give way", set: small,
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, bob, site, 80)
			if c == nil {
				return false
			}
			n := 3000
			if legit {
				n = 30
			}
			for i := range n {
				a.fw.put(wan, a.frame(wan, tcp(forgedHost(i), uint16(2000+i), fwWAN, 8080, packet.SYN, 1, 0)))
			}
			a.run()
			return c.works() == legit
		}},
	{name: "shares/udp-one-way", trick: "datagrams to ever new ports, none of which is answered", source: "RFC 4732", fate: "entries that were never answered give way first", set: small,
		run: flood(3000, 30, func(a *arena, i int) {
			a.fw.put(lan, a.frame(lan, udp(alice, uint16(2000+i/1000), site, uint16(4000+i%1000), "x")))
		}, bobConnects)},
	{name: "shares/udp-published", trick: "one datagram under each of many addresses to the published UDP service: each is answered, and with that a flow for minutes", source: "RFC 4732", fate: "a flow that was answered once gives way until its originator sends again", set: small,
		run: flood(1500, 30, func(a *arena, i int) {
			host := forgedHost(i)
			a.fw.put(wan, a.frame(wan, udp(host, uint16(2000+i), fwWAN, 9000, "x")))
			a.fw.put(lan, a.frame(lan, udp(web, 9000, host, uint16(2000+i), "y")))
		}, bobConnects)},
	{name: "shares/flows-open", trick: "alice's machine opens UDP flows that are answered and used, until the table is full", source: "RFC 4732", fate: "a host that holds more than its share gives way", set: small,
		run: flood(30, 1, func(a *arena, i int) { // fifty at a time
			for range 2 {
				for k := 50 * i; k < 50*i+50; k++ {
					a.fw.put(lan, a.frame(lan, udp(alice, uint16(2000+k/1000), site, uint16(4000+k%1000), "x")))
				}
				a.run()
				for k := 50 * i; k < 50*i+50; k++ {
					a.fw.put(wan, a.frame(wan, udp(site, uint16(4000+k%1000), fwWAN, uint16(2000+k/1000), "y")))
				}
				a.run()
			}
		}, bobConnects)},
	{name: "shares/ports", trick: "alice's machine sends from ever new ports, until the external address has none left for others, or for the firewall's own questions", source: "RFC 4787 section 4; RFC 6888 REQ-4", fate: "half-open and idle mappings of the largest holder give way, and some ports are the firewall's",
		set: "max_flows: 65536", ports: "20000-20999",
		run: flood(3000, 30, func(a *arena, i int) { a.fw.put(lan, a.frame(lan, udp(alice, uint16(2000+i), site, 4000, "x"))) },
			func(a *arena) bool {
				n := len(a.seen[wan])
				a.put(lan, udp(bob, 3333, site, 4001, "bob"))
				if !slices.ContainsFunc(a.seen[wan][n:], func(v *view) bool { return v.dst == site && v.dport == 4001 }) {
					return false
				}
				a.is("good.example", cdn)
				r := a.ask(bob, "good.example", dns.TypeA)
				return r != nil && len(r.Answer) == 1
			})},
	{name: "shares/per-source", trick: "SYNs in a partner's name use up what one source may have", source: "RFC 4732", fate: "its oldest half-open flow gives way", set: "max_flows_per_source: 100",
		run: func(a *arena, legit bool) bool {
			n := 300
			if legit {
				n = 10
			}
			a.away[partner] = true // it does not know of them, and mallory has it silent
			for i := range n {
				a.fw.put(wan, a.frame(wan, tcp(partner, uint16(2000+i), fwWAN, 8080, packet.SYN, 1, 0)))
			}
			a.run()
			a.pass(20 * time.Millisecond)
			return (a.dial(wan, partner, fwWAN, 8080) != nil) == legit
		}},
	{name: "shares/hellos", trick: "alice's machine begins first messages that it does not end, until bob's has no place", source: "Slowloris 2009", fate: "the oldest of the largest holder gives way",
		run: func(a *arena, legit bool) bool {
			n := 200
			if legit {
				n = 10
			}
			a.learns(alice, "good.example", cdn)
			a.learns(bob, "good.example", cdn)
			h := hello("good.example")
			b := a.dial(lan, bob, cdn, 443)
			if b == nil {
				return false
			}
			b.say(h[:100])
			var ps []pkt
			for _, c := range a.dialAll(lan, alice, cdn, 443, n) {
				ps = append(ps, c.data(0, h[:50]))
			}
			a.put(lan, ps...)
			b.say(h[100:])
			s := slices.IndexFunc(a.ends[wan].all, func(s *stream) bool { return reads(s.data) == "good.example" })
			return (s >= 0) == legit
		}},
	{name: "shares/queries", trick: "questions that nobody answers, under eleven addresses, until there is no place for bob's", source: "RFC 5452 section 5", fate: "the oldest of the largest holder gives way",
		run: func(a *arena, legit bool) bool {
			n := 100
			if legit {
				n = 2
			}
			a.is("good.example", cdn)
			for h := range 11 {
				for i := range n {
					m := new(dns.Msg)
					name := fmt.Sprintf("x%d.evil.example.", h*100+i)
					a.zone[name+" A"] = answer{silent: true}
					m.SetQuestion(name, dns.TypeA)
					b, _ := m.Pack()
					a.fw.put(lan, a.frame(lan, udp(fmt.Sprintf("10.0.0.%d", 20+h), uint16(3000+i), fwLAN, 53, string(b))))
				}
			}
			a.run()
			r := a.ask(bob, "good.example", dns.TypeA)
			return (r != nil && len(r.Answer) == 1) == legit
		}},
	{name: "shares/query-rate", trick: "alice's machine asks a thousand questions at once", source: "RFC 4732", fate: "rate_limit_dns, for alice alone",
		run: func(a *arena, legit bool) bool {
			n := 1000
			if legit {
				n = 20
			}
			a.is("good.example", cdn)
			for i := range n {
				m := new(dns.Msg)
				m.SetQuestion("good.example.", dns.TypeA)
				b, _ := m.Pack()
				a.fw.put(lan, a.frame(lan, udp(alice, uint16(3000+i), fwLAN, 53, string(b))))
			}
			a.run()
			r := a.ask(bob, "good.example", dns.TypeA)
			return (r != nil && len(r.Answer) == 1) == legit
		}},
	{name: "shares/names", trick: "alice's machine resolves thousands of names, so that bob's are forgotten", source: "RFC 4732", fate: "a full set forgets the oldest of the client that has the most", set: "max_flows: 4096\ndns: { max_names: 1024 }", local: "it is about the size of a table",
		run: func(a *arena, legit bool) bool {
			n := 2000
			if legit {
				n = 20
			}
			a.learns(bob, "good.example", cdn)
			for i := range n {
				name := fmt.Sprintf("x%d.pages.example", i)
				a.is(name, fmt.Sprintf("192.0.%d.%d", 3+i/250, 1+i%250))
				a.fw.put(lan, a.frame(lan, udp(alice, a.next(), fwLAN, 53, string(overTCP(name+".", dns.TypeA, uint16(i))[2:]))))
				if i%50 == 49 {
					a.run()
					a.pass(time.Second) // within alice's rate
				}
			}
			a.run()
			return a.connects(bob, cdn, 8443) == legit
		}},
	{name: "shares/neighbours", trick: "alice's machine sends to hundreds of hosts that are not there: what waits for them takes the places of what is for others", source: "RFC 6583", fate: "the oldest of the largest holder gives way",
		run: func(a *arena, legit bool) bool {
			n := 140
			if legit {
				n = 5
			}
			for i := range n {
				host := fmt.Sprintf("203.0.113.%d", 100+i)
				a.dead[host] = true
				for range 4 {
					a.fw.put(lan, a.frame(lan, echo(alice, host, uint16(i))))
				}
			}
			a.clear()
			a.put(lan, echo(bob, trent, 9))
			return a.reached(wan, trent, packet.ICMP) == legit
		}},
	{name: "shares/restart", trick: "no attack, but as good as one: after a restart all clients ask at once, while nobody's link-layer address is known", source: "", fate: "nobody's answer is lost",
		run: func(a *arena, legit bool) bool {
			n := 230
			if legit {
				n = 20
			}
			a.is("good.example", cdn)
			for i := range n {
				m := new(dns.Msg)
				m.SetQuestion("good.example.", dns.TypeA)
				b, _ := m.Pack()
				a.fw.put(lan, a.frame(lan, udp(fmt.Sprintf("10.0.0.%d", 10+i), 3000, fwLAN, 53, string(b))))
			}
			a.run()
			got := map[string]bool{}
			for _, v := range a.seen[lan] {
				if v.proto == packet.UDP && v.sport == 53 && len(v.data) > 40 {
					got[v.dst] = true
				}
			}
			return (len(got) == n) == legit
		}},
	{name: "shares/fragments", trick: "fragments of datagrams that are never whole, until bob's have no place", source: "CVE-2018-5391 (FragmentSmack); \"rose\" 2004", fate: "the oldest of the same source gives way",
		run: func(a *arena, legit bool) bool {
			n := 400
			if legit {
				n = 10
			}
			p := udp(bob, 3333, site, 4001, strings.Repeat("x", 200))
			fs := a.fragments(lan, p, p.cut(64)...)
			a.raw(lan, fs[:2]...)
			for i := range n {
				q := udp(alice, uint16(3000+i), site, 4000, strings.Repeat("x", 200))
				a.fw.put(lan, a.fragments(lan, q, q.cut(64)[:1]...)[0])
			}
			a.run()
			a.raw(lan, fs[2:]...)
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == site && v.dport == 4001 }) == legit
		}},
	{name: "shares/fragments-forged", trick: "the same under many addresses from the WAN", source: "CVE-2018-5391 (FragmentSmack)", fate: "the oldest datagram gives way",
		run: func(a *arena, legit bool) bool {
			n := 100
			if legit {
				n = 10
			}
			p := udp(bob, 3333, site, 4001, strings.Repeat("x", 200))
			for i := range n {
				q := udp(forgedHost(i), uint16(3000+i), fwWAN, 9000, strings.Repeat("x", 200))
				a.fw.put(wan, a.fragments(wan, q, q.cut(64)[:1]...)[0])
			}
			a.run()
			a.raw(lan, a.fragments(lan, p, p.cut(64)...)...)
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == site && v.dport == 4001 }) == legit
		}},
	{name: "shares/queries-forged", trick: "thousands of forged answers to an outstanding query", source: "RFC 5452", fate: "rejected; it is asked by TCP, and others are served",
		run: func(a *arena, legit bool) bool {
			n := 3000
			if legit {
				n = 3
			}
			a.zone["www.pages.example. A"] = answer{silent: true}
			a.ask(alice, "www.pages.example", dns.TypeA)
			i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost })
			if i < 0 {
				return false
			}
			v := a.seen[wan][i]
			for i := range n {
				a.fw.put(wan, a.frame(wan, udp(dnsHost, 53, fwWAN, v.sport, string([]byte{byte(i >> 8), byte(i)})+string(v.data[2:]))))
			}
			a.run()
			a.is("good.example", cdn)
			r := a.ask(bob, "good.example", dns.TypeA)
			return (r != nil && len(r.Answer) == 1) == legit
		}},
	{name: "shares/dns-connections", trick: "alice's machine opens connections to the name server and leaves them open", source: "RFC 7766 section 6.2", fate: "at most 16 of one client",
		run: func(a *arena, legit bool) bool {
			n := 200
			if legit {
				n = 10
			}
			for range n {
				a.dial(lan, alice, fwLAN, 53)
			}
			return (a.dial(lan, bob, fwLAN, 53) != nil) == legit
		}},
	{name: "shares/dns-memory", trick: "alice's machine asks for long answers over many connections, and takes none of them: the memory of all TCP is used up", source: "CVE-2008-4609 (sockstress); Netkill 2000", fate: "streams of clients have shares; a connection without progress ends", local: "it is about the memory of the firewall's own TCP",
		run: func(a *arena, legit bool) bool {
			rounds := 3
			if legit {
				rounds = 1
			}
			long := answer{answer: slices.Repeat([]string{"@ 300 IN TXT " + strings.Repeat("x", 200)}, 200), long: true}
			a.zone["long.evil.example. TXT"], a.zone["long.good.example. TXT"] = long, long
			for range rounds {
				for range 16 {
					c := a.dial(lan, alice, fwLAN, 53)
					for i := range 4 {
						if c == nil || legit && i > 0 {
							break
						}
						p := c.data(0, overTCP("long.evil.example.", dns.TypeTXT, uint16(i)))
						p.win = 1
						c.seq += uint32(len(p.data))
						a.put(lan, p)
					}
					if legit {
						break
					}
				}
				a.pass(1100 * time.Millisecond) // within alice's rate
			}
			c := a.dial(lan, bob, fwLAN, 53)
			if c == nil {
				return !legit
			}
			m := len(a.seen[lan])
			c.say(overTCP("long.good.example.", dns.TypeTXT, 7))
			got := 0
			for range 100 { // bob takes all that comes
				for _, v := range a.seen[lan][m:] {
					if v.dst == bob && v.dport == c.sport && v.seq == c.ack {
						c.ack += uint32(len(v.data))
						got += len(v.data)
					}
				}
				m = len(a.seen[lan])
				a.put(lan, c.seg(packet.ACK, 0))
			}
			return (got > 40000) == legit
		}},
}

// overTCP is a question as it goes over TCP.
func overTCP(name string, typ, id uint16) []byte {
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.Id = id
	b, _ := m.Pack()
	return sized(2, b)
}
