package router

import (
	"fmt"
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestRestart: after a start the neighbour cache is empty. 230 clients, which have the
// firewall's address in theirs, send queries at once, for both kinds of address; every
// client gets its answer, and no query is sent twice.
func TestRestart(t *testing.T) {
	l := newDNSLab(t, nil, "accept")
	const clients = 231
	want := map[packet.Addr]int{}
	for i := range clients {
		a := ip("10.0.0.10") + packet.Addr(i)
		if dead[a] {
			continue
		}
		want[a] = 2
		for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
			l.offer(lan, l.datagram(addr(a).String(), l.query(fmt.Sprintf("host%d.example.com", i), typ)))
		}
	}
	l.late()
	queries := l.taken(wan)
	if len(queries) != 2*len(want) {
		t.Errorf("%d queries reach the upstream, want %d; drops: %s", len(queries), 2*len(want), l.drops())
	}
	for _, v := range queries {
		m := l.message(v)
		r := new(dns.Msg)
		r.SetReply(m)
		b, err := r.Pack()
		if err != nil {
			t.Fatal(err)
		}
		p := udp(upstreamAddr, 53, ours, v.SrcPort)
		p.data = b
		l.offer(wan, p)
	}
	l.late()
	for _, v := range l.taken(lan) {
		want[v.Dst]--
	}
	lost := 0
	for _, n := range want {
		lost += n
	}
	if lost != 0 {
		t.Errorf("%d of %d answers are lost; drops: %s", lost, 2*len(want), l.drops())
	}
	l.buffers()
}

// offer puts a packet on the wire without running the firewall.
func (l *lab) offer(from int, p pkt) {
	l.port[from].in = append(l.port[from].in, p.frame([2][6]byte{lanMAC, wanMAC}[from]))
}

// late takes all that is on the wires before the first ARP answer comes.
func (l *lab) late() {
	for len(l.port[lan].in)+len(l.port[wan].in) > 0 {
		l.poll()
	}
	l.run()
}
