package router

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// drawn is what an observer sees of the generators.
type drawn struct {
	natPort, natPort2, dnsPort, dnsID uint16
	dnsName                           string
	iss                               uint32
	ids                               [4]uint16
}

// draw makes a lab send what needs random numbers: a query to the upstream, the answer to a
// connection, two packets of new flows that want the same external port.
func draw(l *dnsLab) (d drawn) {
	l.t.Helper()
	v, q := l.asked(host, l.query("a.long.name.of.github.com", dns.TypeA))
	d.dnsPort, d.dnsID, d.dnsName = v.SrcPort, q.Id, q.Question[0].Name
	l.port++
	_, back := l.put(lan, syn(host, l.port, lanAddr, 53))
	if len(back) != 1 || back[0].Flags != packet.SYN|packet.ACK {
		l.t.Fatalf("no SYN-ACK: %v", back)
	}
	d.iss = back[0].Seq
	d.natPort = l.one(lan, udp(host, l.port, web, 443)).SrcPort
	d.natPort2 = l.one(lan, udp("10.0.0.77", l.port, web, 443)).SrcPort
	copy(d.ids[:], l.e.ids[:])
	return d
}

// TestReseed: two machines with the same state send the same numbers; given other secrets
// they send others, each of them.
func TestReseed(t *testing.T) {
	made := func() *dnsLab {
		return newDNSLab(t, nil, "accept udp")
	}
	a, b := made(), made()
	if x, y := draw(a), draw(b); x != y {
		t.Fatalf("the labs differ from the start: %+v and %+v", x, y)
	}
	a.e.Reseed([32]byte{1})
	b.e.Reseed([32]byte{2})
	x, y := draw(a), draw(b)
	if x.dnsPort == y.dnsPort || x.dnsID == y.dnsID || x.dnsName == y.dnsName || x.iss == y.iss || x.natPort2 == y.natPort2 || x.ids == y.ids {
		t.Errorf("the same numbers after other secrets: %+v and %+v", x, y)
	}
	a.e.Reseed([32]byte{3})
	b.e.Reseed([32]byte{3})
	if x, y := a.e.random(), b.e.random(); x != y {
		t.Errorf("the same secret, and %x and %x", x, y)
	}
}

// TestSlept: while the machine stood still names grew older and flows did not. A flow that a
// name has opened goes on, a new one needs the name again.
func TestSlept(t *testing.T) {
	l := githubLab(t, nil)
	l.resolve(host, "github.com", "@ 60 IN A "+github)
	if !l.connects(host, github, 443) {
		t.Fatal("a name does not open its address")
	}
	l.port++
	open := l.port
	if n, _ := l.put(lan, syn(host, open, github, 443)); len(n) != 1 {
		t.Fatal("a second connection does not open")
	}
	l.e.Slept(59 * second)
	if !l.connects(host, github, 443) {
		t.Error("before its TTL has passed the name is gone")
	}
	l.e.Slept(2 * second)
	if l.connects(host, github, 443) {
		t.Error("the name outlives its TTL because the machine stood still")
	}
	if e := l.last(); e.Hint != verdict.NameExpired {
		t.Errorf("the hint is %v, want that the name has expired", e.Hint)
	}
	if n, _ := l.put(lan, syn(host, open, github, 443)); len(n) != 1 {
		t.Error("a connection that was open does not go on")
	}
	l.resolve(host, "github.com", "@ 60 IN A "+github)
	if !l.connects(host, github, 443) {
		t.Error("resolved again the name does not open")
	}
	// A policy without names.
	newLab(t, "accept egress").e.Slept(second)
}

// TestMoved: after a restore no neighbour of before is believed to be where it was.
func TestMoved(t *testing.T) {
	l := newLab(t, "accept egress")
	l.one(lan, udp(host, 4000, web, 443))
	if l.e.outside.neigh.Len() == 0 {
		t.Fatal("no gateway is known to begin with")
	}
	l.e.Moved()
	for i := range l.e.port {
		if n := l.e.port[i].neigh.Len(); n != 0 {
			t.Errorf("port %d still knows %d neighbours", i, n)
		}
	}
	if !l.e.again.due {
		t.Error("the addresses are not announced")
	}
}
