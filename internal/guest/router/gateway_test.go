package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
)

// TestARP_GatewayIsAskedFor: from the announcement on the gateway is asked for every second,
// without traffic, until it has answered; traffic does not wait for the next request.
func TestARP_GatewayIsAskedFor(t *testing.T) {
	const gateway = "203.0.113.1"
	reply := func(mac [6]byte) []byte {
		f := make([]byte, 60)
		packet.PutARP(f, &wanMAC, &packet.ARPMessage{Op: packet.ARPReply, SenderMAC: mac, SenderAddr: ip(gateway), TargetMAC: wanMAC, TargetAddr: ip(ours)})
		return f
	}
	asks := func(l *lab) (n int) {
		for _, f := range l.port[wan].out {
			var m packet.ARPMessage
			if packet.ParseARP(f, &m) && m.Op == packet.ARPRequest && m.TargetAddr == ip(gateway) {
				n++
			}
		}
		l.port[wan].out, l.port[lan].out = nil, nil
		return n
	}
	l := newLab(t, "accept egress", established)
	mac := macOf(ip(gateway))
	l.raw(wan, reply(mac)) // nobody has asked
	if _, ok := l.e.Gateway(); ok || asks(l) != 0 {
		t.Fatal("the gateway is known, or was asked for, before the announcement")
	}
	l.e.Announce()
	for i := range 10 {
		for range 10 {
			l.poll()
			l.now += second / 10
		}
		if n := asks(l); n != 1 {
			t.Errorf("second %d: asked for %d times", i, n)
		}
	}
	l.poll()
	asks(l)
	l.now += second / 2
	l.port[lan].in = append(l.port[lan].in, udp(host, 4000, web, 53).frame(lanMAC))
	l.poll()
	if n := asks(l); n != 1 {
		t.Errorf("a packet half a second after a request has the gateway asked for %d times, want once, at once", n)
	}
	for range 40 { // it is given up
		l.now += second / 10
		l.poll()
	}
	asks(l)
	l.now += 2 * second
	l.poll()
	if n := asks(l); n != 1 {
		t.Errorf("asked for %d times after it was given up", n)
	}
	l.now += second - 1
	l.raw(wan, arp(packet.ARPRequest, gateway, [6]byte{2, 6, 6, 6, 6, 6}, ours)) // its name, no answer
	if _, ok := l.e.Gateway(); ok {
		t.Error("who asks in the gateway's name is the gateway")
	}
	l.raw(wan, reply(mac))
	if got, ok := l.e.Gateway(); !ok || got != mac {
		t.Errorf("the gateway has answered: %v, %v", got, ok)
	}
	asks(l)
	for range 5 {
		l.now += second
		l.poll()
	}
	if n := asks(l); n != 0 || l.e.gate.due {
		t.Errorf("asked for %d times more", n)
	}

	// An answer that comes too late is one that nobody has asked for.
	l = newLab(t, "accept egress", established)
	l.e.Announce()
	l.poll()
	l.e.gate.due = false
	l.now += second
	l.raw(wan, reply(mac))
	if _, ok := l.e.Gateway(); ok {
		t.Error("an answer after a second is believed")
	}
}
