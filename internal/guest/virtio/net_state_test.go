package virtio

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// frames takes k buffers from the pool as frames of 60 bytes.
func frames(t testing.TB, p *framebuf.Pool, k int) []framebuf.Frame {
	fs := make([]framebuf.Frame, k)
	for i := range fs {
		b, ok := p.Get()
		if !ok {
			t.Fatal("the pool is empty")
		}
		fs[i] = framebuf.Frame{Buf: b, Len: 60}
	}
	return fs
}

// TestTransmitBounds: one frame fewer than there is room for, as many, and one more; sent
// buffers are taken back then, and not before.
func TestTransmitBounds(t *testing.T) {
	for _, c := range []struct{ before, sent, now, took, reclaimed int }{
		{0, 0, 0, 0, 0}, {0, 0, 1, 1, 0}, {0, 0, 7, 7, 0}, {0, 0, 8, 8, 0}, {0, 0, 9, 8, 0},
		{3, 0, 5, 5, 0}, {3, 0, 6, 5, 0}, {3, 3, 5, 5, 0}, {3, 3, 6, 6, 3}, {8, 0, 1, 0, 0}, {8, 1, 1, 1, 1}, {8, 8, 8, 8, 8}, {8, 8, 9, 8, 8},
	} {
		d := newFake(allNet)
		n, p := open(t, d, 64, NetOptions{QueueSize: 8})
		fs := frames(t, p, c.before+c.now)
		for i := range fs {
			fs[i].Len = uint32(100 + i)
		}
		n.Transmit(fs[:c.before])
		for range c.sent {
			d.sent()
		}
		was, free := *n.Counters(), p.Free()
		if k := n.Transmit(fs[c.before:]); k != c.took || p.Free() != free+c.reclaimed {
			t.Errorf("%+v: %d taken, %d came back", c, k, p.Free()-free)
		}
		bytes := uint64(0)
		for _, f := range fs[c.before : c.before+c.took] {
			bytes += uint64(f.Len)
		}
		if m := n.Counters(); m.TxPackets != was.TxPackets+uint64(c.took) || m.TxFull != uint64(c.now-c.took) || m.TxBytes != was.TxBytes+bytes {
			t.Errorf("%+v: %+v", c, *m)
		}
		for i := c.sent; i < c.before+c.took; i++ {
			if f, ok := d.sent(); !ok || len(f) != 100+i {
				t.Errorf("%+v: frame %d: %d bytes, %v", c, i, len(f), ok)
			}
		}
		if _, ok := d.sent(); ok || len(d.broken) > 0 {
			t.Errorf("%+v: more was sent; %v", c, d.broken)
		}
	}
}

// TestWhoIsNotified: a notification has the number of its queue only.
func TestWhoIsNotified(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 64, NetOptions{QueueSize: 8})
	if d.notified != [fakeQueues]int{1, 0, 0} || n.Counters().Notifies != 1 {
		t.Fatalf("%v notifications at the start, %d counted", d.notified, n.Counters().Notifies)
	}
	d.wantNotify(1)
	n.Transmit(frames(t, p, 2))
	if d.notified != [fakeQueues]int{1, 1, 0} || n.Counters().Notifies != 2 {
		t.Errorf("%v notifications, %d counted", d.notified, n.Counters().Notifies)
	}
	for range 8 {
		d.deliver(make([]byte, 60))
	}
	d.wantNotify(0)
	var dst [8]framebuf.Frame
	n.Receive(dst[:3]) // the rest waits, and three are posted
	if d.notified != [fakeQueues]int{2, 1, 0} || n.Counters().Notifies != 3 {
		t.Errorf("%v notifications, %d counted", d.notified, n.Counters().Notifies)
	}
	n.Transmit(nil)
	n.Receive(dst[:0])
	if d.notified != [fakeQueues]int{2, 1, 0} {
		t.Errorf("%v notifications of nothing", d.notified)
	}
}

// wakes reports which queues' next entry interrupts.
func (n *Net) wakes() (rx, tx bool) {
	return *n.rx.usedEvent == n.rx.usedIdx, *n.tx.usedEvent == n.tx.usedIdx
}

// TestArmBounds: the return of sent buffers wakes only when more than half of the
// receive buffers are missing; Arm first posts what the pool has again; an unarmed
// device is not written to.
func TestArmBounds(t *testing.T) {
	for _, c := range []struct {
		held  int // of 16 receive buffers
		tx    bool
		empty bool // the pool has none
	}{{0, false, true}, {7, false, true}, {8, false, true}, {9, true, true}, {16, true, true}, {16, false, false}, {9, false, false}} {
		d := newFake(allNet)
		n, p := open(t, d, 16, NetOptions{QueueSize: 16})
		var dst [16]framebuf.Frame
		for range c.held {
			d.deliver(make([]byte, 60))
		}
		n.Receive(dst[:])
		if !c.empty {
			for _, f := range dst[:c.held] {
				p.Put(f.Buf)
			}
		}
		if n.Arm() {
			t.Errorf("%+v: there is work", c)
		}
		if rx, tx := n.wakes(); !rx || tx != c.tx {
			t.Errorf("%+v: wakes at reception %v, at transmission %v", c, rx, tx)
		}
		if want := c.held; c.empty && n.rx.room() != want || !c.empty && n.rx.room() != 0 {
			t.Errorf("%+v: room %d", c, n.rx.room())
		}
		n.Disarm()
		if rx, tx := n.wakes(); rx || tx {
			t.Errorf("%+v: wakes after Disarm", c)
		}
	}
	// Buffers that come back while it is armed are work, when they matter.
	d := newFake(allNet)
	n, p := open(t, d, 16, NetOptions{QueueSize: 16})
	var dst [16]framebuf.Frame
	for range 16 {
		d.deliver(make([]byte, 60))
	}
	n.Transmit(dst[:n.Receive(dst[:])])
	for range 16 {
		d.sent()
	}
	if n.Arm() || n.rx.room() != 0 || p.Free() != 0 {
		t.Errorf("what was sent was not received into: room %d, %d free", n.rx.room(), p.Free())
	}
	// Unarmed, Disarm leaves the rings alone.
	n.Disarm()
	d.deliver(make([]byte, 60))
	n.Receive(dst[:])
	at := *n.rx.usedEvent
	if n.Disarm(); *n.rx.usedEvent != at {
		t.Error("Disarm wrote to the ring of a device that was not armed")
	}
}

// TestNetGivesUp: for each way to be given up, which queue it was, what the device gets
// FAILED, and that nothing is done afterwards; the first reason stays.
func TestNetGivesUp(t *testing.T) {
	var dst [4]framebuf.Frame
	for _, c := range []struct {
		name, want string
		do         func(d *fakeNet, n *Net)
		index, id  uint64
	}{
		{"reception, index", "queue 0: the device's used index is ahead of what it was given", func(d *fakeNet, n *Net) { d.setUsed(0, 9); n.Receive(dst[:]) }, 1, 0},
		{"reception, descriptor", "queue 0: the device returned a descriptor that it does not have", func(d *fakeNet, n *Net) { d.done(0, 8, 100); n.Receive(dst[:]) }, 0, 1},
		{"transmission, index", "queue 1: the device's used index is ahead of what it was given", func(d *fakeNet, n *Net) { d.setUsed(1, 3); n.Kick() }, 1, 0},
		{"transmission, descriptor", "queue 1: the device returned a descriptor that it does not have", func(d *fakeNet, n *Net) { d.done(1, 5, 0); n.HasRoom(8); n.Arm() }, 0, 1},
		{"transmission, twice", "queue 1: the device returned a descriptor that it does not have", func(d *fakeNet, n *Net) {
			id, _, _, _ := d.next(1)
			d.done(1, uint32(id), 0)
			d.done(1, uint32(id), 0)
			n.Kick()
		}, 0, 1},
		{"both", "queue 0: the device returned a descriptor that it does not have", func(d *fakeNet, n *Net) {
			d.done(0, 1024, 100)
			n.Receive(dst[:])
			n.giveUp("another reason")
			d.setUsed(1, 200)
			n.Kick()
		}, 0, 1},
	} {
		d := newFake(allNet)
		n, p := open(t, d, 64, NetOptions{QueueSize: 8})
		if n.Transmit(frames(t, p, 2)) != 2 {
			t.Fatal("not sent")
		}
		fs := frames(t, p, 1)
		d.notified = [fakeQueues]int{}
		c.do(d, n)
		n.Arm()
		if m := n.Counters(); n.Stopped() != c.want || m.BadIndex != c.index || m.BadID != c.id || d.status != 15|statusFailed {
			t.Errorf("%s: %q, want %q; %+v, status %#x", c.name, n.Stopped(), c.want, *m, d.status)
		}
		if n.rx.stopped == "" || n.tx.stopped == "" {
			t.Errorf("%s: a queue goes on: %q, %q", c.name, n.rx.stopped, n.tx.stopped)
		}
		d.deliver(make([]byte, 60))
		notified := d.notified
		full := n.Counters().TxFull
		if n.Receive(dst[:]) != 0 || n.Transmit(fs) != 0 || n.Counters().TxFull != full+1 || n.Arm() || !n.HasRoom(8) {
			t.Errorf("%s: it goes on", c.name)
		}
		if n.Kick(); d.notified != notified {
			t.Errorf("%s: the device is notified", c.name)
		}
		if strings.Contains(n.Stopped(), "another") {
			t.Errorf("%s: %q", c.name, n.Stopped())
		}
	}
}

// TestStoppedTakesNoBuffers: a device that was given up gets none of those that the
// pool has again.
func TestStoppedTakesNoBuffers(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 8, NetOptions{QueueSize: 8})
	var dst [8]framebuf.Frame
	for range 3 {
		d.deliver(make([]byte, 60))
	}
	for _, f := range dst[:n.Receive(dst[:])] {
		p.Put(f.Buf)
	}
	n.giveUp("broken")
	told := d.notified
	n.Arm()
	n.Receive(dst[:])
	if n.Kick(); p.Free() != 3 || n.rx.room() != 3 || d.notified != told {
		t.Errorf("%d buffers free, want 3; notified %v", p.Free(), d.notified)
	}
}

// TestNotOffered: without event indexes the flags decide about notifications and
// interrupts.
func TestNotOffered(t *testing.T) {
	d := newFake(allNet &^ featEventIdx)
	n, p := open(t, d, 64, NetOptions{QueueSize: 8})
	told := d.notified[1]
	*d.head(d.q[1].used) |= usedNoNotify
	if n.Transmit(frames(t, p, 1)); d.notified[1] != told {
		t.Error("notified although the device does not want it")
	}
	*d.head(d.q[1].used) &^= usedNoNotify
	if n.Transmit(frames(t, p, 1)); d.notified[1] != told+1 {
		t.Error("not notified although the device wants it")
	}
	off := func() (rx, tx bool) {
		return *n.rx.availHead&availNoInterrupt != 0, *n.tx.availHead&availNoInterrupt != 0
	}
	for range 2 {
		if rx, tx := off(); !rx || !tx {
			t.Errorf("interrupts are on: %v, %v", !rx, !tx)
		}
		if n.Arm() {
			t.Error("there is work")
		}
		if rx, tx := off(); rx || !tx {
			t.Errorf("armed: interrupts of reception %v, of transmission %v", !rx, !tx)
		}
		n.Disarm()
	}
	for i, q := range []*queue{n.rx, n.tx} { // the flags share a word with the index
		if got, want := uint16(*q.availHead>>16), q.availIdx; got != want {
			t.Errorf("queue %d: index %d, want %d", i, got, want)
		}
	}
}

// TestAccessPlatform: what a device may insist on is taken where it is offered, and not
// otherwise.
func TestAccessPlatform(t *testing.T) {
	for _, offered := range []uint64{0, featPlatform} {
		d := newFake(allNet | offered)
		open(t, d, 16, NetOptions{QueueSize: 8})
		if d.accepted&featPlatform != offered {
			t.Errorf("offered %#x, accepted %#x", offered, d.accepted)
		}
	}
}
