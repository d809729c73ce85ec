package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestErrorsToOtherAddresses: an error about a question goes to whom the question came
// from, and to no other of the firewall's addresses.
func TestErrorsToOtherAddresses(t *testing.T) {
	l := githubLab(t, func(p *ruleset.Policy) {
		p.Upstreams = append(p.Upstreams, ruleset.Upstream{Address: ip(secondUpstream).To16(), Port: 53})
		p.DNAT = []ruleset.DNAT{dnat(packet.TCP, "203.0.113.12", 80, 80, server, 80)}
	})
	v := l.queryOf("github.com")
	for _, to := range []string{"203.0.113.12", lanAddr, host} {
		local := l.e.c.Local
		if a, b := l.put(wan, quoted("192.0.2.1", to, packet.Unreachable, 3, v.frame, 600, nil)); len(a)+len(b) != 0 || l.e.c.Local != local {
			t.Errorf("to %s it made %v, %v", to, a, b)
		}
	}
	if _, b := l.unreachable(v, 3, 600, nil); len(b) != 1 || b[0].Dst != ip(secondUpstream) {
		t.Errorf("to its sender it made %v", b)
	}
	l.buffers()
}

// TestFloodOfErrorsOverTCP: errors about connections are counted with the others of a
// second.
func TestFloodOfErrorsOverTCP(t *testing.T) {
	l := twoUpstreams(t)
	l.truncated(l.queryOf("github.com"))
	var v *view
	for _, s := range l.putNothing() {
		if s.Proto == packet.TCP {
			v = s
		}
	}
	if v == nil {
		t.Fatal("no connection to the upstream")
	}
	for range 1000 {
		if a, b := l.unreachable(v, 3, 28, func(q []byte) { q[24] ^= 1 }); len(a)+len(b) != 0 {
			t.Fatalf("a forged error made %v, %v", a, b)
		}
	}
	if a, b := l.unreachable(v, 3, 28, nil); len(a)+len(b) != 0 || l.e.host.Conns().Len() != 1 {
		t.Fatalf("beyond the rate it made %v, %v", a, b)
	}
	l.lab.now += second
	if _, b := l.unreachable(v, 3, 28, nil); l.e.host.Conns().Len() != 0 {
		t.Fatalf("a second later it made %v", b)
	}
	l.pass(10)
	l.buffers()
}

// TestDatagramBesideAConnection: a datagram with the addresses and ports of a connection of
// the proxy's is one of the proxy's, and none of its segments.
func TestDatagramBesideAConnection(t *testing.T) {
	l := githubLab(t, nil)
	if _, back := l.put(lan, syn(host, 4000, lanAddr, 53)); len(back) != 1 {
		t.Fatal("no connection")
	}
	p := l.datagram(host, l.query("github.com", 1))
	p.sport = 4000
	across, _ := l.put(lan, p)
	if len(across) != 1 {
		t.Fatalf("%d questions to the upstream; drops %s", len(across), l.drops())
	}
	l.answers(across[0], reply(l.message(across[0]), "@ 60 IN A "+github))
	if !l.connects(host, github, 443) || l.e.host.Conns().Counters().Invalid != 0 {
		t.Error("it was taken for a segment")
	}
	l.buffers()
}
