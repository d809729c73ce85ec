package evasions

import (
	"bytes"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Behind the address cdn lie good.example, which alice may reach, and
// evil.example, which she may not; she has resolved both. The attacker's program
// on her machine wants the server there to read evil.example. Where the trick is
// one of two messages, the first is for good.example, and the twin's second is,
// too.
var hellos = slices.Concat(helloSegments, helloMessages, helloOthers)

// target is the name that is to be read.
func target(legit bool) string {
	if legit {
		return "good.example"
	}
	return "evil.example"
}

// behindOne has alice resolve both names, with TCP options of the connection
// that she then opens.
func behindOne(a *arena, opts ...byte) *client {
	a.learns(alice, "good.example", cdn)
	a.learns(alice, "evil.example", cdn)
	return a.dialFrom(lan, alice, a.next(), cdn, 443, 1000, opts)
}

// decoy sends, in an open connection, a first message for good.example that is
// altered by f so that the server does not take it, and then the one that
// counts, at the same place.
func decoy(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := behindOne(a)
		if c == nil {
			return false
		}
		p := c.data(0, hello("good.example"))
		f(&p)
		a.put(lan, p)
		a.put(lan, c.data(0, hello(target(legit))))
		return c.reached(target(legit))
	}
}

const helloFate = "once a first message has been let through, and until the server has acknowledged it, only the same bytes pass in its place"

var helloSegments = []attack{
	{name: "hello/plain", trick: "simply evil.example", fate: "sni_refused, both ends get a RST", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			c.say(hello(target(legit)))
			return c.reached(target(legit))
		}},
	{name: "hello/syn-data", trick: "the message for good.example in a SYN inside the open connection", source: "Bock et al. 2019 (Geneva)", fate: "a segment with SYN has no data while the name is not known", squid: true,
		run: decoy(func(p *pkt) { p.flags = packet.SYN; p.seq-- })},
	{name: "hello/syn-data-at-place", trick: "the same, with the message's own number", source: "Bock et al. 2019 (Geneva)", fate: "a segment with SYN has no data while the name is not known", squid: true,
		run: decoy(func(p *pkt) { p.flags = packet.SYN })},
	{name: "hello/syn-ack-data", trick: "the same in a SYN-ACK", source: "Wang et al. 2020 (SymTCP)", fate: "a segment with SYN has no data while the name is not known", squid: true,
		run: decoy(func(p *pkt) { p.flags = packet.SYN | packet.ACK })},
	{name: "hello/rst-data", trick: "the message for good.example in a RST whose TTL ends on the way", source: "Wang et al. 2017 (INTANG)", fate: "a segment with RST has no data while the name is not known", squid: true,
		run: decoy(func(p *pkt) { p.flags, p.ttl = packet.RST|packet.ACK, 3 })},
	{name: "hello/low-ttl", trick: "the message for good.example with a TTL that ends on the way", source: "Ptacek, Newsham 1998; lib·erate 2017", fate: helloFate, squid: true,
		run: decoy(func(p *pkt) { p.ttl = 3 })},
	{name: "hello/ttl-of-one", trick: "the same with a TTL that ends in the firewall", source: "Ptacek, Newsham 1998", fate: "ttl_expired, not read", squid: true,
		run: decoy(func(p *pkt) { p.ttl = 1 })},
	{name: "hello/checksum", trick: "the message for good.example with a wrong TCP checksum", source: "Ptacek, Newsham 1998", fate: "malformed_packet", squid: true,
		run: decoy(func(p *pkt) { p.bad4 = true })},
	{name: "hello/ip-checksum", trick: "the message for good.example with a wrong IP checksum", source: "Ptacek, Newsham 1998", fate: "malformed_packet", squid: true,
		run: decoy(func(p *pkt) { p.badIP = true })},
	{name: "hello/no-ack", trick: "the message for good.example without the flag ACK", source: "Wang et al. 2017 (INTANG)", fate: "conntrack_invalid", squid: true,
		run: decoy(func(p *pkt) { p.flags = packet.PSH })},
	{name: "hello/wrong-ack", trick: "the message for good.example acknowledges what was never sent", source: "RFC 5961 section 5; Wang et al. 2020 (SymTCP)", fate: "conntrack_invalid", squid: true,
		run: decoy(func(p *pkt) { p.ack += 300000 })},
	{name: "hello/old-ack", trick: "the message for good.example acknowledges what is from before the connection", source: "RFC 5961 section 5; Wang et al. 2020 (SymTCP)", fate: "as for a message that was lost: only the same bytes pass", squid: true,
		run: decoy(func(p *pkt) { p.ack -= 300 })},
	{name: "hello/md5", trick: "the message for good.example with an MD5 signature that the server did not ask for", source: "RFC 2385; Wang et al. 2017 (INTANG)", fate: helloFate, squid: true,
		run: decoy(func(p *pkt) { p.opts = append([]byte{19, 18}, make([]byte, 18)...) })},
	{name: "hello/old-timestamp", trick: "the message for good.example with a timestamp that the server finds old (PAWS)", source: "RFC 7323 section 5; Wang et al. 2017 (INTANG)", fate: helloFate, squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a, stampOption(2000, 0)...)
			if c == nil {
				return false
			}
			p := c.data(0, hello("good.example"))
			p.opts = stampOption(1000, c.echo)
			a.put(lan, p)
			a.put(lan, c.data(0, hello(target(legit))))
			return c.reached(target(legit))
		}},
	{name: "hello/urgent-byte", trick: "the first byte of the connection is urgent data, and the message for good.example that the firewall reads is broken for the server", source: "RFC 6093", fate: "no urgent pointer passes while the name is not known", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			p := c.data(0, hello("good.example"))
			if !legit {
				p.flags, p.urgent = p.flags|urg, 1
			}
			a.put(lan, p)
			s := c.server()
			if legit {
				return s != nil && reads(s.data) == "good.example"
			}
			return s != nil && len(s.data) > 0 && reads(s.data) != "good.example" // another stream than was judged
		}},
	{name: "hello/overlap", trick: "half of the message for good.example, then all of one for evil.example from the beginning", source: "Ptacek, Newsham 1998", fate: "a repetition of what is held is not read", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			g, h := hello("good.example"), hello(target(legit))
			a.put(lan, c.data(0, g[:40]))
			a.put(lan, c.data(0, h))
			a.put(lan, c.data(40, h[40:]))
			return c.reached(target(legit))
		}},
	{name: "hello/reordered", trick: "the end of the message first, and the beginning last", source: "fragroute (Song 1999)", fate: "read in the order of the stream", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			for range 2 { // what is out of order may have to be sent again
				a.put(lan, c.data(100, h[100:]))
				a.put(lan, c.data(0, h[:100]))
			}
			a.put(lan, c.data(100, h[100:]))
			return c.reached(target(legit))
		}},
	{name: "hello/segments", trick: "the name is cut in two by the border of segments", source: "lib·erate 2017; GoodbyeDPI", fate: "read in the order of the stream", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			at := bytes.Index(h, []byte(target(legit))) + 3
			c.say(h[:at])
			c.say(h[at:])
			return c.reached(target(legit))
		}},
	{name: "hello/bytes", trick: "the message in segments of one byte", source: "Ptacek, Newsham 1998; fragroute", fate: "refused when it takes more segments than are held", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			if legit {
				c.say(h)
			} else {
				var fs [][]byte
				for i := range h {
					fs = append(fs, a.frame(lan, c.data(i, h[i:i+1])))
				}
				a.raw(lan, fs...)
			}
			return c.reached(target(legit))
		}},
	{name: "hello/shifted", trick: "the message for evil.example begins one byte before the connection does", source: "Wang et al. 2020 (SymTCP)", fate: "nothing before the beginning is read", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			if legit {
				a.put(lan, c.data(0, h))
			} else {
				a.put(lan, c.data(-1, append([]byte{22}, h...)))
			}
			return c.reached(target(legit))
		}},
	{name: "hello/in-syn", trick: "the message for evil.example in the first SYN, to a server with fast open", source: "RFC 7413", fate: "sni_refused", squid: true,
		run: func(a *arena, legit bool) bool {
			a.ends[wan].synData = true
			a.learns(alice, "good.example", cdn)
			a.learns(alice, "evil.example", cdn)
			c := &client{a: a, side: lan, src: alice, sport: a.next(), dst: cdn, dport: 443, seq: 1001}
			if legit {
				c = a.dial(lan, alice, cdn, 443)
				c.say(hello("good.example"))
			} else {
				a.put(lan, tcp(alice, c.sport, cdn, 443, packet.SYN, 1000, 0, hello("evil.example")...))
			}
			return c.reached(target(legit))
		}},
	{name: "hello/syn-again", trick: "the first SYN again, now with the message for evil.example in it", source: "RFC 7413", fate: "a segment with SYN has no data while the name is not known", squid: true,
		run: func(a *arena, legit bool) bool {
			a.ends[wan].synData = true
			a.learns(alice, "good.example", cdn)
			a.learns(alice, "evil.example", cdn)
			c := &client{a: a, side: lan, src: alice, sport: a.next(), dst: cdn, dport: 443, seq: 1001}
			a.away[cdn] = true // the first SYN gets lost
			a.put(lan, tcp(alice, c.sport, cdn, 443, packet.SYN, 1000, 0))
			delete(a.away, cdn)
			p := tcp(alice, c.sport, cdn, 443, packet.SYN, 1000, 0)
			if !legit {
				p.data = hello("evil.example")
			}
			a.put(lan, p)
			if legit {
				if v := c.heard(0, packet.SYN|packet.ACK); v != nil {
					c.ack = v.seq + 1
					a.put(lan, c.seg(packet.ACK, 0))
					c.say(hello("good.example"))
				}
			}
			return c.reached(target(legit))
		}},
	{name: "hello/in-ack", trick: "the message for evil.example in the handshake's last segment", source: "RFC 9293 section 3.5", fate: "held and read as any other", squid: true,
		run: func(a *arena, legit bool) bool {
			a.learns(alice, "good.example", cdn)
			a.learns(alice, "evil.example", cdn)
			c := a.half(lan, alice, a.next(), cdn, 443, 1000, nil)
			if c == nil {
				return false
			}
			a.put(lan, c.data(0, hello(target(legit))))
			return c.reached(target(legit))
		}},
	{name: "hello/fin", trick: "the message for evil.example with a FIN", source: "Bock et al. 2019 (Geneva)", fate: "held and read as any other", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			p := c.data(0, hello(target(legit)))
			p.flags |= packet.FIN
			a.put(lan, p)
			return c.reached(target(legit))
		}},
	{name: "hello/false-end", trick: "a FIN with a small TTL, so that the firewall alone thinks that the connection is over", source: "Khattak et al. 2013; Wang et al. 2017 (INTANG)", fate: "data is read as before", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			if !legit { // for the twin there is nothing to be gained by it, and the end is the end
				p := c.seg(packet.FIN|packet.ACK, 0)
				p.ttl = 3
				a.put(lan, p)
			}
			a.put(lan, c.data(0, hello(target(legit))))
			return c.reached(target(legit))
		}},
	{name: "hello/false-reset", trick: "a RST with a small TTL, so that the firewall alone forgets the connection", source: "Khattak et al. 2013; Wang et al. 2017 (INTANG)", fate: "nothing is picked up in the middle", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			if !legit {
				p := c.seg(packet.RST, 0)
				p.ttl = 3
				a.put(lan, p)
			}
			a.put(lan, c.data(0, hello(target(legit))))
			return c.reached(target(legit))
		}},
	{name: "hello/wrapped", trick: "sequence numbers that wrap around inside the message", source: "RFC 9293 section 3.4", fate: "held and read as any other", squid: true,
		run: func(a *arena, legit bool) bool {
			a.learns(alice, "good.example", cdn)
			a.learns(alice, "evil.example", cdn)
			c := a.dialFrom(lan, alice, a.next(), cdn, 443, 0xffffffff-50, nil)
			if c == nil {
				return false
			}
			h := hello(target(legit))
			c.say(h[:120])
			c.say(h[120:])
			return c.reached(target(legit))
		}},
	{name: "hello/split-handshake", trick: "a server that is in league answers the SYN with a SYN, so that client and server change places", source: "Beardsley, Qian 2010 (TCP split handshake)", fate: "conntrack_invalid", squid: true,
		run: func(a *arena, legit bool) bool {
			a.ends[wan].split = !legit
			if legit {
				c := behindOne(a)
				c.say(hello("good.example"))
				return c.reached("good.example")
			}
			a.learns(alice, "good.example", cdn)
			c := &client{a: a, side: lan, src: alice, sport: a.next(), dst: cdn, dport: 443, seq: 1001}
			a.put(lan, tcp(alice, c.sport, cdn, 443, packet.SYN, 1000, 0))
			iss := a.ends[wan].isn
			a.put(lan, tcp(alice, c.sport, cdn, 443, packet.SYN|packet.ACK, 1000, iss+1))
			c.ack = iss + 1
			c.say(hello("evil.example"))
			return c.reached("evil.example")
		}},
	{name: "hello/ip-fragments", trick: "the message in IP fragments that cut the name in two", source: "fragroute (Song 1999)", fate: "put together first", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			p := c.data(0, hello(target(legit)))
			a.raw(lan, a.fragments(lan, p, p.cut(96)...)...)
			return c.reached(target(legit))
		}},
	{name: "hello/ip-overlap", trick: "IP fragments that overlap: good.example for who keeps the first, evil.example for who keeps the last", source: "Ptacek, Newsham 1998; RFC 5722", fate: "fragmented_ipv4, the datagram is poisoned", squid: true,
		run: func(a *arena, legit bool) bool {
			c := behindOne(a)
			if c == nil {
				return false
			}
			p, q := c.data(0, hello(target(legit))), c.data(0, hello("good.example"))
			ps := p.cut(96)
			if !legit {
				ps = slices.Concat(q.cut(96)[:len(ps)-1], ps)
			}
			a.raw(lan, a.fragments(lan, p, ps...)...)
			return c.reached(target(legit))
		}},
}
