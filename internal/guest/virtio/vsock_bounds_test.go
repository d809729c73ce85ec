package virtio

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// packets takes the driver's packets, without their data.
func (h *fakeHost) packets() (l []string) {
	for {
		id, b, _, ok := h.next(vsockTx)
		if !ok {
			return l
		}
		l = append(l, hex.EncodeToString(b[:vsockHeader]))
		h.done(vsockTx, uint32(id), 0)
	}
}

// TestVsockPackets is each packet that the driver makes, byte by byte (virtio 1.2, 5.10.6):
// source and destination, ports, length, type and operation, flags, buf_alloc and fwd_cnt.
// Both halves of the address are used.
func TestVsockPackets(t *testing.T) {
	d := newFake(featEventIdx)
	d.id, d.queues, d.cid = vsockID, 3, 0x1122334455667788
	h := &fakeHost{fakeNet: d, t: t, room: 3000, ops: map[uint16]int{}, local: 0x12345679}
	v, err := OpenVsock(NewMMIO(d), d.alloc, 0x12345678)
	if err != nil {
		t.Fatal(err)
	}
	const from, ours = "8877665544332211" + "0200000000000000" + "79563412" + "28230000", "00100000"
	saw := func(what string, want ...string) {
		t.Helper()
		v.Flush()
		if got := h.packets(); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %s\nwant %s", what, got, want)
		}
		h.rules()
	}
	saw("nothing")
	v.Connect(hostPort)
	saw("request", from+"00000000"+"0100"+"0100"+"00000000"+ours+"00000000")
	h.say(vopResponse, 0, nil)
	v.Poll()
	saw("nothing to a response")
	copy(v.Buffer(), "hello")
	v.Send(5)
	v.Send(2999)
	saw("data", from+"05000000"+"0100"+"0500"+"00000000"+ours+"00000000")
	h.say(vopRW, 0, make([]byte, 77))
	v.Poll()
	saw("nothing to a little data")
	if n := len(v.Buffer()); n != 2995 {
		t.Errorf("room for %d", n)
	}
	v.Send(2995)
	saw("data, with what was taken", from+"b30b0000"+"0100"+"0500"+"00000000"+ours+"4d000000")
	first, second := v.Buffer(), v.Buffer()
	if first != nil || second != nil {
		t.Error("room without credit")
	}
	saw("credit request", from+"00000000"+"0100"+"0700"+"00000000"+ours+"4d000000")
	h.say(vopCreditRequest, 0, nil)
	v.Poll()
	saw("credit update", from+"00000000"+"0100"+"0600"+"00000000"+ours+"4d000000")
	h.put(vsockPacket{HostCID, h.cid, 0xa0b0c0d0, 0x01020304, 0, vsockStream, vopRW, 0, 1, 2}.bytes(nil))
	v.Poll()
	saw("reset of a stranger's", "8877665544332211"+"0200000000000000"+"04030201"+"d0c0b0a0"+"00000000"+"0100"+"0300"+"00000000"+"00000000"+"00000000")
	for _, c := range []vsockPacket{{srcPort: hostPort, dstPort: 0x12345678}, {srcPort: hostPort + 1, dstPort: 0x12345679}} { // one port is the connection's
		c.src, c.dst, c.typ, c.op = HostCID, h.cid, vsockStream, vopCreditUpdate
		h.put(c.bytes(nil))
		v.Poll()
		l := h.packets()
		if len(l) != 1 || l[0][60:] != "0300"+"00000000"+"00000000"+"00000000" {
			t.Errorf("to ports %d and %d: %s", c.srcPort, c.dstPort, l)
		}
	}
	v.Close()
	saw("reset", from+"00000000"+"0100"+"0300"+"00000000"+ours+"4d000000")
	c := v.Counters()
	if c.TxPackets != 9 || c.TxBytes != 3000 || c.RxPackets != 6 || c.RxIgnored != 77 || c.Connects != 1 || c.Resets != 1 || c.Unasked != 3 || c.BadPacket+c.BadCredit+c.NoRoom != 0 {
		t.Errorf("%+v", *c)
	}
	v.Close()
	if v.Poll(); c.Resets != 1 {
		t.Error("what is closed was closed again")
	}
	saw("nothing of a closed connection")
}

// TestVsockPorts: the first port is derived from the seed, each connection has another, and
// none is below 1024, also where the numbers wrap.
func TestVsockPorts(t *testing.T) {
	for _, c := range [][2]uint32{{0, 1024}, {1022, 1024}, {1023, 1024}, {1024, 1025}, {5000, 5001}, {1<<32 - 2, 1<<32 - 1}, {1<<32 - 1, 1024}} {
		d := newFake(featEventIdx)
		d.id, d.queues = vsockID, 3
		v, err := OpenVsock(NewMMIO(d), d.alloc, c[0])
		if err != nil {
			t.Fatal(err)
		}
		if v.Connect(hostPort); v.conn.local != c[1] || v.State() != Connecting {
			t.Errorf("seed %d: port %d, want %d", c[0], v.conn.local, c[1])
		}
		if v.Connect(hostPort + 1); v.conn.local != c[1] || v.conn.port != hostPort {
			t.Error("a connection was made where there is one")
		}
	}
}

// TestVsockReceiveBounds: one packet of an open connection, with each number off by one and
// far off: whether it is bad, and whether the connection continues. The connection has sent
// 100 bytes, of which the host has taken 50.
func TestVsockReceiveBounds(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(p *vsockPacket)
		data int
		bad  string // which count it is in
		open bool
	}{
		{"right", func(p *vsockPacket) {}, 0, "", true},
		{"source with a high half", func(p *vsockPacket) { p.src |= 1 << 32 }, 0, "packet", true},
		{"source 0", func(p *vsockPacket) { p.src = 0 }, 0, "packet", true},
		{"source 1", func(p *vsockPacket) { p.src = 1 }, 0, "packet", true},
		{"to us with a high half", func(p *vsockPacket) { p.dst |= 1 << 32 }, 0, "packet", true},
		{"to the host", func(p *vsockPacket) { p.dst = HostCID }, 0, "packet", true},
		{"to anybody", func(p *vsockPacket) { p.dst = 1<<32 - 1 }, 0, "packet", true},
		{"type 0", func(p *vsockPacket) { p.typ = 0 }, 0, "packet", true},
		{"type 2", func(p *vsockPacket) { p.typ = 2 }, 0, "packet", true},
		{"type 257", func(p *vsockPacket) { p.typ = 0x101 }, 0, "packet", true},
		{"operation 8", func(p *vsockPacket) { p.op = 8 }, 0, "packet", true},
		{"operation 65535", func(p *vsockPacket) { p.op = 65535 }, 0, "packet", true},
		{"operation 256 + 6", func(p *vsockPacket) { p.op = 0x106 }, 0, "packet", true},
		{"operation 7", func(p *vsockPacket) { p.op = 7 }, 0, "", true},
		{"operation 1", func(p *vsockPacket) { p.op = 1 }, 0, "packet", false},
		{"a response once more", func(p *vsockPacket) { p.op = 2 }, 0, "", true},
		{"data, all of it", func(p *vsockPacket) { p.op, p.n = vopRW, 100 }, 100, "", true},
		{"data, fewer than there are", func(p *vsockPacket) { p.op, p.n = vopRW, 99 }, 100, "", true},
		{"data, one more than there is", func(p *vsockPacket) { p.op, p.n = vopRW, 101 }, 100, "packet", true},
		{"data, as long as with the header", func(p *vsockPacket) { p.op, p.n = vopRW, 144 }, 100, "packet", true},
		{"data, negative", func(p *vsockPacket) { p.op, p.n = vopRW, 1<<32-1 }, 100, "packet", true},
		{"data, half of all numbers", func(p *vsockPacket) { p.op, p.n = vopRW, 1<<31 }, 100, "packet", true},
		{"a whole buffer", func(p *vsockPacket) { p.op, p.n = vopRW, vsockRxSize-vsockHeader }, vsockRxSize - vsockHeader, "", true},
		{"taken as before", func(p *vsockPacket) { p.fwd = 50 }, 0, "", true},
		{"taken, one less than before", func(p *vsockPacket) { p.fwd = 49 }, 0, "credit", false},
		{"taken, one more", func(p *vsockPacket) { p.fwd = 51 }, 0, "", true},
		{"taken, all", func(p *vsockPacket) { p.fwd = 100 }, 0, "", true},
		{"taken, more than all", func(p *vsockPacket) { p.fwd = 101 }, 0, "credit", false},
		{"taken, half of all numbers", func(p *vsockPacket) { p.fwd = 1 << 31 }, 0, "credit", false},
		{"taken, all ones", func(p *vsockPacket) { p.fwd = 1<<32 - 1 }, 0, "credit", false},
		{"no room", func(p *vsockPacket) { p.alloc = 0 }, 0, "", true},
		{"all room", func(p *vsockPacket) { p.alloc = 1<<32 - 1 }, 0, "", true},
		{"shutdown of nothing", func(p *vsockPacket) { p.op, p.flags = vopShutdown, 0 }, 0, "", true},
		{"shutdown of its data", func(p *vsockPacket) { p.op, p.flags = vopShutdown, 2 }, 0, "", true},
		{"shutdown of ours", func(p *vsockPacket) { p.op, p.flags = vopShutdown, 1 }, 0, "", false},
		{"shutdown of both", func(p *vsockPacket) { p.op, p.flags = vopShutdown, 3 }, 0, "", false},
		{"shutdown of what there is not", func(p *vsockPacket) { p.op, p.flags = vopShutdown, 0xfffffffc }, 0, "", true},
		{"reset", func(p *vsockPacket) { p.op = vopRST }, 0, "", false},
		{"reset with a count that cannot be", func(p *vsockPacket) { p.op, p.fwd = vopRST, 7 }, 0, "", false},
	} {
		h, v := newHost(t, featEventIdx)
		h.room = 1000
		connect(h, v)
		send(v, make([]byte, 100))
		h.run()
		h.taken = 50
		h.say(vopCreditUpdate, 0, nil)
		v.Poll()
		was := *v.Counters()
		p := vsockPacket{HostCID, guestCID, hostPort, h.local, 0, vsockStream, vopCreditUpdate, 0, 1000, 60}
		c.edit(&p)
		clear(h.ops)
		h.put(p.bytes(make([]byte, c.data)))
		v.Poll()
		h.run()
		m := *v.Counters()
		bad := map[string]uint64{"packet": m.BadPacket, "credit": m.BadCredit}
		for k, n := range bad {
			if want := k == c.bad; n > 1 || (n == 1) != want {
				t.Errorf("%s: %d in %q", c.name, n, k)
			}
		}
		if (v.State() == Open) != c.open || m.RxPackets != was.RxPackets+1 || m.Connects != 1 || m.Unasked != 0 {
			t.Errorf("%s: state %d, %+v", c.name, v.State(), m)
		}
		if ended := m.Resets - was.Resets; (ended == 1) == c.open || (h.ops[vopRST] == 1) != (!c.open && p.op != vopRST) {
			t.Errorf("%s: %d resets, %d sent", c.name, ended, h.ops[vopRST])
		}
		if want := uint64(p.n); p.op == vopRW && c.bad == "" && m.RxIgnored != want {
			t.Errorf("%s: %d bytes ignored, want %d", c.name, m.RxIgnored, want)
		}
		// The credit is that of the last valid packet.
		if want := int64(p.alloc) - (100 - int64(p.fwd)); c.open && c.bad == "" && int64(v.conn.credit()) != max(want, 0) {
			t.Errorf("%s: credit %d, want %d", c.name, v.conn.credit(), want)
		}
		if c.open && c.bad != "" && v.conn.credit() != 950 {
			t.Errorf("%s: credit %d, want the one before, 950", c.name, v.conn.credit())
		}
	}
	for n := range vsockHeader { // every shorter one
		h, v := newHost(t, featEventIdx)
		h.put(make([]byte, n))
		if v.Poll(); v.Counters().BadPacket != 1 || v.Counters().RxPackets != 1 || v.Stopped() != "" {
			t.Fatalf("%d bytes: %+v", n, *v.Counters())
		}
	}
}

// TestVsockOnlyExpectedResponses: only a requested connection is established, and only
// once.
func TestVsockOnlyExpectedResponses(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	h.local = 5001
	h.say(vopResponse, 0, nil)
	v.Poll()
	h.run()
	if v.State() != Closed || v.Counters().Unasked != 1 || h.ops[vopRST] != 1 {
		t.Errorf("state %d before a request, %+v", v.State(), *v.Counters())
	}
	v.Connect(hostPort)
	h.run()
	h.say(vopCreditUpdate, 0, nil)
	if v.Poll(); v.State() != Connecting || v.Buffer() != nil {
		t.Errorf("state %d without a response", v.State())
	}
	v.Send(1)
	if v.Flush(); len(h.packets()) != 1 || v.Counters().TxBytes != 0 { // the request
		t.Error("data before the response")
	}
	h.say(vopResponse, 0, nil)
	if v.Poll(); v.State() != Open {
		t.Errorf("state %d after the response", v.State())
	}
}

// TestVsockOpenFails: whichever allocation fails, FAILED is set and the error names it.
func TestVsockOpenFails(t *testing.T) {
	for fail := range 6 { // a queue's rings and its buffers, three times
		d := newFake(featEventIdx)
		d.id, d.queues = vsockID, 3
		n := 0
		_, err := OpenVsock(NewMMIO(d), func(k int) (DMA, error) {
			if n++; n-1 == fail {
				return DMA{}, errors.New("nothing left")
			}
			return d.alloc(k)
		}, 1)
		want := "virtio: no memory for a queue of " + []string{"32", "16", "4"}[fail/2] + ": nothing left"
		if fail%2 == 1 {
			want = "virtio: no memory for the buffers of queue " + string('0'+rune(fail/2)) + ": nothing left"
		}
		if err == nil || err.Error() != want || d.status != 11|statusFailed {
			t.Errorf("%v, want %q; status %#x", err, want, d.status)
		}
	}
	for _, feat := range []uint64{0, featEventIdx} { // nothing is missing
		d := newFake(feat)
		d.id, d.queues = vsockID, 3
		var sizes []int
		v, err := OpenVsock(NewMMIO(d), func(k int) (DMA, error) {
			sizes = append(sizes, k)
			return d.alloc(k)
		}, 1)
		_, _, rx := ringBytes(32)
		_, _, tx := ringBytes(16)
		_, _, ev := ringBytes(4)
		if want := []int{rx, 32 * 256, tx, 16 * 8192, ev, 4 * 8}; err != nil || !slices.Equal(sizes, want) {
			t.Errorf("%v; memory of %d bytes, want %d", err, sizes, want)
		}
		for i, q := range []*queue{v.rx, v.tx, v.ev} {
			if q.eventIdx != (feat != 0) || q.number != uint32(i) {
				t.Errorf("offered %#x: queue %d is number %d, event indexes %v", feat, i, q.number, q.eventIdx)
			}
		}
	}
	d := &scripted{fakeNet: newFake(featEventIdx | featMAC | featMRGRxBuf)}
	d.id, d.queues = vsockID, 3
	d.says = map[uint32]uint32{regStatus: 11}
	if v, err := OpenVsock(NewMMIO(d), d.alloc, 1); v != nil || err == nil || !strings.Contains(err.Error(), "did not start") {
		t.Error(err)
	}
	if d.accepted != featVersion1|featEventIdx {
		t.Errorf("features %#x were accepted", d.accepted)
	}
	if d.notified != [fakeQueues]int{} {
		t.Error("a device that did not start was notified")
	}
}

// TestVsockBuffers: the descriptors at the start, and that no two buffers overlap.
func TestVsockBuffers(t *testing.T) {
	h, v := newHost(t, featEventIdx)
	if h.notified != [fakeQueues]int{1, 0, 1} || v.Counters().Notifies != 2 {
		t.Errorf("%v notifications, %d counted", h.notified, v.Counters().Notifies)
	}
	seen := map[uintptr]bool{}
	each := func(b []byte) {
		for i := range b {
			p := uintptr(unsafe.Pointer(&b[i]))
			if seen[p] {
				t.Fatal("two buffers share memory")
			}
			seen[p] = true
		}
	}
	for _, c := range []struct{ q, n, size int }{{vsockRx, vsockRxBuffers, vsockRxSize}, {vsockEvent, vsockEvents, vsockEventSize}} {
		for range c.n {
			_, b, write, ok := h.next(c.q)
			if !ok || !write || len(b) != c.size {
				t.Fatalf("queue %d: %d bytes, writable %v, %v", c.q, len(b), write, ok)
			}
			each(b)
		}
		if _, _, _, ok := h.next(c.q); ok {
			t.Errorf("queue %d has more than %d buffers", c.q, c.n)
		}
	}
	for range vsockTxBuffers {
		v.conn.state, v.conn.peerAlloc, v.conn.sent = Open, 1<<20, 0
		v.transmit(1, 2, vopRW, 0, vsockTxSize-vsockHeader)
	}
	v.Flush()
	for range vsockTxBuffers {
		_, b, write, ok := h.next(vsockTx)
		if !ok || write || len(b) != vsockTxSize {
			t.Fatalf("transmit buffer of %d bytes, writable %v, %v", len(b), write, ok)
		}
		each(b)
	}
	if len(seen) != VsockBytes {
		t.Errorf("%d bytes, want %d", len(seen), VsockBytes)
	}
}

// TestVsockFeatures: of what a device offers only what the driver knows is accepted.
func TestVsockFeatures(t *testing.T) {
	for f := uint64(1); f <= featEventIdx; f <<= 1 {
		h, v := newHost(t, f|1<<5)
		if want := f&featEventIdx | featVersion1; h.accepted != want || v.rx.eventIdx != (f == featEventIdx) {
			t.Errorf("offered %#x: accepted %#x, want %#x", f, h.accepted, want)
		}
	}
}

// TestArmAfterGivingUp: of a device that was given up no interrupts are asked for, and
// nothing waits there.
func TestArmAfterGivingUp(t *testing.T) {
	for _, given := range []bool{false, true} {
		h, v := newHost(t, featEventIdx)
		v.Disarm()
		if given {
			v.giveUp("a test")
		}
		if work := v.Arm(); work || v.armed == given {
			t.Errorf("given up %v: work %v, armed %v", given, work, v.armed)
		}
		h.rules()
	}
}
