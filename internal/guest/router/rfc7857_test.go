package router

import (
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// RFC 7857 updates RFC 4787, 5382 and 5508.

func TestRFC7857_S2_1_TransitoryTimersAreSeparate(t *testing.T) {
	for i, c := range []struct {
		set   func(*ruleset.Settings)
		steps int // of opening and closing a connection
	}{
		{func(s *ruleset.Settings) { s.TCPSynSent = 50 }, 1},
		{func(s *ruleset.Settings) { s.TCPSynRecv = 50 }, 2},
		{func(s *ruleset.Settings) { s.TCPEstablished = 50 }, 3},
		{func(s *ruleset.Settings) { s.TCPFinWait = 50 }, 4},
		{func(s *ruleset.Settings) { s.TCPCloseWait = 50 }, 5},
		{func(s *ruleset.Settings) { s.TCPLastAck = 50 }, 6},
		{func(s *ruleset.Settings) { s.TCPTimeWait = 50 }, 7},
	} {
		for _, short := range []bool{false, true} {
			l := newLabWith(t, func(p *ruleset.Policy) {
				if short {
					c.set(&p.Settings)
				}
			}, "accept egress", established)
			var port uint16
			for n, f := range []func(){
				func() { port = l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0)).SrcPort },
				func() { l.one(wan, tcpSeg(web, 80, ours, port, packet.SYN|packet.ACK, 5000, 1001)) },
				func() { l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)) },
				func() { l.one(lan, tcpSeg(host, 4000, web, 80, packet.FIN|packet.ACK, 1001, 5001)) },
				func() { l.one(wan, tcpSeg(web, 80, ours, port, packet.ACK, 5001, 1002)) },
				func() { l.one(wan, tcpSeg(web, 80, ours, port, packet.FIN|packet.ACK, 5001, 1002)) },
				func() { l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1002, 5002)) },
			} {
				if n < c.steps {
					f()
				}
			}
			l.pass(51)
			if got := l.e.flows.Len() == 0; got != short {
				t.Errorf("case %d, short %v: gone %v", i, short, got)
			}
		}
	}
}

// TestRFC7857_S2_2_RSTIsTranslatedAndStateKept: for four minutes, and data that
// follows takes the connection up again.
func TestRFC7857_S2_2_RSTIsTranslatedAndStateKept(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, syn("10.0.0.3", 4000, web, 80)) // takes the preserved port
	l.pass(1)
	v := l.one(lan, tcpSeg(host, 4000, web, 80, packet.SYN, 1000, 0))
	l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001))
	d := l.e.flows.Dir(2)
	if s := d.State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
	l.pass(1000)
	l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.RST, 5001, 0)).is(t, web, 80, host, 4000)
	l.pass(239)
	if s := d.State.String(); s != "close" || l.e.flows.Len() != 1 {
		t.Fatalf("state %s, %d flows", s, l.e.flows.Len())
	}
	// Its sender's stragglers pass, and prove nothing.
	l.one(wan, tcpSeg(web, 80, ours, v.SrcPort, packet.ACK, 5001, 1001))
	if s := d.State.String(); s != "close" {
		t.Fatalf("state %s", s)
	}
	// The host did not believe it.
	p := tcpSeg(host, 4000, web, 80, packet.ACK, 1001, 5001)
	p.data = []byte("still here")
	l.one(lan, p).is(t, ours, v.SrcPort, web, 80)
	if s := d.State.String(); s != "established" {
		t.Fatalf("state %s", s)
	}
	l.pass(7000)
	if l.e.flows.Len() != 1 {
		t.Fatal("the connection did not get its time back")
	}
	l.one(lan, tcpSeg(host, 4000, web, 80, packet.RST, 1011, 0))
	l.pass(241)
	if l.e.flows.Len() != 0 {
		t.Fatal("still there after its time")
	}
}

// TestRFC7857_S2_2_TheResettingSideGoesOn: a forged RST did not reach its receiver, and the
// one in whose name it came goes on sending. What the other side acknowledges of that takes
// the connection up again.
func TestRFC7857_S2_2_TheResettingSideGoesOn(t *testing.T) {
	for _, how := range []string{"ack", "data", "fin"} {
		c := newConn(t, nil)
		c.port = c.handshake(host, 4000, web, 80)
		c.server(fRST, 5001, 0)
		c.state("close")
		c.server(fACK, 5001, 1001, bytesOf(1000))
		c.server(fACK, 6001, 1001, bytesOf(1000))
		c.state("close")
		switch how {
		case "ack":
			c.client(fACK, 1001, 7001)
		case "data":
			c.client(fACK, 1001, 7001, bytesOf(10))
		case "fin":
			c.server(fFIN|fACK, 7001, 1001)
			c.clientNot(fACK, 1001, 7003)
			c.client(fACK, 1001, 7002)
			c.state("close_wait")
			continue
		}
		c.state("established")
		c.server(fACK, 7001, 1001, bytesOf(1000))
		c.clientNot(fACK, 1001, 8002)
	}
}

// TestRFC7857_S7_1_RSTDoesNotRefresh: a RST begins the time that its connection
// has left; a repeated one does not prolong it.
func TestRFC7857_S7_1_RSTDoesNotRefresh(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.handshake(host, 4000, web, 80)
	for range 25 {
		l.put(lan, tcpSeg(host, 4000, web, 80, packet.RST, 1001, 0))
		l.pass(10)
	}
	if l.e.flows.Len() != 0 {
		t.Fatal("RSTs kept the flow")
	}
}

// TestRFC7857_S5_MappingIsPerProtocol: mapping and filtering behave the same
// for both protocols, each with its own ports.
func TestRFC7857_S5_MappingIsPerProtocol(t *testing.T) {
	l := newLab(t, "accept egress", established)
	for _, src := range []string{host, "10.0.0.3"} {
		u, s := l.one(lan, udp(src, 4000, web, 80)), l.one(lan, syn(src, 4000, web, 80))
		u2, s2 := l.one(lan, udp(src, 4000, "192.0.2.9", 81)), l.one(lan, syn(src, 4000, "192.0.2.9", 81))
		if u.SrcPort != u2.SrcPort || s.SrcPort != s2.SrcPort {
			t.Fatalf("ports %d and %d, %d and %d", u.SrcPort, u2.SrcPort, s.SrcPort, s2.SrcPort)
		}
	}
}

// TestRFC7857_S9_PortsAreRandom: a port that is not preserved cannot be guessed
// from others (RFC 6056), and differs from boot to boot.
func TestRFC7857_S9_PortsAreRandom(t *testing.T) {
	run := func(secret byte) (ports []uint16) {
		l := newLab(t, "accept egress")
		l.e.rng = rand.NewChaCha8([32]byte{byte(secret)})
		l.one(lan, udp("10.0.0.200", 4000, web, 53))
		for h := range packet.Addr(50) {
			ports = append(ports, l.one(lan, udp(addr(ip("10.0.0.100")+h).String(), 4000, web, 53)).SrcPort)
		}
		return ports
	}
	a, b := run(0), run(1)
	near, same := 0, 0
	for i := range a {
		if i > 0 && a[i]-a[i-1]+100 < 200 {
			near++
		}
		if a[i] == b[i] {
			same++
		}
	}
	if near > 4 || same > 4 {
		t.Fatalf("of 50 ports %d lie near the one before, and %d are those of another boot", near, same)
	}
}
