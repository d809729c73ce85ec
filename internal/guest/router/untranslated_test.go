package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestUntranslatedDestination: a host on the WAN's own link sends straight to a
// server's inside address, past the sources that its dnat entry is for. It
// does not get there, with any protocol; who comes by the entry does.
func TestUntranslatedDestination(t *testing.T) {
	const neighbour = "203.0.113.66" // on the WAN's link, and not one of the entry's sources
	d := dnat(packet.TCP, ours, 443, 443, server, 443)
	d.From, d.FromMask = ip("198.51.100.0").To16(), mask(24)
	l := newLabWith(t, withDNAT(d), "accept")
	why := verdict.UntranslatedDestination
	l.dropped(wan, syn(neighbour, 4000, ours, 443), verdict.NoLocalService) // as documented for others than from
	l.dropped(wan, syn(neighbour, 4000, server, 443), why)
	if r := l.last(); r.Reason != why || r.Action != verdict.Drop || r.Direction != verdict.Ingress || r.Dst != ip(server).To16() || r.DstPort != 443 {
		t.Fatalf("event %+v", r)
	}
	l.dropped(wan, syn(client, 4000, server, 443), why) // also for those who might come by the entry
	l.dropped(wan, udp(neighbour, 4000, host, 53), why)
	l.dropped(wan, echo(neighbour, host, packet.EchoRequest, 7), why)
	if n := l.e.flows.Len(); n != 0 {
		t.Fatalf("%d flows", n)
	}
	// The twins: by the entry, and what answers a host.
	l.one(wan, syn(client, 4000, ours, 443)).is(t, client, 4000, server, 443)
	v := l.one(lan, udp(host, 4000, neighbour, 53))
	l.one(wan, udp(neighbour, 53, ours, v.SrcPort)).is(t, neighbour, 53, host, 4000)
	// Who knows the inside address gains nothing by the flow either.
	l.dropped(wan, udp(neighbour, 53, host, 4000), why)
	// What the policy denies, it denies.
	l = newLab(t, "deny ingress tcp", "accept")
	l.dropped(wan, syn(client, 4000, host, 443), verdict.ExplicitDeny)
	l.buffers()
}

// TestUntranslatedDestinationIsByHost: hosts that no snat entry covers have the
// same address on both sides, and rules decide alone.
func TestUntranslatedDestinationIsByHost(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.SNAT[0].Source, p.SNAT[0].SourceMask = ip("10.0.0.0").To16(), mask(29)
	}, "accept")
	l.dropped(wan, syn(client, 4000, "10.0.0.7", 443), verdict.UntranslatedDestination)
	l.one(wan, udp(client, 4000, "10.0.0.8", 53)).is(t, client, 4000, "10.0.0.8", 53)
	l.one(lan, udp("10.0.0.8", 53, client, 4000)).is(t, "10.0.0.8", 53, client, 4000)
	newLabWith(t, routed, "accept").one(wan, syn(client, 4000, "10.0.0.7", 443))
}

// TestUntranslatedEvents: of a flow without translation none is reported, in either
// direction, nor of its packets that cannot leave.
func TestUntranslatedEvents(t *testing.T) {
	l := newLabWith(t, routed, "accept egress", established)
	l.pass(1.5)
	l.seen = nil
	r := event.Record{Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Egress, Proto: packet.TCP, FlowID: 1}
	l.one(lan, syn(host, 4000, web, 80))
	l.reported("out", tuple4(r, host, 4000, web, 80))
	r.Rule, r.Direction, r.Answer = 1, verdict.Ingress, true
	l.one(wan, tcpSeg(web, 80, host, 4000, packet.SYN|packet.ACK, 5000, 1001))
	l.reported("back", tuple4(r, web, 80, host, 4000))
	l.one(lan, echo(host, web, packet.EchoRequest, 9))
	r = event.Record{Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 0, Direction: verdict.Egress, Proto: packet.ICMP, FlowID: 2}
	l.reported("ping", tuple4(r, host, 9, web, packet.EchoRequest<<8))
	l.one(wan, echo(web, host, packet.EchoReply, 9))
	r.Rule, r.Direction, r.Answer = 1, verdict.Ingress, true
	l.reported("pong", tuple4(r, web, 9, host, packet.EchoReply<<8))
}
