package dataplane

import (
	"testing"

	"github.com/miekg/dns"
)

// answered requires that the client got one answer, and returns it.
func (l *tlsLab) answered(grams [2][]*view) *dns.Msg {
	l.t.Helper()
	if len(grams[wan]) != 0 {
		l.t.Fatalf("%v left towards the WAN in the clear", grams[wan])
	}
	if len(grams[lan]) != 1 {
		l.t.Fatalf("%d answers; %+v, links %+v; drops %s", len(grams[lan]), l.e.DNS().Counters(), l.e.names.links[0].Counters(), l.drops())
	}
	return l.message(grams[lan][0])
}

// send puts a client's query on the wire.
func (l *tlsLab) send(client string, m *dns.Msg) {
	b, err := m.Pack()
	if err != nil {
		l.t.Fatal(err)
	}
	l.port++
	p := udp(client, l.port, lanAddr, 53)
	p.data = b
	l.port2(lan).in = append(l.port2(lan).in, p.frame(lanMAC))
}

func TestDoTAnswers(t *testing.T) {
	inBubble(t, nil, func(l *tlsLab) {
		l.send(host, l.query("GitHub.com", dns.TypeA))
		if m := l.answered(l.settle()); len(m.Answer) != 1 || m.Question[0].Name != "GitHub.com." {
			t.Fatalf("the client got %v", m)
		}
		if !l.connects(host, github, 443) {
			t.Fatal("the name is not bound")
		}
	})
}
