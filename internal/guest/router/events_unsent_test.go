package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// unsent returns the event about a frame that cannot leave through a port.
func (l *lab) unsent(out int, f []byte) event.Record {
	l.t.Helper()
	n := len(l.seen)
	l.e.emitUnsent(&l.e.port[out], f, verdict.TxFull)
	l.run()
	if len(l.seen) != n+1 {
		l.t.Fatalf("%d events", len(l.seen)-n)
	}
	return l.last()
}

// TestUnsentFragmentsAreOfTheirDatagram: a fragment without ports is reported as its
// datagram if that is the one whose first fragment was not sent either, and else with the
// addresses that it has. A whole packet is not the first fragment of anything.
func TestUnsentFragmentsAreOfTheirDatagram(t *testing.T) {
	l := newLab(t, "accept egress", established)
	a := l.one(lan, udp(host, 4000, web, 53))
	b := l.one(lan, udp("10.0.0.3", 4001, "192.0.2.9", 54))
	cut := func(v *view, id uint16) [][]byte {
		return fragments(large(udp(addr(v.Src).String(), v.SrcPort, addr(v.Dst).String(), v.DstPort), 1400), wanMAC, 576, id)
	}
	inside := func(what string, r event.Record) {
		t.Helper()
		if !tupleIs(r, host, 4000, web, 53) || r.XlatAddr != ip(ours).To16() {
			t.Errorf("%s: event %+v, want the datagram's", what, r)
		}
	}
	asItIs := func(what string, r event.Record, src, dst string, proto uint8) {
		t.Helper()
		if !tupleIs(r, src, 0, dst, 0) || r.Proto != proto || r.XlatAddr != (ruleset.Addr{}) || r.Truncated {
			t.Errorf("%s: event %+v, want what the fragment has", what, r)
		}
	}
	fs := cut(a, 7)
	asItIs("before any first one", l.unsent(wan, fs[1]), ours, web, packet.UDP)
	inside("the first", l.unsent(wan, fs[0]))
	inside("the second", l.unsent(wan, fs[1]))
	asItIs("of a datagram whose first one was sent", l.unsent(wan, cut(b, 7)[1]), ours, "192.0.2.9", packet.UDP)
	asItIs("of the next datagram", l.unsent(wan, cut(a, 8)[1]), ours, web, packet.UDP)
	other := append([]byte(nil), fs[1]...)
	other[packet.EthLen+9] = 50
	resum(other[packet.EthLen:])
	asItIs("of another protocol", l.unsent(wan, other), ours, web, 50)
	other = append([]byte(nil), fs[1]...)
	other[packet.EthLen+15]++
	resum(other[packet.EthLen:])
	asItIs("of another source", l.unsent(wan, other), "203.0.113.11", web, packet.UDP)
	inside("the last", l.unsent(wan, fs[2]))

	whole := udp(ours, b.SrcPort, "192.0.2.9", 54).frame(wanMAC)
	packet.SetID(whole[packet.EthLen:], 9)
	if r := l.unsent(wan, whole); !tupleIs(r, "10.0.0.3", 4001, "192.0.2.9", 54) {
		t.Errorf("a whole one: event %+v", r)
	}
	asItIs("after a whole one with its identification", l.unsent(wan, cut(b, 9)[1]), ours, "192.0.2.9", packet.UDP)
	inside("of the datagram before", l.unsent(wan, fs[2]))
}

// TestUnsentFragmentOfAnOwnMessage: the first fragment of a message of the firewall's own
// has its ports.
func TestUnsentFragmentOfAnOwnMessage(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	if r := l.unsent(lan, fragments(large(udp(lanAddr, 53, host, 4000), 1400), lanMAC, 576, 7)[0]); !tupleIs(r, lanAddr, 53, host, 4000) {
		t.Errorf("an answer: event %+v", r)
	}
	if r := l.unsent(lan, fragments(large(echo(lanAddr, host, packet.EchoReply, 9), 1400), lanMAC, 576, 7)[0]); !tupleIs(r, lanAddr, 9, host, packet.EchoReply<<8) {
		t.Errorf("an echo: event %+v", r)
	}
}

// TestUnsentErrorOfNoFlow: an ICMP error about a packet of no flow, or of none that can be
// read, is reported with its own addresses.
func TestUnsentErrorOfNoFlow(t *testing.T) {
	l := newLab(t, "accept egress", established)
	v := l.one(lan, udp(host, 4000, web, 53))
	in := l.one(wan, udp(web, 53, ours, v.SrcPort))
	error := func(quoted []byte) []byte {
		return pkt{src: host, dst: web, proto: packet.ICMP, typ: packet.Unreachable, code: 3, data: quoted}.frame(wanMAC)
	}
	quoted := in.frame[packet.EthLen:]
	// As it leaves, the quoted packet is what the web has sent.
	sent := udp(web, 53, ours, v.SrcPort).frame(wanMAC)[packet.EthLen:]
	if r := l.unsent(wan, error(sent)); !tupleIs(r, host, 0, web, packet.Unreachable<<8|3) || r.Direction != verdict.Egress {
		t.Errorf("of a flow: event %+v", r)
	}
	from := pkt{src: "10.0.0.77", dst: web, proto: packet.ICMP, typ: packet.Unreachable, code: 3}
	for what, q := range map[string][]byte{"of no flow": quoted, "too short": sent[:20], "of nothing": nil} {
		from.data = q
		if r := l.unsent(wan, from.frame(wanMAC)); !tupleIs(r, "10.0.0.77", 0, web, packet.Unreachable<<8|3) {
			t.Errorf("%s: event %+v", what, r)
		}
	}
}

// TestRefusedHasItsName: what is refused for want of a port was of a name, which the event
// has.
func TestRefusedHasItsName(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) {
		named(p, 2, "github.com")
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 7000, 7000
	}, "accept egress tcp any -> any :443", established)
	l.resolve(host, "github.com", "@ 300 IN A "+cdn)
	l.handshake(host, 5000, cdn, 443)
	l.dropped(lan, syn(host, 5001, cdn, 443), verdict.NATPortPoolExhausted)
	if r := l.last(); r.Reason != verdict.NATPortPoolExhausted || l.lastName() != "github.com" || r.Lookup != 1 {
		t.Errorf("name %q, event %+v", l.lastName(), r)
	}
}

// TestNamesAreOfTheirPacket: a packet from the WAN has no name, whichever the packet before
// it had.
func TestNamesAreOfTheirPacket(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 8443, 8443, server, 443)} })
	l.resolve(host, "github.com", "@ 300 IN A "+github)
	if !l.connects(host, github, 443) || l.lastName() != "github.com" {
		t.Fatalf("name %q", l.lastName())
	}
	for _, p := range []pkt{syn(github, 4000, ours, 8443), syn(github, 4000, ours, 8444), udp(github, 443, ours, 22)} {
		l.put(wan, p)
		if r := l.last(); r.Action != verdict.Drop || r.Direction != verdict.Ingress || l.lastName() != "" || r.Lookup != 0 || r.Hint != 0 {
			t.Errorf("name %q, event %+v", l.lastName(), r)
		}
	}
}

// TestLookupsOfUnsent: what cannot leave is reported with the query that its flow's name is
// from, in either direction.
func TestLookupsOfUnsent(t *testing.T) {
	l := newDNSLab(t, func(p *ruleset.Policy) { named(p, 2, "github.com") }, "accept egress tcp any -> any :443", established)
	for range 3 {
		l.resolve(host, "other.example", "@ 300 IN A 192.0.2.1")
	}
	l.resolve(host, "github.com", "@ 300 IN A "+cdn)
	port := l.handshake(host, 5000, cdn, 443)
	l.lab.port[wan].full, l.lab.port[lan].full = true, true
	l.dropped(lan, tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001), verdict.TxFull)
	if l.lastName() != "github.com" || l.last().Lookup != 4 {
		t.Errorf("out: name %q, lookup %d", l.lastName(), l.last().Lookup)
	}
	l.dropped(wan, tcpSeg(cdn, 443, ours, port, packet.ACK, 5001, 1001), verdict.TxFull)
	if l.lastName() != "github.com" || l.last().Lookup != 4 {
		t.Errorf("back: name %q, lookup %d", l.lastName(), l.last().Lookup)
	}
}
