package router

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/neigh"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// quick puts frames in as one batch and returns how many of them were sent on
// without anything else looking at them: of those no packet was read.
func (l *lab) quick(from int, fs ...[]byte) (n int) {
	l.t.Helper()
	if len(fs) > Batch {
		l.t.Fatal("that is no batch")
	}
	const unread = 60_001
	for i := range fs {
		l.e.b.pk[i].Total = unread
	}
	l.port[from].in = append(l.port[from].in, fs...)
	l.poll()
	for i := range fs {
		if l.e.b.pk[i].Total == unread {
			n++
		}
	}
	return n
}

// TestFastPathTakes: the packets that take the fast path are those that may, one by one: to
// an observer both ways are the same (TestFastPathIsForward), so that only this verifies
// that there is a fast path at all.
func TestFastPathTakes(t *testing.T) {
	open := func(t *testing.T) (l *lab, ext, u uint16) {
		l = newLabWith(t, func(p *ruleset.Policy) {
			p.Interfaces[1].MTU = 1000
			p.DNAT = []ruleset.DNAT{hairpinned(dnat(packet.UDP, ours, 5000, 5000, server, 5000))}
		}, "accept", established)
		ext = l.handshake(host, 4000, web, 80)
		u = l.one(lan, udp(host, 4000, web, 5000)).SrcPort
		l.one(wan, udp(web, 5000, ours, u))
		l.one(lan, udp(host, 4000, web, 5000))
		l.one(wan, udp(web, 5000, ours, u))
		l.one(wan, tcpSeg(web, 80, ours, ext, packet.ACK, 5001, 1001))
		return l, ext, u
	}
	ack := func(n int) pkt {
		p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
		p.data = make([]byte, n)
		return p
	}
	gram := func(n int) pkt {
		p := udp(host, 4000, web, 5000)
		p.data = make([]byte, n)
		return p
	}
	with := func(p pkt, edit func(p *pkt)) pkt { edit(&p); return p }
	for _, x := range []struct {
		name string
		p    pkt
		want bool
	}{
		{"an acknowledgment", ack(0), true}, {"data", ack(100), true}, {"as long as the way out carries", ack(960), true}, {"longer", ack(961), false},
		{"a datagram", gram(100), true}, {"an empty one", gram(0), true}, {"as long as it may be", gram(972), true}, {"a longer one", gram(973), false},
		{"the last hop but one", with(ack(0), func(p *pkt) { p.ttl = 2 }), true}, {"the last hop", with(ack(0), func(p *pkt) { p.ttl = 1 }), false},
		{"PSH", with(ack(9), func(p *pkt) { p.flags |= packet.PSH }), true}, {"URG", with(ack(9), func(p *pkt) { p.flags |= packet.URG }), true},
		{"FIN", with(ack(0), func(p *pkt) { p.flags |= packet.FIN }), false}, {"RST", with(ack(0), func(p *pkt) { p.flags |= packet.RST }), false},
		{"SYN", with(ack(0), func(p *pkt) { p.flags |= packet.SYN }), false}, {"no ACK", with(ack(9), func(p *pkt) { p.flags = packet.PSH }), false},
		{"options", with(ack(9), func(p *pkt) { p.opts = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2} }), true},
		{"beyond the window", with(ack(9), func(p *pkt) { p.seq += 100_000 }), false}, {"an acknowledgment of nothing sent", with(ack(9), func(p *pkt) { p.ack += 100_000 }), false},
		{"a new flow", udp(host, 4001, web, 5000), false},
	} {
		l, _, _ := open(t)
		if n := l.quick(lan, x.p.frame(lanMAC)); (n == 1) != x.want {
			t.Errorf("%s: fast %v, want %v", x.name, n == 1, x.want)
		}
		l.taken(lan)
		l.taken(wan)
		l.run()
		l.invariants()
	}
	l, ext, u := open(t)
	if n := l.quick(wan, tcpSeg(web, 80, ours, ext, packet.ACK, 5001, 1001).frame(wanMAC), udp(web, 5000, ours, u).frame(wanMAC)); n != 2 {
		t.Errorf("%d answers took the fast path, want 2", n)
	}
	if vs := l.taken(lan); len(vs) != 2 || vs[0].Dst != ip(host) || vs[1].Dst != ip(host) {
		t.Errorf("%v", vs)
	}
	// A copy from the other side, with the addresses of this.
	if n := l.quick(wan, gram(9).frame(wanMAC)); n != 0 || len(l.taken(lan)) != 0 {
		t.Error("a copy from the other side passes")
	}
	// The next hop's address must be known for certain.
	gw := l.e.port[wan].neigh.Find(ip("203.0.113.1"))
	l.now = gw.Expires - 1
	if l.quick(lan, gram(9).frame(lanMAC)) != 1 {
		t.Error("the neighbour is known")
	}
	l.now++
	if l.quick(lan, gram(9).frame(lanMAC)) != 0 || gw.State != neigh.Probe {
		t.Error("the neighbour's time is over")
	}
	if l.quick(lan, gram(9).frame(lanMAC)) != 0 {
		t.Error("the neighbour is asked whether it is there")
	}
	l.taken0()
	l.e.plain = true
	l.run()
	if l.quick(lan, gram(9).frame(lanMAC)) != 0 {
		t.Error("none is to take it")
	}
}

// taken0 forgets what came out, ARP among it.
func (l *lab) taken0() { l.port[lan].out, l.port[wan].out = nil, nil }

// TestFastPathRuns: runs of packets on the fast path, to several next hops and cut by others,
// leave in order, each to its own, and all of them.
func TestFastPathRuns(t *testing.T) {
	hosts := []string{host, "10.0.0.3", "10.0.0.4"}
	l := newLabWith(t, routed, "accept", established)
	servers := []string{web, "203.0.113.50", "203.0.113.51", "192.0.2.9"} // by the gateway, and beside it
	for _, h := range hosts {
		for _, s := range servers {
			for range 2 {
				l.one(lan, udp(h, 4000, s, 5000))
				l.one(wan, udp(s, 5000, h, 4000))
			}
		}
	}
	for side := range 2 {
		var fs [][]byte
		var want []pkt
		slow := 0
		for i := range Batch {
			h, s := hosts[i/5%3], servers[i/3%4]
			p := udp(h, 4000, s, 5000)
			if side == wan {
				p = udp(s, 5000, h, 4000)
			}
			if i%11 == 7 {
				p.ttl = 1 // no way further
				slow++
			} else if i%13 == 5 {
				p.sport++ // a flow of its own
				slow++
				want = append(want, p)
			} else {
				want = append(want, p)
			}
			p.data = []byte{byte(i)}
			fs = append(fs, p.frame([...][6]byte{lanMAC, wanMAC}[side]))
		}
		if n := l.quick(side, fs...); n != Batch-slow {
			t.Errorf("side %d: %d of %d took the fast path, want %d", side, n, Batch, Batch-slow)
		}
		got := l.taken(1 - side) // each to the link-layer address of its next hop
		if len(got) != len(want) {
			t.Fatalf("side %d: %d left, want %d; drops %s", side, len(got), len(want), l.drops())
		}
		for i, v := range got {
			if v.Src != ip(want[i].src) || v.Dst != ip(want[i].dst) || v.SrcPort != want[i].sport || v.DstPort != want[i].dport {
				t.Errorf("side %d: place %d is %v, want %+v", side, i, v, want[i])
			}
		}
		l.taken0()
		l.run()
		l.buffers()
	}
}

// TestFastPathBehindFragments: what a batch has become by being cut leaves room for
// the run that follows.
func TestFastPathBehindFragments(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) { p.Interfaces[1].MTU = 576 }, "accept", established)
	l.served(host, 4000, web)
	l.poll()
	for _, cut := range []int{20, 21, 22, 30, 40, 42, 43, 50} {
		var fs [][]byte
		for i := range Batch {
			p := udp(host, 4000, web, 5000)
			if i < cut {
				p = large(p, 1400) // becomes 3
			}
			fs = append(fs, p.frame(lanMAC))
		}
		if n := l.quick(lan, fs...); n != Batch-cut {
			t.Fatalf("%d took the fast path, want %d", n, Batch-cut)
		}
		if n := len(l.port[wan].out); n != 3*cut+Batch-cut {
			t.Errorf("%d frames, %d of them cut: %d left", Batch, cut, n)
		}
		if vs := l.taken(wan); len(vs) != Batch {
			t.Errorf("%d datagrams left", len(vs))
		}
		l.invariants()
	}
}

// TestFastPathCounts: the counters of a packet on the fast path, and the timeouts that it
// refreshes.
func TestFastPathCounts(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.served(host, 4000, web)
	r := l.e.flows.Lookup(&l.e.flows.Dir(0).Key, l.now)
	before, accepts := *l.e.flows.Dir(r), l.e.c.Accepts[0]
	l.now += second
	p := udp(host, 4000, web, 5000)
	p.data = make([]byte, 33)
	f := append(p.frame(lanMAC), make([]byte, 7)...) // with padding
	if l.quick(lan, f, f, f) != 3 {
		t.Fatal("they did not take the fast path")
	}
	d := l.e.flows.Dir(r)
	if d.Packets != before.Packets+3 || d.Bytes != before.Bytes+3*(20+8+33) || d.LastSeen != l.now || l.e.c.Accepts[0] != accepts+3 {
		t.Errorf("%+v, before %+v", d, before)
	}
	// Datagrams that may be cut on their way get numbers that no two share; others keep
	// theirs.
	seen := map[uint16]bool{}
	for _, v := range l.taken(wan) {
		id := packet.FragmentID(v.frame)
		if seen[id] {
			t.Errorf("the identifier %d comes twice", id)
		}
		seen[id] = true
	}
	p.df = true
	g := p.frame(lanMAC)
	packet.SetID(g[packet.EthLen:], 777)
	if l.quick(lan, g) != 1 {
		t.Fatal("it did not take the fast path")
	}
	if v := l.taken(wan)[0]; packet.FragmentID(v.frame) != 777 {
		t.Errorf("the identifier became %d", packet.FragmentID(v.frame))
	}
	l.invariants()
}
