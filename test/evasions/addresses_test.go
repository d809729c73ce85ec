package evasions

import (
	"slices"

	"github.com/thurward/thurward/internal/shared/packet"
)

// Whose address a packet has, where it came from, and where it is to go.
var addresses = slices.Concat(addressesOfServers, addressesFalse, addressesOdd)

// offers sends a SYN to the published service, and reports whether the server receives it.
func offers(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		p := tcp(partner, a.next(), fwWAN, 8080, packet.SYN, 1000, 0)
		if !legit {
			f(&p)
		}
		a.put(wan, p)
		return a.reached(lan, web, packet.TCP)
	}
}

// datagram sends a datagram to the published UDP service, which is open to all.
func datagram(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		p := udp(mallory, a.next(), fwWAN, 9000, "data")
		if !legit {
			f(&p)
		}
		a.put(wan, p)
		return a.reached(lan, web, packet.UDP)
	}
}

// pings has alice ping, which she may do everywhere.
func pings(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		p := echo(alice, site, a.next())
		if !legit {
			f(&p)
		}
		a.put(lan, p)
		return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP && v.typ == packet.EchoRequest })
	}
}

var addressesOfServers = []attack{
	{name: "addresses/not-a-partner", trick: "a host that may not use what is published connects to it", fate: "no_matching_allow_rule: for others the entry is not there", run: offers(func(p *pkt) { p.src = mallory })},
	{name: "addresses/inside-address", trick: "a host of the WAN's own link sends straight to the server's inside address, past the list of partners", source: "", fate: "dropped: what is translated is reached by its external address only",
		run: offers(func(p *pkt) { p.src, p.dst, p.dport = mallory, web, 80 })},
	{name: "addresses/inside-address-udp", trick: "the same by UDP", fate: "dropped: what is translated is reached by its external address only", run: datagram(func(p *pkt) { p.dst = web })},
	{name: "addresses/inside-address-routed", trick: "the same from beyond the gateway", fate: "dropped: what is translated is reached by its external address only", run: offers(func(p *pkt) { p.dst, p.dport = web, 80 })},
	{name: "addresses/inside-spoofed", trick: "in a LAN host's name from the WAN, to what is published", source: "RFC 2827; RFC 3704", fate: "martian", run: datagram(func(p *pkt) { p.src = bob; p.from = &[6]byte{2, 9, 203, 0, 113, 66} })},
	{name: "addresses/inside-to-inside", trick: "in a LAN host's name from the WAN, to the server's inside address", source: "RFC 2827; RFC 3704", fate: "martian", run: datagram(func(p *pkt) { p.src, p.dst = bob, web; p.from = &[6]byte{2, 9, 203, 0, 113, 66} })},
	{name: "addresses/unlisted-port", trick: "a port beside the one that is published", fate: "no_matching_allow_rule", run: offers(func(p *pkt) { p.dport = 8081 })},
	{name: "addresses/own-lan-address", trick: "from the WAN to the firewall's LAN address (weak host model)", source: "RFC 1122 section 3.3.4.2; CVE-2019-14899", fate: "martian",
		run: func(a *arena, legit bool) bool {
			s, p := wan, echo(mallory, fwLAN, a.next())
			if legit {
				s, p = lan, echo(alice, fwLAN, a.next())
			}
			a.put(s, p)
			return slices.ContainsFunc(a.seen[s], func(v *view) bool { return v.proto == packet.ICMP && v.typ == packet.EchoReply })
		}},
	{name: "addresses/hairpin", trick: "alice uses the published service by its external address, where that was not asked for, and is seen by it as a partner", fate: "hairpin_unsupported",
		run: func(a *arena, legit bool) bool {
			s, p := lan, tcp(alice, a.next(), fwWAN, 8080, packet.SYN, 1000, 0)
			if legit {
				s, p = wan, tcp(partner, a.next(), fwWAN, 8080, packet.SYN, 1000, 0)
			}
			a.put(s, p)
			return a.reached(lan, web, packet.TCP)
		}},
}

var addressesFalse = []attack{
	{name: "addresses/foreign-source", trick: "alice's machine sends with an address that is not of the LAN, for a flood elsewhere", source: "RFC 2827 (BCP 38)", fate: "martian", run: pings(func(p *pkt) { p.src = "192.0.2.7" })},
	{name: "addresses/wan-source", trick: "alice's machine sends with an address of the WAN's link", source: "RFC 3704", fate: "martian", run: pings(func(p *pkt) { p.src = mallory })},
	{name: "addresses/own-source", trick: "alice's machine sends with the firewall's address", source: "CVE-1999-0016 (land)", fate: "martian", run: pings(func(p *pkt) { p.src = fwLAN })},
	{name: "addresses/land", trick: "a packet from the external address to itself", source: "CVE-1999-0016 (land)", fate: "martian", run: datagram(func(p *pkt) { p.src = fwWAN })},
	{name: "addresses/loopback-source", trick: "from 127.0.0.1", source: "RFC 1812 section 5.3.7; RFC 6890", fate: "martian", run: datagram(func(p *pkt) { p.src = "127.0.0.1" })},
	{name: "addresses/zero-source", trick: "from 0.0.0.0", source: "RFC 1812 section 5.3.7; RFC 6890", fate: "martian", run: datagram(func(p *pkt) { p.src = "0.0.0.0" })},
	{name: "addresses/multicast-source", trick: "from a group", source: "RFC 1122 section 3.2.1.3", fate: "martian", run: datagram(func(p *pkt) { p.src = "224.0.0.1" })},
	{name: "addresses/broadcast-source", trick: "from 255.255.255.255", source: "RFC 1122 section 3.2.1.3", fate: "martian", run: datagram(func(p *pkt) { p.src = "255.255.255.255" })},
	{name: "addresses/reserved-source", trick: "from 240.0.0.1", source: "RFC 6890", fate: "martian", run: datagram(func(p *pkt) { p.src = "240.0.0.1" })},
	{name: "addresses/link-local-source", trick: "from 169.254.1.1", source: "RFC 3927 section 2.7", fate: "martian", run: datagram(func(p *pkt) { p.src = "169.254.1.1" })},
	{name: "addresses/directed-broadcast-source", trick: "from the WAN's broadcast address, so that the answer goes to all", source: "CVE-1999-0513 (smurf)", fate: "martian", run: datagram(func(p *pkt) { p.src = "203.0.113.255" })},
	{name: "addresses/loopback", trick: "alice sends to 127.0.0.2, by way of the firewall", source: "CVE-2020-8558", fate: "martian", run: pings(func(p *pkt) { p.dst = "127.0.0.2" })},
	{name: "addresses/multicast", trick: "alice sends to a group", source: "RFC 1812 section 5.3.7", fate: "martian", run: pings(func(p *pkt) { p.dst = "224.0.0.9" })},
	{name: "addresses/broadcast", trick: "alice sends to 255.255.255.255", source: "RFC 1812 section 5.3.5", fate: "martian", run: pings(func(p *pkt) { p.dst = "255.255.255.255" })},
	{name: "addresses/directed-broadcast", trick: "alice sends to all hosts of the WAN's link", source: "RFC 2644; CVE-1999-0513 (smurf)", fate: "martian", run: pings(func(p *pkt) { p.dst = "203.0.113.255" })},
	{name: "addresses/metadata", trick: "alice asks 169.254.169.254, the address of clouds' metadata", source: "RFC 3927 section 7; CWE-918", fate: "martian", run: pings(func(p *pkt) { p.dst = "169.254.169.254" })},
}

var addressesOdd = []attack{
	{name: "addresses/loose-source-route", trick: "by way of hosts that the sender chooses", source: "RFC 7126 section 4.3", fate: "malformed_packet",
		run: func(a *arena, legit bool) bool {
			p := echo(alice, site, a.next())
			p.ipopts = []byte{131, 7, 4, 192, 0, 2, 66, 0}
			if legit {
				p.ipopts = []byte{1, 1, 1, 1}
			}
			a.put(lan, p)
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP })
		}},
	{name: "addresses/strict-source-route", trick: "the same, strictly", source: "RFC 7126 section 4.4", fate: "malformed_packet",
		run: func(a *arena, legit bool) bool {
			p := echo(alice, site, a.next())
			p.ipopts = []byte{137, 7, 4, 192, 0, 2, 66, 0}
			if legit {
				p.ipopts = []byte{1, 1, 1, 1}
			}
			a.put(lan, p)
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.proto == packet.ICMP })
		}},
	{name: "addresses/bad-options", trick: "an option that is longer than the header", source: "RFC 7126", fate: "malformed_packet", run: pings(func(p *pkt) { p.ipopts = []byte{7, 200, 4, 0} })},
	{name: "addresses/long-length", trick: "a total length beyond the frame", source: "CVE-1999-0128; RFC 791", fate: "malformed_packet", run: pings(func(p *pkt) { p.length = 1000 })},
	{name: "addresses/short-length", trick: "a total length that ends in the middle of the header behind it", source: "RFC 791", fate: "malformed_packet", run: datagram(func(p *pkt) { p.length = 24 })},
	{name: "addresses/ip-checksum", trick: "a wrong checksum of the IP header", source: "RFC 1812 section 5.2.2", fate: "malformed_packet", run: pings(func(p *pkt) { p.badIP = true })},
	{name: "addresses/tunnel-6in4", trick: "IPv6 inside IPv4", source: "RFC 6169; protocol 41", fate: "conntrack_invalid", run: func(a *arena, legit bool) bool { return tunnel(a, legit, 41) }},
	{name: "addresses/tunnel-gre", trick: "anything inside GRE", source: "RFC 2784; protocol 47", fate: "conntrack_invalid", run: func(a *arena, legit bool) bool { return tunnel(a, legit, 47) }},
	{name: "addresses/tunnel-ipip", trick: "IPv4 inside IPv4", source: "RFC 2003; CVE-2020-10136", fate: "conntrack_invalid", run: func(a *arena, legit bool) bool { return tunnel(a, legit, 4) }},
	{name: "addresses/broadcast-frame", trick: "a packet for one host in a frame for all", source: "RFC 1812 section 5.3.4; \"hole 196\" 2010", fate: "martian", run: datagram(func(p *pkt) { p.to = &[6]byte{255, 255, 255, 255, 255, 255} })},
	{name: "addresses/multicast-frame", trick: "a packet for one host in a frame for a group", source: "RFC 1812 section 5.3.4", fate: "martian", run: datagram(func(p *pkt) { p.to = &[6]byte{1, 0, 0x5e, 0, 0, 1} })},
	{name: "addresses/other-frame", trick: "a frame for another station of the link", source: "RFC 1812 section 3.3", fate: "ignored and counted", run: datagram(func(p *pkt) { p.to = &[6]byte{2, 1, 1, 1, 1, 1} })},
	{name: "addresses/vlan", trick: "the packet in a frame with a VLAN tag", source: "IEEE 802.1Q; VLAN hopping", fate: "ethertype_unsupported",
		run: func(a *arena, legit bool) bool {
			f := a.frame(wan, udp(mallory, a.next(), fwWAN, 9000, "data"))
			if !legit {
				f = slices.Insert(f, 12, 0x81, 0, 0, 1)
			}
			a.raw(wan, f)
			return a.reached(lan, web, packet.UDP)
		}},
	{name: "addresses/ipv6", trick: "IPv6, which no rule is about", source: "RFC 7123", fate: "ipv6_unsupported",
		run: func(a *arena, legit bool) bool {
			f := a.frame(lan, echo(alice, site, a.next()))
			if !legit {
				b := make([]byte, 40+8)
				b[0], b[5], b[6], b[7], b[8], b[24], b[40] = 0x60, 8, 58, 64, 0x20, 0x20, 128
				f = append(f[:12:12], append([]byte{0x86, 0xdd}, b...)...)
			}
			a.raw(lan, f)
			return len(a.seen[wan]) > 0
		}},
	{name: "addresses/version", trick: "a frame for IPv4 with a packet of another version in it", source: "RFC 1122 section 3.2.1.1", fate: "malformed_packet",
		run: func(a *arena, legit bool) bool {
			f := a.frame(lan, echo(alice, site, a.next()))
			if !legit {
				f[14] = 0x65
				f[24], f[25] = 0, 0
				s := ^packet.Sum(f[14:34], 0)
				f[24], f[25] = byte(s>>8), byte(s)
			}
			a.raw(lan, f)
			return len(a.seen[wan]) > 0
		}},
}

// tunnel has alice send a packet of another protocol, or for the twin a ping.
func tunnel(a *arena, legit bool, proto uint8) bool {
	p := echo(alice, site, a.next())
	b := p.transport()
	if !legit {
		p.proto = proto
		b = echo(alice, stolen, 1).network(b)
	}
	f := a.frame(lan, p)
	a.raw(lan, append(f[:packet.EthLen:packet.EthLen], p.network(b)...))
	return a.reached(wan, site, p.proto)
}
