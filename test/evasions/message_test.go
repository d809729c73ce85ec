package evasions

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// first sends a first message that is written by hand, in an open connection.
func first(bad, good func() []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := behindOne(a)
		if c == nil {
			return false
		}
		if legit {
			c.say(good())
		} else {
			c.say(bad())
		}
		return c.reached(target(legit))
	}
}

var helloMessages = []attack{
	{name: "hello/records", trick: "the message divided into TLS records, a few bytes each", source: "RFC 8446 section 5.1; Niere et al. 2023", fate: "read across records", squid: true,
		run: first(func() []byte { return records(hello("evil.example"), 20) }, func() []byte { return records(hello("good.example"), 20) })},
	{name: "hello/alert-first", trick: "a warning first, then the message for evil.example", source: "lib·erate 2017 (inert message)", fate: "sni_refused: no handshake message", squid: true,
		run: first(func() []byte { return append(record(21, []byte{1, 0}), hello("evil.example")...) }, func() []byte { return hello("good.example") })},
	{name: "hello/second-record", trick: "a change of ciphers first, then the message for evil.example", source: "RFC 8446 section 5", fate: "sni_refused: no handshake message", squid: true,
		run: first(func() []byte { return append(record(20, []byte{1}), hello("evil.example")...) }, func() []byte { return hello("good.example") })},
	{name: "hello/empty-record", trick: "an empty record first", source: "RFC 8446 section 5.1", fate: "sni_refused", squid: true,
		run: first(func() []byte { return append(record(22, nil), hello("evil.example")...) }, func() []byte { return hello("good.example") })},
	{name: "hello/two-names", trick: "a list of two names, good.example first", source: "RFC 6066 section 3", fate: "sni_refused: a list has one host name", squid: true,
		run: first(func() []byte { return built(sni(0, "good.example", "evil.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/two-names-turned", trick: "a list of two names, evil.example first", source: "RFC 6066 section 3", fate: "sni_refused: a list has one host name", squid: true,
		run: first(func() []byte { return built(sni(0, "evil.example", "good.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/two-extensions", trick: "the extension twice, with one name each", source: "RFC 8446 section 4.2", fate: "sni_refused", squid: true,
		run: first(func() []byte { return built(sni(0, "good.example"), sni(0, "evil.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/two-extensions-turned", trick: "the same, evil.example first", source: "RFC 8446 section 4.2", fate: "sni_refused", squid: true,
		run: first(func() []byte { return built(sni(0, "evil.example"), sni(0, "good.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/other-name-type", trick: "evil.example as a name of a type that is no host name", source: "RFC 6066 section 3", fate: "sni_refused", squid: true,
		run: first(func() []byte { return built(sni(7, "evil.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/nul", trick: "a zero byte in the name: good.example, 0, .evil.example", source: "Marlinspike 2009", fate: "sni_refused: names are compared whole", squid: true,
		run: first(func() []byte { return built(sni(0, "good.example\x00.evil.example")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/suffix", trick: "good.example.evil.example", source: "CWE-1023", fate: "sni_refused: names are compared whole", squid: true,
		run: first(func() []byte { return hello("good.example.evil.example") }, func() []byte { return hello("good.example") })},
	{name: "hello/dot", trick: "a dot behind the name: evil.example.", source: "RFC 6066 section 3", fate: "sni_refused", squid: true,
		run: first(func() []byte { return built(sni(0, "evil.example.")) }, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/case", trick: "EVIL.example", source: "RFC 4343", fate: "sni_refused; case is ignored, also for what is allowed", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			n := "EVIL.example"
			if legit {
				n = "GOOD.example"
			}
			c.say(built(sni(0, n)))
			return c.reached(n)
		}},
	{name: "hello/bad-length", trick: "the length of the list says that nothing is in it, the name's own says otherwise", source: "RFC 6066 section 3", fate: "sni_refused", squid: true,
		run: first(func() []byte {
			e := sni(0, "evil.example")
			e.data[0], e.data[1] = 0, 0
			return built(e, sni(0, "good.example"))
		}, func() []byte { return built(sni(0, "good.example")) })},
	{name: "hello/long", trick: "a message that is longer than what is looked at, the name at its end", source: "Niere et al. 2025", fate: "sni_refused: longer than any first message needs to be", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			b := built(extension{21, make([]byte, 12000)}, sni(0, target(legit)))
			if legit {
				b = built(extension{21, make([]byte, 500)}, sni(0, target(legit)))
			}
			for p := range slices.Chunk(b, 1200) {
				c.say(p)
			}
			return c.reached(target(legit))
		}},
	{name: "hello/slow", trick: "a message that never ends, so that what is held must go on some time", source: "Slowloris 2009", fate: "RST after 10 seconds", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			c.say(h[:len(h)-1])
			if !legit {
				a.pass(12 * time.Second)
			}
			c.say(h[len(h)-1:])
			return c.reached(target(legit))
		}},
	{name: "hello/sslv2", trick: "a first message of SSL 2, which has no name", source: "RFC 6101 appendix E", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			b := append([]byte{0x80, 46, 1, 3, 3, 0, 21, 0, 0, 0, 16}, make([]byte, 37)...)
			if legit {
				b = hello("good.example")
			}
			c.say(b)
			s := c.server()
			return s != nil && len(s.data) > 0
		}},
	{name: "hello/none", trick: "a message without a server name", source: "RFC 6066 section 3", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			if legit {
				c.say(built(sni(0, "good.example")))
			} else {
				c.say(built())
			}
			s := c.server()
			return s != nil && len(s.data) > 0
		}},
	{name: "hello/address", trick: "the server's address in place of its name", source: "RFC 6066 section 3", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			name := cdn
			if legit {
				name = "good.example"
			}
			c.say(built(sni(0, name)))
			return c.reached(name)
		}},
	{name: "hello/not-tls", trick: "no TLS at all: HTTP with a Host of good.example", source: "", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			b := []byte("GET / HTTP/1.1\r\nHost: good.example\r\n\r\n")
			if legit {
				b = hello("good.example")
			}
			c.say(b)
			s := c.server()
			return s != nil && len(s.data) > 0
		}},
	{name: "hello/ssh", trick: "no TLS at all: a tunnel over SSH to port 443", source: "RFC 4253", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			b := []byte("SSH-2.0-OpenSSH_9.2\r\n")
			if legit {
				b = hello("good.example")
			}
			c.say(b)
			s := c.server()
			return s != nil && len(s.data) > 0
		}},
}

var helloOthers = []attack{
	{name: "hello/borrowed-name", trick: "good.example as the name, at the attacker's own address", source: "Frolov, Wustrow 2019; Geneva", fate: "the address must be one that this client has resolved for that name", squid: true,
		run: func(a *arena, legit bool) bool {
			addr := stolen
			if legit {
				addr = cdn
			}
			a.learns(alice, "good.example", cdn)
			a.learns(alice, "evil.example", stolen)
			c := a.dial(lan, alice, addr, 443)
			if c == nil {
				return false
			}
			c.say(hello("good.example"))
			return c.reached("good.example")
		}},
	{name: "hello/name-of-other", trick: "a name that only bob has resolved, at an address that alice knows by another", source: "", fate: "names are learned for each client by itself",
		run: func(a *arena, legit bool) bool {
			who := bob
			if legit {
				who = alice
			}
			a.learns(alice, "good.example", cdn)
			a.learns(who, "www.pages.example", cdn)
			c := a.dial(lan, alice, cdn, 443)
			if c == nil {
				return false
			}
			c.say(hello("www.pages.example"))
			return c.reached("www.pages.example")
		}},
	{name: "hello/quic", trick: "QUIC, whose first message is not looked at", source: "RFC 9000", fate: "no_matching_allow_rule: such rules are for TCP", squid: true,
		run: func(a *arena, legit bool) bool {
			a.learns(alice, "good.example", cdn)
			if legit {
				return a.connects(alice, cdn, 443)
			}
			return len(a.put(lan, udp(alice, a.next(), cdn, 443, strings.Repeat("\xc0", 1200)))) > 0
		}},
	{name: "hello/ech-outer", trick: "an Encrypted Client Hello with a visible name that alice has not resolved", source: "RFC 9849", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			name := "public.example"
			if legit {
				name = "good.example"
			}
			c.say(built(sni(0, name), ech))
			return c.reached(name)
		}},
	{name: "hello/server-first", trick: "a server that is in league sends first, to move the firewall's idea of who asks", source: "Bock et al. 2020 (server-side Geneva)", fate: "what the client says is held all the same", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			if s := c.server(); s != nil {
				s.says(a.ends[wan], "220 hello\r\n")
				c.ack += 11
			}
			c.say(hello(target(legit)))
			return c.reached(target(legit))
		}},
	{name: "hello/reuse", trick: "an accepted connection is reset, and another is begun from the same port for evil.example", source: "", fate: "a new connection is judged anew", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			c.say(hello("good.example"))
			a.put(lan, c.seg(packet.RST|packet.ACK, 0))
			d := a.dialFrom(lan, alice, c.sport, cdn, 443, 900000, nil)
			if d == nil {
				return false
			}
			d.say(hello(target(legit)))
			if legit {
				s := d.server()
				return s != nil && reads(s.data) == "good.example"
			}
			return d.reached("evil.example")
		}},
	{name: "hello/blocked-hint", trick: "the parameter ech of a service binding, so that the name is hidden", source: "RFC 9848", fate: "see hello/ech-outer: what is visible must be allowed",
		run: func(a *arena, legit bool) bool {
			a.zone["good.example. HTTPS"] = answer{answer: []string{"@ 300 IN HTTPS 1 . ipv4hint=" + cdn}}
			a.ask(alice, "good.example", dns.TypeHTTPS)
			c := a.dial(lan, alice, cdn, 443)
			if c == nil {
				return false
			}
			name := "cloud.example"
			if legit {
				name = "good.example"
			}
			c.say(built(sni(0, name), ech))
			return c.reached(name)
		}},
	{name: "hello/ticket", trick: "a session ticket of evil.example in the message for good.example, to go on with that session", source: "RFC 8446 section 4.6.1; RFC 6066 section 3", fate: "not seen", squid: true, open: "the ticket is the server's, who must check that the names agree",
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			if legit {
				c.say(built(sni(0, "good.example")))
			} else {
				c.say(built(sni(0, "good.example"), extension{35, []byte("a ticket, for whom nobody can see")}))
			}
			return c.reached("good.example")
		}},
	{name: "hello/fronting", trick: "inside the encrypted connection for good.example another host of the same server is asked for (domain fronting, connection coalescing)", source: "Fifield et al. 2015; RFC 9113 section 9.1.1",
		fate: "not seen", squid: true, open: "what is encrypted only its ends can read: the server must refuse it (RFC 9110 section 7.4, 421)",
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			c.say(hello("good.example"))
			s := c.server()
			if s == nil {
				return false
			}
			n := len(s.data)
			c.say(record(23, []byte("for good.example, or another: who can tell?")))
			return len(s.data) > n
		}},
}
