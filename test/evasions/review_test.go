package evasions

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// What a reviewer tried who had not written the firewall, by family.

// answers: the answer to a question about a name of the attacker's; the twin's is about
// good.example, with an address of its own.
func answers(typ uint16, rs ...string) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		name := "x.evil.example"
		if legit {
			name, rs = "good.example", []string{"@ 300 IN A " + stolen}
			typ = dns.TypeA
		}
		a.zone[name+". "+dns.TypeToString[typ]] = answer{answer: rs}
		return asks(a, name, typ, stolen)
	}
}

// patched: the answer for good.example with its one address record altered, from its type on.
func patched(f func(rr []byte) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		a.zone["good.example. A"] = answer{raw: func(b []byte) []byte {
			q := new(dns.Msg)
			q.Unpack(b)   //nolint:errcheck // it was read before
			q.Extra = nil // so that the record is the last
			m, _ := reply(q, answer{answer: []string{"@ 300 IN A " + stolen}}, true)
			if at := strings.Index(string(m), "\xc0\x0c\x00\x01\x00\x01"); !legit {
				m = append(m[:at+2:at+2], f(slices.Clone(m[at+2:]))...)
			}
			return m
		}}
		return asks(a, "good.example", dns.TypeA, stolen)
	}
}

// asked sends a question that f alters, and reports whether it reaches the upstream.
func asked(f func(b []byte) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		m := new(dns.Msg)
		m.SetQuestion("good.example.", dns.TypeA)
		b, _ := m.Pack()
		if !legit {
			b = f(b)
		}
		a.is("good.example", cdn)
		a.askRaw(alice, b)
		return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost })
	}
}

// carried asks with more than a question, and reports whether that reaches the upstream. The
// twin asks for a name with the same in it.
func carried(f func(m *dns.Msg), tail string) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		m := new(dns.Msg)
		m.SetQuestion("tunnel.evil.example.", dns.TypeA)
		if !legit {
			m.Question[0].Name = "good.example."
			f(m)
		}
		b, err := m.Pack()
		if err != nil {
			a.t.Fatal(err)
		}
		if !legit {
			b = append(b, tail...)
		}
		a.askRaw(alice, b)
		return slices.ContainsFunc(a.seen[wan], func(v *view) bool {
			return v.dst == dnsHost && strings.Contains(strings.ToLower(string(v.data)), "tunnel")
		})
	}
}

const optRR = "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"

func extra(n byte, rrs string) func(b []byte) []byte {
	return func(b []byte) []byte { b[11] = n; return append(b, rrs...) }
}

var namesReviewed = []attack{
	{name: "names/address-beside-alias", trick: "evil.example has an address and is an alias of good.example at once", source: "RFC 1034 section 3.6.2; RFC 2181 section 10.1", fate: "an address is bound to the names before its owner, not behind it",
		run: answers(dns.TypeA, "@ 300 IN CNAME good.example.", "@ 300 IN A "+stolen)},
	{name: "names/address-beside-alias-first", trick: "the same, the address first", source: "RFC 2181 section 10.1", fate: "as above",
		run: answers(dns.TypeA, "@ 300 IN A "+stolen, "@ 300 IN CNAME good.example.")},
	{name: "names/second-alias", trick: "evil.example is an alias of two names, the second of which has an address and is an alias of good.example", source: "RFC 2181 section 10.1", fate: "one alias is followed; nothing behind it is bound to what comes after",
		run: answers(dns.TypeA, "@ 300 IN CNAME good.example.", "@ 300 IN CNAME a.evil.example.", "a.evil.example. 300 IN A "+stolen)},
	{name: "names/dname", trick: "evil.example leads its names below good.example (DNAME), without the alias", source: "RFC 6672 section 3.1", fate: "only aliases that the answer holds are followed",
		run: answers(dns.TypeA, "evil.example. 300 IN DNAME pages.example.", "x.pages.example. 300 IN A "+stolen)},
	{name: "names/any", trick: "evil.example is asked for all, and good.example's address is in the answer", source: "RFC 8482", fate: "only the chain of the question is bound",
		run: answers(dns.TypeANY, "@ 300 IN A "+other, "good.example. 300 IN A "+stolen)},
	{name: "names/https-alias", trick: "the HTTPS record of evil.example is an alias of good.example, with a hint", source: "RFC 9460 section 2.4.2", fate: "parameters of aliases are ignored",
		run: answers(dns.TypeHTTPS, "@ 300 IN TYPE65 \\# 24 000004676f6f64076578616d706c650000040004"+"06060642")},
	{name: "names/mx", trick: "the mail server of evil.example is good.example, with its address", source: "RFC 2181 section 5.4.1", fate: "nothing was asked that binds",
		run: answers(dns.TypeMX, "@ 300 IN MX 1 good.example.", "good.example. 300 IN A "+stolen)},
	{name: "names/ptr", trick: "the name of an address is good.example", source: "RFC 1912 section 2.1", fate: "reverse names bind nothing",
		run: answers(dns.TypePTR, "@ 300 IN PTR good.example.", "good.example. 300 IN A "+stolen)},
	{name: "names/flush-class", trick: "an address of class IN with the bit of multicast DNS", source: "RFC 6762 section 10.2", fate: "another class: it binds nothing",
		run: patched(func(r []byte) []byte { r[2] = 0x80; return r })},
	{name: "names/any-class", trick: "an address of class ANY", source: "RFC 1035 section 3.2.5", fate: "it binds nothing", run: patched(func(r []byte) []byte { r[3] = 255; return r })},
	{name: "names/address-of-eight", trick: "an address record with two addresses in it", source: "RFC 1035 section 3.4.1", fate: "SERVFAIL",
		run: patched(func(r []byte) []byte { r[9] = 8; return append(r, 6, 6, 6, 67) })},
	{name: "names/address-of-three", trick: "an address record of three bytes, at the end of the message", source: "RFC 1035 section 3.4.1", fate: "SERVFAIL",
		run: patched(func(r []byte) []byte { r[9] = 3; return r[:13] })},
	{name: "names/opcode-of-answer", trick: "an answer that says to be one to an update", source: "RFC 1035 section 4.1.1", fate: "rejected",
		run: forged(1, func(_ *pkt, m *dns.Msg) { m.Opcode = dns.OpcodeUpdate })},
	{name: "names/no-question", trick: "an answer without the question", source: "RFC 5452 section 9.1", fate: "rejected", run: forged(1, func(_ *pkt, m *dns.Msg) { m.Question = nil })},
	{name: "names/question-twice", trick: "an answer with the question twice", source: "RFC 9619", fate: "rejected",
		run: forged(1, func(_ *pkt, m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })},
	{name: "names/question-back", trick: "the question itself comes back as its answer, with an address", source: "RFC 5625 section 6", fate: "rejected", run: forged(1, func(_ *pkt, m *dns.Msg) { m.Response = false })},
	{name: "names/other-type", trick: "an answer to a question of another type", source: "RFC 5452 section 9.1", fate: "rejected", run: forged(1, func(_ *pkt, m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY })},
	{name: "names/asked-pointer", trick: "a question whose name is a pointer into the header", source: "RFC 1035 section 4.1.4", fate: "FORMERR",
		run: asked(func(b []byte) []byte { return append(b[:12:12], 0xc0, 0x04, 0, 1, 0, 1) })},
	{name: "names/asked-pointer-self", trick: "a question whose name is a pointer to itself", source: "CVE-2017-9445", fate: "FORMERR",
		run: asked(func(b []byte) []byte { return append(b[:12:12], 0xc0, 0x0c, 0, 1, 0, 1) })},
	{name: "names/asked-tail", trick: "bytes behind the question that belong to no record, to be carried out of the LAN", source: "RFC 1035 section 4.1", fate: "questions are written anew: what is behind them does not leave",
		run: carried(func(m *dns.Msg) {}, "\x06tunnel")},
	{name: "names/asked-answers", trick: "records in a question, to be carried out of the LAN", source: "RFC 6804 section 4", fate: "FORMERR",
		run: carried(func(m *dns.Msg) {
			rr, _ := dns.NewRR("good.example. 300 IN TXT tunnel")
			m.Answer, m.Ns = append(m.Answer, rr), append(m.Ns, rr)
		}, "")},
	{name: "names/asked-option", trick: "EDNS options in a question, of local use, padding, a cookie, to be carried out of the LAN", source: "RFC 6891 section 9; RFC 7830; RFC 7873", fate: "options are one link's: they are left out",
		run: carried(func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("tunnel")}, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "74756e6e656c7474"}, &dns.EDNS0_PADDING{Padding: []byte("tunnel")}}
		}, "")},
	{name: "names/forward-alias", trick: "evil.example is an alias of good.example, and beside that stands a false address of it", source: "Kashpureff 1997; RFC 2181 section 5.4.1", fate: "bound", local: "it is about the upstream",
		open: "the upstream is trusted to resolve an alias's target itself, as resolvers do; one that passes on what evil.example's server says of good.example lies to every host behind it",
		run: func(a *arena, legit bool) bool {
			if legit { // the owner of good.example says so
				a.is("good.example", stolen)
				return asks(a, "good.example", dns.TypeA, stolen)
			}
			a.zone["evil.example. A"] = answer{answer: []string{"@ 300 IN CNAME good.example.", "good.example. 300 IN A " + stolen}}
			return asks(a, "evil.example", dns.TypeA, stolen)
		}},
	{name: "names/asked-opt-twice", trick: "two OPT records", source: "RFC 6891 section 6.1.1", fate: "FORMERR", run: asked(extra(2, optRR+optRR))},
	{name: "names/asked-opt-owner", trick: "an OPT record that has a name", source: "RFC 6891 section 6.1.2", fate: "FORMERR", run: asked(extra(1, "\x01x"+optRR))},
	{name: "names/asked-opt-beyond", trick: "an EDNS option that is longer than its record", source: "RFC 6891 section 6.1.2", fate: "FORMERR",
		run: asked(extra(1, optRR[:9]+"\x00\x04\x00\x0a\x00\xff"))},
	{name: "names/asked-stateful", trick: "a message of DNS Stateful Operations", source: "RFC 8490", fate: "answered by the firewall: not implemented", run: kindOfQuestion(func(m *dns.Msg) { m.Opcode = dns.OpcodeStateful })},
	{name: "names/asked-inverse", trick: "an inverse query", source: "RFC 3425; CVE-1999-0009", fate: "answered by the firewall: not implemented", run: kindOfQuestion(func(m *dns.Msg) { m.Opcode = dns.OpcodeIQuery })},
	{name: "names/asked-broadcast", trick: "a question in the name of the LAN's broadcast address, to have all hosts answered", source: "RFC 2644", fate: "martian",
		run: func(a *arena, legit bool) bool {
			m := new(dns.Msg)
			m.SetQuestion("good.example.", dns.TypeA)
			b, _ := m.Pack()
			from := alice
			if !legit {
				from = "10.0.0.255"
			}
			a.is("good.example", cdn)
			a.put(lan, udp(from, a.next(), fwLAN, 53, string(b)))
			return slices.ContainsFunc(a.seen[lan], func(v *view) bool { return v.proto == packet.UDP })
		}},
	{name: "names/asked-by-itself", trick: "a question in the name of the firewall's own name server, so that it answers itself", source: "CVE-1999-0103 (UDP loop)", fate: "martian",
		run: func(a *arena, legit bool) bool {
			m := new(dns.Msg)
			m.SetQuestion("good.example.", dns.TypeA)
			b, _ := m.Pack()
			from := alice
			if !legit {
				from = fwLAN
			}
			a.is("good.example", cdn)
			a.put(lan, udp(from, 53, fwLAN, 53, string(b)))
			return slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == dnsHost })
		}},
}

// halfOpen: alice's SYN is under way, and an attacker in the server's name sends a segment;
// the twin's does not. The attack has succeeded when the server's own answer does not pass.
func halfOpen(f func(p *pkt)) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		a.away[site] = true
		port := a.next()
		a.put(lan, tcp(alice, port, site, 80, packet.SYN, 1000, 0))
		i := slices.IndexFunc(a.seen[wan], func(v *view) bool { return v.dst == site && v.proto == packet.TCP })
		if i < 0 {
			return !legit
		}
		v := a.seen[wan][i]
		if !legit {
			p := tcp(site, 80, v.src, v.sport, packet.RST, 0, 0)
			f(&p)
			a.put(wan, p)
		}
		n := len(a.seen[lan])
		a.put(wan, tcp(site, 80, v.src, v.sport, packet.SYN|packet.ACK, 5000, v.seq+1))
		passed := slices.ContainsFunc(a.seen[lan][n:], func(w *view) bool { return w.dst == alice && w.seq == 5000 })
		return passed == legit
	}
}

var tcpReviewed = []attack{
	{name: "tcp/half-open-reset", trick: "a RST without an acknowledgement while alice's SYN is under way", source: "RFC 9293 section 3.10.7.3", fate: "ends nothing", run: halfOpen(func(*pkt) {})},
	{name: "tcp/half-open-reset-ack", trick: "a RST that acknowledges a guess", source: "RFC 9293 section 3.10.7.3", fate: "conntrack_invalid", run: halfOpen(func(p *pkt) { p.flags, p.ack = packet.RST|packet.ACK, 77 })},
	{name: "tcp/half-open-answer", trick: "a SYN-ACK that acknowledges a guess", source: "RFC 9293 section 3.10.7.3", fate: "conntrack_invalid", run: halfOpen(func(p *pkt) { p.flags, p.seq, p.ack = packet.SYN|packet.ACK, 9, 77 })},
	{name: "tcp/half-open-fin", trick: "a FIN", source: "RFC 9293 section 3.10.7.3", fate: "conntrack_invalid", run: halfOpen(func(p *pkt) { p.flags, p.seq, p.ack = packet.FIN|packet.ACK, 9, 77 })},
	{name: "tcp/half-open-data", trick: "data", source: "RFC 9293 section 3.10.7.3", fate: "conntrack_invalid", run: halfOpen(func(p *pkt) { p.flags, p.ack, p.data = packet.ACK, 77, []byte("x") })},
	{name: "tcp/half-open-unreachable", trick: "an ICMP error that quotes another number than the SYN's", source: "RFC 5927 section 4", fate: "dropped, and ends nothing",
		run: halfOpen(func(p *pkt) {
			q := tcp(p.dst, p.dport, p.src, p.sport, packet.SYN, 1<<31, 0)
			*p = icmp(gateway, p.dst, packet.Unreachable, packet.HostUnreachable, 0, q.network(q.transport())[:28])
		})},
}

// framed sends the datagram to the published service in a frame that is altered.
func framed(f func(a *arena, b []byte) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		b := a.frame(wan, udp(mallory, a.next(), fwWAN, 9000, "data"))
		if !legit {
			b = f(a, b)
		}
		a.raw(wan, b)
		return a.reached(lan, web, packet.UDP)
	}
}

// udpLength writes a UDP length and no checksum.
func udpLength(n uint16) func(a *arena, b []byte) []byte {
	return func(_ *arena, b []byte) []byte {
		binary.BigEndian.PutUint16(b[packet.EthLen+24:], n)
		b[packet.EthLen+26], b[packet.EthLen+27] = 0, 0
		return b
	}
}

var addressesReviewed = []attack{
	{name: "addresses/of-neighbour", trick: "a program on alice's machine sends in bob's name, who may reach what she may not", source: "RFC 2827; RFC 7039 (SAVI)", fate: "accepted", local: "it is about the LAN's switch",
		open: "on one link a host can take any address, and its link-layer address with it; answers go to bob. A switch that binds addresses to its ports (DHCP snooping, SAVI) prevents it",
		run: func(a *arena, legit bool) bool {
			a.learns(bob, "good.example", cdn)
			p := tcp(bob, a.next(), cdn, 8443, packet.SYN, 1, 0)
			if !legit {
				mac := a.macOf(alice)
				p.from = &mac
			}
			a.put(lan, p)
			return a.reached(wan, cdn, packet.TCP)
		}},
	{name: "addresses/two-tags", trick: "the packet in a frame with two VLAN tags", source: "IEEE 802.1ad; double tagging", fate: "ethertype_unsupported",
		run: framed(func(_ *arena, b []byte) []byte { return slices.Insert(b, 12, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 1) })},
	{name: "addresses/priority-tag", trick: "a tag of VLAN 0, which some stacks take off", source: "IEEE 802.1Q; CVE-2021-27853", fate: "ethertype_unsupported",
		run: framed(func(_ *arena, b []byte) []byte { return slices.Insert(b, 12, 0x81, 0, 0, 0) })},
	{name: "addresses/llc-snap", trick: "the packet behind LLC and SNAP headers", source: "RFC 1042; CVE-2021-27854", fate: "ethertype_unsupported",
		run: framed(func(_ *arena, b []byte) []byte { return slices.Insert(b, 12, 0, byte(len(b)), 0xaa, 0xaa, 3, 0, 0, 0) })},
	{name: "addresses/pppoe", trick: "the packet in a PPPoE session", source: "RFC 2516", fate: "ethertype_unsupported",
		run: framed(func(_ *arena, b []byte) []byte {
			b = slices.Insert(b, 14, 0x11, 0, 0, 1, 0, byte(len(b)), 0, 0x21)
			b[12], b[13] = 0x88, 0x64
			return b
		})},
	{name: "addresses/mpls", trick: "the packet behind an MPLS label", source: "RFC 3032", fate: "ethertype_unsupported",
		run: framed(func(_ *arena, b []byte) []byte {
			b = slices.Insert(b, 14, 0, 0, 1, 64)
			b[12], b[13] = 0x88, 0x47
			return b
		})},
	{name: "addresses/udp-length-beyond", trick: "a UDP length beyond the packet", source: "RFC 768", fate: "malformed_packet", run: framed(udpLength(600))},
	{name: "addresses/udp-length-short", trick: "a UDP length that is shorter than its header", source: "RFC 768", fate: "malformed_packet", run: framed(udpLength(7))},
	{name: "addresses/udp-length-zero", trick: "a UDP length of 0, as of jumbograms", source: "RFC 2675", fate: "malformed_packet", run: framed(udpLength(0))},
	{name: "addresses/header-of-four", trick: "an IP header that says to be 16 bytes long", source: "RFC 791", fate: "malformed_packet",
		run: framed(func(_ *arena, b []byte) []byte {
			b[14] = 0x44
			b[24], b[25] = 0, 0
			binary.BigEndian.PutUint16(b[24:], ^packet.Sum(b[14:30], 0))
			return b
		})},
	{name: "addresses/udp-port-zero", trick: "a datagram to port 0", source: "RFC 768; RFC 6056", fate: "dropped", run: datagram(func(p *pkt) { p.dport = 0 })},
	{name: "addresses/lan-broadcast", trick: "a datagram from the WAN to the LAN's broadcast address", source: "RFC 2644; CVE-1999-0513 (smurf)", fate: "martian", run: datagram(func(p *pkt) { p.dst = "10.0.0.255" })},
	{name: "addresses/lan-network", trick: "to the LAN's network address, an old broadcast address", source: "RFC 1812 section 4.2.3.1", fate: "martian", run: datagram(func(p *pkt) { p.dst = "10.0.0.0" })},
	{name: "addresses/ping-broadcast-source", trick: "alice's machine pings in the name of the LAN's broadcast address", source: "RFC 2644", fate: "martian", run: pings(func(p *pkt) { p.src = "10.0.0.255" })},
	{name: "addresses/ping-zero-net", trick: "alice pings 0.1.2.3", source: "RFC 1122 section 3.2.1.3", fate: "martian", run: pings(func(p *pkt) { p.dst = "0.1.2.3" })},
	{name: "addresses/ping-reserved", trick: "alice pings 240.1.2.3", source: "RFC 1112 section 4", fate: "martian", run: pings(func(p *pkt) { p.dst = "240.1.2.3" })},
	{name: "addresses/ttl-zero", trick: "a packet without time to live", source: "RFC 1812 section 5.3.1", fate: "not forwarded",
		run: framed(func(_ *arena, b []byte) []byte {
			b[22], b[24], b[25] = 0, 0, 0
			binary.BigEndian.PutUint16(b[24:], ^packet.Sum(b[14:34], 0))
			return b
		})},
	{name: "addresses/two-routes", trick: "a record of the route, and behind it a source route", source: "RFC 7126 section 4.4", fate: "malformed_packet",
		run: pings(func(p *pkt) { p.ipopts = []byte{7, 7, 4, 0, 0, 0, 0, 131, 7, 4, 6, 6, 6, 66, 0, 0} })},
	{name: "addresses/route-behind-end", trick: "a source route behind the end of the options", source: "RFC 791 section 3.1", fate: "no option: nobody reads it",
		run: func(a *arena, legit bool) bool {
			p := echo(alice, site, a.next())
			p.ipopts = []byte{0, 131, 7, 4, 6, 6, 6, 66}
			a.put(lan, p)
			passed := slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == site })
			turned := slices.ContainsFunc(a.seen[wan], func(v *view) bool { return v.dst == stolen })
			if legit {
				return passed
			}
			return turned
		}},
}

var arpsReviewed = []attack{
	{name: "arp/own-mac", trick: "bob's address at the firewall's own link-layer address, so that it talks to itself", source: "RFC 826", fate: "a known neighbour does not move",
		run: ownMAC(func(a *arena) []byte {
			m := a.fw.mac(lan)
			return arpFrame(packet.ARPReply, m, bob, m, fwLAN, m)
		})},
	{name: "arp/own-mac-request", trick: "the same as a question", source: "RFC 826", fate: "not learned",
		run: ownMAC(func(a *arena) []byte {
			return arpFrame(packet.ARPRequest, a.fw.mac(lan), bob, [6]byte{}, fwLAN, all)
		})},
	{name: "arp/reverse", trick: "a RARP answer in bob's name", source: "RFC 903", fate: "ignored",
		run: moved(lan, bob, func(a *arena) []byte { return arpFrame(4, evilMAC, bob, a.fw.mac(lan), fwLAN, a.fw.mac(lan)) })},
	{name: "arp/inverse", trick: "an InARP answer in bob's name", source: "RFC 2390", fate: "ignored",
		run: moved(lan, bob, func(a *arena) []byte { return arpFrame(9, evilMAC, bob, a.fw.mac(lan), fwLAN, a.fw.mac(lan)) })},
	{name: "arp/other-link", trick: "an answer for a host of the LAN, on the WAN", source: "RFC 826; weak host model", fate: "ignored",
		run: moved(lan, bob, func(a *arena) []byte {
			a.raw(wan, arpFrame(packet.ARPReply, evilMAC, bob, a.fw.mac(wan), fwWAN, a.fw.mac(wan)))
			return arpFrame(packet.ARPRequest, a.macOf(alice), alice, [6]byte{}, fwLAN, all) // as every host asks
		})},
}

// ownMAC: bob is not known yet; a message gives him the firewall's link-layer address, and
// the attack has succeeded when he is not answered. The twin has no such message.
func ownMAC(f func(a *arena) []byte) func(a *arena, legit bool) bool {
	return func(a *arena, legit bool) bool {
		if !legit {
			a.raw(lan, f(a))
		}
		n := len(a.seen[lan])
		a.put(lan, echo(bob, fwLAN, a.next()))
		ok := slices.ContainsFunc(a.seen[lan][n:], func(v *view) bool { return v.dst == bob && v.to == a.macOf(bob) })
		return ok == legit
	}
}
