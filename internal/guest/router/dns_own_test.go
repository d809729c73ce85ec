package router

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/endpoint"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestOwnDatagrams: the header of a query and of a response, field by field.
func TestOwnDatagrams(t *testing.T) {
	l := newDNSLab(t, nil)
	v, q := l.asked(host, l.query("github.com", dns.TypeA))
	check := func(what string, v *view, dst string) {
		t.Helper()
		if h := v.frame[packet.EthLen:]; !v.DF || v.TTL != 64 || v.Proto != packet.UDP || v.Dst != ip(dst) || h[0] != 0x45 || h[1] != 0 || int(v.Total) != len(v.frame)-packet.EthLen ||
			binary.BigEndian.Uint16(h[24:]) != v.Total-20 {
			t.Errorf("%s: %+v, header %x", what, v.Packet, h[:28])
		}
	}
	check("query", v, upstreamAddr)
	if v.Src != ip(ours) || v.DstPort != 53 || v.SrcPort < 1024 {
		t.Errorf("query: %v", v)
	}
	m, err := reply(q, "@ 60 IN A 192.0.2.1").Pack()
	if err != nil {
		t.Fatal(err)
	}
	p := udp(upstreamAddr, 53, ours, v.SrcPort)
	p.data = m
	own, local := l.e.c.Own, l.e.c.Local
	across, _ := l.put(wan, p)
	check("response", across[0], host)
	if across[0].Src != ip(lanAddr) || across[0].SrcPort != 53 || across[0].DstPort != l.port || l.e.c.Own != own+1 || l.e.c.Local != local+1 {
		t.Errorf("response: %v; %d own, %d local", across[0], l.e.c.Own-own, l.e.c.Local-local)
	}
	l.buffers()
}

// TestProxyTakesOnlyItsOwn: datagrams and segments beside those of the proxy's, which
// differ in one thing, go the way of all others.
func TestProxyTakesOnlyItsOwn(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{dnat(packet.UDP, ours, 2, 65535, server, 0), dnat(packet.TCP, "203.0.113.12", 53, 53, server, 53)}
		p.DNAT[0].PortLo, p.DNAT[0].PortHi, p.DNAT[0].ToPort = 100, 101, 100
		p.SNAT = append(p.SNAT, ruleset.SNAT{Interface: 1, External: ip("203.0.113.12").To16(), PortLo: 1024, PortHi: 65535, Source: ip("10.0.0.0").To16(), SourceMask: mask(24)})
	}, "accept", established)
	v, _ := l.asked(host, l.query("github.com", dns.TypeA))
	l.one(wan, udp(web, 4000, ours, 100)).is(t, web, 4000, server, 100)
	l.one(wan, udp(upstreamAddr, 53, ours, 101)).is(t, upstreamAddr, 53, server, 101)
	l.dropped(wan, udp(upstreamAddr, 53, ours, v.SrcPort+1), verdict.NoLocalService)
	l.dropped(wan, udp(upstreamAddr, 53, "203.0.113.12", v.SrcPort), verdict.NoLocalService)
	l.dropped(wan, tcpSeg(upstreamAddr, 53, ours, v.SrcPort, packet.SYN, 1, 0), verdict.NoLocalService)
	if c := l.e.host.DNS().Counters(); c.Mismatched != 0 {
		t.Errorf("%d of them were taken for answers", c.Mismatched)
	}
	p := udp("192.0.2.77", 53, ours, v.SrcPort) // from another host, but to the proxy's port
	if across, _ := l.put(wan, p); len(across) != 0 || l.e.host.DNS().Counters().Mismatched+l.e.host.DNS().Counters().Malformed != 1 {
		t.Errorf("%+v", l.e.host.DNS().Counters())
	}
	// TCP: a connection to the proxy, and others with the same ports.
	h := l.tcpHost(lan)
	h.askTCP(host, lanAddr, l.query("github.com", dns.TypeA))
	l.exchange(h)
	l.taken(wan)
	if l.e.host.Conns().Len() != 1 {
		t.Fatalf("%d connections", l.e.host.Conns().Len())
	}
	l.one(lan, syn(host, 4000, web, 53))
	l.one(wan, syn(web, 4000, "203.0.113.12", 53)).is(t, web, 4000, server, 53)
	if l.e.host.Conns().Len() != 1 {
		t.Errorf("%d connections", l.e.host.Conns().Len())
	}
	l.buffers()
}

// TestIntercepts: what is answered in place of the server that a LAN host asks.
func TestIntercepts(t *testing.T) {
	for _, on := range []bool{true, false} {
		l := newDNSLab(t, func(p *ruleset.Policy) {
			if on {
				p.Settings.Flags |= ruleset.FlagDNSIntercept
			}
		}, "accept")
		for _, x := range []struct {
			from  int
			class packet.Class
			dst   string
			port  uint16
			want  bool
		}{
			{lan, packet.ClassUDP, web, 53, true}, {lan, packet.ClassTCP, web, 53, true}, {lan, packet.ClassUDP, web, 54, false}, {lan, packet.ClassICMPQuery, web, 53, false},
			{lan, packet.ClassOther, web, 53, false}, {lan, packet.ClassICMPError, web, 53, false}, {wan, packet.ClassUDP, web, 53, false}, {wan, packet.ClassUDP, host, 53, false},
			{lan, packet.ClassUDP, "10.0.0.7", 53, false}, {lan, packet.ClassUDP, ours, 53, true},
		} {
			p := packet.Packet{Class: x.class, Src: ip(host), Dst: ip(x.dst), DstPort: x.port}
			if got := l.e.intercepts(&received{Packet: p, in: &l.e.port[x.from]}); got != (x.want && on) {
				t.Errorf("%+v, on %v: %v", x, on, got)
			}
		}
	}
}

// TestAgoSeconds: a grace of so many seconds would have been enough.
func TestAgoSeconds(t *testing.T) {
	for ns, want := range map[int64]uint32{math.MinInt64: 1, -1: 1, 0: 1, 1: 1, second - 1: 1, second: 2, 2*second - 1: 2, 3600 * second: 3601,
		math.MaxUint32*second - 1: math.MaxUint32, math.MaxUint32 * second: math.MaxUint32, math.MaxInt64: math.MaxUint32} {
		if got := agoSeconds(ns); got != want {
			t.Errorf("%d ns: %d", ns, got)
		}
	}
}

// TestMemoryOfNames: what a machine's memory is measured by.
func TestMemoryOfNames(t *testing.T) {
	up := func(tls ...uint8) *ruleset.Policy {
		p := &ruleset.Policy{Rules: []ruleset.Rule{{}, {SNI: 1}}}
		for _, v := range tls {
			p.Upstreams = append(p.Upstreams, ruleset.Upstream{TLS: v})
		}
		return p
	}
	if NameBytes(up()) != 0 || endpoint.LinkBytes(up()) != 0 || endpoint.LinkBytes(up(0, 0)) != 0 {
		t.Error("names need memory without an upstream, or links without TLS")
	}
	for n, capacity := range map[uint32]int{0: 16384, 1: 1, 5000: 5000} {
		p := up(0)
		p.Settings.DNSNames = n
		if got, want := NameBytes(p), fqdn.Bytes(capacity)+serverNameBytes(p); got != want {
			t.Errorf("%d names: %d bytes, want %d", n, got, want)
		}
	}
	for _, tls := range [][]uint8{{1}, {0, 1}, {1, 0, 1}, {1, 1, 1}} {
		n := 0
		for _, v := range tls {
			n += int(v)
		}
		if got := endpoint.LinkBytes(up(tls...)); got != n*(dot.Bytes+tcp.StreamBytes) {
			t.Errorf("%v: %d bytes", tls, got)
		}
	}
}

// TestNameOfTheRule: an event has the newest name by which the same rule would have
// decided, or else the newest, with the query that bound it.
func TestNameOfTheRule(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "a.example", "aa.example")
		named(p, 3, "b.example")
	}, "accept egress tcp any -> any :443", "accept egress tcp any -> any :80", established)
	for _, n := range []string{"a.example", "b.example", "plain.example"} {
		l.pass(1)
		l.resolve(host, n, "@ 3000 IN A "+cdn)
	}
	for port, want := range map[uint16]string{443: "a.example", 80: "b.example", 22: "b.example"} {
		l.connects(host, cdn, port)
		if r := l.last(); l.lastName() != want || r.Lookup != map[string]uint64{"a.example": 1, "b.example": 2}[want] || (r.Action == verdict.Accept) != (port != 22) {
			t.Errorf("port %d: %q, %+v", port, l.lastName(), r)
		}
	}
	l.pass(1)
	l.resolve(host, "aa.example", "@ 3000 IN A "+cdn)
	if l.connects(host, cdn, 443); l.lastName() != "aa.example" || l.last().Lookup != 4 {
		t.Errorf("%q, %+v", l.lastName(), l.last())
	}
	l.pass(1)
	l.resolve(host, "plain2.example", "@ 3000 IN A 192.0.2.2")
	if l.connects(host, "192.0.2.2", 443); l.lastName() != "plain2.example" || l.last().Lookup != 5 {
		t.Errorf("%q, %+v", l.lastName(), l.last())
	}
	// Of names that would have helped, one that does: not the newest, nor one of
	// another port.
	other := "10.0.0.3"
	for _, n := range []string{"a.example", "b.example"} {
		l.pass(1)
		l.resolve(other, n, "@ 3000 IN A 192.0.2.3")
	}
	for port, want := range map[uint16]string{443: "a.example", 80: "b.example"} {
		if l.connects(host, "192.0.2.3", port) || l.lastName() != want || l.last().Hint != verdict.OtherClient || l.last().Ago != 0 {
			t.Errorf("port %d: %q, %+v", port, l.lastName(), l.last())
		}
	}
	if l.connects(host, "192.0.2.3", 22); l.last().Hint == verdict.OtherClient || l.lastName() != "" {
		t.Errorf("%q, %+v", l.lastName(), l.last())
	}
}
