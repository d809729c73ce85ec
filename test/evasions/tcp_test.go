package evasions

import (
	"slices"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
)

// What an attacker off the path knows are addresses and ports; sequence numbers
// it does not know. What a program on a LAN host may send is anything.
var tcps = slices.Concat(tcpScans, tcpBlind, tcpOdd)

// reached reports whether something has left by a side to a host.
func (a *arena) reached(s side, host string, proto uint8) bool {
	return slices.ContainsFunc(a.seen[s], func(v *view) bool { return v.dst == host && v.proto == proto })
}

// scan sends a first segment with other flags than SYN to the published server.
func scan(flags uint8) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		f := flags
		if legit {
			f = packet.SYN
		}
		a.put(wan, tcp(partner, a.next(), fwWAN, 8080, f, 1000, 0))
		return a.reached(lan, web, packet.TCP)
	}
}

// altered sends a SYN to the published server that is altered.
func altered(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		p := tcp(partner, a.next(), fwWAN, 8080, packet.SYN, 1000, 0)
		if !legit {
			f(&p)
		}
		a.put(wan, p)
		return a.reached(lan, web, packet.TCP)
	}
}

const scans = "Arkin 1999; nmap"

var tcpScans = []attack{
	{name: "tcp/ack-scan", trick: "an ACK without a connection, to see what answers", source: scans, fate: "conntrack_invalid", run: scan(packet.ACK)},
	{name: "tcp/fin-scan", trick: "a FIN without a connection", source: scans, fate: "conntrack_invalid", run: scan(packet.FIN)},
	{name: "tcp/null-scan", trick: "no flag at all", source: scans, fate: "conntrack_invalid", run: scan(0)},
	{name: "tcp/xmas-scan", trick: "FIN, PSH and URG", source: scans, fate: "conntrack_invalid", run: scan(packet.FIN | packet.PSH | urg)},
	{name: "tcp/syn-fin", trick: "SYN and FIN together: a SYN for the server, none for the filter", source: "RFC 3128; nmap", fate: "conntrack_invalid", run: scan(packet.SYN | packet.FIN)},
	{name: "tcp/syn-rst", trick: "SYN and RST together", source: "RFC 9293 section 3.10.7", fate: "conntrack_invalid", run: scan(packet.SYN | packet.RST)},
	{name: "tcp/syn-ack-first", trick: "a SYN-ACK without a SYN", source: scans, fate: "conntrack_invalid", run: scan(packet.SYN | packet.ACK)},
	{name: "tcp/rst-first", trick: "a RST without a connection", source: scans, fate: "conntrack_invalid", run: scan(packet.RST)},
	{name: "tcp/port-zero", trick: "from port 0", source: "RFC 6335 section 6", fate: "malformed_packet", run: altered(func(p *pkt) { p.sport = 0 })},
	{name: "tcp/short-offset", trick: "a header that is shorter than a header", source: "RFC 9293 section 3.1", fate: "malformed_packet", run: altered(func(p *pkt) { p.offset = 4 })},
	{name: "tcp/long-offset", trick: "a header that is longer than the packet", source: "RFC 9293 section 3.1", fate: "malformed_packet", run: altered(func(p *pkt) { p.offset = 15 })},
	{name: "tcp/checksum", trick: "a wrong checksum: the filter takes what the host will not", source: "Ptacek, Newsham 1998", fate: "malformed_packet", run: altered(func(p *pkt) { p.bad4 = true })},
	{name: "tcp/middle", trick: "a program on alice's machine begins in the middle, as if it had been connected", source: "nf_conntrack_tcp_loose", fate: "conntrack_invalid",
		run: func(a *arena, legit bool) bool {
			f := uint8(packet.ACK | packet.PSH)
			if legit {
				f = packet.SYN
			}
			a.put(lan, tcp(alice, a.next(), site, 80, f, 1000, 5000))
			return a.reached(wan, site, packet.TCP)
		}},
	{name: "tcp/middle-answer", trick: "an answer without a question, to a port that is not mapped", fate: "no_matching_allow_rule, and no entry", source: scans,
		run: func(a *arena, legit bool) bool {
			port := a.next()
			if legit {
				return a.dial(lan, alice, site, 80) != nil
			}
			a.put(wan, tcp(site, 80, fwWAN, port, packet.SYN|packet.ACK, 1000, 1))
			return a.reached(lan, alice, packet.TCP)
		}},
}

// outside is how the server's side sees the client: the firewall's address and
// a port.
func (c *client) outside() (string, uint16) {
	if s := c.server(); s != nil {
		return s.peer, s.pport
	}
	return fwWAN, 0
}

// spoof opens a connection of alice's with the site, has an attacker in the site's name
// send a segment, and reports whether alice gets it. next is the number that the site would
// send with next.
func spoof(segment func(c *client, next uint32, legit bool) pkt) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := a.dial(lan, alice, site, 80)
		if c == nil || !c.works() {
			return false
		}
		p := segment(c, c.ack, legit)
		p.src, p.proto = site, packet.TCP
		if p.sport == 0 {
			p.sport = 80
		}
		p.dst, p.dport = c.outside()
		n := len(a.seen[lan])
		a.put(wan, p)
		return slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.dst == alice && v.proto == packet.TCP })
	}
}

// resets opens a connection, has a RST come for it, and reports whether it is
// over once the entry of a reset connection has had its time.
func resets(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := a.dial(lan, alice, site, 80)
		if c == nil || !c.works() {
			return false
		}
		p := tcp(site, 80, "", 0, packet.RST, c.ack, 0)
		p.dst, p.dport = c.outside()
		if !legit {
			f(&p)
		}
		a.put(wan, p)
		a.pass(250 * time.Second)
		return !c.works()
	}
}

var tcpBlind = []attack{
	{name: "tcp/blind-reset", trick: "a RST with a number far off", source: "Watson 2004; RFC 5961 section 3", fate: "conntrack_invalid",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			if !legit {
				next += 1 << 30
			}
			return pkt{flags: packet.RST, seq: next}
		})},
	{name: "tcp/blind-reset-in-window", trick: "a RST with a number in the window, but not the next", source: "Watson 2004; RFC 5961 section 3.2", fate: "passes, so that the host can challenge it, and ends nothing", local: "it takes the four minutes of a reset entry",
		run: resets(func(p *pkt) { p.seq += 1000 })},
	{name: "tcp/blind-reset-checksum", trick: "the right RST with a wrong checksum: the firewall forgets what goes on", source: "Ptacek, Newsham 1998", fate: "malformed_packet", local: "it takes the four minutes of a reset entry",
		run: resets(func(p *pkt) { p.bad4 = true })},
	{name: "tcp/blind-fin", trick: "a FIN with a number far off", source: "RFC 5961", fate: "conntrack_invalid",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			if !legit {
				next += 1 << 30
			}
			return pkt{flags: packet.FIN | packet.ACK, seq: next, ack: c.seq}
		})},
	{name: "tcp/blind-data", trick: "data with a number outside the window", source: "RFC 5961 section 5", fate: "conntrack_invalid",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			if !legit {
				next += 1 << 20
			}
			return pkt{flags: packet.ACK, seq: next, ack: c.seq, data: []byte("forged")}
		})},
	{name: "tcp/blind-data-old", trick: "data with a number from long ago", source: "RFC 5961 section 5", fate: "conntrack_invalid",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			if !legit {
				next -= 1 << 20
			}
			return pkt{flags: packet.ACK, seq: next, ack: c.seq, data: []byte("forged")}
		})},
	{name: "tcp/blind-ack", trick: "data in the window that acknowledges what was never sent", source: "RFC 5961 section 5", fate: "conntrack_invalid",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			ack := c.seq
			if !legit {
				ack += 1 << 20
			}
			return pkt{flags: packet.ACK, seq: next, ack: ack, data: []byte("forged")}
		})},
	{name: "tcp/other-port", trick: "the right numbers, but from another port of the server", source: "RFC 4787 section 5 (filtering)", fate: "no_matching_allow_rule",
		run: spoof(func(c *client, next uint32, legit bool) pkt {
			p := pkt{flags: packet.ACK, seq: next, ack: c.seq, data: []byte("data")}
			if !legit {
				p.sport = 81
			}
			return p
		})},
	{name: "tcp/third-party", trick: "a third host sends to the mapped port", source: "RFC 4787 section 5 (filtering)", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			host, port := c.outside()
			from := partner
			if legit {
				from = site
			}
			n := len(a.seen[lan])
			a.put(wan, tcp(from, 80, host, port, packet.ACK, c.ack, c.seq, 'x'))
			return len(a.seen[lan]) > n
		}},
	{name: "tcp/blind-syn", trick: "a SYN in the server's name inside an open connection, to have the entry begin anew", source: "RFC 5961 section 4", fate: "passes, so that the host can challenge it, and changes nothing",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil || !c.works() {
				return false
			}
			if legit { // alice herself begins anew, behind a reset
				a.put(lan, c.seg(packet.RST|packet.ACK, 0))
				d := a.dialFrom(lan, alice, c.sport, site, 80, 700000, nil)
				return d != nil && d.works()
			}
			host, port := c.outside()
			a.put(wan, tcp(site, 80, host, port, packet.SYN, 123456789, 0))
			return !c.works()
		}},
	{name: "tcp/blind-handshake", trick: "mallory, who does not see the answer, completes a handshake in a partner's name with a number that it guesses", source: "Morris 1985; RFC 6528", fate: "conntrack_invalid",
		run: func(a *arena, legit bool) bool {
			port := a.next()
			a.put(wan, tcp(partner, port, fwWAN, 8080, packet.SYN, 1000, 0))
			i := slices.IndexFunc(a.seen[wan], func(v *view) bool {
				return v.dst == partner && v.dport == port && v.flags == packet.SYN|packet.ACK
			})
			if i < 0 {
				return false
			}
			ack := a.seen[wan][i].seq + 1
			if !legit {
				ack += 77
			}
			n := len(a.seen[lan])
			a.put(wan, tcp(partner, port, fwWAN, 8080, packet.ACK|packet.PSH, 1001, ack, []byte("GET /")...))
			return slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.dst == web && len(v.data) > 0 })
		}},
}

var tcpOdd = []attack{
	{name: "tcp/slipstream", trick: "a web page has alice's browser send what looks like FTP's PORT or SIP's REGISTER, and a gateway for that protocol opens the port", source: "Kamkar 2020 (NAT slipstreaming)", fate: "no protocol opens anything: no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			c.say([]byte("PORT 10,0,0,2,31,144\r\n"))
			c.say([]byte("REGISTER sip:198.51.100.80 SIP/2.0\r\nContact: <sip:alice@10.0.0.2:8080>\r\n\r\n"))
			n := len(a.seen[lan])
			if legit {
				c.server().says(a.ends[wan], "200 OK\r\n")
			} else {
				for _, port := range []uint16{8080, 31<<8 + 144, 5060} {
					a.put(wan, tcp(site, a.next(), fwWAN, port, packet.SYN, 1000, 0))
				}
			}
			return slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.dst == alice })
		}},
	{name: "tcp/unasked-inside", trick: "the server that alice is connected with connects back to her port", source: "RFC 5382 REQ-3", fate: "no_matching_allow_rule, or as an old SYN of the connection: without effect",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			host, port := c.outside()
			n := len(a.seen[lan])
			if legit {
				a.put(wan, tcp(site, 80, host, port, packet.ACK, c.ack, c.seq, 'x'))
			} else {
				a.put(wan, tcp(site, a.next(), host, port, packet.SYN, 1000, 0))
			}
			return len(a.seen[lan]) > n
		}},
	{name: "tcp/after-end", trick: "data of the server when the connection is over and its time, too", source: "RFC 7857 section 2", fate: "conntrack_invalid", local: "it takes four minutes",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			a.put(lan, c.seg(packet.RST|packet.ACK, 0))
			if !legit {
				a.pass(250 * time.Second)
			}
			host, port := c.outside()
			n := len(a.seen[lan])
			a.put(wan, tcp(site, 80, host, port, packet.ACK, c.ack, c.seq, 'x'))
			return len(a.seen[lan]) > n
		}},
	{name: "tcp/old-segment", trick: "a segment that lies wholly before the window, which the other end has long had", source: "RFC 9293 section 3.10.7.4", fate: "conntrack_invalid; one that begins there and ends in the window passes",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil {
				return false
			}
			for range 58 {
				c.say(make([]byte, 1400))
			}
			off := -70000
			if legit {
				off = -66500
			}
			n := len(a.seen[wan])
			a.put(lan, c.data(off, make([]byte, 1400)))
			return len(a.seen[wan]) > n
		}},
	{name: "tcp/refused-reconnect", trick: "both ends have forgotten a connection, and alice begins anew from the same port: mallory refuses in the server's name, with a number that it guesses", source: "RFC 9293 section 3.5.2; RFC 5961 section 3", fate: "conntrack_invalid; the server's own refusal, which acknowledges the SYN exactly, reaches alice",
		run: func(a *arena, legit bool) bool {
			c := a.dial(lan, alice, site, 80)
			if c == nil || !c.works() {
				return false
			}
			host, port := c.outside()
			a.away[site] = true
			a.put(lan, tcp(alice, c.sport, site, 80, packet.SYN, 5000000, 0))
			ack := uint32(5000001)
			if !legit {
				ack += 4321
			}
			n := len(a.seen[lan])
			a.put(wan, tcp(site, 80, host, port, packet.RST|packet.ACK, 0, ack))
			return len(a.seen[lan]) > n
		}},
	{name: "tcp/two-answers", trick: "the server answers alice's SYN twice, with different numbers; what she sends acknowledges neither", source: "RFC 4987 section 3.6; RFC 9293 section 3.10.7.4", fate: "conntrack_invalid; each that was sent on may be acknowledged",
		run: func(a *arena, legit bool) bool {
			a.away[site] = true
			port := a.next()
			a.put(lan, tcp(alice, port, site, 80, packet.SYN, 1000, 0))
			if len(a.seen[wan]) == 0 {
				return false
			}
			out := a.seen[wan][len(a.seen[wan])-1]
			a.put(wan, tcp(site, 80, out.src, out.sport, packet.SYN|packet.ACK, 50000, 1001))
			a.put(wan, tcp(site, 80, out.src, out.sport, packet.SYN|packet.ACK, 90000, 1001))
			ack := uint32(50001)
			if !legit {
				ack = 70001
			}
			n := len(a.seen[wan])
			a.put(lan, tcp(alice, port, site, 80, packet.ACK, 1001, ack))
			return len(a.seen[wan]) > n
		}},
	{name: "tcp/denied-syn", trick: "a connection has been reset, with data still under way; a SYN in the server's name, which the policy denies, has the entry forgotten and the data lost", source: "RFC 7857 section 2.2", fate: "a SYN is judged first, and replaces the entry after", run: lost(func(host string, port uint16) pkt {
		return tcp(site, 80, host, port, packet.SYN, 77, 0)
	}, wan)},
	{name: "tcp/late-syn", trick: "the same with a late repetition of alice's own first SYN", source: "RFC 7857 section 2.2; RFC 9293 section 3.10.7.4", fate: "an old SYN changes nothing", run: lost(nil, lan)},
}

// lost opens a connection, which alice resets while data of the server's is
// under way, then has a SYN come by a side, and reports whether the data, which
// for the twin no SYN precedes, does not arrive; or for the twin whether it does.
func lost(syn func(host string, port uint16) pkt, s side) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := a.dial(lan, alice, site, 80)
		if c == nil || !c.works() {
			return !legit
		}
		host, port := c.outside()
		a.put(lan, c.seg(packet.RST|packet.ACK, 0))
		a.away[site] = true
		if !legit {
			p := tcp(alice, c.sport, site, 80, packet.SYN, 1000, 0)
			if syn != nil {
				p = syn(host, port)
			}
			a.put(s, p)
		}
		n := len(a.seen[lan])
		a.put(wan, tcp(site, 80, host, port, packet.ACK, c.ack, c.seq, []byte("under way")...))
		arrives := slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.dst == alice && string(v.data) == "under way" })
		return arrives == legit
	}
}
