package virtio

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"strings"
	"testing"
)

// TestVsockStream: what is sent arrives, whole and in order, never more than
// the host has room for, with and without event indexes, beyond the wrap of the
// rings and of the credit's counters.
func TestVsockStream(t *testing.T) {
	for _, feat := range []uint64{featEventIdx, 0} {
		h, v := newHost(t, feat)
		v.conn.sent = 0
		connect(h, v)
		// Near the wrap of the counters of bytes.
		v.conn.sent, v.conn.peerFwd = 1<<32-100_000, 1<<32-100_000
		base := v.conn.sent
		r := rand.New(rand.NewSource(1))
		want := make([]byte, 3<<20)
		r.Read(want)
		n := 0
		for n < len(want) {
			n += send(v, want[n:min(len(want), n+r.Intn(20000))])
			if uint32(n)-uint32(len(h.got)) > 16*vsockTxSize {
				t.Fatal("more in flight than there are buffers")
			}
			h.run()
			if uint32(len(h.got))-h.taken > h.room {
				t.Fatalf("%d bytes beyond the host's room", uint32(len(h.got))-h.taken-h.room)
			}
			if r.Intn(3) == 0 {
				h.taken = uint32(len(h.got))
				h.room = 1 + uint32(r.Intn(65536))
				h.sayFrom(base, vopCreditUpdate)
				v.Poll()
			}
		}
		h.run()
		if !bytes.Equal(h.got, want) {
			t.Fatalf("%d bytes arrived of %d, or others", len(h.got), len(want))
		}
		h.rules()
		if c := v.Counters(); c.BadPacket+c.BadCredit+c.Unasked != 0 || c.TxBytes != uint64(len(want)) {
			t.Errorf("%+v", *c)
		}
	}
}

// sayFrom is say where the driver's count of bytes began at base.
func (h *fakeHost) sayFrom(base uint32, op uint16) {
	h.put(vsockPacket{HostCID, h.cid, hostPort, h.local, 0, vsockStream, op, 0, h.room, base + h.taken}.bytes(nil))
}

// TestVsockNoCredit: without room nothing is sent, and credit is requested once.
func TestVsockNoCredit(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.room = 1000
	connect(h, v)
	if n := send(v, make([]byte, 5000)); n != 1000 {
		t.Fatalf("%d bytes sent into room for 1000", n)
	}
	for range 5 {
		send(v, make([]byte, 10))
	}
	h.run()
	if h.ops[vopCreditRequest] != 1 || len(h.got) != 1000 {
		t.Fatalf("%d credit requests, %d bytes", h.ops[vopCreditRequest], len(h.got))
	}
	h.taken = 400
	h.say(vopCreditUpdate, 0, nil)
	v.Poll()
	if n := send(v, make([]byte, 5000)); n != 400 {
		t.Fatalf("%d bytes sent into room for 400", n)
	}
}

// TestVsockEnds: however a connection ends, the next one is another.
func TestVsockEnds(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	for name, end := range map[string]func(){
		"reset":           func() { h.say(vopRST, 0, nil) },
		"shutdown":        func() { h.say(vopShutdown, 3, nil) },
		"takes no more":   func() { h.say(vopShutdown, shutdownRcv, nil) },
		"second request":  func() { h.say(vopRequest, 0, nil) },
		"impossible fwd":  func() { h.taken = 1; h.say(vopCreditUpdate, 0, nil) },
		"transport reset": func() { h.event(0) },
		"closed by us":    func() { v.Close() },
	} {
		connect(h, v)
		port := h.local
		clear(h.ops)
		end()
		v.Poll()
		h.run()
		if v.State() != Closed || v.Buffer() != nil {
			t.Fatalf("%s: state %d", name, v.State())
		}
		if silent := name == "reset" || name == "transport reset"; (h.ops[vopRST] == 0) != silent {
			t.Errorf("%s: %d resets sent", name, h.ops[vopRST])
		}
		connect(h, v)
		if h.local == port {
			t.Errorf("%s: the next connection has the same port", name)
		}
		v.Close()
		v.Poll()
		h.run()
	}
	// Only the host's sending half is shut down: the connection continues.
	connect(h, v)
	h.say(vopShutdown, 2, nil)
	v.Poll()
	if v.State() != Open || send(v, []byte("x")) != 1 {
		t.Error("a host that sends no more got no more")
	}
	h.rules()
}

// event delivers an event.
func (h *fakeHost) event(id uint32) {
	d, buf, _, ok := h.next(vsockEvent)
	if !ok {
		h.t.Fatal("no event buffer")
	}
	binary.LittleEndian.PutUint32(buf, id)
	h.done(vsockEvent, uint32(d), 4)
}

// TestVsockTransportReset: the context id is read again, and the device is notified of the
// event's buffer.
func TestVsockTransportReset(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	h.cid = 99
	n := h.notified[vsockEvent]
	h.event(0)
	v.Poll()
	if v.CID() != 99 || v.State() != Closed || h.notified[vsockEvent] == n {
		t.Fatalf("cid %d, state %d, notified %d times", v.CID(), v.State(), h.notified[vsockEvent]-n)
	}
	connect(h, v)
	for range 20 { // more than there are buffers: they are posted again
		h.event(17)
		v.Poll()
	}
	if v.State() != Open {
		t.Error("an unknown event ended the connection")
	}
}

// TestResetWatch: a watch reports each event once, whether or not the device's owner has
// handled it.
func TestResetWatch(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.event(0)
	v.Poll()
	w := v.WatchResets()
	for k := range 10 {
		if w.Reset() {
			t.Fatalf("%d: an event that was reported or is older", k)
		}
		h.event(0)
		if k%2 == 0 {
			v.Poll()
		}
		if !w.Reset() {
			t.Fatalf("%d: not reported", k)
		}
		v.Poll()
	}
	if (&ResetWatch{}).Reset() {
		t.Error("a watch of no device reports an event")
	}
}

// TestVsockHostilePeer: invalid packets are counted, answered with RST where required, and
// change nothing.
func TestVsockHostilePeer(t *testing.T) {
	ok := vsockPacket{HostCID, guestCID, hostPort, 5001, 0, vsockStream, vopCreditUpdate, 0, 65536, 0}
	for _, c := range []struct {
		name    string
		edit    func(p *vsockPacket)
		data    int
		refused bool
		count   func(c *VsockCounters) uint64
	}{
		{"from a stranger", func(p *vsockPacket) { p.src = 3 }, 0, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"for another", func(p *vsockPacket) { p.dst = 8 }, 0, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"no operation", func(p *vsockPacket) { p.op = 0 }, 0, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"unknown operation", func(p *vsockPacket) { p.op = 8 }, 0, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"datagram", func(p *vsockPacket) { p.typ = 3 }, 0, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"more than there is", func(p *vsockPacket) { p.op, p.n = vopRW, 11 }, 10, false, func(c *VsockCounters) uint64 { return c.BadPacket }},
		{"a connection to us", func(p *vsockPacket) { p.op, p.srcPort, p.dstPort = vopRequest, 77, 22 }, 0, true, func(c *VsockCounters) uint64 { return c.Unasked }},
		{"data for nobody", func(p *vsockPacket) { p.op, p.dstPort, p.n = vopRW, 22, 10 }, 10, true, func(c *VsockCounters) uint64 { return c.Unasked }},
	} {
		h, v := newHost(t, featEventIdx)
		connect(h, v)
		p := ok
		c.edit(&p)
		h.put(p.bytes(make([]byte, c.data)))
		v.Poll()
		h.run()
		if c.count(v.Counters()) != 1 {
			t.Errorf("%s: not counted: %+v", c.name, *v.Counters())
		}
		if (h.ops[vopRST] == 1) != c.refused || c.refused && (h.last.dstPort != p.srcPort || h.last.srcPort != p.dstPort || h.last.alloc != 0) {
			t.Errorf("%s: resets %d, last %+v", c.name, h.ops[vopRST], h.last)
		}
		if v.State() != Open || send(v, []byte("still there")) != 11 {
			t.Errorf("%s: the connection suffered", c.name)
		}
		h.rules()
	}
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	h.put(make([]byte, vsockHeader-1))
	v.Poll()
	if v.Counters().BadPacket != 1 {
		t.Error("a short packet was not counted")
	}
	// A reset for no connection is not answered: two such ends would never stop.
	p := ok
	p.op, p.dstPort = vopRST, 1
	h.put(p.bytes(nil))
	v.Poll()
	h.run()
	if h.ops[vopRST] != 0 {
		t.Error("a reset was answered with a reset")
	}
}

// TestVsockDataIsThrownAway: the host's data are consumed, credited and discarded.
func TestVsockDataIsThrownAway(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	connect(h, v)
	for i := range 1000 {
		h.say(vopRW, 0, make([]byte, 200))
		v.Poll()
		h.run()
		if room := h.last.alloc - (uint32(200*(i+1)) - h.last.fwd); room < 1000 || room > vsockBufAlloc {
			t.Fatalf("after %d packets the host has room for %d", i+1, int32(room))
		}
	}
	if c := v.Counters(); c.RxIgnored != 200_000 {
		t.Errorf("%+v", *c)
	}
	h.say(vopCreditRequest, 0, nil)
	v.Poll()
	h.run()
	if h.last.op != vopCreditUpdate || h.last.fwd != 200_000 {
		t.Errorf("a request for credit was answered with %+v", h.last)
	}
}

// TestVsockHostileDevice: a device that violates the rules of the rings is given up.
func TestVsockHostileDevice(t *testing.T) {
	for name, break_ := range map[string]func(h *fakeHost){
		"index":      func(h *fakeHost) { h.setUsed(vsockRx, 1000) },
		"descriptor": func(h *fakeHost) { h.done(vsockRx, 5000, 44) },
		"twice":      func(h *fakeHost) { h.done(vsockTx, 3, 0) },
		"length": func(h *fakeHost) {
			id, _, _, _ := h.next(vsockRx)
			h.done(vsockRx, uint32(id), vsockRxSize+1)
		},
		"event": func(h *fakeHost) { h.done(vsockEvent, 77, 4) },
	} {
		h, v := newHost(t, featEventIdx)
		connect(h, v)
		break_(h)
		v.Poll()
		if v.Stopped() == "" || v.State() != Closed || h.status&statusFailed == 0 {
			t.Errorf("%s: %q, state %d, status %d", name, v.Stopped(), v.State(), h.status)
		}
		v.Connect(hostPort)
		v.Close()
		v.Poll()
		v.Flush()
		if v.Arm() || v.Buffer() != nil {
			t.Errorf("%s: a stopped device goes on", name)
		}
	}
}

// TestVsockFullQueue: when the device takes nothing, control packets still have buffers and
// data waits; nothing is lost once it continues.
func TestVsockFullQueue(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.room = 1 << 20
	connect(h, v)
	n := send(v, make([]byte, 1<<20))
	if want := (vsockTxBuffers - vsockControl) * (vsockTxSize - vsockHeader); n != want {
		t.Fatalf("%d bytes in flight, want %d", n, want)
	}
	for range 10 {
		h.put(vsockPacket{HostCID, guestCID, 1, 2, 0, vsockStream, vopRequest, 0, 0, 0}.bytes(nil))
	}
	v.Poll()
	if c := v.Counters(); c.NoRoom != 10-vsockControl {
		t.Errorf("%d refusals had no buffer", c.NoRoom)
	}
	if !v.armsTx() {
		t.Error("no interrupt is asked for at the return of a buffer")
	}
	h.run()
	if !v.Arm() {
		t.Error("buffers have come back, and nobody says so")
	}
	v.Poll()
	if send(v, make([]byte, 100)) != 100 {
		t.Error("no buffer after they came back")
	}
}

// armsTx reports whether Arm asks for an interrupt of the transmit queue.
func (v *Vsock) armsTx() bool {
	v.Arm()
	return *v.tx.usedEvent == v.tx.usedIdx
}

func TestVsockOpenErrors(t *testing.T) {
	for _, c := range []struct {
		want string
		edit func(d *fakeNet)
	}{
		{"device type", func(d *fakeNet) { d.id = netID }},
		{"VERSION_1", func(d *fakeNet) { d.offered &^= featVersion1 }},
		{"no usable size", func(d *fakeNet) { d.qMax = 0 }},
		{"in use", func(d *fakeNet) { d.q[2].ready = 1 }},
		{"no memory", func(d *fakeNet) { d.used = len(d.mem) - 2000 }},
	} {
		d := newFake(featEventIdx)
		d.id, d.queues = vsockID, 3
		c.edit(d)
		if _, err := OpenVsock(NewMMIO(d), d.alloc, 1); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
	}
	d := newFake(featEventIdx) // a device of short queues
	d.id, d.queues, d.qMax = vsockID, 3, 8
	if _, err := OpenVsock(NewMMIO(d), d.alloc, 1); err != nil {
		t.Error(err)
	}
}

// FuzzVsockPeer: whatever device and host do, the driver neither crashes nor
// sends more than its credit, and a connection can be made afterwards unless
// the device was given up.
func FuzzVsockPeer(f *testing.F) {
	f.Add([]byte{0, 2, 0, 1, 7, 3, 4, 5})
	f.Add([]byte{1, 0, 0, 0, 2, 1, 1, 1, 3, 0, 0, 0, 4, 9, 9, 9})
	then := func(ops ...byte) []byte { // a connection that has sent what it may, 200 bytes, comes first
		return append([]byte{0, vopResponse, 0, 200, 3, 100, 0, 0}, ops...)
	}
	for op := range byte(9) { // each operation, with no credit, little, and such as cannot be
		for _, x := range [][2]byte{{0, 0}, {1, 1}, {8, 200}, {31, 1}, {32, 255}, {255, 255}} {
			f.Add(then(0, op, x[0], x[1]))
		}
	}
	for q := range byte(3) { // indexes and descriptors one off
		for _, x := range [][2]byte{{0, 0}, {1, 0}, {3, 0}, {4, 0}, {31, 0}, {32, 0}, {33, 0}, {255, 255}} {
			f.Add(then(4, q, x[0], x[1]))
			f.Add(then(5, q, x[0], 11, 5, q, x[0], 64, 5, q, x[0], 65))
		}
	}
	for n := range byte(10) { // events of each length
		f.Add(then(6, 0, 0, n, 7, 0, 0, 0))
	}
	f.Add(bytes.Repeat([]byte{131, 255, 0, 0}, 20)) // nothing is taken any more
	f.Fuzz(func(t *testing.T, in []byte) {
		h, v := newHost(t, featEventIdx)
		v.Connect(hostPort)
		v.Flush()
		h.run()
		for len(in) >= 4 {
			a, b, c, d := in[0], in[1], in[2], in[3]
			in = in[4:]
			switch a % 8 {
			case 0:
				h.put(vsockPacket{HostCID, h.cid, hostPort, h.local, uint32(d), vsockStream, uint16(b), uint32(c), uint32(d) << (c % 32), uint32(c)}.bytes(make([]byte, d)))
			case 1:
				h.put(vsockPacket{uint64(b % 4), uint64(c % 10), uint32(b), uint32(c), uint32(d), uint16(b % 3), uint16(c % 9), 0, 0, 0}.bytes(make([]byte, b)))
			case 2:
				h.put(in[:min(len(in), int(b))])
			case 3:
				send(v, make([]byte, int(b)*100))
			case 4:
				h.setUsed(int(b)%3, binary.LittleEndian.Uint16([]byte{c, d}))
			case 5:
				h.done(int(b)%3, uint32(c), uint32(d)*4)
			case 6:
				if id, buf, _, ok := h.next(vsockEvent); ok {
					binary.LittleEndian.PutUint32(buf, uint32(c))
					h.done(vsockEvent, uint32(id), uint32(d))
				}
			case 7:
				v.Close()
				v.Connect(hostPort)
			}
			v.Poll()
			v.Arm()
			v.Disarm()
			if b := v.Buffer(); uint32(len(b)) > v.conn.credit() {
				t.Fatal("room beyond the credit")
			}
			if len(v.txFree)+outstanding(v.tx) > int(v.tx.size) {
				t.Fatal("a buffer is in two places")
			}
			if a&128 == 0 {
				h.drain()
			}
		}
		if v.Stopped() == "" && v.State() == Open {
			v.Close()
		}
	})
}

func outstanding(q *queue) int { return int(q.size) - q.nfree }

// drain takes what was sent without looking at it.
func (h *fakeHost) drain() {
	for {
		id, _, _, ok := h.next(vsockTx)
		if !ok {
			return
		}
		h.done(vsockTx, uint32(id), 0)
	}
}

// BenchmarkVsockSend is the cost of one packet of data, with the device's side
// done by the same thread.
func BenchmarkVsockSend(b *testing.B) {
	h, v := newHost(b, featEventIdx)
	h.room = 1 << 30
	connect(h, v)
	b.SetBytes(vsockTxSize - vsockHeader)
	b.ReportAllocs()
	for b.Loop() {
		v.Send(len(v.Buffer()))
		v.Flush()
		h.drain()
		if v.conn.credit() < 1<<20 {
			v.conn.peerFwd = v.conn.sent
		}
		v.Poll()
	}
}
