package virtio

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// TestKick: a queue without progress that has buffers is notified again, one with progress
// or without buffers is not.
func TestKick(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 600, NetOptions{QueueSize: 64})
	d.notified[1], d.notified[0] = 0, 0
	kicked := func(rx, tx int) {
		t.Helper()
		n.Kick()
		if d.notified[0] != rx || d.notified[1] != tx {
			t.Fatalf("%d notifications of reception and %d of transmission, want %d and %d", d.notified[0], d.notified[1], rx, tx)
		}
		d.notified[0], d.notified[1] = 0, 0
	}
	n.Kick()
	d.notified[1], d.notified[0] = 0, 0
	kicked(1, 0) // nothing came, which may be as it should; nothing was sent
	b, _ := p.Get()
	n.Transmit([]framebuf.Frame{{Buf: b, Len: 60}})
	d.notified[1] = 0
	kicked(1, 1)
	kicked(1, 1)
	if c := n.Counters().TxKicks; c != 2 {
		t.Errorf("%d kicks of the transmit queue counted, want 2", c)
	}
	d.sent()
	d.deliver(make([]byte, 60))
	kicked(0, 0) // the device has moved on
	var dst [1]framebuf.Frame
	n.Receive(dst[:])
	p.Put(dst[0].Buf)
	d.notified[0] = 0
	kicked(1, 0)
	n.giveUp("broken")
	kicked(0, 0)
}

// TestHasRoom: HasRoom reports what Transmit would take, and takes back sent buffers for
// it; half of the queue is enough.
func TestHasRoom(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 600, NetOptions{QueueSize: 64})
	send := func(k int) {
		for range k {
			b, _ := p.Get()
			if n.Transmit([]framebuf.Frame{{Buf: b, Len: 60}}) != 1 {
				t.Fatal("no room")
			}
		}
	}
	if !n.HasRoom(64) {
		t.Error("no room in an empty queue")
	}
	send(32)
	if !n.HasRoom(64) {
		t.Error("half of the queue is free")
	}
	send(1)
	if n.HasRoom(64) || !n.HasRoom(31) {
		t.Error("31 places are free")
	}
	d.sent()
	if free := p.Free(); !n.HasRoom(31) || p.Free() != free {
		t.Error("what was sent is looked for although there is room")
	}
	if !n.HasRoom(32) {
		t.Error("one more was sent")
	}
	send(32)
	if n.HasRoom(1) {
		t.Error("room in a full queue")
	}
	n.giveUp("broken")
	if !n.HasRoom(1) {
		t.Error("a device that was given up is waited for")
	}
}
