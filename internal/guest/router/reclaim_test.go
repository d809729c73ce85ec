package router

import (
	"fmt"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A mapping is an external port in use: by whom, how the flow that has it is, and how many
// ports its host has.
type mapping struct {
	host  byte
	flow  byte // 'u': unsure, 's': stale, 'd': two that are stale, 'k': in use, as all others
	share int
}

// TestWhoseFlowGivesWay: where no port is free, the flow that is evicted is that of the host
// with the most among the first eight looks from the first candidate on; of as many, one that
// is stale, or else the first. For a flow that is only unanswered its host must keep more
// than the new one gets. Sixty-four looks are taken at most.
func TestWhoseFlowGivesWay(t *testing.T) {
	for _, c := range []struct {
		name  string
		ports int
		taken map[int]mapping // by the order of looks, from 1 on
		want  int             // the one that gives way; 0: none
	}{
		{"none", 40, nil, 0},
		{"the only one", 40, map[int]mapping{5: {2, 'u', 2}}, 5},
		{"the most of eight", 40, map[int]mapping{1: {2, 'u', 3}, 8: {3, 'u', 4}, 9: {4, 'u', 5}}, 8},
		{"the most of eight, not at once", 40, map[int]mapping{3: {2, 'u', 3}, 10: {3, 'u', 4}, 11: {4, 'u', 5}}, 10},
		{"eight from the first", 40, map[int]mapping{1: {2, 'u', 3}, 2: {3, 'u', 4}, 9: {4, 'u', 5}}, 2},
		{"as many", 40, map[int]mapping{1: {2, 'u', 3}, 2: {3, 'u', 3}}, 1},
		{"as many, the second stale", 40, map[int]mapping{1: {2, 'u', 3}, 2: {3, 's', 3}}, 2},
		{"as many, the first stale", 40, map[int]mapping{1: {2, 's', 3}, 2: {3, 'u', 3}}, 1},
		{"as many, both stale", 40, map[int]mapping{1: {2, 's', 3}, 2: {3, 's', 3}}, 1},
		{"more, and not stale", 40, map[int]mapping{1: {2, 's', 3}, 2: {3, 'u', 4}}, 2},
		{"fewer, and stale", 40, map[int]mapping{1: {2, 'u', 4}, 2: {3, 's', 3}}, 1},
		{"the only one of its host", 40, map[int]mapping{1: {2, 'u', 1}}, 0},
		{"the only one of its host, stale", 40, map[int]mapping{1: {2, 's', 1}}, 1},
		{"one in use of a host with more", 40, map[int]mapping{1: {2, 'k', 5}, 2: {3, 'u', 3}}, 2},
		{"of two flows", 40, map[int]mapping{1: {2, 'd', 1}}, 0},
		{"the last look", 100, map[int]mapping{64: {2, 'u', 3}}, 64},
		{"behind it", 100, map[int]mapping{65: {2, 'u', 3}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			const first = 3000
			l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = first, first+uint16(c.ports)-1 }, "accept egress", established)
			take := func(host string, at int, used bool) {
				port := uint16(first + at)
				l.one(lan, udp(host, port, web, 5000)).is(t, ours, port, web, 5000)
				if used {
					l.one(wan, udp(web, 5000, ours, port))
					l.one(lan, udp(host, port, web, 5000))
				}
			}
			name := func(m mapping) string { return fmt.Sprintf("10.0.0.%d", m.host) }
			for at, m := range c.taken {
				if m.flow == 's' || m.flow == 'd' {
					take(name(m), at, false)
				}
				if m.flow == 'd' {
					l.one(lan, udp(name(m), uint16(first+at), "192.0.2.99", 5000))
				}
			}
			l.now += 17 * second
			end := c.ports
			for at, m := range c.taken {
				if m.flow == 'u' || m.flow == 'k' {
					take(name(m), at, m.flow == 'k')
				}
				for range m.share - 1 {
					end--
					take(name(m), end, true)
				}
			}
			for at := end - 1; at >= 0; at-- {
				if _, ok := c.taken[at]; !ok && (at > 0 || c.ports < 64) { // of 64 one is the firewall's
					take(fmt.Sprintf("10.0.0.%d", 100+at), at, true)
				}
			}
			p, flows := udp("10.0.0.90", 9, web, 5000), l.e.flows.Len()
			if c.want == 0 {
				l.dropped(lan, p, verdict.NATPortPoolExhausted)
				if l.e.c.PortsReclaimed != 0 || l.e.flows.Len() != flows {
					t.Errorf("%d reclaimed, %d flows", l.e.c.PortsReclaimed, l.e.flows.Len())
				}
			} else {
				l.one(lan, p).is(t, ours, uint16(first+c.want), web, 5000)
				if l.e.c.PortsReclaimed != 1 || l.e.flows.Len() != flows || l.e.nat.Share(0, packet.UDP, ip(p.src)) != 1 {
					t.Errorf("%d reclaimed, %d flows", l.e.c.PortsReclaimed, l.e.flows.Len())
				}
			}
			l.invariants()
		})
	}
}

// TestOneThatIsOverGivesWay: of connections that are over one gives way for a port, and the
// others stay until theirs is needed.
func TestOneThatIsOverGivesWay(t *testing.T) {
	const first, ports = uint16(3000), 8
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = first, first+ports-1 }, "accept egress", established)
	for port := first; port < first+ports; port++ {
		l.one(lan, syn(host, port, web, 80)).is(t, ours, port, web, 80)
		l.one(wan, tcpSeg(web, 80, ours, port, packet.RST|packet.ACK, 0, 1001))
	}
	for n := range uint64(3) {
		l.one(lan, syn("10.0.0.9", uint16(9+n), web, 80))
		if in := l.e.nat.Pools()[0].InUse(packet.TCP); l.e.c.PortsReclaimed != n+1 || l.e.flows.Len() != ports || in != ports {
			t.Fatalf("connection %d: %d reclaimed, %d flows, %d ports in use", n, l.e.c.PortsReclaimed, l.e.flows.Len(), in)
		}
	}
	l.invariants()
}

// TestNotToAHostWithMore: a flow that is stale gives way for a host that has no more ports
// than its own.
func TestNotToAHostWithMore(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 3000, 3007 }, "accept egress", established)
	l.one(lan, udp("10.0.0.3", 3001, web, 5000))
	l.now += 17 * second
	for port := uint16(3000); port < 3008; port++ {
		if port != 3001 && !l.served(host, port, web) {
			t.Fatalf("port %d; drops: %s", port, l.drops())
		}
	}
	l.dropped(lan, udp(host, 4000, web, 5000), verdict.NATPortPoolExhausted)
	l.one(lan, udp("10.0.0.4", 4000, web, 5000)).is(t, ours, 3001, web, 5000)
	l.invariants()
}
