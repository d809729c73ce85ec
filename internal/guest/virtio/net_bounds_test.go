package virtio

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/prefetch"
)

// give returns a receive buffer as used, with a header and so many bytes.
func (d *fakeNet) give(flags byte, buffers uint16, n uint32) bool {
	id, b, _, ok := d.next(0)
	if !ok {
		return false
	}
	clear(b[:netHeader])
	b[hdrFlags], b[hdrBuffers], b[hdrBuffers+1] = flags, byte(buffers), byte(buffers>>8)
	d.done(0, uint32(id), n)
	return true
}

// TestReceiveBounds: the length and header of one frame among good ones, at each bound. The
// valid frames before it arrive in any case, those after it unless the device is given up,
// and no buffer is lost.
func TestReceiveBounds(t *testing.T) {
	const whole = netHeader + minFrame
	for _, c := range []struct {
		name    string
		feat    uint64
		flags   byte
		buffers uint16
		n       uint32
		got     bool
		stops   bool
	}{
		{"no header", allNet, 0, 1, 0, false, true},
		{"a byte of the header is missing", allNet, 0, 1, netHeader - 1, false, true},
		{"a header alone", allNet, 0, 1, netHeader, false, false},
		{"a byte short", allNet, 0, 1, whole - 1, false, false},
		{"the shortest", allNet, 0, 1, whole, true, false},
		{"the longest", allNet, 0, 1, framebuf.Size, true, false},
		{"a byte too long", allNet, 0, 1, framebuf.Size + 1, false, true},
		{"the longest number", allNet, 0, 1, 1<<32 - 1, false, true},
		{"unfinished checksum", allNet, 1, 1, 100, false, false},
		{"unfinished checksum among other flags", allNet, 0xff, 1, 100, false, false},
		{"checksum is good", allNet, 2, 1, 100, true, false},
		{"of no buffer", allNet, 0, 0, 100, false, false},
		{"of two buffers", allNet, 0, 2, 100, false, false},
		{"of 257 buffers", allNet, 0, 257, 100, false, false},
		{"of 256 buffers", allNet, 0, 256, 100, false, false},
		{"no buffers are counted", allNet &^ featMRGRxBuf, 0, 0, 100, true, false},
		{"none are counted, unfinished checksum", allNet &^ featMRGRxBuf, 1, 0, 100, false, false},
		{"jumbo", allNet, 0, 1, 9014 + netHeader, true, false},
		{"the longest jumbo", allNet, 0, 1, 5 * framebuf.Size, true, false},
		{"a byte too long for jumbo", allNet, 0, 1, 5*framebuf.Size + 1, false, true},
	} {
		d := newFake(c.feat)
		if strings.Contains(c.name, "jumbo") {
			d.span = 5
		}
		n, p := open(t, d, 64, NetOptions{QueueSize: 16})
		for range 2 {
			d.give(0, 1, 60+netHeader)
		}
		d.give(c.flags, c.buffers, c.n)
		d.give(0, 1, 90+netHeader)
		var dst [8]framebuf.Frame
		k := n.Receive(dst[:])
		want := []uint32{60, 60}
		if c.got {
			want = append(want, c.n-netHeader)
		}
		if !c.stops {
			want = append(want, 90)
		}
		sum := uint64(0)
		for i, f := range dst[:k] {
			if i < len(want) && f.Len != want[i] {
				t.Errorf("%s: frame %d has %d bytes, want %d", c.name, i, f.Len, want[i])
			}
			sum += uint64(f.Len)
			p.Put(f.Buf)
		}
		m := n.Counters()
		malformed, bad := uint64(0), uint64(0)
		if c.stops {
			bad = 1
		} else if !c.got {
			malformed = 1
		}
		if k != len(want) || m.RxPackets != uint64(k) || m.RxBytes != sum || m.RxMalformed != malformed || m.BadLength != bad || (n.Stopped() != "") != c.stops {
			t.Errorf("%s: %d frames, want %d; %+v; stopped %q", c.name, k, len(want), *m, n.Stopped())
		}
		if left := p.Cap() - p.Free() - (int(n.rx.size) - n.rx.room()); left != 0 || c.stops && n.rx.pending() != 0 {
			t.Errorf("%s: %d buffers are nobody's", c.name, left)
		}
	}
}

// TestReceiveFew: frames that do not fit stay for the next call, and no more are taken than
// requested; for a request of none nothing changes.
func TestReceiveFew(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 64, NetOptions{QueueSize: 16})
	for i := range 7 {
		d.deliver(bytes.Repeat([]byte{byte(i)}, 20+i))
	}
	var dst [8]framebuf.Frame
	seen := 0
	for _, k := range []int{0, 1, 3, 0, 2, 8} {
		got := n.Receive(dst[:k])
		if want := min(k, 7-seen); got != want {
			t.Fatalf("asked for %d: %d frames, want %d", k, got, want)
		}
		for _, f := range dst[:got] {
			if f.Len != uint32(20+seen) || p.Bytes(f)[0] != byte(seen) {
				t.Errorf("frame %d: %d bytes of %d", seen, f.Len, p.Bytes(f)[0])
			}
			p.Put(f.Buf)
			seen++
		}
	}
	if n.rx.room() != 0 {
		t.Errorf("%d buffers were not posted again", n.rx.room())
	}
}

// TestBuffersOfDevice: the descriptor of a buffer: its address, its length, and whose.
func TestBuffersOfDevice(t *testing.T) {
	for _, span := range []int{1, 5} {
		testBuffersOfDevice(t, span)
	}
}

func testBuffersOfDevice(t *testing.T, span int) {
	d := newFake(allNet)
	d.span = span
	n, p := open(t, d, 64, NetOptions{QueueSize: 16})
	start := func(b []byte) int {
		return (len(d.mem) - cap(d.at(memBase))) + int(uintptr(unsafe.Pointer(&b[0]))-uintptr(unsafe.Pointer(&d.mem[0])))
	}
	for i := range 16 {
		_, b, write, ok := d.next(0)
		if !ok || !write || len(b) != span*framebuf.Size || start(b) != int(p.Phys(uint32(i*span))-memBase) {
			t.Errorf("receive buffer %d: %d bytes at %d, writable %v", i, len(b), start(b), write)
		}
	}
	if _, _, _, ok := d.next(0); ok {
		t.Error("more buffers than descriptors")
	}
	k, _ := p.Get()
	copy(p.Buffer(k), bytes.Repeat([]byte{0xff}, framebuf.Headroom)) // what was received with it
	copy(p.Buffer(k)[framebuf.Headroom:], "a frame's bytes")
	if n.Transmit([]framebuf.Frame{{Buf: k, Len: 15}}) != 1 {
		t.Fatal("not sent")
	}
	_, b, write, ok := d.next(1)
	if !ok || write || start(b) != int(p.Phys(k)-memBase) || string(b) != string(make([]byte, netHeader))+"a frame's bytes" {
		t.Errorf("transmit buffer %q at %d, writable %v", b, start(b), write)
	}
}

// TestPoolShort: an empty pool is counted, and returned buffers are posted when none is
// with the device, and otherwise when the next frames come.
func TestPoolShort(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 20, NetOptions{QueueSize: 32})
	if n.rx.room() != 12 || n.Counters().RxNoBuffer != 1 || p.Free() != 0 {
		t.Fatalf("room %d, %d times without a buffer", n.rx.room(), n.Counters().RxNoBuffer)
	}
	var dst [32]framebuf.Frame
	if n.Receive(dst[:]); n.Counters().RxNoBuffer != 1 {
		t.Error("the pool was asked although buffers are with the device")
	}
	for range 20 {
		d.deliver(make([]byte, 60))
	}
	k := n.Receive(dst[:])
	if k != 20 || n.rx.room() != 32 || n.Counters().RxNoBuffer != 2 {
		t.Fatalf("%d frames, room %d, %d times without a buffer", k, n.rx.room(), n.Counters().RxNoBuffer)
	}
	if n.Receive(dst[:0]); n.Counters().RxNoBuffer != 3 {
		t.Error("the pool was not asked again")
	}
	p.Put(dst[0].Buf)
	if n.Receive(dst[:0]); n.rx.room() != 31 {
		t.Errorf("room %d with a buffer in the pool, want 31", n.rx.room())
	}
}

// TestOpenFails: whatever fails, FAILED is set, and no buffer of the pool is lost.
func TestOpenFails(t *testing.T) {
	for i, left := range []int{0, 8192} { // of memory: for no queue, and for one of two
		d := newFake(allNet)
		p := d.pool(300)
		d.used = len(d.mem) - left
		_, err := openNet(d, d.alloc, p, NetOptions{})
		if err == nil || !strings.Contains(err.Error(), "no memory for a queue of 256: out of memory") {
			t.Errorf("%d queues have memory: %v", i, err)
		}
		if d.q[0].ready != uint32(i) || d.q[1].ready != 0 || d.status != 11|statusFailed || p.Free() != p.Cap() {
			t.Errorf("%d queues have memory: ready %d and %d, status %#x, %d buffers free", i, d.q[0].ready, d.q[1].ready, d.status, p.Free())
		}
	}
	for i := range 2 {
		d := newFake(allNet)
		p := d.pool(300)
		d.q[i].ready = 1
		if _, err := openNet(d, d.alloc, p, NetOptions{}); err == nil || !strings.Contains(err.Error(), "queue "+string('0'+rune(i))+" is in use") || d.status&statusFailed == 0 {
			t.Errorf("queue %d is in use: %v, status %#x", i, err, d.status)
		}
	}
	for _, c := range []struct {
		says uint16
		mtu  int
	}{{0, 0}, {67, 0}, {68, 68}, {69, 69}, {1500, 1500}, {9000, 9000}, {65535, 65535}} {
		d := newFake(allNet)
		d.mtu = c.says
		n, err := openNet(d, d.alloc, d.pool(300), NetOptions{})
		switch {
		case c.mtu == 0:
			if err == nil || !strings.Contains(err.Error(), "IPv4's minimum of 68") || d.status&statusFailed == 0 {
				t.Errorf("an MTU of %d: %v, status %#x", c.says, err, d.status)
			}
		case err != nil || n.MTU() != c.mtu:
			t.Errorf("an MTU of %d: %d, %v", c.says, n.MTU(), err)
		}
	}
}

// TestNetDevice: a device's address is known before it is opened, and afterwards; without
// the features it has no address, and its link is up.
func TestNetDevice(t *testing.T) {
	for _, feat := range []uint64{allNet, 0} {
		d := newFake(feat)
		d.link = 0
		dev, err := FindNet(NewMMIO(d), Wanted{})
		if err != nil {
			t.Fatal(err)
		}
		want, has := d.mac, feat != 0
		if !has {
			want = [6]byte{}
		}
		n, err := dev.Open(d.alloc, d.pool(300), NetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if mac, ok := dev.MAC(); mac != want || ok != has {
			t.Errorf("before: MAC %x %v", mac, ok)
		}
		if mac, ok := n.MAC(); mac != want || ok != has {
			t.Errorf("after: MAC %x %v", mac, ok)
		}
		if n.LinkUp() != (feat == 0) {
			t.Errorf("features %#x: link up: %v", feat, n.LinkUp())
		}
		d.link = 0xfffe // other bits
		d.isr = 2
		if n.Ack(); n.LinkUp() != (feat == 0) {
			t.Error("another bit made the link come up")
		}
		d.link, d.isr = 3, 2
		if n.Ack(); !n.LinkUp() {
			t.Error("the link did not come up")
		}
	}
}

// TestAck: the interrupt status decides what is read.
func TestAck(t *testing.T) {
	for _, c := range []struct {
		isr, status uint32
		acked       bool
		looked      bool
		stopped     bool
	}{
		{0, 15, false, false, false},
		{1, 15, true, false, false},
		{2, 15, true, true, false},
		{3, 15, true, true, false},
		{1, 15 | statusNeedsReset, true, false, false}, // an interrupt of the queues alone
		{2, 15 | statusNeedsReset, true, false, true},
		{3, 15 | statusNeedsReset, true, false, true},
		{0x10, 15 | statusNeedsReset, true, false, false},
	} {
		d := &scripted{fakeNet: newFake(allNet)}
		n, err := openNet(d, d.alloc, d.pool(64), NetOptions{QueueSize: 16})
		if err != nil {
			t.Fatal(err)
		}
		d.log, d.link = nil, 0
		d.isr, d.status = c.isr, c.status
		n.Ack()
		acked := len(d.log) > 0 && strings.HasPrefix(d.log[0], "064=")
		if acked != c.acked || acked && d.isr != 0 || n.LinkUp() == c.looked || (n.Stopped() == "the device asks for a reset") != c.stopped || n.Counters().Interrupts != 1 {
			t.Errorf("%+v: wrote %v, link up %v, stopped %q, %d interrupts", c, d.log, n.LinkUp(), n.Stopped(), n.Counters().Interrupts)
		}
		if c.stopped != (d.status&statusFailed != 0) {
			t.Errorf("%+v: status %#x", c, d.status)
		}
	}
}

// TestReceiveLines: fetch prefetches the lines of the next frames, around the end of the
// ring, whatever the device writes there.
func TestReceiveLines(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 300, NetOptions{QueueSize: 128})
	var dst [128]framebuf.Frame
	for i := range 90 { // so that the rest goes round
		d.deliver(make([]byte, 50+i))
		for _, f := range dst[:n.Receive(dst[:])] {
			p.Put(f.Buf)
		}
	}
	lens := []uint32{64, 65, 72, 63, 2000}
	var bufs []uint32
	var ids []uint16
	for i := range prefetch.Max {
		id, b, _, _ := d.next(0)
		bufs = append(bufs, uint32(uintptr(unsafe.Pointer(&b[0]))-uintptr(unsafe.Pointer(&p.Buffer(0)[0])))/framebuf.Size)
		ids = append(ids, id)
		d.done(0, uint32(id), lens[i%len(lens)])
	}
	var l [2]prefetch.Lines
	n.lines(prefetch.Max, &l)
	for i, b := range bufs {
		if l[0][i] != uintptr(unsafe.Pointer(&p.Buffer(b)[0])) {
			t.Fatalf("frame %d: another line", i)
		}
		if i%4 == 0 && l[1][i/4] != uintptr(unsafe.Pointer(&n.rx.desc[ids[i]])) {
			t.Fatalf("frame %d: another descriptor", i)
		}
	}
	for i := range 200 { // numbers that lie only ask for the wrong lines
		d.done(0, uint32(i)<<24|uint32(i), 1<<32-1)
	}
	n.lines(prefetch.Max, &l)
	n.fetch(1 << 20)
}

// TestFeaturesAlone: the effect of each feature does not depend on others.
func TestFeaturesAlone(t *testing.T) {
	for f := uint64(1); f <= featEventIdx; f <<= 1 {
		for _, offered := range []uint64{f, allNet | f, allNet &^ f} {
			d := newFake(offered)
			d.link = 0
			n, _ := open(t, d, 64, NetOptions{QueueSize: 16})
			if want := offered&allNet | featVersion1; d.accepted != want || n.feat != want {
				t.Errorf("offered %#x: accepted %#x, want %#x", offered, d.accepted, want)
			}
			mtu := 0
			if offered&featMTU != 0 {
				mtu = 1400
			}
			if _, ok := n.MAC(); ok != (offered&featMAC != 0) || n.MTU() != mtu || n.LinkUp() != (offered&featStatus == 0) {
				t.Errorf("offered %#x: MAC %v, MTU %d, link up %v", offered, ok, n.MTU(), n.LinkUp())
			}
			if d.accepted&featStatus != 0 {
				d.isr = 2
				n.Ack()
			}
			if len(d.broken) > 0 {
				t.Errorf("offered %#x: %v", offered, d.broken)
			}
			if n.rx.eventIdx != (offered&featEventIdx != 0) || n.tx.eventIdx != n.rx.eventIdx {
				t.Errorf("offered %#x: event indexes %v and %v", offered, n.rx.eventIdx, n.tx.eventIdx)
			}
			d.give(0, 2, 100)
			var dst [1]framebuf.Frame
			if got := n.Receive(dst[:]) == 1; got != (offered&featMRGRxBuf == 0) {
				t.Errorf("offered %#x: a frame of two buffers: %v", offered, got)
			}
		}
	}
}

// TestReclaimEndsWithTheFirst: of several descriptors that the device returns and does not
// have the first is counted, and stops it.
func TestReclaimEndsWithTheFirst(t *testing.T) {
	d := newFake(allNet)
	n, pool := open(t, d, 64, NetOptions{QueueSize: 16})
	var fs []framebuf.Frame
	for range 12 {
		buf, _ := pool.Get()
		fs = append(fs, framebuf.Frame{Buf: buf, Len: 60})
	}
	if k := n.Transmit(fs); k != 12 {
		t.Fatalf("%d frames", k)
	}
	for range 2 {
		d.done(1, 5000, 0)
	}
	n.HasRoom(8)
	if c := n.Counters(); n.Stopped() == "" || c.BadID != 1 {
		t.Errorf("stopped: %q, %d descriptors", n.Stopped(), c.BadID)
	}
}
