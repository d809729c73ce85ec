package endpoint

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/thurward/thurward/internal/guest/dot"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestLinksOfUpstreams: a link for each upstream with TLS, by its number, and no
// other; its ports are the firewall's own while it has them.
func TestLinksOfUpstreams(t *testing.T) {
	l := newLab(t, func(p *ruleset.Policy) {
		p.Strings = []byte("dns.example")
		name := ruleset.Text{Off: 0, Len: uint32(len(p.Strings))}
		p.Upstreams = nil
		for i := range 5 {
			p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip("198.51.100.60").To16(), Port: uint16(8530 + i), TLS: uint8(i & 1), ServerName: name})
		}
	})
	var ups []int
	for _, k := range l.Links() {
		ups = append(ups, k.Up)
		if k.Pipe == nil || k.Pipe != l.byUp[k.Up].Pipe() {
			t.Errorf("upstream %d has no pipe, or another's", k.Up)
		}
	}
	if !slices.Equal(ups, []int{1, 3}) || l.byUp[0] != nil || len(l.links) != 2 {
		t.Errorf("links to %v", ups)
	}
	u := linkUser{l.Host}
	a, port, ok := u.AllocPort()
	if !ok || a != ip(wanAddr) || l.nat.Pools()[0].InUse(packet.TCP) != 1 {
		t.Fatalf("port %d of %v", port, a)
	}
	u.FreePort(port)
	if l.nat.Pools()[0].InUse(packet.TCP) != 0 {
		t.Error("it was not given back")
	}
	c := carrier{l.Host}
	port, ok = c.AllocPort()
	if !ok || l.nat.Pools()[0].InUse(packet.UDP) != 1 {
		t.Fatal("no port")
	}
	c.FreePort(port)
	one, two, three := c.Random(), c.Random(), (ends{l.Host}).Random()
	if l.nat.Pools()[0].InUse(packet.UDP) != 0 || one == two || two == three {
		t.Error("it was not given back, or numbers repeat")
	}
	// The event of a failed link.
	l.Poll(12345)
	u.Failed(3, dot.Class(verdict.NumTLSClasses-1), []byte("why not"))
	var r event.Record
	name, ok := l.events.GetNamed(&r, nil)
	if !ok || r != (event.Record{Time: 12345, Kind: event.UpstreamFailed, TLS: verdict.NumTLSClasses - 1, Direction: verdict.Egress, EtherType: packet.TypeIPv4, Proto: packet.TCP,
		Dst: ip("198.51.100.60").To16(), DstPort: 8533, NameLen: 7}) || string(name) != "why not" {
		t.Errorf("%q %+v", name, r)
	}
	l.c.Events = nil
	u.Failed(3, 1, []byte("no ring takes it"))
}

// TestPortsOfConnections: an own connection has its port while it exists; one that cannot
// begin has none, and the end of a client's connection frees no port of the proxy's.
func TestPortsOfConnections(t *testing.T) {
	l := newLab(t, nil)
	in := func() int { return l.nat.Pools()[0].InUse(packet.TCP) }
	n := 0
	for l.askTCP(ip(upstream), 53, uint32(1+n), []byte("0123456789ab")) {
		if n++; n > 1000 {
			t.Fatal("there is no end")
		}
	}
	if n == 0 || l.Conns().Len() != n || in() != n {
		t.Fatalf("%d connections of %d have %d ports", l.Conns().Len(), n, in())
	}
	for i := range n {
		(carrier{l.Host}).CancelTCP(uint32(1 + i))
	}
	for now := int64(0); now < 60*second; now += second {
		l.Tick(now)
	}
	if l.Conns().Len() != 0 || in() != 0 {
		t.Fatalf("%d connections have %d ports", l.Conns().Len(), in())
	}
	port, _ := l.nat.Own().Take(packet.TCP, rand.Uint64())
	u := ends{l.Host}
	u.Closed(1, 1, &tcp.Tuple{LocalPort: port}, true)
	if in() != 1 {
		t.Error("a client's connection gave back a port of the proxy's")
	}
	u.Closed(1, 1, &tcp.Tuple{LocalPort: port}, false)
	if in() != 0 {
		t.Error("the port is not given back")
	}
	// No port is left.
	l = newLab(t, func(p *ruleset.Policy) { p.SNAT[0].PortLo, p.SNAT[0].PortHi = 5000, 5003 })
	for {
		if _, ok := l.nat.Own().Take(packet.TCP, rand.Uint64()); !ok {
			break
		}
	}
	if l.askTCP(ip(upstream), 53, 1, []byte("0123456789ab")) || l.Conns().Len() != 0 {
		t.Error("a connection without a port")
	}
}
