package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/conntrack"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestRFC7857_S2_2_DeniedSYNReplacesNothing: a SYN that is dropped, for whatever reason,
// changes neither the previous connection nor its mapping: its data in flight still arrive.
// The same SYN, if it passes, begins a new one.
func TestRFC7857_S2_2_DeniedSYNReplacesNothing(t *testing.T) {
	for _, state := range []string{"close", "time_wait"} {
		for name, try := range map[string]func(c *conn) verdict.Reason{
			"from the other side": func(c *conn) verdict.Reason {
				c.dropped(wan, c.answer(fSYN, 700_000, 0), verdict.NoMatchingAllowRule)
				return 0
			},
			"by rate": func(c *conn) verdict.Reason { return verdict.RateLimitFlows },
			"in the other side's place": func(c *conn) verdict.Reason {
				f := c.answer(fSYN, 700_000, 0)
				f.dport = 9 // to a port without a listener
				c.put(wan, f)
				return 0
			},
			"by TTL": func(c *conn) verdict.Reason {
				p := tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0)
				p.ttl = 1
				c.dropped(lan, p, verdict.TTLExpired)
				return 0
			},
		} {
			t.Run(state+" "+name, func(t *testing.T) {
				c := inState(t, state, func(p *ruleset.Policy) {
					if name == "by rate" {
						p.Settings.SourceRate = 1
					}
				})
				id, port := c.e.flows.Shared(0).ID, c.port
				if why := try(c); why != 0 {
					c.dropped(lan, tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0), why)
				}
				if c.e.flows.Len() != 1 || c.e.flows.Shared(0).ID != id {
					t.Fatal("the connection is gone")
				}
				if n := c.e.nat.Pools()[0].InUse(packet.TCP); n != 1 {
					t.Fatalf("%d ports in use", n)
				}
				c.state(state)
				c.client(fACK, 1002, 5002) // under way
				c.server(fACK, 5002, 1002)
				if c.port != port {
					t.Fatalf("port %d, was %d", c.port, port)
				}
				c.pass(2)
				c.client(fSYN, 700_000, 0)
				c.state("syn_sent")
				if c.e.flows.Len() != 1 || c.port != port || c.e.flows.Shared(0).ID == id {
					t.Fatalf("%d flows, port %d, was %d", c.e.flows.Len(), c.port, port)
				}
			})
		}
	}
}

// TestRFC5382_REQ1_RestartNeedsNoSecondPlace: a new connection in place of one that is over
// is admitted where another one is not: in a full table, in a full pool, and at its
// source's limit of flows.
func TestRFC5382_REQ1_RestartNeedsNoSecondPlace(t *testing.T) {
	for _, last := range []string{"close", "time_wait"} {
		c := inState(t, last, func(p *ruleset.Policy) {
			p.Settings.MaxFlows = 1
			p.Settings.SourceFlows = 1
			p.SNAT[0].PortLo, p.SNAT[0].PortHi = 2000, 2000
		})
		for i := range uint32(3) {
			isn := 700_000 + i<<20
			c.client(fSYN, isn, 0)
			c.state("syn_sent")
			c.server(fRST|fACK, 0, isn+1)
			c.state("close")
			if n := c.e.sources.Flows(ip(host)); n != 1 || c.e.flows.Len() != 1 {
				t.Fatalf("%d flows, of its source %d", c.e.flows.Len(), n)
			}
		}
		c.pass(300)
		if n := c.e.sources.Flows(ip(host)); n != 0 || c.e.nat.Pools()[0].InUse(packet.TCP) != 0 {
			t.Fatalf("of its source %d flows are left", n)
		}
	}
}

// TestRFC5382_REQ1_RestartAtTheShare: a source at its share of a full table can reopen a
// connection in place of one that is over, but no other.
func TestRFC5382_REQ1_RestartAtTheShare(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Settings.MaxFlows = 256 }, "accept egress", established)
	l.served("10.0.0.3", 4000, web) // which has the first place
	n := 0
	fill := func() {
		for {
			s := tcpSeg(host, uint16(4000+n), web, 80, fSYN, 1000, 0)
			across, _ := l.put(lan, s)
			if len(across) == 0 {
				return
			}
			l.one(wan, tcpSeg(web, 80, ours, across[0].SrcPort, fSYN|fACK, 5000, 1001))
			s.flags, s.seq, s.ack = fACK, 1001, 5001
			l.one(lan, s)
			n++
		}
	}
	fill()
	l.one(lan, tcpSeg(host, 4000, web, 80, fRST, 1001, 0))
	fill()
	if n < 200 || n >= 256 {
		t.Fatalf("%d connections", n)
	}
	before := l.e.flows.Len()
	l.dropped(lan, tcpSeg(host, 60000, web, 80, fSYN, 700_000, 0), verdict.ConntrackFull)
	l.one(lan, tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0))
	if l.e.flows.Len() != before {
		t.Fatalf("%d flows, were %d", l.e.flows.Len(), before)
	}
}

// TestRestartCountsForItsOwnSource: a connection that begins in place of one that is over
// is of the source that opens it, whichever end that is. Neither source's share or limit
// is the other's, nor that of the flow that happens to be the first.
func TestRestartCountsForItsOwnSource(t *testing.T) {
	limited := func(p *ruleset.Policy) { routed(p); p.Settings.SourceFlows = 1 }
	refused := func(l *lab) { // a connection of the host's that the server refuses
		l.one(lan, syn(host, 4000, web, 80))
		l.one(wan, tcpSeg(web, 80, host, 4000, fRST|fACK, 0, 1001))
	}
	again := tcpSeg(web, 80, host, 4000, fSYN, 700_000, 0)
	flows := func(l *lab, ofHost, ofWeb uint32) {
		t.Helper()
		if h, w := l.e.sources.Flows(ip(host)), l.e.sources.Flows(ip(web)); h != ofHost || w != ofWeb {
			t.Errorf("%d flows of the host's and %d of the server's, want %d and %d", h, w, ofHost, ofWeb)
		}
		l.buffers()
	}
	for _, others := range []int{0, 1, 2} { // in the first places
		l := newLabWith(t, limited, "accept")
		for i := range others {
			l.one([]int{lan, wan}[i], udp([]string{"10.0.0.3", client}[i], 4000, []string{client, "10.0.0.3"}[i], 53+uint16(i)))
		}
		refused(l)
		flows(l, 1, 0)
		l.one(lan, tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0)) // its own, at its limit
		flows(l, 1, 0)
		if n := l.e.flows.C.Evictions; n != [conntrack.NumRemovals]uint64{conntrack.Closed: 1} {
			t.Errorf("flows ended by cause: %v", n)
		}
		l.one(wan, tcpSeg(web, 80, host, 4000, fRST|fACK, 0, 700_001))
		l.one(wan, again)
		flows(l, 0, 1)

		l = newLabWith(t, limited, "accept")
		for i := range others {
			l.one([]int{lan, wan}[i], udp([]string{"10.0.0.3", client}[i], 4000, []string{client, "10.0.0.3"}[i], 53+uint16(i)))
		}
		l.one(wan, udp(web, 4000, host, 53)) // the server is at its limit
		refused(l)
		l.dropped(wan, again, verdict.RateLimitFlows)
		flows(l, 1, 1)
	}

	l := newLabWith(t, func(p *ruleset.Policy) { routed(p); p.Settings.MaxFlows = 64 }, "accept")
	n := uint16(0)
	for ; ; n++ {
		if across, _ := l.put(wan, udp(web, 5000+n, host, 5000)); len(across) == 0 {
			break
		}
		l.one(lan, udp(host, 5000, web, 5000+n))
		l.one(wan, udp(web, 5000+n, host, 5000))
	}
	if n < 48 {
		t.Fatalf("the server has %d flows", n)
	}
	refused(l)
	l.dropped(wan, again, verdict.ConntrackFull)
	l.one(lan, tcpSeg(host, 4000, web, 80, fSYN, 700_000, 0))
	l.buffers()
}
