package router

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestUDPSum compares with a sum word by word (RFC 768), at all lengths, and finds
// messages whose sum would be zero, which stands for none.
func TestUDPSum(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	zeros := 0
	for i := range 20_000 {
		msg := make([]byte, i%40)
		for j := range msg {
			msg[j] = byte(r.Uint32())
		}
		src, dst, sport, dport := packet.Addr(r.Uint32()), packet.Addr(r.Uint32()), uint16(r.Uint32()), uint16(r.Uint32())
		b := binary.BigEndian.AppendUint32(nil, uint32(src))
		b = binary.BigEndian.AppendUint32(b, uint32(dst))
		n := uint16(8 + len(msg))
		for _, w := range []uint16{17, n, sport, dport, n, 0} {
			b = binary.BigEndian.AppendUint16(b, w)
		}
		sum := uint64(0)
		for b = append(append(b, msg...), 0); len(b) >= 2; b = b[2:] {
			sum += uint64(b[0])<<8 | uint64(b[1])
		}
		sum %= 0xffff
		want := uint16(0xffff - sum)
		if sum == 0 {
			want = 0xffff // 0 as one's complement has it twice
			zeros++
		}
		if got := udpSum(src, sport, dst, dport, msg); got != want {
			t.Fatalf("%x: sum %04x, want %04x", msg, got, want)
		}
		// The same with its last word such that the sum is zero.
		if len(msg) >= 2 && len(msg)%2 == 0 {
			binary.BigEndian.PutUint16(msg[len(msg)-2:], 0)
			binary.BigEndian.PutUint16(msg[len(msg)-2:], udpSum(src, sport, dst, dport, msg))
			if got := udpSum(src, sport, dst, dport, msg); got != 0xffff {
				t.Fatalf("%x: sum %04x, want ffff", msg, got)
			}
			zeros++
		}
	}
	if zeros < 1000 {
		t.Errorf("%d sums of zero", zeros)
	}
}

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
	// No buffer is left: nothing leaves, and that is counted.
	var bufs []uint32
	for {
		b, ok := l.pool.Get()
		if !ok {
			break
		}
		bufs = append(bufs, b)
	}
	n := l.e.c.NoBuffer
	l.e.sendUDP(&l.e.port[lan], ip(lanAddr), 53, ip(host), 4000, []byte("x"))
	l.e.putSegment(&l.e.port[lan], &tcp.Segment{Tuple: tcp.Tuple{Local: ip(lanAddr), Remote: ip(host)}})
	if l.e.c.NoBuffer != n+2 || l.e.c.Own != own+1 {
		t.Errorf("%d messages for which there is no buffer", l.e.c.NoBuffer-n)
	}
	for _, b := range bufs {
		l.pool.Put(b)
	}
	// As long as a buffer holds, and one more, which is not sent.
	room := len(l.pool.Buffer(0)) - headroom - packet.EthLen - packet.MinIPv4 - packet.UDPLen
	for _, n := range []int{0, 1, room, room + 1} {
		own := l.e.c.Own
		l.e.port[lan].mtu = 9000
		l.e.sendUDP(&l.e.port[lan], ip(lanAddr), 53, ip(host), 4000, make([]byte, n))
		l.e.flush(&l.e.port[lan])
		if vs := l.taken(lan); n <= room && (len(vs) != 1 || int(vs[0].Total) != 28+n || l.e.c.Own != own+1) || n > room && (len(vs) != 0 || l.e.c.Own != own) {
			t.Errorf("a message of %d bytes of %d: %v", n, room, vs)
		}
	}
	l.buffers()
}

// TestOwnSegments: a SYN has its MSS and nothing else has; lengths and numbers stand
// where they belong.
func TestOwnSegments(t *testing.T) {
	l := newLab(t, "accept")
	l.one(lan, udp(host, 4000, web, 5000))
	s := tcp.Segment{Tuple: tcp.Tuple{Local: ip(ours), Remote: ip(web), LocalPort: 4001, RemotePort: 853}, Seq: 0x01020304, Ack: 0x05060708, Flags: packet.SYN, Window: 0x090a}
	for _, mss := range []uint16{0, 1, 1460} {
		for _, data := range []string{"", "x", "some data"} {
			s.MSS, s.Data = mss, []byte(data)
			l.e.putSegment(&l.e.port[wan], &s)
			l.e.flush(&l.e.port[wan])
			vs := l.taken(wan)
			if len(vs) != 1 {
				t.Fatalf("%d left", len(vs))
			}
			v := vs[0]
			h := v.frame[v.L4:]
			head := 20
			if mss != 0 {
				head = 24
				if got := [4]byte(h[20:]); got != [4]byte{2, 4, byte(mss >> 8), byte(mss)} {
					t.Errorf("options %x", got)
				}
			}
			if int(h[12]>>4)*4 != head || h[12]&15 != 0 || string(h[head:]) != data || v.Seq != s.Seq || v.Ack != s.Ack || v.Flags != s.Flags || v.Window != s.Window || !v.DF || v.TTL != 64 ||
				v.SrcPort != 4001 || v.DstPort != 853 || v.Src != ip(ours) || v.Dst != ip(web) || binary.BigEndian.Uint16(h[18:]) != 0 {
				t.Errorf("%+v became %x", s, h)
			}
		}
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
	if c := l.e.DNS().Counters(); c.Mismatched != 0 {
		t.Errorf("%d of them were taken for answers", c.Mismatched)
	}
	p := udp("192.0.2.77", 53, ours, v.SrcPort) // whoever says it, this is to the proxy's port
	if across, _ := l.put(wan, p); len(across) != 0 || l.e.DNS().Counters().Mismatched+l.e.DNS().Counters().Malformed != 1 {
		t.Errorf("%+v", l.e.DNS().Counters())
	}
	// TCP: a connection to the proxy, and others with the same ports.
	h := l.tcpHost(lan)
	h.askTCP(host, lanAddr, l.query("github.com", dns.TypeA))
	l.exchange(h)
	l.taken(wan)
	if l.e.DNSConns().Len() != 1 {
		t.Fatalf("%d connections", l.e.DNSConns().Len())
	}
	l.one(lan, syn(host, 4000, web, 53))
	l.one(wan, syn(web, 4000, "203.0.113.12", 53)).is(t, web, 4000, server, 53)
	if l.e.DNSConns().Len() != 1 {
		t.Errorf("%d connections", l.e.DNSConns().Len())
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
			{lan, packet.Gram, web, 53, true}, {lan, packet.Stream, web, 53, true}, {lan, packet.Gram, web, 54, false}, {lan, packet.Query, web, 53, false},
			{lan, packet.Unknown, web, 53, false}, {lan, packet.Error, web, 53, false}, {wan, packet.Gram, web, 53, false}, {wan, packet.Gram, host, 53, false},
			{lan, packet.Gram, "10.0.0.7", 53, false}, {lan, packet.Gram, ours, 53, true},
		} {
			p := packet.Packet{Class: x.class, Src: ip(host), Dst: ip(x.dst), DstPort: x.port}
			if got := l.e.intercepts(&received{Packet: p, in: &l.e.port[x.from]}); got != (x.want && on) {
				t.Errorf("%+v, on %v: %v", x, on, got)
			}
		}
	}
}

// TestErrorsOfASecond: so many errors are looked at in a second, and no more.
func TestErrorsOfASecond(t *testing.T) {
	var u unreachables
	now := 5 * second
	for range 3 {
		for i := range errorsPerSecond + 5 {
			if u.within(now) != (i < errorsPerSecond) {
				t.Fatalf("error %d", i)
			}
		}
		now += second - 1
		if u.within(now) {
			t.Fatal("a nanosecond early")
		}
		now++
	}
}

// TestSaysUnreachable: of all types and codes of ICMP errors, which say so.
func TestSaysUnreachable(t *testing.T) {
	for typ := range 256 {
		for code := range 256 {
			p := packet.Packet{ICMPType: uint8(typ), ICMPCode: uint8(code)}
			if got, want := saysUnreachable(&received{Packet: p}), typ == 3 && code != 4 || typ == 11 && code == 0; got != want {
				t.Fatalf("type %d, code %d: %v", typ, code, got)
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
	if NameBytes(up()) != 0 || LinkBytes(up()) != 0 || LinkBytes(up(0, 0)) != 0 {
		t.Error("names need memory without an upstream, or links without TLS")
	}
	for n, capacity := range map[uint32]int{0: 16384, 1: 1, 5000: 5000} {
		p := up(0)
		p.Settings.DNSNames = n
		if got, want := NameBytes(p), fqdn.Bytes(capacity)+HelloBytes(p); got != want {
			t.Errorf("%d names: %d bytes, want %d", n, got, want)
		}
	}
	for _, tls := range [][]uint8{{1}, {0, 1}, {1, 0, 1}, {1, 1, 1}} {
		n := 0
		for _, v := range tls {
			n += int(v)
		}
		if got := LinkBytes(up(tls...)); got != n*(dot.Bytes+tcp.StreamBytes) {
			t.Errorf("%v: %d bytes", tls, got)
		}
	}
}

// TestLinksOfUpstreams: a link for each upstream with TLS, by its number, and no
// other; its ports are the firewall's own while it has them.
func TestLinksOfUpstreams(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		name := nameOf(p, dotName).Text
		p.Upstreams = nil
		for i := range 5 {
			p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip("198.51.100.60").To16(), Port: uint16(8530 + i), TLS: uint8(i & 1), ServerName: name})
		}
	})
	var ups []int
	for _, k := range l.e.Links() {
		ups = append(ups, k.Up)
		if k.Pipe == nil || k.Pipe != l.e.names.byUp[k.Up].Pipe() {
			t.Errorf("upstream %d has no pipe, or another's", k.Up)
		}
	}
	if !slices.Equal(ups, []int{1, 3}) || l.e.names.byUp[0] != nil || len(l.e.names.links) != 2 {
		t.Errorf("links to %v", ups)
	}
	u := linkUser{l.e}
	a, port, ok := u.AllocPort()
	if !ok || a != ip(ours) || l.e.Pools()[0].InUse(packet.TCP) != 1 {
		t.Fatalf("port %d of %v", port, addr(a))
	}
	u.FreePort(port)
	if l.e.Pools()[0].InUse(packet.TCP) != 0 {
		t.Error("it was not given back")
	}
	c := carrier{l.e}
	port, ok = c.AllocPort()
	if !ok || l.e.Pools()[0].InUse(packet.UDP) != 1 {
		t.Fatal("no port")
	}
	c.FreePort(port)
	one, two, three := c.Random(), c.Random(), (ends{l.e}).Random()
	if l.e.Pools()[0].InUse(packet.UDP) != 0 || one == two || two == three {
		t.Error("it was not given back, or numbers repeat")
	}
	// What a link tells of its failure.
	l.run()
	u.Failed(3, dot.Class(verdict.NumTLSClasses-1), []byte("why not"))
	l.run()
	r := l.last()
	if r.Seq = 0; r != (event.Record{Time: l.e.now, Kind: event.UpstreamFailed, TLS: verdict.NumTLSClasses - 1, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.TCP,
		Dst: ip("198.51.100.60").To16(), DstPort: 8533, NameLen: 7}) || l.lastName() != "why not" {
		t.Errorf("%q %+v", l.lastName(), r)
	}
	l.e.events = nil
	u.Failed(3, 1, []byte("nobody hears it"))
}

// TestNameOfTheRule: an event has the newest name by which the same rule would have
// decided, or else the newest, with the query that told it.
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
