package virtio

import (
	"encoding/binary"
	"testing"
)

// TestVsockSendBounds: one byte fewer than the credit and the buffer hold, as many, and one
// more; data that do not fit are not sent at all.
func TestVsockSendBounds(t *testing.T) {
	const most = vsockTxSize - vsockHeader
	for _, c := range []struct {
		room uint32
		n    int
		buf  int
		sent bool
	}{
		{1, 0, 1, false}, {1, -1, 1, false}, {1, -1 << 31, 1, false}, {1, 1, 1, true}, {1, 2, 1, false},
		{100, 99, 100, true}, {100, 100, 100, true}, {100, 101, 100, false}, {100, 1<<32 + 50, 100, false},
		{most, most, most, true}, {most, most + 1, most, false}, {most + 1, most, most, true}, {most + 1, most + 1, most, false},
		{1<<32 - 1, most, most, true}, {1<<32 - 1, most + 1, most, false}, {1<<32 - 1, vsockTxSize, most, false},
	} {
		h, v := newHost(t, featEventIdx)
		h.room = c.room
		connect(h, v)
		if b := v.Buffer(); len(b) != c.buf {
			t.Errorf("room for %d: a buffer of %d, want %d", c.room, len(b), c.buf)
		}
		v.Send(c.n)
		v.Flush()
		h.run()
		if sent := len(h.got) > 0; sent != c.sent || sent && (len(h.got) != c.n || v.Counters().TxBytes != uint64(c.n) || v.conn.credit() != c.room-uint32(c.n)) {
			t.Errorf("room for %d, %d to send: %d bytes sent, %d counted, credit %d", c.room, c.n, len(h.got), v.Counters().TxBytes, v.conn.credit())
		}
	}
	h, v := newHost(t, featEventIdx)
	h.room = 1 << 20
	connect(h, v)
	for range vsockTxBuffers {
		v.Send(1)
	}
	free := len(v.txFree)
	if v.Send(1); free != 0 || v.Counters().TxBytes != vsockTxBuffers || len(v.txFree) != 0 {
		t.Errorf("%d bytes, %d buffers free", v.Counters().TxBytes, free)
	}
	// A host that reduces its room below what was sent leaves none.
	h, v = newHost(t, featEventIdx)
	h.room = 100
	connect(h, v)
	send(v, make([]byte, 60))
	for _, c := range [][2]uint32{{60, 0}, {59, 0}, {61, 1}, {0, 0}, {1<<32 - 1, 1<<32 - 61}} {
		h.room = c[0]
		h.say(vopCreditUpdate, 0, nil)
		if v.Poll(); v.conn.credit() != c[1] {
			t.Errorf("room for %d with 60 under way: credit %d, want %d", c[0], v.conn.credit(), c[1])
		}
	}
}

// TestVsockReserve: data leaves the last buffers to packets without data; what the
// device has sent comes back when it is needed, and the count that wakes is the
// same as the one that stops.
func TestVsockReserve(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.room = 1 << 20
	connect(h, v)
	for range vsockTxBuffers - vsockControl - 1 {
		v.Send(len(v.Buffer()))
	}
	if len(v.txFree) != vsockControl+1 || v.armsTx() {
		t.Errorf("%d buffers free, one of which is for data; woken by their return: %v", len(v.txFree), v.armsTx())
	}
	v.Send(len(v.Buffer()))
	if v.Buffer() != nil || !v.armsTx() {
		t.Error("data has the buffers of others, or waits without being woken")
	}
	v.Flush()
	id, _, _, _ := h.next(vsockTx)
	h.done(vsockTx, uint32(id), 0)
	if !v.Arm() {
		t.Error("a buffer has come back")
	}
	if v.Disarm(); *v.tx.usedEvent == v.tx.usedIdx {
		t.Error("woken although disarmed")
	}
	if v.Buffer() == nil {
		t.Error("no room although a buffer has come back")
	}
	// Packets without data take the others, and reclaim when there is none.
	for v.control(1, 2, vopRST, 0) {
	}
	v.Flush()
	if len(v.txFree) != 0 || len(h.packets()) != vsockTxBuffers {
		t.Fatalf("%d buffers free", len(v.txFree))
	}
	if !v.control(1, 2, vopRST, 0) || len(v.txFree) != vsockTxBuffers-1 {
		t.Errorf("no packet although all buffers have come back; %d free", len(v.txFree))
	}
	v.tx.stop("broken")
	if v.control(1, 2, vopRST, 0) {
		t.Error("a packet into a queue that was given up")
	}
}

// TestVsockConnectWaits: without a buffer for the request there is no connection,
// and another attempt makes one.
func TestVsockConnectWaits(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	for v.control(1, 2, vopRST, 0) {
	}
	if v.Connect(hostPort); v.State() != Closed {
		t.Error("a connection without a request")
	}
	v.Flush()
	h.packets()
	connect(h, v)
}

// TestVsockUpdates: a credit update is sent when half of the room is used up, not before;
// without a buffer it is sent later.
func TestVsockUpdates(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	say := func(n int) {
		t.Helper()
		clear(h.ops)
		h.say(vopRW, 0, make([]byte, n))
		v.Poll()
		h.run()
	}
	for range 15 {
		if say(128); h.ops[vopCreditUpdate] != 0 {
			t.Fatal("an update before half of the room was used")
		}
	}
	if say(127); h.ops[vopCreditUpdate] != 0 {
		t.Error("an update a byte too early")
	}
	if say(1); h.ops[vopCreditUpdate] != 1 || h.last.fwd != vsockBufAlloc/2 || h.last.alloc != vsockBufAlloc {
		t.Errorf("no update at half of the room: %+v", h.last)
	}
	if say(128); h.ops[vopCreditUpdate] != 0 {
		t.Error("another update at once")
	}
	for v.control(1, 2, vopRST, 0) { // no buffer is left
	}
	for range 16 {
		h.say(vopRW, 0, make([]byte, 128))
		v.Poll()
	}
	if !v.conn.update {
		t.Error("the update that is due is forgotten")
	}
	v.Flush()
	h.packets()
	v.Poll()
	if say(1); h.ops[vopCreditUpdate] != 1 || v.conn.update || h.last.fwd != vsockBufAlloc/2+17*128+1 {
		t.Errorf("the update did not come with the next packet: %+v", h.last)
	}
}

// TestVsockAskedAgain: credit is requested once while there is none, and again when there
// was some meanwhile.
func TestVsockAskedAgain(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.room = 10
	connect(h, v)
	send(v, make([]byte, 20))
	h.run()
	h.say(vopCreditUpdate, 0, nil) // still none
	v.Poll()
	send(v, make([]byte, 20))
	h.run()
	if h.ops[vopCreditRequest] != 1 {
		t.Errorf("%d requests", h.ops[vopCreditRequest])
	}
	h.taken = 10
	h.say(vopCreditUpdate, 0, nil)
	v.Poll()
	send(v, make([]byte, 20))
	h.run()
	if h.ops[vopCreditRequest] != 2 || len(h.got) != 20 {
		t.Errorf("%d requests, %d bytes", h.ops[vopCreditRequest], len(h.got))
	}
	h.room = 0
	v.Close()
	h.run()
	connect(h, v)
	if send(v, make([]byte, 1)); h.ops[vopCreditRequest] != 2 {
		t.Error("asked before it was flushed")
	}
	if h.run(); h.ops[vopCreditRequest] != 3 {
		t.Error("a new connection did not ask")
	}
}

// TestVsockEventBounds: an event of each length, and of each kind; all buffers are posted
// again, and the device is notified.
func TestVsockEventBounds(t *testing.T) {
	for _, c := range []struct {
		id    uint32
		n     uint32
		reset bool
	}{{0, 0, false}, {0, 3, false}, {0, 4, true}, {0, 5, true}, {0, 8, true}, {0, 9, false}, {0, 1<<32 - 1, false}, {1, 4, false}, {1 << 8, 4, false}, {1 << 24, 8, false}} {
		h, v := newHost(t, 0)
		connect(h, v)
		h.cid = 77
		was := h.notified
		id, b, _, _ := h.next(vsockEvent)
		copy(b, []byte{0, 0, 0, 0, 1, 1, 1, 1})
		binary.LittleEndian.PutUint32(b, c.id)
		h.done(vsockEvent, uint32(id), c.n)
		*h.head(h.q[vsockEvent].used) |= usedNoNotify // whatever the index or flag says
		v.Poll()
		resets := uint64(0)
		if c.reset {
			resets = 1
		}
		if v.Counters().TransportResets != resets || (v.State() == Closed) != c.reset || (v.CID() == 77) != c.reset {
			t.Errorf("event %d of %d bytes: state %d, CID %d, %d resets", c.id, c.n, v.State(), v.CID(), v.Counters().TransportResets)
		}
		if h.notified[vsockEvent] != was[vsockEvent]+1 || v.ev.room() != 0 || v.Stopped() != "" {
			t.Errorf("event %d of %d bytes: %d notifications, %d buffers missing, %q", c.id, c.n, h.notified[vsockEvent]-was[vsockEvent], v.ev.room(), v.Stopped())
		}
	}
}

// TestVsockLies: each queue's index and descriptor, and the length of what was received at
// its bound: counted, reported, and the device given up.
func TestVsockLies(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(h *fakeHost)
		count [3]uint64 // indexes, descriptors, lengths
		want  string
	}{
		{"the longest", func(h *fakeHost) { h.done(vsockRx, 1, vsockRxSize) }, [3]uint64{}, ""},
		{"one longer", func(h *fakeHost) { h.done(vsockRx, 1, vsockRxSize+1) }, [3]uint64{0, 0, 1}, "queue 0: the device says it wrote more than a buffer holds"},
		{"reception, index", func(h *fakeHost) { h.setUsed(vsockRx, vsockRxBuffers+2) }, [3]uint64{1, 0, 0}, "queue 0: the device's used index is ahead of what it was given"},
		{"reception, descriptor", func(h *fakeHost) { h.done(vsockRx, vsockRxBuffers, 44) }, [3]uint64{0, 1, 0}, "queue 0: the device returned a descriptor that it does not have"},
		{"transmission, index", func(h *fakeHost) { h.setUsed(vsockTx, 2) }, [3]uint64{1, 0, 0}, "queue 1: the device's used index is ahead of what it was given"},
		{"transmission, descriptor", func(h *fakeHost) {
			v := h.v
			v.control(1, 2, vopRST, 0)
			v.Flush()
			h.done(vsockTx, 3, 0)
		}, [3]uint64{0, 1, 0}, "queue 1: the device returned a descriptor that it does not have"},
		{"events, index", func(h *fakeHost) { h.setUsed(vsockEvent, vsockEvents+1) }, [3]uint64{1, 0, 0}, "queue 2: the device's used index is ahead of what it was given"},
		{"events, descriptor", func(h *fakeHost) { h.done(vsockEvent, vsockEvents, 4) }, [3]uint64{0, 1, 0}, "queue 2: the device returned a descriptor that it does not have"},
		{"the device itself", func(h *fakeHost) { h.isr = 3; h.status |= statusNeedsReset; h.v.Ack() }, [3]uint64{}, "the device asks for a reset"},
	} {
		h, v := newHost(t, featEventIdx)
		h.v = v
		connect(h, v)
		c.do(h)
		v.Poll()
		m := v.Counters()
		if v.Stopped() != c.want || [3]uint64{m.BadIndex, m.BadID, m.BadLength} != c.count {
			t.Errorf("%s: %q, want %q; %+v", c.name, v.Stopped(), c.want, *m)
		}
		if len(v.txFree)+outstanding(v.tx) != int(v.tx.size) || c.want == "" && outstanding(v.tx) != 0 {
			t.Errorf("%s: %d buffers free, %d with the device", c.name, len(v.txFree), outstanding(v.tx))
		}
		if c.want == "" {
			if v.State() != Open || m.BadPacket != 1 {
				t.Errorf("%s: state %d, %+v", c.name, v.State(), *m)
			}
			continue
		}
		v.giveUp("another reason")
		if m.RxPackets != 1 {
			t.Errorf("%s: %d packets were read, want that of the connection alone", c.name, m.RxPackets)
		}
		notified, got := h.notified, m.RxPackets
		h.event(0)
		v.Poll()
		v.Flush()
		v.Connect(hostPort)
		if v.Stopped() != c.want || h.status != h.status|15|statusFailed || v.State() != Closed || m.RxPackets != got || m.TransportResets != 0 || h.notified != notified || v.Arm() || v.Buffer() != nil {
			t.Errorf("%s: it goes on: %q, status %#x, state %d", c.name, v.Stopped(), h.status, v.State())
		}
		for i, q := range []*queue{v.rx, v.tx, v.ev} {
			if q.stopped == "" {
				t.Errorf("%s: queue %d goes on", c.name, i)
			}
		}
	}
}

// TestVsockAck: interrupts are acknowledged with their status, none without.
func TestVsockAck(t *testing.T) {
	for _, c := range []struct {
		isr, status uint32
		stops       bool
	}{{0, 15, false}, {1, 15, false}, {2, 15, false}, {1, 15 | statusNeedsReset, false}, {2, 15 | statusNeedsReset, true}, {3, 15 | statusNeedsReset, true}} {
		d := &scripted{fakeNet: newFake(featEventIdx)}
		d.id, d.queues = vsockID, 3
		v, err := OpenVsock(NewMMIO(d), d.alloc, 1)
		if err != nil {
			t.Fatal(err)
		}
		d.log, d.isr, d.status = nil, c.isr, c.status
		v.Ack()
		if (len(d.log) > 0) != (c.isr != 0) || d.isr != 0 || v.Counters().Interrupts != 1 || (v.Stopped() != "") != c.stops {
			t.Errorf("%+v: wrote %v, %d interrupts, stopped %q", c, d.log, v.Counters().Interrupts, v.Stopped())
		}
	}
}

// TestVsockArm: which queues interrupt, and which have work.
func TestVsockArm(t *testing.T) {
	wakes := func(v *Vsock) (w [3]bool) {
		for i, q := range []*queue{v.rx, v.tx, v.ev} {
			w[i] = *q.usedEvent == q.usedIdx
		}
		return w
	}
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	if wakes(v) != [3]bool{} {
		t.Error("interrupts before Arm")
	}
	if v.Poll(); v.Arm() || wakes(v) != [3]bool{true, false, true} {
		t.Errorf("armed: %v", wakes(v))
	}
	if v.Disarm(); wakes(v) != [3]bool{} {
		t.Errorf("disarmed: %v", wakes(v))
	}
	at := *v.rx.usedEvent
	h.say(vopCreditUpdate, 0, nil)
	if v.Poll(); *v.rx.usedEvent != at {
		t.Error("Poll asked for an interrupt")
	}
	if v.Disarm(); *v.rx.usedEvent != at {
		t.Error("Disarm wrote to the ring of a device that was not armed")
	}
	h.say(vopCreditUpdate, 0, nil)
	if !v.Arm() {
		t.Error("a packet waits")
	}
	if v.Poll(); v.Arm() {
		t.Error("nothing waits")
	}
	for len(v.txFree) > 0 {
		v.control(1, 2, vopRST, 0)
	}
	v.Flush()
	if v.Arm() {
		t.Error("nothing waits, and nothing was sent")
	}
	h.say(vopCreditUpdate, 0, nil)
	if !v.Arm() {
		t.Error("a packet waits, although nothing was sent")
	}
	h.packets()
	if v.Poll(); v.Arm() {
		t.Error("nothing waits")
	}
	if h.event(9); !v.Arm() {
		t.Error("an event waits")
	}
	if v.Poll(); v.Arm() {
		t.Error("nothing waits")
	}
}

// TestVsockKick: a device that missed a notification is notified of nothing more, however much is
// sent, until Kick. One that moves on, has no buffers, or was given up is not kicked.
func TestVsockKick(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	v.Kick()
	send(v, []byte{1}) // the notification of this is missed
	clear(h.notified[:])
	for range 3 {
		if send(v, []byte{2}) != 1 {
			t.Fatal("not sent")
		}
	}
	if h.notified[vsockTx] != 0 {
		t.Fatal("the device is notified although it seems to be at work")
	}
	kicked := func(tx, rx int) {
		t.Helper()
		clear(h.notified[:])
		if v.Kick(); h.notified[vsockTx] != tx || h.notified[vsockRx] != rx || h.notified[vsockEvent] != 0 {
			t.Fatalf("%v notifications, want %d of transmission and %d of reception", h.notified[:3], tx, rx)
		}
	}
	kicked(1, 1)
	kicked(1, 1)
	h.run()
	if len(h.got) != 4 {
		t.Fatalf("%d bytes arrived", len(h.got))
	}
	h.say(vopCreditUpdate, 0, nil)
	kicked(0, 0) // both queues have moved on
	v.Poll()
	kicked(0, 1) // nothing is sent; what is received comes when it comes
	if c := v.Counters(); c.TxKicks != 2 {
		t.Errorf("%d kicks counted", c.TxKicks)
	}
	v.giveUp("broken")
	kicked(0, 0)
}
