package router

import (
	"math"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// A rare is a kind of packet that is not simply forwarded, and the result of one round of
// its frames.
type rare struct {
	name  string
	from  int
	edit  func(p *ruleset.Policy)
	rules []rule
	// round returns the frames of one round; open prepares the lab.
	open  func(l *lab)
	round func(l *lab) [][]byte
	sent  [2]int // frames that leave by each side, of one round
	every int64  // nanoseconds between rounds
}

var rares = []rare{
	{name: "icmp error", from: wan, rules: []rule{"accept egress", established},
		open: func(l *lab) { l.flowOut(udp(host, 4000, web, 53)) },
		round: func(l *lab) [][]byte {
			r := l.e.flows.Dir(2) // the second flow
			return [][]byte{quoted("192.0.2.1", ours, packet.TimeExceeded, 0, udp(ours, r.Out.SrcPort, web, 53).frame(wanMAC), 28, nil).frame(wanMAC)}
		}, sent: [2]int{lan: 1}},
	{name: "ttl", from: lan, rules: []rule{"accept"}, every: 1e6, round: func(*lab) [][]byte {
		p := udp(host, 4000, web, 53)
		p.ttl = 1
		return [][]byte{p.frame(lanMAC)}
	}, sent: [2]int{lan: 1}},
	{name: "reject udp", from: lan, rules: []rule{"reject"}, every: 1e6, round: func(*lab) [][]byte {
		return [][]byte{udp(host, 4000, web, 53).frame(lanMAC)}
	}, sent: [2]int{lan: 1}},
	{name: "reject tcp", from: lan, rules: []rule{"reject"}, every: 1e6, round: func(*lab) [][]byte {
		return [][]byte{syn(host, 4000, web, 53).frame(lanMAC)}
	}, sent: [2]int{lan: 1}},
	{name: "reject, beyond the rate", from: lan, rules: []rule{"reject"}, round: func(*lab) [][]byte {
		return [][]byte{syn(host, 4000, web, 53).frame(lanMAC)}
	}},
	{name: "reassemble 3", from: lan, edit: reassembleEdit, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		return fragments(large(udp(host, 4000, web, 53), 4000), lanMAC, 1500, 7)
	}, sent: [2]int{wan: 3}},
	{name: "reassemble 44", from: lan, edit: reassembleEdit, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		return fragments(large(udp(host, 4000, web, 53), 65000), lanMAC, 1500, 7)
	}, sent: [2]int{wan: 44}},
	{name: "poisoned datagram", from: lan, edit: reassembleEdit, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		f := fragments(large(udp(host, 4000, web, 53), 4000), lanMAC, 1500, 7)
		return [][]byte{f[0], shift(f[1], 1000, true), f[2]}
	}},
	{name: "fragments dropped", from: lan, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		return fragments(large(udp(host, 4000, web, 53), 4000), lanMAC, 1500, 7)
	}},
	{name: "cut", from: lan, edit: func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1280 }, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		return [][]byte{large(udp(host, 4000, web, 53), 1472).frame(lanMAC)}
	}, sent: [2]int{wan: 2}},
	{name: "frag needed", from: lan, edit: func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1280 }, rules: []rule{"accept"}, every: 1e6, round: func(*lab) [][]byte {
		p := large(udp(host, 4000, web, 53), 1472)
		p.df = true
		return [][]byte{p.frame(lanMAC)}
	}, sent: [2]int{lan: 1}},
	{name: "mss", from: lan, edit: func(p *ruleset.Policy) { p.Interfaces[1].MTU = 1280 }, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		p := syn(host, 4000, web, 80)
		p.opts = []byte{2, 4, 5, 0xb4, 1, 3, 3, 7}
		return [][]byte{p.frame(lanMAC)}
	}, sent: [2]int{wan: 1}},
	{name: "held SYN", from: wan, rules: []rule{"reject"}, round: func(*lab) [][]byte {
		return [][]byte{syn(web, 4000, ours, 22).frame(wanMAC)}
	}},
	{name: "martian", from: lan, rules: []rule{"accept"}, round: func(*lab) [][]byte {
		return [][]byte{udp("169.254.1.1", 4000, web, 53).frame(lanMAC)}
	}},
}

func reassembleEdit(p *ruleset.Policy) { p.Settings.Fragments = ruleset.FragmentsReassemble }

// prepare makes a lab for packets of a kind, and returns the frames of a round
// and a port that gives them.
func (c *rare) prepare(t testing.TB) (*lab, *burst, *burst) {
	l := newLabWith(t, c.edit, c.rules...)
	l.meet(wan, "203.0.113.1")
	l.raw(lan, arp(packet.ARPRequest, host, macOf(ip(host)), "10.0.0.1"))
	if c.open != nil {
		c.open(l)
	}
	for i, as := range [...][]string{{host, server, "10.0.0.3"}, {"203.0.113.1"}} {
		for _, a := range as {
			if n := l.e.port[i].neigh.Find(ip(a)); n != nil && n.State == neigh.Reachable {
				n.Expires = math.MaxInt64 // the ports will not answer
			}
		}
	}
	w := [2]*burst{{still: still{pool: l.pool}}, {still: still{pool: l.pool}}}
	w[c.from].round = c.round(l)
	l.e.port[lan].Port, l.e.port[wan].Port = w[lan], w[wan]
	return l, w[lan], w[wan]
}

// A burst is a port that gives the frames of a round whenever it is armed.
type burst struct {
	still
	round [][]byte
	armed bool
	sent  int
}

func (b *burst) Receive(dst []framebuf.Frame) int {
	if !b.armed {
		return 0
	}
	b.armed = false
	b.frames = b.round
	n := 0
	for len(b.frames) > 0 {
		n += b.still.Receive(dst[n:])
	}
	return n
}

func (*burst) HasRoom(int) bool { return true }

func (b *burst) Transmit(src []framebuf.Frame) int {
	b.sent += len(src)
	return b.still.Transmit(src)
}

// TestAllocationsOfRarePackets: these do not allocate either, and have the right result.
func TestAllocationsOfRarePackets(t *testing.T) {
	for _, c := range rares {
		t.Run(c.name, func(t *testing.T) {
			l, a, b := c.prepare(t)
			from := [...]*burst{a, b}[c.from]
			const runs = 100
			if n := testing.AllocsPerRun(runs, func() { from.armed = true; l.now += c.every; l.poll() }); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if a.sent != c.sent[lan]*(runs+1) && !(c.name == "reject, beyond the rate" && a.sent == icmperr.Burst) || b.sent != c.sent[wan]*(runs+1) {
				t.Fatalf("%d and %d frames left; drops: %s", a.sent, b.sent, l.drops())
			}
		})
	}
}

// BenchmarkRare measures packets that are not just forwarded: fragments, ICMP
// errors, answers, SYNs whose MSS is lowered.
func BenchmarkRare(b *testing.B) {
	for _, c := range rares {
		b.Run(c.name, func(b *testing.B) {
			l, x, y := c.prepare(b)
			l.e.events = nil
			from := [...]*burst{x, y}[c.from]
			b.ReportAllocs()
			b.ResetTimer()
			start := cpu()
			for range b.N {
				from.armed = true
				l.now += c.every
				l.poll()
			}
			b.StopTimer()
			b.ReportMetric(float64(b.N*len(from.round))/(cpu()-start).Seconds()/1e6, "Mpps/cpu")
			if c.name != "reject, beyond the rate" && (x.sent != c.sent[lan]*b.N || y.sent != c.sent[wan]*b.N) {
				b.Fatalf("%d and %d frames left", x.sent, y.sent)
			}
		})
	}
}
