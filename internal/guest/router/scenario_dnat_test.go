package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

const (
	server = "10.0.0.5"
	client = "198.51.100.7"
	spare  = "203.0.113.11" // another external address
)

// dnat is an entry in the policy of a test.
func dnat(proto uint8, external string, lo, hi uint16, to string, port uint16) ruleset.DNAT {
	return ruleset.DNAT{External: ip(external).To16(), To: ip(to).To16(), Proto: proto, PortLo: lo, PortHi: hi, ToPort: port}
}

func withDNAT(entries ...ruleset.DNAT) func(*ruleset.Policy) {
	return func(p *ruleset.Policy) { p.DNAT = entries }
}

// is requires that a packet has these endpoints.
func (v *view) is(t testing.TB, src string, sport uint16, dst string, dport uint16) {
	t.Helper()
	if v.Src != ip(src) || v.SrcPort != sport || v.Dst != ip(dst) || v.DstPort != dport {
		t.Fatalf("%v, want %s:%d > %s:%d", v, src, sport, dst, dport)
	}
}

func TestS20_DNATBeforeTheFilter(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 8443, 8443, server, 443), dnat(packet.UDP, ours, 5000, 5009, server, 6000)),
		"accept ingress tcp any -> 10.0.0.5 :443", "accept ingress udp any -> 10.0.0.5 :6003", "accept egress established")
	l.one(wan, syn(client, 4000, ours, 8443)).is(t, client, 4000, server, 443)
	if r := l.last(); r.Dst != ip(ours).To16() || r.DstPort != 8443 || r.XlatAddr != ip(server).To16() || r.XlatPort != 443 || r.Rule != 0 {
		t.Fatalf("event %+v", r)
	}
	// A range keeps the distance; the filter decides each port by itself.
	l.one(wan, udp(client, 4000, ours, 5003)).is(t, client, 4000, server, 6003)
	l.dropped(wan, udp(client, 4000, ours, 5004), verdict.NoMatchingAllowRule)
	l.dropped(wan, udp(client, 4000, ours, 5010), verdict.NoMatchingAllowRule)
	l.dropped(wan, udp(client, 4000, ours, 8443), verdict.NoMatchingAllowRule) // the entry is TCP's
	if l.e.c.Translations[nat.DNAT] != 2 {
		t.Fatalf("translations %v", l.e.c.Translations)
	}
}

func TestS08_IngressSeesTheServersAddress(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443)), "accept ingress tcp any -> 10.0.0.5 :443")
	l.one(wan, syn(client, 4000, ours, 443))
}

func TestS09_IngressRuleForTheWANAddressDoesNotMatch(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443)), "accept ingress tcp any -> 203.0.113.10 :443")
	l.dropped(wan, syn(client, 4000, ours, 443), verdict.NoMatchingAllowRule)
}

func TestS21_FromIsHonoured(t *testing.T) {
	d := dnat(packet.TCP, ours, 443, 443, server, 443)
	d.From, d.FromMask = ip("198.51.100.0").To16(), mask(24)
	other := dnat(packet.TCP, ours, 443, 443, "10.0.0.6", 444)
	other.From, other.FromMask = ip("192.0.2.0").To16(), mask(25)
	l := newLabWith(t, withDNAT(d, other), "accept")
	l.one(wan, syn(client, 4000, ours, 443)).is(t, client, 4000, server, 443)
	l.one(wan, syn("192.0.2.9", 4000, ours, 443)).is(t, "192.0.2.9", 4000, "10.0.0.6", 444)
	// Outside: addressed to the firewall, which offers nothing there.
	l.dropped(wan, syn("192.0.2.129", 4000, ours, 443), verdict.NoLocalService)
}

func TestS23_ReplyLeavesWithTheWANAddress(t *testing.T) {
	for _, external := range []string{ours, spare} {
		l := newLabWith(t, withDNAT(dnat(packet.TCP, external, 8443, 8443, server, 443), dnat(packet.UDP, external, 5000, 5000, server, 6000)),
			"accept ingress any -> 10.0.0.5", "accept egress 10.0.0.5 established")
		l.one(wan, tcpSeg(client, 4000, external, 8443, packet.SYN, 1000, 0))
		l.one(lan, tcpSeg(server, 443, client, 4000, packet.SYN|packet.ACK, 5000, 1001)).is(t, external, 8443, client, 4000)
		if r := l.last(); r.Src != ip(server).To16() || r.SrcPort != 443 || r.XlatAddr != ip(external).To16() || r.XlatPort != 8443 || r.Dst != ip(client).To16() || r.Rule != 1 {
			t.Fatalf("event %+v", r)
		}
		l.one(wan, tcpSeg(client, 4000, external, 8443, packet.ACK, 1001, 5001)).is(t, client, 4000, server, 443)
		l.one(wan, udp(client, 4000, external, 5000)).is(t, client, 4000, server, 6000)
		l.one(lan, udp(server, 6000, client, 4000)).is(t, external, 5000, client, 4000)
	}
}

// TestS23_ReplyIsFilteredByTheServersAddress: rules see internal addresses in
// both directions.
func TestS23_ReplyIsFilteredByTheServersAddress(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.UDP, ours, 5000, 5000, server, 6000)), "accept ingress", "deny egress 10.0.0.5", "accept egress")
	l.one(wan, udp(client, 4000, ours, 5000))
	l.dropped(lan, udp(server, 6000, client, 4000), verdict.ExplicitDeny)
}

func TestS20_ErrorsOfForwardedFlows(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.UDP, ours, 5000, 5000, server, 6000)), "accept ingress", "accept egress established")
	in := l.one(wan, udp(client, 4000, ours, 5000))
	e := l.one(lan, embed(server, client, packet.Unreachable, 3, in)) // nothing listens
	if e.Src != ip(ours) || e.Dst != ip(client) {
		t.Fatalf("outer header %v", e)
	}
	embedded(t, e).is(t, client, 4000, ours, 5000)
}

// embedded returns the packet that an ICMP error quotes.
func embedded(t testing.TB, e *view) *view {
	t.Helper()
	var v view
	if !packet.ParseEmbedded(e.frame[int(e.L4)+8:], &v.Packet) {
		t.Fatal("the quoted header is broken")
	}
	return &v
}

func TestS20_NoBackend(t *testing.T) {
	for _, to := range []string{"192.0.2.80", "10.0.0.1", ours} {
		l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, to, 443)), "accept")
		l.dropped(wan, syn(client, 4000, ours, 443), verdict.DNATNoBackend)
	}
}

// TestS20_ExternalAddressIsAnsweredFor: the router finds the address by ARP.
func TestS20_ExternalAddressIsAnsweredFor(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, spare, 443, 443, server, 443)), "accept")
	if !l.e.port[wan].own(ip(spare)) || l.e.port[lan].own(ip(spare)) {
		t.Fatal("the external address is not the WAN port's own")
	}
}

// TestS20_ForwardedPortsAreReserved: no other host gets an external port that
// leads to a server, and the server's own flows from there use it.
func TestS20_ForwardedPortsAreReserved(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.UDP, ours, 5000, 5000, server, 6000)), "accept")
	if v := l.one(lan, udp(host, 5000, web, 53)); v.SrcPort == 5000 || v.SrcPort%2 != 0 {
		t.Fatalf("another host left as %v", v)
	}
	l.one(lan, udp(server, 6000, web, 53)).is(t, ours, 5000, web, 53)
	l.one(wan, udp(web, 53, ours, 5000)).is(t, web, 53, server, 6000)
	l.one(lan, tcpSeg(server, 6000, web, 53, packet.SYN, 1, 0)).is(t, ours, 6000, web, 53) // the entry is UDP's
	l.one(lan, tcpSeg(host, 5000, web, 53, packet.SYN, 1, 0)).is(t, ours, 5000, web, 53)
	if got, want := l.e.nat.Pools()[0].Size(packet.UDP), 65535-1024; got != want {
		t.Fatalf("%d ports for others, want %d", got, want)
	}
	// The firewall itself does not get it, either.
	for range 65535 - 1024 - 1 {
		if port, ok := l.e.nat.Own().Take(packet.UDP, l.e.random()); !ok || port == 5000 {
			t.Fatalf("port %d, %v", port, ok)
		}
	}
	if _, ok := l.e.nat.Own().Take(packet.UDP, l.e.random()); ok {
		t.Fatal("a port of a full pool")
	}
}

// TestS20_SharedPortIsOneServers: two entries may share an external port, for
// different sources; outwards only the first one's server has it.
func TestS20_SharedPortIsOneServers(t *testing.T) {
	a, b := dnat(packet.UDP, ours, 5000, 5000, server, 6000), dnat(packet.UDP, ours, 5000, 5000, "10.0.0.6", 6000)
	a.From, a.FromMask = ip("198.51.100.0").To16(), mask(24)
	l := newLabWith(t, withDNAT(a, b), "accept")
	l.one(lan, udp(server, 6000, web, 53)).is(t, ours, 5000, web, 53)
	if v := l.one(lan, udp("10.0.0.6", 6000, web, 53)); v.SrcPort == 5000 {
		t.Fatalf("overloaded: %v", v)
	}
}

func hairpinned(d ruleset.DNAT) ruleset.DNAT { d.Hairpin = 1; return d }

func TestS22_HairpinRefusedByDefault(t *testing.T) {
	l := newLabWith(t, withDNAT(dnat(packet.TCP, ours, 443, 443, server, 443)), "accept")
	l.dropped(lan, syn(host, 4000, ours, 443), verdict.HairpinUnsupported)
	if r := l.last(); r.Reason != verdict.HairpinUnsupported || r.Dst != ip(ours).To16() {
		t.Fatalf("event %+v", r)
	}
	// Without an external source it would not work, so it is refused as well.
	l = newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.TCP, ours, 443, 443, server, 443))}
		p.SNAT = nil
	}, "accept")
	l.dropped(lan, syn(host, 4000, ours, 443), verdict.HairpinUnsupported)
}

// TestRFC4787_REQ9a_S22_HairpinUDP and the one for TCP: the server sees the
// client's external address and port.
func TestRFC4787_REQ9a_S22_HairpinUDP(t *testing.T) {
	l := newLabWith(t, withDNAT(hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000))), "accept egress udp 10.0.0.2 -> 10.0.0.5 :6000", "accept egress udp 10.0.0.5 established")
	l.same(lan, udp(host, 4000, ours, 5000)).is(t, ours, 4000, server, 6000)
	if r := l.last(); r.Src != ip(host).To16() || r.Dst != ip(ours).To16() || r.DstPort != 5000 || r.XlatAddr != ip(server).To16() || r.XlatPort != 6000 {
		t.Fatalf("event %+v", r)
	}
	l.same(lan, udp(server, 6000, ours, 4000)).is(t, ours, 5000, host, 4000)
	if r := l.last(); r.Src != ip(server).To16() || r.Dst != ip(host).To16() || r.Rule != 1 {
		t.Fatalf("event %+v", r)
	}
	l.same(lan, udp(host, 4000, ours, 5000))
	if l.e.c.Translations != [nat.NumKinds]uint64{nat.Hairpin: 1} {
		t.Fatalf("translations %v", l.e.c.Translations)
	}
	// The mapping is the client's, wherever it sends (REQ-1).
	l.dropped(wan, udp(client, 9, ours, 4000), verdict.NoMatchingAllowRule)
	// A server may use its own external address.
	l.pass(301)
	l = newLabWith(t, withDNAT(hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000))), "accept")
	v := l.same(lan, udp(server, 7000, ours, 5000))
	v.is(t, ours, 7000, server, 6000)
	l.same(lan, udp(server, 6000, ours, 7000)).is(t, ours, 5000, server, 7000)
}

func TestRFC5382_REQ8a_S22_HairpinTCP(t *testing.T) {
	for _, external := range []string{ours, spare} {
		l := newLabWith(t, withDNAT(hairpinned(dnat(packet.TCP, external, 8443, 8443, server, 443))), "accept egress tcp 10.0.0.2 -> 10.0.0.5 :443", "accept egress established")
		l.same(lan, tcpSeg(host, 4000, external, 8443, packet.SYN, 1000, 0)).is(t, ours, 4000, server, 443)
		l.same(lan, tcpSeg(server, 443, ours, 4000, packet.SYN|packet.ACK, 5000, 1001)).is(t, external, 8443, host, 4000)
		l.same(lan, tcpSeg(host, 4000, external, 8443, packet.ACK, 1001, 5001)).is(t, ours, 4000, server, 443)
		l.same(lan, tcpSeg(server, 443, ours, 4000, packet.FIN|packet.ACK, 5001, 1001))
		if s := l.e.flows.Dir(0).State.String(); s != "fin_wait" {
			t.Fatalf("state %s", s)
		}
	}
}

// TestRFC5508_REQ7_S22_HairpinErrors: an error about a hairpinned flow finds
// its way, and says what its receiver knows.
func TestRFC5508_REQ7_S22_HairpinErrors(t *testing.T) {
	l := newLabWith(t, withDNAT(hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 6000))), "accept")
	v := l.same(lan, udp(host, 4000, ours, 5000))
	e := l.same(lan, embed(server, ours, packet.Unreachable, 3, v))
	if e.Src != ip(ours) || e.Dst != ip(host) {
		t.Fatalf("outer header %v", e)
	}
	embedded(t, e).is(t, host, 4000, ours, 5000)
	v = l.same(lan, udp(server, 6000, ours, 4000))
	e = l.same(lan, embed(host, ours, packet.Unreachable, 3, v))
	if e.Src != ip(ours) || e.Dst != ip(server) {
		t.Fatalf("outer header %v", e)
	}
	embedded(t, e).is(t, server, 6000, ours, 4000)
}

// same requires that exactly one packet came back out of the port where p went
// in, and nothing else, and returns it.
func (l *lab) same(from int, p pkt) *view {
	l.t.Helper()
	across, back := l.put(from, p)
	if len(across) != 0 || len(back) != 1 {
		l.t.Fatalf("%d packets crossed and %d came back, want 0 and 1; drops: %s", len(across), len(back), l.drops())
	}
	return back[0]
}

// several gives hosts two external addresses.
func several(p *ruleset.Policy) {
	s := p.SNAT[0]
	p.SNAT = append(p.SNAT, s)
	p.SNAT[1].External = ip(spare).To16()
}

// TestRFC4787_REQ2_PairedPooling: a host keeps one external address, whatever
// it sends, and all addresses are used.
func TestRFC4787_REQ2_PairedPooling(t *testing.T) {
	l := newLabWith(t, several, "accept")
	uses := map[string]int{}
	for h := range 100 {
		src := addr(ip("10.0.0.100") + packet.Addr(h)).String()
		first := l.one(lan, udp(src, 4000, web, 53)).Src
		for i := range uint16(3) {
			for _, p := range []pkt{udp(src, 5000+i, "192.0.2.9", 54), syn(src, 5000+i, web, 80), echo(src, web, packet.EchoRequest, 7+i)} {
				if v := l.one(lan, p); v.Src != first {
					t.Fatalf("%s has the addresses %v and %v", src, addr(first), addr(v.Src))
				}
			}
		}
		uses[addr(first).String()]++
	}
	if uses[ours] < 30 || uses[spare] < 30 || len(uses) != 2 {
		t.Fatalf("hosts by address: %v", uses)
	}
}

// TestRFC4787_REQ2_ServersArePairedWithTheirAddress: what a server sends leaves
// with the address by which it is reached.
func TestRFC4787_REQ2_ServersArePairedWithTheirAddress(t *testing.T) {
	for _, external := range []string{ours, spare} {
		l := newLabWith(t, func(p *ruleset.Policy) {
			several(p)
			for h := range 20 {
				p.DNAT = append(p.DNAT, dnat(packet.TCP, external, uint16(8000+h), uint16(8000+h), addr(ip("10.0.0.100")+packet.Addr(h)).String(), 443))
			}
		}, "accept")
		for h := range 20 {
			src := addr(ip("10.0.0.100") + packet.Addr(h)).String()
			l.one(lan, syn(src, 4000, web, 80)).is(t, external, l.e.flows.Shared(0).Port, web, 80)
			l.pass(500)
		}
	}
}

// TestS19_EntriesKeepToTheirPorts: entries that share an address keep to their
// own ports.
func TestS19_EntriesKeepToTheirPorts(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.SNAT[0].Source, p.SNAT[0].SourceMask = ip(host).To16(), mask(32)
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3003
		p.SNAT = append(p.SNAT, ruleset.SNAT{Interface: 1, PortLo: 4000, PortHi: 4003})
	}, "accept")
	for i := range uint16(4) {
		if v := l.one(lan, udp(host, 4000+i, web, 53)); v.SrcPort < 3000 || v.SrcPort > 3003 {
			t.Fatalf("%v", v)
		}
		if v := l.one(lan, udp("10.0.0.3", 3000+i, web, 53)); v.SrcPort < 4000 || v.SrcPort > 4003 {
			t.Fatalf("%v", v)
		}
	}
	l.dropped(lan, udp(host, 4004, web, 53), verdict.NATPortPoolExhausted)
	if p := l.e.nat.Pools()[0]; p.HighWater(packet.UDP) != 8 || p.InUse(packet.UDP) != 8 {
		t.Fatalf("%d in use, at most %d", p.InUse(packet.UDP), p.HighWater(packet.UDP))
	}
}

// TestS19_ConnectionsThatAreOverGiveTheirPort: with no port free, one that is
// kept only for stragglers is given to who needs it; those in use are not.
func TestS19_ConnectionsThatAreOverGiveTheirPort(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3003 }, "accept egress", established)
	var last uint16
	for i := range uint16(4) {
		last = l.handshake(host, 5000+i, web, 80)
	}
	l.dropped(lan, syn(host, 6000, web, 80), verdict.NATPortPoolExhausted)
	l.one(wan, tcpSeg(web, 80, ours, last, packet.RST, 5001, 0))
	if v := l.one(lan, syn(host, 6000, web, 80)); v.SrcPort != last {
		t.Fatalf("%v, want port %d", v, last)
	}
	if l.e.c.PortsReclaimed != 1 {
		t.Fatalf("%d reclaimed", l.e.c.PortsReclaimed)
	}
	l.dropped(lan, syn(host, 6001, web, 80), verdict.NATPortPoolExhausted)
	l.invariants()
}
