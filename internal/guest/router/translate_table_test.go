package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/guest/nat"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// holds is what flows hold besides their records.
func (l *lab) holds(a string) [5]uint64 {
	c := &l.e.c
	n := [5]uint64{uint64(l.e.flows.Len()), uint64(l.e.sources.Flows(ip(a))), c.Translations[nat.SNAT], c.Translations[nat.DNAT], c.Translations[nat.Hairpin]}
	return n
}

// TestRefusedFlowsChangeNothing: a flow that is refused, for whatever reason, leaves
// ports, counts of its source, and counts of translations as they were; and once the
// reason is gone it begins.
func TestRefusedFlowsChangeNothing(t *testing.T) {
	limits := func(p *ruleset.Policy) { p.Settings.SourceFlows = 3 }
	for _, c := range []struct {
		name  string
		edit  func(p *ruleset.Policy)
		from  int
		first []pkt // flows that are there
		p     pkt
		why   verdict.Reason
		after float64 // seconds
	}{
		{"as many as a source may have", limits, lan, []pkt{udp(host, 1, web, 53), udp(host, 2, web, 53), udp(host, 3, web, 53)}, udp(host, 4, web, 53), verdict.RateLimitFlows, 200},
		{"no port", func(p *ruleset.Policy) {
			limits(p)
			p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3001
		}, lan, []pkt{udp("10.0.0.7", 1, web, 53), udp("10.0.0.8", 2, web, 53)}, udp(host, 4, web, 53), verdict.NATPortPoolExhausted, 200},
		{"what answers would be another flow's", func(p *ruleset.Policy) {
			limits(p)
			p.SNAT = nil
		}, wan, []pkt{udp(host, 4000, web, 53)}, udp(web, 53, host, 4000), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLabWith(t, c.edit, "accept")
			for _, p := range c.first {
				l.one(lan, p)
			}
			in := func() (n int) {
				for _, q := range l.e.nat.Pools() {
					n += q.InUse(packet.UDP)
				}
				return n
			}
			if c.why == 0 { // it is that flow's answer, and no other flow
				before := l.e.flows.Len()
				l.one(c.from, c.p)
				if l.e.flows.Len() != before {
					t.Fatal("another flow")
				}
				return
			}
			before, ports := l.holds(host), in()
			for range 5 {
				l.dropped(c.from, c.p, c.why)
				if after := l.holds(host); after != before || in() != ports {
					t.Fatalf("it holds %v and %d ports, before %v and %d", after, in(), before, ports)
				}
			}
			for range int(c.after) {
				l.pass(1)
			}
			l.one(c.from, c.p)
			if n := l.e.sources.Flows(ip(host)); n != 1 {
				t.Fatalf("%d flows are counted", n)
			}
			l.invariants()
		})
	}
}

// TestTranslationsAreCounted: each flow once, by its kind, when it begins; and the
// state it begins in.
func TestTranslationsAreCounted(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.SNAT[0].SourceMask = mask(25)
		p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.TCP, ours, 443, 443, server, 8443)), dnat(packet.UDP, ours, 53, 53, server, 53)}
	}, "accept")
	for i, c := range []struct {
		from  int
		p     pkt
		kind  nat.Kind
		back  bool // it leaves where it came from
		state conntrack.State
	}{
		{lan, udp(host, 4000, web, 53), nat.SNAT, false, conntrack.UDPState(53)},
		{lan, udp(host, 4000, web, 4000), nat.SNAT, false, conntrack.UDPState(4000)},
		{lan, syn(host, 4000, web, 80), nat.SNAT, false, conntrack.SynSent},
		{lan, echo(host, web, packet.EchoRequest, 3), nat.SNAT, false, conntrack.Echo},
		{wan, syn(client, 4000, ours, 443), nat.DNAT, false, conntrack.SynSent},
		{wan, udp(client, 4000, ours, 53), nat.DNAT, false, conntrack.UDPState(53)},
		{lan, syn(host, 4001, ours, 443), nat.Hairpin, true, conntrack.SynSent},
		{lan, udp("10.0.0.200", 4000, web, 53), nat.NumKinds, false, conntrack.UDPState(53)},
	} {
		before := l.e.c.Translations
		across, back := l.put(c.from, c.p)
		if len(across)+len(back) != 1 || (len(back) == 1) != c.back {
			t.Fatalf("flow %d: %v, %v; drops: %s", i, across, back, l.drops())
		}
		l.put(c.from, c.p)
		if c.kind < nat.NumKinds {
			before[c.kind]++
		}
		if l.e.c.Translations != before {
			t.Errorf("flow %d: counted %v, want %v", i, l.e.c.Translations, before)
		}
		p := c.p
		k := conntrack.Key{Src: ip(p.src), Dst: ip(p.dst), SrcPort: p.sport, DstPort: p.dport, Proto: uint32(p.proto)}
		if p.proto == packet.ICMP {
			k.DstPort = p.sport
		}
		r := l.e.flows.Lookup(&k, l.now)
		if r == conntrack.None {
			t.Fatalf("flow %d is not there", i)
		}
		d := l.e.flows.Dir(r)
		if d.State != c.state || d.Path.Hairpin() != c.back || d.Path.FromWAN() != (c.from == wan) || d.Path.Ingress() != c.from {
			t.Errorf("flow %d: state %v, want %v; hairpin %v, from the WAN %v", i, d.State, c.state, d.Path.Hairpin(), d.Path.FromWAN())
		}
		if got, want := d.Path.Egress(), map[bool]int{false: 1 - c.from, true: c.from}[c.back]; got != want {
			t.Errorf("flow %d leaves by port %d", i, got)
		}
		s := l.e.flows.Shared(r)
		if pooled := c.kind == nat.SNAT || c.kind == nat.Hairpin; (s.Pool >= 0) != pooled || pooled && s.Port != d.Out.SrcPort {
			t.Errorf("flow %d has port %d of pool %d", i, s.Port, s.Pool)
		}
	}
}

// TestRelievedSourceKeepsWhatIsYoung: at its limit a source loses its oldest flow
// that is half-open, when that is 10 milliseconds old, and not before; one that is
// established never.
func TestRelievedSourceKeepsWhatIsYoung(t *testing.T) {
	for _, c := range []struct {
		age  int64
		want bool
	}{{young - 1, false}, {young, true}, {young + 1, true}} {
		l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.SourceFlows = 2 }, "accept")
		l.handshake(host, 4000, web, 80)
		l.one(lan, syn(host, 4001, web, 80))
		l.now += c.age
		across, _ := l.put(lan, syn(host, 4002, web, 80))
		if (len(across) == 1) != c.want || l.e.sources.Flows(ip(host)) != 2 {
			t.Errorf("%d ns old: %v; drops: %s", c.age, across, l.drops())
		}
		l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)) // the established one is there
		l.invariants()
	}
}

// TestReclaimedPort: where no port is free, the flow that gives its own back is one that is
// unanswered, of the host with the most, and no host loses one to a host with as many; each
// is counted.
func TestReclaimedPort(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3007 }, "accept egress", established)
	// .2 has five unanswered ones, .3 has three of which one is answered.
	for i := range uint16(5) {
		l.one(lan, udp(host, 5000+i, web, 53))
	}
	var answered *view
	for i := range uint16(3) {
		if v := l.one(lan, udp("10.0.0.3", 5000+i, web, 53)); i == 1 {
			answered = v
		}
	}
	l.one(wan, udp(web, 53, ours, answered.SrcPort))
	share := func(a string) int { return l.e.nat.Share(0, packet.UDP, ip(a)) }
	// The host with the most evicts no other's.
	l.dropped(lan, udp(host, 5900, web, 53), verdict.NATPortPoolExhausted)
	if share(host) != 5 || share("10.0.0.3") != 3 || l.e.c.PortsReclaimed != 0 {
		t.Fatalf("%d and %d, %d reclaimed", share(host), share("10.0.0.3"), l.e.c.PortsReclaimed)
	}
	// A new host evicts a flow of the one with the most.
	l.one(lan, udp("10.0.0.4", 5000, web, 53))
	if share(host) != 4 || share("10.0.0.3") != 3 || share("10.0.0.4") != 1 || l.e.c.PortsReclaimed != 1 {
		t.Fatalf("%d, %d and %d, %d reclaimed", share(host), share("10.0.0.3"), share("10.0.0.4"), l.e.c.PortsReclaimed)
	}
	l.one(wan, udp(web, 53, ours, answered.SrcPort)) // the answered one is there
	l.invariants()
}
