package router

import (
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// queued puts n UDP packets of one flow on the LAN's wire.
func (l *lab) queued(n int) {
	for range n {
		p := udp(host, 4000, web, 53)
		l.port[lan].in = append(l.port[lan].in, p.frame(lanMAC))
	}
}

// TestBurstWaitsForRoom: frames for which the WAN's device has no room stay in the LAN's
// receive queue, and are sent when there is room; none is lost.
func TestBurstWaitsForRoom(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.port[wan].room, l.port[wan].out = 3*Batch, nil
	l.queued(10 * Batch)
	sent := 0
	for i := range 1000 {
		l.now += 100_000
		l.poll()
		if len(l.port[wan].out) > 3*Batch {
			t.Fatalf("%d frames given to a device with room for %d", len(l.port[wan].out), 3*Batch)
		}
		if i%10 == 9 { // the device is slow, but never for roomWait
			sent += len(l.port[wan].out)
			l.port[wan].out = nil
		}
	}
	if d := l.e.c.DropReasons[verdict.TxFull]; sent != 10*Batch || d != 0 {
		t.Errorf("%d of %d left, %d dropped", sent, 10*Batch, d)
	}
	if l.e.c.Holds[wan] == 0 || l.e.c.Holds[lan] != 0 {
		t.Errorf("holds %v", l.e.c.Holds)
	}
	l.buffers()
}

// TestDeviceThatTakesNothing holds up the other side for roomWait and no
// longer: then its frames are dropped and counted, and the firewall's own
// answers to the LAN are not late.
func TestDeviceThatTakesNothing(t *testing.T) {
	l := newLab(t, "accept egress", established)
	l.one(lan, udp(host, 4000, web, 53))
	l.port[wan].room, l.port[wan].out = Batch, nil
	l.queued(5 * Batch)
	l.port[lan].in = append(l.port[lan].in, echo(host, "10.0.0.1", packet.EchoRequest, 9).frame(lanMAC))
	l.port[lan].out = nil
	polls := 0
	for ; len(l.port[lan].out) == 0 && polls < 1000; polls++ {
		l.now += 1_000_000
		l.poll()
	}
	if polls > int(roomWait/1_000_000)+8 {
		t.Errorf("the answer came after %d ms", polls)
	}
	if d := l.e.c.DropReasons[verdict.TxFull]; d != 4*Batch {
		t.Errorf("%d dropped, want %d", d, 4*Batch)
	}
	// Room again: frames wait again.
	l.port[wan].out = nil
	l.queued(2 * Batch)
	for range 5 {
		l.now += 1_000_000
		l.poll()
	}
	if n := len(l.port[lan].in); n != Batch {
		t.Errorf("%d frames wait, want %d", n, Batch)
	}
	l.buffers()
}
