package router

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// tuple4 fills in the addresses of a record.
func tuple4(r event.Record, src string, sport uint16, dst string, dport uint16) event.Record {
	r.Src, r.Dst, r.SrcPort, r.DstPort = ip(src).To16(), ip(dst).To16(), sport, dport
	return r
}

// xlat fills in a translation.
func xlat(r event.Record, a string, port uint16, dst bool) event.Record {
	r.XlatAddr, r.XlatPort, r.XlatDst = ip(a).To16(), port, dst
	return r
}

// reported requires that the events since the last call are these, in every field.
func (l *lab) reported(what string, want ...event.Record) {
	l.t.Helper()
	if len(l.seen) != len(want) {
		l.t.Errorf("%s: %d events, want %d: %+v", what, len(l.seen), len(want), l.seen)
	}
	for i := range min(len(l.seen), len(want)) {
		got := l.seen[i]
		got.Seq = 0
		if want[i].Time == 0 {
			want[i].Time = l.now
		}
		if want[i].EtherType == 0 {
			want[i].EtherType = packet.TypeIPv4
		}
		if want[i].NameLen == 0 {
			got.NameLen = 0 // see names
		}
		if got != want[i] {
			l.t.Errorf("%s: event %d is\n%+v, want\n%+v", what, i, got, want[i])
		}
	}
	l.seen, l.names = nil, nil
}

// TestEventsSayAll: each field of the events about packets and flows, whichever
// way they go and however they are translated.
func TestEventsSayAll(t *testing.T) {
	const gw = "203.0.113.50"
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.TCP, ours, 8443, 8443, server, 443)), dnat(packet.UDP, ours, 5000, 5000, server, 5000)}
		p.SNAT[0].PortLo, p.SNAT[0].PortHi = 7000, 7999
	}, "deny egress -> 192.0.2.66", "accept egress", "accept ingress tcp -> 10.0.0.5", established)
	l.pass(1.5)
	l.seen = nil
	in := event.Record{Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 1, Direction: verdict.Egress, Proto: packet.TCP}
	in.FlowID = 1

	// A flow from inside, its answers, and its end.
	v := l.one(lan, syn(host, 4000, web, 80))
	l.reported("SNAT", xlat(tuple4(in, host, 4000, web, 80), ours, v.SrcPort, false))
	out := in
	out.Rule, out.Direction, out.Answer = 3, verdict.Ingress, true
	l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	l.reported("its answer", xlat(tuple4(out, web, 80, host, 4000), ours, v.SrcPort, true))
	p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	p.data = make([]byte, 10)
	l.now += second
	l.one(lan, p)
	l.now += 2 * second
	last := l.now
	for range 2 {
		l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.ACK, 5001, 1011))
	}
	l.reported("what goes on")
	l.now += 7440 * second
	for range 10 {
		l.pass(1)
	}
	end := event.Record{Time: last, Kind: event.FlowEnd, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 1, Direction: verdict.Egress, Proto: packet.TCP,
		FlowID: 1, Packets: 5, Bytes: 40 + 40 + 50 + 40 + 40, ReplyPackets: 3, ReplyBytes: 120, Duration: 3 * second}
	l.reported("its end", xlat(tuple4(end, host, 4000, web, 80), ours, v.SrcPort, false))

	// One from outside; from its last packet on it is the client's.
	from := in
	from.Rule, from.Direction, from.FlowID = 2, verdict.Ingress, 2
	l.one(wan, syn(web, 4000, ours, 8443))
	l.reported("DNAT", xlat(tuple4(from, web, 4000, ours, 8443), server, 443, true))
	back := from
	back.Rule, back.Direction, back.Answer = 1, verdict.Egress, true
	l.one(lan, tcpSeg(server, 443, web, 4000, packet.SYN|packet.ACK, 1, 1001))
	l.reported("its answer", xlat(tuple4(back, server, 443, web, 4000), ours, 8443, false))
	end.Time, end.FlowID, end.Rule, end.Direction = l.now, 2, 2, verdict.Ingress
	end.Packets, end.Bytes, end.ReplyPackets, end.ReplyBytes, end.Duration = 2, 80, 1, 40, 0
	l.now += 240 * second
	for range 10 {
		l.pass(1)
	}
	l.reported("its end", xlat(tuple4(end, web, 4000, ours, 8443), server, 443, true))

	// Within the LAN.
	in.FlowID, out.FlowID = 3, 3
	_, crossed := l.put(lan, syn(host, 4000, ours, 8443))
	if len(crossed) != 1 {
		t.Fatalf("%d; drops %s", len(crossed), l.drops())
	}
	l.reported("hairpin", xlat(tuple4(in, host, 4000, ours, 8443), server, 443, true))
	l.put(lan, tcpSeg(server, 443, addr(crossed[0].Src).String(), crossed[0].SrcPort, packet.SYN|packet.ACK, 1, 1001))
	out.Rule, out.Direction = 1, verdict.Egress
	l.reported("its answer", xlat(tuple4(out, server, 443, host, 4000), ours, 8443, false))

	// Pings: the port is the message's type and code.
	in.FlowID, in.Proto = 4, packet.ICMP
	out = in
	l.one(lan, echo(host, web, packet.EchoRequest, 9))
	v = l.one(lan, echo(host, web, packet.EchoRequest, 9))
	l.reported("ping", xlat(tuple4(in, host, 9, web, packet.EchoRequest<<8), ours, v.SrcPort, false))
	out.FlowID, out.Rule, out.Direction, out.Answer = 4, 3, verdict.Ingress, true
	l.one(wan, echo(web, ours, packet.EchoReply, v.SrcPort))
	l.reported("pong", xlat(tuple4(out, web, 9, host, packet.EchoReply<<8), ours, v.SrcPort, true))

	// What is dropped.
	none := uint32(len(l.policy.Rules))
	drop := event.Record{Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.ExplicitDeny, Rule: 0, Direction: verdict.Egress, Proto: packet.UDP}
	l.dropped(lan, udp(host, 4000, "192.0.2.66", 5300), verdict.ExplicitDeny)
	l.reported("denied", tuple4(drop, host, 4000, "192.0.2.66", 5300))
	drop.Reason, drop.Rule, drop.Direction = verdict.NoMatchingAllowRule, none, verdict.Ingress
	l.dropped(wan, udp(gw, 4000, ours, 5000), verdict.NoMatchingAllowRule)
	l.reported("no rule", tuple4(drop, gw, 4000, ours, 5000))
	drop.Proto = packet.ICMP
	l.dropped(wan, echo(gw, ours, packet.EchoReply, 77), verdict.NoMatchingAllowRule)
	l.reported("stray", tuple4(drop, gw, 77, ours, packet.EchoReply<<8))
	stray := pkt{src: gw, dst: ours, proto: packet.ICMP, typ: packet.EchoRequest, code: 3, sport: 77}
	l.put(wan, stray)
	if r := l.last(); r.DstPort != packet.EchoRequest<<8|3 || r.Action != verdict.Drop {
		t.Errorf("code 3: %+v", r)
	}
	l.seen = nil
	drop.Reason, drop.Proto = verdict.TTLExpired, packet.UDP
	ttl := udp(host, 4001, web, 5300)
	ttl.ttl = 1
	l.put(lan, ttl)
	drop.Direction = verdict.Egress
	l.reported("TTL", tuple4(drop, host, 4001, web, 5300))

	// Frames of which nothing can be read, or not all.
	for _, x := range []struct {
		frame []byte
		want  event.Record
	}{
		{make([]byte, 13), event.Record{Reason: verdict.MalformedPacket, Truncated: true}},
		{append(append(append([]byte(nil), lanMAC[:]...), 2, 9, 9, 9, 9, 9, 0x86, 0xdd), make([]byte, 40)...), event.Record{Reason: verdict.IPv6Unsupported, EtherType: 0x86dd, Truncated: true}},
		{append(append(append([]byte(nil), lanMAC[:]...), 2, 9, 9, 9, 9, 9, 0x88, 0xcc), make([]byte, 40)...), event.Record{Reason: verdict.EtherTypeUnsupported, EtherType: 0x88cc, Truncated: true}},
		{syn(host, 4000, web, 80).frame(lanMAC)[:30], event.Record{Reason: verdict.MalformedPacket, EtherType: packet.TypeIPv4, Truncated: true}},
	} {
		w := x.want
		w.Time, w.Kind, w.Action, w.Direction, w.Rule = l.now, event.Verdict, verdict.Drop, verdict.Egress, none
		l.raw(lan, x.frame)
		if len(l.seen) != 1 {
			t.Fatalf("%x: %d events", x.frame, len(l.seen))
		}
		if got := l.seen[0]; got != w {
			t.Errorf("%x:\n%+v, want\n%+v", x.frame, got, w)
		}
		l.seen = nil
	}
	l.invariants()
}

// TestShadowsSayAll: what a shadow rule would do, in either direction and with either
// action, is reported with the addresses that the rule sees.
func TestShadowsSayAll(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, ours, 8443, 8443, server, 443)}
		for i := range 3 {
			p.Rules[i].Mode = ruleset.Shadow
		}
	}, "deny egress tcp -> any :80", "accept ingress tcp -> 10.0.0.5 :443", "accept egress icmp", "accept egress tcp", "deny ingress", "deny egress")
	l.pass(1.5)
	l.seen = nil
	r := event.Record{Kind: event.Verdict, Action: verdict.WouldDrop, Reason: verdict.ExplicitDeny, Rule: 0, Direction: verdict.Egress, Proto: packet.TCP}
	real := event.Record{Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Rule: 3, Direction: verdict.Egress, Proto: packet.TCP, FlowID: 1}
	l.one(lan, syn(host, 4000, web, 80))
	l.reported("would drop", tuple4(r, host, 4000, web, 80), xlat(tuple4(real, host, 4000, web, 80), ours, 4000, false))
	r.Action, r.Reason, r.Rule, r.Direction = verdict.WouldAccept, verdict.RuleAccept, 1, verdict.Ingress
	drop := event.Record{Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.ExplicitDeny, Rule: 4, Direction: verdict.Ingress, Proto: packet.TCP}
	l.dropped(wan, syn(web, 4000, ours, 8443), verdict.ExplicitDeny)
	l.reported("would accept", tuple4(r, web, 4000, server, 443), tuple4(drop, web, 4000, ours, 8443))
	r.Rule, r.Direction, r.Proto, drop.Rule, drop.Direction, drop.Proto = 2, verdict.Egress, packet.ICMP, 5, verdict.Egress, packet.ICMP
	l.dropped(lan, echo(host, web, packet.EchoRequest, 9), verdict.ExplicitDeny)
	l.reported("would accept a ping", tuple4(r, host, 9, web, packet.EchoRequest<<8), tuple4(drop, host, 9, web, packet.EchoRequest<<8))
	if c := &l.e.c; c.Shadows[0] != 1 || c.Shadows[1] != 1 || c.Shadows[2] != 1 || c.Decisions != 3 || c.Drops[4] != 1 || c.Drops[5] != 1 || c.Accepts[3] != 1 {
		t.Errorf("shadows %v, %d decisions", c.Shadows, c.Decisions)
	}
}

// TestFlowEndsAreTold: unless the policy does not want them, and no span does.
func TestFlowEndsAreTold(t *testing.T) {
	for _, x := range []struct {
		flags, sample uint32
		want          int
	}{{0, 0, 1}, {0, 7, 1}, {ruleset.FlagNoFlowEnd, 0, 0}, {ruleset.FlagNoFlowEnd, 7, 1}} {
		for _, ring := range []bool{true, false} {
			l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.Flags, p.Settings.SampleAccept = x.flags, x.sample }, "accept egress")
			if !ring {
				l.e.events = nil
			}
			l.one(lan, udp(host, 4000, web, 53))
			for range 20 {
				l.pass(10)
			}
			n := l.flowEnds()
			if want := x.want; ring && n != want || !ring && n != 0 || l.e.flows.Len() != 0 {
				t.Errorf("%+v, ring %v: %d events, want %d", x, ring, n, want)
			}
		}
	}
}

// TestEventsOfQueries: each field of the events about queries, over UDP and TCP.
func TestEventsOfQueries(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) { p.Settings.Flags |= ruleset.FlagDNSIntercept })
	r := event.Record{Kind: event.DNSQuery, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.UDP, DstPort: 53}
	check := func(what, name string, want event.Record) {
		t.Helper()
		got := l.lastQuery()
		got.Seq, want.NameLen = 0, uint8(len(name))
		if got != want || l.lastName() != name {
			t.Errorf("%s: %q\n%+v, want\n%+v", what, l.lastName(), got, want)
		}
	}
	v, q := l.asked(host, l.query("GitHub.com", dns.TypeA))
	l.lab.now += second / 4
	l.answers(v, reply(q, "@ 300 IN A "+github, "@ 300 IN A 192.0.2.9"))
	w := tuple4(r, host, l.port, lanAddr, 53)
	w.Time, w.QType, w.DNS, w.Lookup, w.Duration, w.XlatAddr = l.lab.now, dns.TypeA, verdict.DNSAnswered, 1, second/4, ip(github).To16()
	check("answered", "github.com", w)

	v, q = l.asked("10.0.0.3", l.query("nothing.example", dns.TypeMX))
	m := reply(q)
	m.Rcode = dns.RcodeNameError
	l.answers(v, m)
	w = tuple4(r, "10.0.0.3", l.port, lanAddr, 53)
	w.Time, w.QType, w.DNS, w.Lookup = l.lab.now, dns.TypeMX, verdict.DNSNXDomain, 2
	check("no such name", "nothing.example", w)

	// An address on the LAN, of another client's name.
	v, q = l.asked(host, l.query("rebind.example", dns.TypeA))
	l.answersRaw(v, reply(q, "@ 300 IN A 10.0.0.7"))
	w = tuple4(r, host, l.port, lanAddr, 53)
	w.Time, w.QType, w.DNS, w.Lookup, w.XlatAddr = l.lab.now, dns.TypeA, verdict.DNSBlockedPrivate, 3, ip("10.0.0.7").To16()
	check("inside", "rebind.example", w)

	h := l.tcpHost(lan)
	h.askTCP(host, lanAddr, l.query("github.com", dns.TypeAAAA))
	grams := l.exchange(h)
	v = grams[wan][0]
	l.answersRaw(v, reply(l.message(v)))
	got := l.lastQuery()
	if got.Proto != packet.TCP || got.QType != dns.TypeAAAA || got.Dst != ip(lanAddr).To16() || got.Lookup != 4 || got.SrcPort == 0 || got.XlatAddr != (ruleset.Addr{}) {
		t.Errorf("over TCP: %+v", got)
	}
	// Without a ring there are no events, and nothing else differs.
	l.e.events = nil
	if err := l.e.newHost(&Config{Policy: l.policy, Pool: l.pool, ClockSet: true}, nil); err != nil {
		t.Fatal(err)
	}
	n := len(l.seen)
	l.resolve(host, "github.com", "@ 300 IN A "+github)
	if len(l.seen) != n || l.e.host.DNS().Counters().Outcomes[verdict.DNSAnswered] != 1 {
		t.Errorf("%d events of %d", len(l.seen), n)
	}
}

// flowEnds returns how many flows have been reported as ended.
func (l *lab) flowEnds() (n int) {
	for _, r := range l.seen {
		if r.Kind == event.FlowEnd {
			n++
		}
	}
	return n
}
