package router

import (
	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// What has to do with names does not allocate either: TestAllocationsOfRarePackets
// and BenchmarkRare go through these, too.
func init() {
	upstream := func(p *ruleset.Policy) {
		p.Upstreams = []ruleset.Upstream{{Address: ip(upstreamAddr).To16(), Port: 53}}
		p.Settings.DNSRate = 1 << 30
	}
	ask := func(name string) func(*lab) [][]byte {
		return func(l *lab) [][]byte {
			m := new(dns.Msg)
			m.SetQuestion(name, dns.TypeA)
			m.SetEdns0(1232, true)
			b, err := m.Pack()
			if err != nil {
				l.t.Fatal(err)
			}
			p := udp(host, 4000, lanAddr, 53)
			p.data = b
			return [][]byte{p.frame(lanMAC)}
		}
	}
	rares = append(rares,
		rare{name: "dns, blocked", from: lan, rules: []rule{toDNS}, edit: func(p *ruleset.Policy) {
			upstream(p)
			p.Blocked = []ruleset.Name{nameOf(p, "ads.example")}
		}, round: ask("www.ads.example."), sent: [2]int{lan: 1}},
		rare{name: "dns, forged ICMP error", from: wan, rules: []rule{toDNS}, every: 1e6, edit: upstream, round: func(l *lab) [][]byte {
			l.port[lan].in = ask("www.example.")(l)
			l.run()
			v := l.taken(wan)[0]
			return [][]byte{quoted("192.0.2.1", ours, packet.Unreachable, 3, v.frame, 600, func(q []byte) { q[len(q)-1] ^= 1 }).frame(wanMAC)}
		}},
		rare{name: "name of another client", from: lan, rules: []rule{toDNS, "accept egress tcp any -> any :443"},
			edit: func(p *ruleset.Policy) { upstream(p); named(p, 1, "github.com") },
			open: func(l *lab) {
				l.e.names.set.Bind(ip("10.0.0.3"), []byte("\x06github\x03com\x00"), ip(github), 1<<30, l.now, 1)
			},
			round: func(*lab) [][]byte { return [][]byte{syn(host, 4000, github, 443).frame(lanMAC)} }})
}
