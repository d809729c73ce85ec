package router

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/fqdn"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// tupleIs compares an event's addresses and ports.
func tupleIs(r event.Record, src string, sport uint16, dst string, dport uint16) bool {
	return r.Src == ip(src).To16() && r.SrcPort == sport && r.Dst == ip(dst).To16() && r.DstPort == dport
}

// TestUnsentShowsTheInside: an event about what could not be sent has the addresses
// that the rules see, whichever way it goes and however it is translated.
func TestUnsentShowsTheInside(t *testing.T) {
	both := func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.TCP, ours, 8443, 8443, server, 443))}
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 7000, 7999
	}
	check := func(t *testing.T, l *lab, why verdict.Reason, dir verdict.Direction, src string, sport uint16, dst string, dport uint16) {
		t.Helper()
		r := l.last()
		if r.Reason != why || r.Direction != dir || r.Kind != event.Verdict || r.Action != verdict.Drop || r.FlowID != 0 || !tupleIs(r, src, sport, dst, dport) {
			t.Fatalf("event %+v", r)
		}
	}
	t.Run("from inside", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		v := l.one(lan, udp(host, 4000, web, 53))
		if v.SrcPort == 4000 {
			t.Fatal("the port was not translated")
		}
		l.port[wan].full = true
		l.dropped(lan, udp(host, 4000, web, 53), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Egress, host, 4000, web, 53)
		if r := l.last(); r.XlatAddr != ip(ours).To16() || r.XlatPort != v.SrcPort {
			t.Fatalf("event %+v", r)
		}
	})
	t.Run("an answer", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		v := l.one(lan, udp(host, 4000, web, 53))
		l.one(wan, udp(web, 53, ours, v.SrcPort))
		l.port[lan].full = true
		l.dropped(wan, udp(web, 53, ours, v.SrcPort), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Ingress, web, 53, host, 4000)
	})
	t.Run("a ping", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		l.one(lan, echo(host, web, packet.EchoRequest, 9))
		l.port[wan].full = true
		l.dropped(lan, echo(host, web, packet.EchoRequest, 9), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Egress, host, 9, web, packet.EchoRequest<<8)
	})
	t.Run("to a server", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		l.one(wan, syn(web, 4000, ours, 8443))
		l.port[lan].full = true
		l.dropped(wan, syn(web, 4000, ours, 8443), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Ingress, web, 4000, ours, 8443)
		if r := l.last(); r.XlatAddr != ip(server).To16() || r.XlatPort != 443 || !r.XlatDst {
			t.Fatalf("event %+v", r)
		}
		l.port[lan].full = false
		l.one(lan, tcpSeg(server, 443, web, 4000, packet.SYN|packet.ACK, 1, 1001))
		l.port[wan].full = true
		l.dropped(lan, tcpSeg(server, 443, web, 4000, packet.SYN|packet.ACK, 1, 1001), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Egress, server, 443, web, 4000)
	})
	t.Run("by hairpin", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		if _, back := l.put(lan, syn(host, 4000, ours, 8443)); len(back) != 1 {
			t.Fatalf("%v; drops %s", back, l.drops())
		}
		l.port[lan].full = true
		l.dropped(lan, syn(host, 4000, ours, 8443), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Egress, host, 4000, ours, 8443)
	})
	t.Run("an unresolved neighbour", func(t *testing.T) {
		l := newLabWith(t, func(p *ruleset.Policy) {
			both(p)
			p.DNAT[0].To = ip("10.0.0.99").To16()
		}, "accept", established)
		l.put(wan, syn(web, 4000, ours, 8443))
		for range 5 {
			l.pass(1)
		}
		check(t, l, verdict.NeighbourUnresolved, verdict.Ingress, web, 4000, ours, 8443)
	})
	t.Run("an ICMP error", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		v := l.one(lan, udp(host, 4000, web, 53))
		in := l.one(wan, udp(web, 53, ours, v.SrcPort))
		l.port[wan].full = true
		l.dropped(lan, embed(host, web, packet.Unreachable, 3, in), verdict.TxFull)
		check(t, l, verdict.TxFull, verdict.Egress, host, 0, web, packet.Unreachable<<8|3)
	})
	t.Run("fragments", func(t *testing.T) {
		l := newLabWith(t, func(p *ruleset.Policy) {
			both(p)
			p.Interfaces[1].MTU = 576
		}, "accept", established)
		l.one(lan, udp(host, 4000, web, 53))
		l.seen = nil
		l.port[wan].full = true
		l.put(lan, large(udp(host, 4000, web, 53), 1400))
		if len(l.seen) != 3 {
			t.Fatalf("%d events", len(l.seen))
		}
		for i, r := range l.seen {
			if r.Reason != verdict.TxFull || !tupleIs(r, host, 4000, web, 53) {
				t.Fatalf("fragment %d: event %+v", i, r)
			}
		}
	})
	t.Run("an own message", func(t *testing.T) {
		l := newLabWith(t, both, "accept", established)
		l.port[lan].full = true
		l.put(lan, echo(host, lanAddr, packet.EchoRequest, 9))
		check(t, l, verdict.TxFull, verdict.Ingress, lanAddr, 0, host, 0) // ARP
		l.port[lan].full = false
		l.pass(1)
		l.port[lan].full = true
		l.put(lan, echo(host, lanAddr, packet.EchoRequest, 9))
		check(t, l, verdict.TxFull, verdict.Ingress, lanAddr, 9, host, packet.EchoReply<<8)
	})
	t.Run("with its name", func(t *testing.T) {
		l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "github.com") }, "accept egress tcp any -> any :443", established)
		l.resolve(host, "github.com", "@ 300 IN A "+cdn)
		l.handshake(host, 5000, cdn, 443)
		l.lab.port[wan].full = true
		l.dropped(lan, tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001), verdict.TxFull)
		if l.lastName() != "github.com" || l.last().Lookup == 0 {
			t.Fatalf("name %q, event %+v", l.lastName(), l.last())
		}
	})
}

// TestLongNamesInEvents: of a name whose text is too long the end is kept, which identifies
// its owner; all others are complete.
func TestLongNamesInEvents(t *testing.T) {
	wire := func(labels ...string) (b []byte) {
		for _, l := range labels {
			b = append(append(b, byte(len(l))), l...)
		}
		return append(b, 0)
	}
	raw := strings.Repeat("\x01", 63)
	esc := strings.Repeat(`\001`, 63)
	a63 := strings.Repeat("a", 63)
	a61 := strings.Repeat("a", 61)
	for _, c := range []struct {
		name []byte
		want string
	}{
		{wire("www", "example", "com"), "www.example.com"},
		{wire(), "."},
		{wire(a63, a63, a63, a61), a63 + "." + a63 + "." + a63 + "." + a61},
		{wire(raw, "x"), esc + ".x"},
		{wire(raw, "xx"), esc + ".xx"},
		{wire(raw, "xxx"), "...xxx"},
		{wire("www", raw, "xx"), "...xx"},
		{wire("www", raw, "evil", "example"), "...evil.example"},
		{wire("www", raw), "..." + esc},
		{wire(raw, raw, raw, raw[:61]), "..." + esc[:244]},
	} {
		l := newDNSLab(t, nil)
		l.e.emitDomain(&event.Record{Kind: event.DNSQuery}, c.name)
		l.run()
		if got := l.lastName(); got != c.want || !fqdn.Valid(c.name) {
			t.Errorf("%q: %q, want %q", c.name, got, c.want)
		}
	}
}
