package router

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/icmperr"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestHostileFloods: while one kind of hostile traffic after the other is at
// its bounds, an open connection and a datagram in fragments pass as ever.
func TestHostileFloods(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	anyone := func() string { return addr(packet.Addr(0x08000000 + r.Uint32N(1<<24))).String() }
	for name, flood := range map[string]func(i int) (int, []byte){
		"fragments of anyone": func(i int) (int, []byte) {
			return wan, fragments(large(udp(anyone(), 1, ours, 2), 100), wanMAC, 60, uint16(i))[i%3]
		},
		"fragments of one": func(i int) (int, []byte) {
			return wan, fragments(large(udp(web, 1, ours, 2), 100), wanMAC, 60, uint16(i))[i%3]
		},
		"fragments that overlap": func(i int) (int, []byte) {
			f := fragments(large(udp(web, 1, ours, 2), 100), wanMAC, 60, uint16(i/2))
			return wan, shift(f[1], 8*(i%2+2), true)
		},
		"SYNs that are rejected": func(i int) (int, []byte) { return wan, syn(anyone(), uint16(i+1), ours, 22).frame(wanMAC) },
		"UDP that is rejected":   func(i int) (int, []byte) { return wan, udp(anyone(), uint16(i+1), ours, 22).frame(wanMAC) },
		"hosts that are not there": func(i int) (int, []byte) {
			return wan, udp(web, uint16(i+1), "10.0.0.99", 5000).frame(wanMAC)
		},
		"many hosts that are not there": func(i int) (int, []byte) {
			a := ip("10.0.0.100") + packet.Addr(i%100)
			dead[a] = true
			return wan, udp(web, uint16(i+1), addr(a).String(), 5000).frame(wanMAC)
		},
		"forged ICMP errors": func(i int) (int, []byte) {
			return wan, quoted(anyone(), ours, packet.Unreachable, 2, tcpSeg(ours, uint16(4000+i%3), web, 80, packet.ACK, 1, 1).frame(wanMAC), 28, nil).frame(wanMAC)
		},
		"forged resets": func(i int) (int, []byte) {
			return wan, tcpSeg(web, 80, ours, 4000, packet.RST, 5001+uint32(i+1)*65536, 0).frame(wanMAC)
		},
		"claims of addresses": func(i int) (int, []byte) {
			return i % 2, arp(uint16(1+i/2%2), []string{"203.0.113.1", ours, host, "10.0.0.1"}[i%4], [6]byte{2, 6, 6, 6, 6, byte(i)}, []string{ours, "10.0.0.1"}[i%2])
		},
		"neighbours that nobody has": func(i int) (int, []byte) {
			a := addr(ip("10.0.0.100") + packet.Addr(i%150)).String()
			return lan, arp(packet.ARPRequest, a, [6]byte{2, 6, 6, 6, 6, byte(i)}, "10.0.0.1")
		},
		"dying packets": func(i int) (int, []byte) {
			p := udp(web, 53, ours, 4000)
			p.ttl = 1
			return wan, p.frame(wanMAC)
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				for i := range packet.Addr(100) {
					delete(dead, ip("10.0.0.100")+i)
				}
			}()
			l := newLabWith(t, func(p *ruleset.Policy) {
				p.Settings.DefaultAction, p.Settings.Fragments, p.Settings.MaxFlows = ruleset.Reject, ruleset.FragmentsReassemble, 4096
			}, "accept egress", "accept ingress udp :5000", established)
			port := l.handshake(host, 4000, web, 80)
			seq, ack := uint32(1001), uint32(5001)
			for i := range 3000 {
				from, f := flood(i)
				l.port[from].in = append(l.port[from].in, f)
				l.now += 20e3 // 50,000 a second
				if i%100 != 99 {
					l.poll()
					continue
				}
				l.run()
				l.port[lan].out, l.port[wan].out = nil, nil
				d := tcpSeg(host, 4000, web, 80, packet.ACK, seq, ack)
				d.data = []byte("out")
				l.one(lan, d)
				seq += 3
				d = tcpSeg(web, 80, ours, port, packet.ACK, ack, seq)
				d.data = []byte("in")
				l.one(wan, d)
				ack += 2
				if got := l.feed(lan, fragments(large(udp("10.0.0.3", 4000, web, 53), 3000), lanMAC, 1500, uint16(i))...); len(got) != 1 {
					t.Fatalf("after %d: %d datagrams of three fragments; drops: %s", i, len(got), l.drops())
				}
			}
			l.invariants()
			if n := l.e.c.ICMPErrorsSent + l.e.c.ResetsSent; n > 2*uint64(icmperr.NumKinds)*(icmperr.Burst+200) {
				t.Fatalf("%d answers", n)
			}
			if d := l.e.c.DropReasons[verdict.TxFull]; d != 0 || l.e.c.NoBuffer != 0 {
				t.Fatalf("drops: %s; %d times no buffer", l.drops(), l.e.c.NoBuffer)
			}
		})
	}
}
