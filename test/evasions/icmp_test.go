package evasions

import (
	"encoding/binary"
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// quoting is an ICMP error of the gateway's about the client's last segment, as
// it left the firewall; f may alter the quoted segment.
func quoting(c *client, f func(q *pkt)) pkt {
	host, port := c.outside()
	q := tcp(host, port, c.dst, c.dport, packet.ACK, c.seq, c.ack)
	if f != nil {
		f(&q)
	}
	return icmp(gateway, host, packet.Unreachable, packet.HostUnreachable, 0, q.network(q.transport())[:28])
}

// error sends an ICMP error about a connection of alice's, altered by f, and
// reports whether she gets it.
func icmpError(f func(c *client, p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		c := a.dial(lan, alice, site, 80)
		if c == nil {
			return false
		}
		p := quoting(c, nil)
		if !legit {
			f(c, &p)
		}
		n := len(a.seen[lan])
		a.put(wan, p)
		return slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.proto == packet.ICMP })
	}
}

// message sends another ICMP message than a ping from the WAN to the published
// server's address, or from the LAN; for the twin it is a ping of alice's.
func message(s side, typ, code uint8) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		if legit {
			a.put(lan, echo(alice, site, a.next()))
			return a.reached(wan, site, packet.ICMP)
		}
		if s == lan {
			a.put(lan, icmp(alice, site, typ, code, 0, make([]byte, 40)))
			return len(a.seen[wan]) > 0
		}
		for _, to := range []string{fwWAN, alice, web} {
			a.put(wan, icmp(gateway, to, typ, code, 0, make([]byte, 40)))
		}
		return len(a.seen[lan]) > 0 || slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP })
	}
}

var icmps = []attack{
	{name: "icmp/blind-error", trick: "an error that quotes a segment with a number that is not under way, to end a connection or to make its segments small", source: "RFC 5927 section 4.1; CVE-2004-0790", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) { *p = quoting(c, func(q *pkt) { q.seq += 1 << 30 }) })},
	{name: "icmp/blind-mtu", trick: "fragmentation needed, with an MTU of 68, about such a segment", source: "RFC 5927 section 7; CVE-2004-1060", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) {
			*p = quoting(c, func(q *pkt) { q.seq -= 1 << 30 })
			p.code, p.rest = packet.FragNeeded, 68
		})},
	{name: "icmp/error-of-none", trick: "an error about a connection that there is not", source: "RFC 5508 REQ-4", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) { *p = quoting(c, func(q *pkt) { q.sport += 7 }) })},
	{name: "icmp/error-to-other", trick: "an error that is sent to another address than whom the quoted packet came from", source: "RFC 5508 REQ-4", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) { p.dst = web })},
	{name: "icmp/error-inside-address", trick: "an error that quotes the packet with alice's own address, as it never was outside", source: "RFC 5508 REQ-4", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) {
			*p = quoting(c, func(q *pkt) { q.src, q.sport = alice, c.sport })
			p.dst = alice
		})},
	{name: "icmp/error-backwards", trick: "an error that quotes a packet of the server's, arriving where that came from", source: "RFC 5508 REQ-4", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) {
			host, port := c.outside()
			q := tcp(site, 80, host, port, packet.ACK, c.ack, c.seq)
			*p = icmp(gateway, site, packet.Unreachable, packet.HostUnreachable, 0, q.network(q.transport())[:28])
			p.dst = fwWAN
		})},
	{name: "icmp/checksum", trick: "an error with a wrong checksum", source: "RFC 5508 REQ-3", fate: "malformed_packet", run: icmpError(func(_ *client, p *pkt) { p.bad4 = true })},
	{name: "icmp/quoted-checksum", trick: "the quoted header's checksum is wrong", source: "RFC 5508 REQ-3a", fate: "malformed_packet", run: icmpError(func(_ *client, p *pkt) { p.data[10] ^= 1 })},
	{name: "icmp/quoted-short", trick: "too little is quoted to say of which connection", source: "RFC 792; RFC 5508 REQ-3", fate: "malformed_packet", run: icmpError(func(_ *client, p *pkt) { p.data = p.data[:22] })},
	{name: "icmp/quoted-fragment", trick: "the quoted packet is a later fragment: what looks like ports is data", source: "RFC 5508 section 4", fate: "malformed_packet",
		run: icmpError(func(_ *client, p *pkt) {
			binary.BigEndian.PutUint16(p.data[6:], 100)
			binary.BigEndian.PutUint16(p.data[10:], 0)
			binary.BigEndian.PutUint16(p.data[10:], ^packet.Sum(p.data[:20], 0))
		})},
	{name: "icmp/error-about-error", trick: "an error that quotes an error", source: "RFC 1122 section 3.2.2", fate: "conntrack_invalid",
		run: icmpError(func(c *client, p *pkt) {
			in := icmp(fwWAN, site, packet.Unreachable, 3, 0, p.data)
			p.data = in.network(in.transport())[:56]
		})},
	{name: "icmp/error-martian", trick: "an error that comes from a loopback address", source: "RFC 1812 section 5.3.7", fate: "martian", run: icmpError(func(_ *client, p *pkt) { p.src = "127.0.0.1" })},
	{name: "icmp/redirect", trick: "a redirect about alice's connection, to have her packets go elsewhere", source: "RFC 1122 section 3.2.2.2; CVE-1999-0265", fate: "conntrack_invalid",
		run: icmpError(func(_ *client, p *pkt) { p.typ, p.code, p.rest = 5, 1, uint32(ip(mallory)) })},
	{name: "icmp/source-quench", trick: "a source quench about alice's connection", source: "RFC 6633; CVE-2004-0791", fate: "conntrack_invalid", run: icmpError(func(_ *client, p *pkt) { p.typ, p.code = 4, 0 })},
	{name: "icmp/router-advertisement", trick: "mallory offers itself as a router", source: "RFC 1256; CVE-1999-0875", fate: "conntrack_invalid", run: message(wan, 9, 0)},
	{name: "icmp/timestamp", trick: "a timestamp request, for the time of day of hosts inside", source: "CVE-1999-0524", fate: "conntrack_invalid", run: message(wan, 13, 0)},
	{name: "icmp/address-mask", trick: "an address mask request", source: "CVE-1999-0524", fate: "conntrack_invalid", run: message(wan, 17, 0)},
	{name: "icmp/timestamp-out", trick: "alice sends timestamp requests, as a tunnel", source: "CVE-1999-0524; RFC 5508 REQ-10", fate: "conntrack_invalid", run: message(lan, 13, 0)},
	{name: "icmp/reply-first", trick: "an echo reply that nobody asked for, with orders in it", source: "TFN, Dittrich 1999; Loki, Phrack 49", fate: "conntrack_invalid",
		run: func(a *arena, legit bool) bool {
			if legit {
				id := a.next()
				a.put(lan, echo(alice, site, id))
				i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP })
				if i < 0 {
					return false
				}
				a.put(wan, icmp(site, a.seen[wan][i].src, packet.EchoReply, 0, a.seen[wan][i].rest, a.seen[wan][i].data))
			} else {
				a.put(wan, icmp(site, fwWAN, packet.EchoReply, 0, 77<<16, []byte("orders")))
			}
			return a.reached(lan, alice, packet.ICMP)
		}},
	{name: "icmp/reply-other", trick: "an answer to alice's ping from another host", source: "RFC 5508 REQ-2", fate: "no_matching_allow_rule",
		run: func(a *arena, legit bool) bool {
			a.put(lan, echo(alice, site, a.next()))
			i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP })
			if i < 0 {
				return false
			}
			from := partner
			if legit {
				from = site
			}
			a.put(wan, icmp(from, a.seen[wan][i].src, packet.EchoReply, 0, a.seen[wan][i].rest, a.seen[wan][i].data))
			return a.reached(lan, alice, packet.ICMP)
		}},
	{name: "icmp/ping-inside", trick: "a ping to an inside address, from the WAN's link", fate: "no_matching_allow_rule", run: message(wan, packet.EchoRequest, 0)},
	{name: "icmp/side-channel", trick: "how many ICMP errors a host may send in a second tells whether a port of its is open: the query's port is found in seconds, and the answer forged", source: "Man et al. 2020 (SAD DNS, CVE-2020-25705)", fate: "no datagram from the WAN to a closed port is answered",
		run: func(a *arena, legit bool) bool {
			n := len(a.seen[wan])
			if legit { // what tells something about ports, to those who may know
				a.put(wan, tcp(partner, a.next(), fwWAN, 8080, packet.SYN, 1000, 0))
			} else {
				for port := range uint16(60) {
					a.fw.put(wan, a.frame(wan, udp(dnsHost, 53, fwWAN, 30000+port, "probe")))
				}
				a.run()
			}
			return slices.ContainsFunc(a.seen[wan][n:], func(v *view) bool { return legit && v.dst == partner || v.dst == dnsHost && v.proto == packet.ICMP })
		}},
	{name: "icmp/unreachable-resolver", trick: "a forged error about a query, so that another upstream is asked, or none", source: "RFC 5927; Gont 2010", fate: "it must quote what is outstanding",
		run: func(a *arena, legit bool) bool {
			a.zone["good.example. A"] = answer{silent: true}
			m := len(a.seen[wan])
			a.ask(alice, "good.example", 1)
			i := slices.IndexFunc(a.seen[wan][m:], func(v *view) bool { return v.dst == dnsHost })
			if i < 0 {
				return false
			}
			v := a.seen[wan][m+i]
			b := slices.Clone(v.ip[:min(len(v.ip), 60)])
			if !legit {
				b[26] ^= 0x5a // the UDP checksum, unknown off the path
				b = b[:28]
			}
			before := counter(a, "thurward_dns_upstream_unreachable_total")
			a.put(wan, icmp(gateway, fwWAN, packet.Unreachable, packet.HostUnreachable, 0, b))
			return counter(a, "thurward_dns_upstream_unreachable_total") > before
		}, local: inCounter},
}
