package virtio

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

func TestNegotiation(t *testing.T) {
	const others = 1<<0 | 1<<1 | 1<<7 | 1<<17 | 1<<28 | 1<<35 // offloads, control queue, indirect, in-order
	for _, feat := range []uint64{0, allNet, allNet | others, featMAC, featEventIdx, featMAC | featMTU} {
		d := newFake(feat)
		n, _ := open(t, d, 600, NetOptions{})
		if d.accepted&others != 0 || d.accepted&featVersion1 == 0 || d.status != 15 {
			t.Errorf("offered %#x: accepted %#x, status %d", feat, d.accepted, d.status)
		}
		if mac, ok := n.MAC(); ok != (feat&featMAC != 0) || ok && mac != d.mac {
			t.Errorf("offered %#x: MAC %x %v", feat, mac, ok)
		}
		want := 0
		if feat&featMTU != 0 {
			want = 1400
		}
		if n.MTU() != want {
			t.Errorf("offered %#x: MTU %d, want %d", feat, n.MTU(), want)
		}
		// Firecracker delivers nothing below 65562 bytes of receive buffers.
		if posted := 256 - n.rx.room(); posted*framebuf.Size < 65562 {
			t.Errorf("%d buffers posted", posted)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		edit       func(d *fakeNet)
		size       int
	}{
		{"old device", "VERSION_1", func(d *fakeNet) { d.offered &^= featVersion1 }, 0},
		{"features refused", "refuses features", func(d *fakeNet) { d.refuse = true }, 0},
		{"no queue", "no usable size", func(d *fakeNet) { d.qMax = 0 }, 0},
		{"odd queue", "no usable size", func(d *fakeNet) { d.qMax = 100 }, 0},
		{"tiny MTU", "MTU", func(d *fakeNet) { d.mtu = 60 }, 0},
		{"queue in use", "in use", func(d *fakeNet) { d.q[1].ready = 1 }, 0},
		{"size", "power of two", func(d *fakeNet) {}, 100},
		{"no memory", "no memory", func(d *fakeNet) { d.used = len(d.mem) }, 0},
	} {
		d := newFake(allNet)
		p := d.pool(300)
		c.edit(d)
		if _, err := openNet(d, d.alloc, p, NetOptions{QueueSize: c.size}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestSmallerQueue(t *testing.T) {
	d := newFake(allNet)
	d.qMax = 64
	if n, _ := open(t, d, 200, NetOptions{}); n.rx.size != 64 || d.q[0].num != 64 {
		t.Errorf("size %d, device %d; want 64", n.rx.size, d.q[0].num)
	}
}

// TestTraffic moves frames both ways in random batches, long enough for the
// 16-bit indexes to wrap, and checks order, contents and that no buffer is
// lost.
func TestTraffic(t *testing.T) {
	for _, feat := range []uint64{allNet, featMAC} {
		d := newFake(feat)
		n, p := open(t, d, 700, NetOptions{QueueSize: 128})
		r := rand.New(rand.NewSource(1))
		var dst [64]framebuf.Frame
		seqIn, seqGot, seqOut, seqSent := uint32(0), uint32(0), uint32(0), uint32(0)
		mk := func(seq uint32) []byte {
			f := bytes.Repeat([]byte{byte(seq)}, 14+int(seq*7%1400))
			binary.LittleEndian.PutUint32(f, seq)
			return f
		}
		for seqGot < 70000 || seqSent < 70000 {
			for range r.Intn(80) {
				if _, ok := d.deliver(mk(seqIn)); !ok {
					break
				}
				seqIn++
			}
			k := n.Receive(dst[:1+r.Intn(64)])
			for _, f := range dst[:k] {
				if !bytes.Equal(p.Bytes(f), mk(seqGot)) {
					t.Fatalf("frame %d arrived changed", seqGot)
				}
				seqGot++
				// Send it back with other contents.
				g := mk(seqOut)
				f.Len = uint32(len(g))
				copy(p.Bytes(f), g)
				if n.Transmit([]framebuf.Frame{f}) == 0 {
					p.Put(f.Buf)
					continue
				}
				seqOut++
			}
			for range r.Intn(80) {
				f, ok := d.sent()
				if !ok {
					break
				}
				if !bytes.Equal(f, mk(seqSent)) {
					t.Fatalf("frame %d was sent changed", seqSent)
				}
				seqSent++
			}
		}
		for {
			if _, ok := d.sent(); !ok {
				break
			}
		}
		n.Kick() // takes back what was sent
		posted := int(n.rx.size) - n.rx.room()
		if got := p.Free() + posted; got != p.Cap() {
			t.Errorf("%d buffers of %d accounted for", got, p.Cap())
		}
		if c := n.Counters(); c.RxPackets != uint64(seqGot) || c.TxPackets != uint64(seqOut) {
			t.Errorf("counters %+v, want %d and %d", c, seqGot, seqOut)
		}
		if len(d.broken) > 0 || n.Stopped() != "" {
			t.Fatal(d.broken, n.Stopped())
		}
	}
}

// TestNotifications: a device that polls is not notified, one that asks is once.
func TestNotifications(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 600, NetOptions{})
	send := func(k int) {
		for range k {
			b, _ := p.Get()
			if n.Transmit([]framebuf.Frame{{Buf: b, Len: 60}}) != 1 {
				t.Fatal("no room")
			}
		}
	}
	d.wantNotify(1)
	send(1)
	if d.notified[1] != 1 {
		t.Fatalf("%d notifications for the first frame, want 1", d.notified[1])
	}
	send(50) // the device has not asked again
	if d.notified[1] != 1 {
		t.Fatalf("%d notifications while the device works, want 1", d.notified[1])
	}
	for {
		if _, ok := d.sent(); !ok {
			break
		}
	}
	d.wantNotify(1)
	send(3)
	if d.notified[1] != 2 {
		t.Fatalf("%d notifications, want 2", d.notified[1])
	}
}

func TestInterrupts(t *testing.T) {
	for _, feat := range []uint64{allNet, featMAC} {
		d := newFake(feat)
		n, p := open(t, d, 600, NetOptions{})
		var dst [8]framebuf.Frame
		drain := func() {
			k := n.Receive(dst[:])
			for _, f := range dst[:k] {
				p.Put(f.Buf)
			}
		}
		f := make([]byte, 60)
		if irq, _ := d.deliver(f); irq {
			t.Error("interrupt while polling")
		}
		if !n.Arm() {
			t.Error("Arm did not see the waiting frame")
		}
		n.Disarm()
		drain()
		if n.Arm() {
			t.Error("Arm sees work where there is none")
		}
		if irq, _ := d.deliver(f); !irq {
			t.Error("no interrupt though armed")
		}
		d.isr = 1
		n.Ack()
		if d.isr != 0 {
			t.Error("interrupt not acknowledged")
		}
		n.Disarm()
		drain()
		if irq, _ := d.deliver(f); irq {
			t.Error("interrupt after Disarm")
		}
	}
}

func TestPoolEmptyRecovers(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 64, NetOptions{QueueSize: 64})
	var dst [64]framebuf.Frame
	for i := range 64 {
		if _, ok := d.deliver(make([]byte, 60)); !ok {
			t.Fatalf("no buffer for frame %d", i)
		}
	}
	k := n.Receive(dst[:])
	if k != 64 || p.Free() != 0 || n.Counters().RxNoBuffer == 0 {
		t.Fatalf("got %d frames, %d buffers free", k, p.Free())
	}
	if _, ok := d.deliver(make([]byte, 60)); ok {
		t.Fatal("a buffer from nowhere")
	}
	for _, f := range dst[:k] {
		p.Put(f.Buf)
	}
	n.Receive(dst[:])
	if _, ok := d.deliver(make([]byte, 60)); !ok {
		t.Fatal("reception did not come back")
	}
}

func TestTransmitFull(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 600, NetOptions{QueueSize: 64})
	fs := make([]framebuf.Frame, 100)
	for i := range fs {
		b, _ := p.Get()
		fs[i] = framebuf.Frame{Buf: b, Len: 60}
	}
	if k := n.Transmit(fs); k != 64 {
		t.Fatalf("took %d frames into 64 descriptors", k)
	}
	if c := n.Counters().TxFull; c != 36 {
		t.Fatalf("%d counted as refused, want 36", c)
	}
}

// TestHostileDevice: whatever a device writes, the driver gives it up, counts the
// violation, and does not use it any more.
func TestHostileDevice(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(d *fakeNet)
		count      func(c *NetCounters) uint64
	}{
		{"used index ahead", "ahead", func(d *fakeNet) { d.setUsed(0, 1000) }, func(c *NetCounters) uint64 { return c.BadIndex }},
		{"id out of range", "does not have", func(d *fakeNet) { d.done(0, 5000, 100) }, func(c *NetCounters) uint64 { return c.BadID }},
		{"huge id", "does not have", func(d *fakeNet) { d.done(0, 1<<31, 100) }, func(c *NetCounters) uint64 { return c.BadID }},
		{"id twice", "does not have", func(d *fakeNet) { d.done(0, 3, 100); d.done(0, 3, 100) }, func(c *NetCounters) uint64 { return c.BadID }},
		{"length beyond buffer", "more or less", func(d *fakeNet) { d.done(0, 3, 4096) }, func(c *NetCounters) uint64 { return c.BadLength }},
		{"length below header", "more or less", func(d *fakeNet) { d.done(0, 3, 4) }, func(c *NetCounters) uint64 { return c.BadLength }},
		{"tx index ahead", "ahead", func(d *fakeNet) { d.setUsed(1, 1) }, func(c *NetCounters) uint64 { return c.BadIndex }},
		{"asks for reset", "reset", func(d *fakeNet) { d.status |= statusNeedsReset; d.isr = 2 }, func(c *NetCounters) uint64 { return 1 }},
	} {
		d := newFake(allNet)
		n, p := open(t, d, 600, NetOptions{})
		c.do(d)
		n.Ack()
		n.Kick() // looks for what was sent
		var dst [64]framebuf.Frame
		for range 3 {
			for _, f := range dst[:n.Receive(dst[:])] {
				p.Put(f.Buf)
			}
			b, _ := p.Get()
			if n.Transmit([]framebuf.Frame{{Buf: b, Len: 60}}) == 0 {
				p.Put(b)
			}
		}
		if !strings.Contains(n.Stopped(), c.want) {
			t.Errorf("%s: stopped %q, want one with %q", c.name, n.Stopped(), c.want)
		}
		if c.count(n.Counters()) == 0 {
			t.Errorf("%s: not counted", c.name)
		}
		if d.status&statusFailed == 0 {
			t.Errorf("%s: the device was not told (status %#x)", c.name, d.status)
		}
		if n.Arm() {
			t.Errorf("%s: a stopped device has work", c.name)
		}
	}
}

// TestOddFramesDropped: frames that violate no rule of the ring but are incomplete.
func TestOddFramesDropped(t *testing.T) {
	for name, edit := range map[string]func(h []byte) uint32{
		"two buffers":         func(h []byte) uint32 { h[hdrBuffers] = 2; return 100 },
		"no buffers":          func(h []byte) uint32 { h[hdrBuffers] = 0; return 100 },
		"unfinished checksum": func(h []byte) uint32 { h[hdrFlags] = needsCsum; return 100 },
		"runt":                func(h []byte) uint32 { return netHeader + 13 },
	} {
		d := newFake(allNet)
		n, p := open(t, d, 600, NetOptions{})
		before := p.Free()
		id, b, _, _ := d.next(0)
		clear(b[:netHeader])
		b[hdrBuffers] = 1
		d.done(0, uint32(id), edit(b))
		var dst [4]framebuf.Frame
		if k := n.Receive(dst[:]); k != 0 || n.Counters().RxMalformed != 1 || n.Stopped() != "" {
			t.Errorf("%s: %d frames, %+v, %q", name, k, n.Counters(), n.Stopped())
		}
		if p.Free() != before {
			t.Errorf("%s: %d buffers free, %d before", name, p.Free(), before)
		}
	}
}

func TestLinkStatus(t *testing.T) {
	d := newFake(allNet)
	n, _ := open(t, d, 600, NetOptions{})
	if !n.LinkUp() {
		t.Fatal("link is down")
	}
	d.link, d.isr = 0, 2
	n.Ack()
	if n.LinkUp() {
		t.Fatal("link is up")
	}
}

func TestNoAllocs(t *testing.T) {
	d := newFake(allNet)
	n, _ := open(t, d, 700, NetOptions{})
	var dst [64]framebuf.Frame
	f := make([]byte, 60)
	if a := testing.AllocsPerRun(200, func() {
		for range 64 {
			d.deliver(f)
		}
		n.Transmit(dst[:n.Receive(dst[:])])
		for {
			id, _, _, ok := d.next(1)
			if !ok {
				break
			}
			d.done(1, uint32(id), 0)
		}
	}); a != 0 {
		t.Errorf("%v allocations for a batch", a)
	}
}

// FuzzDevice lets a device write arbitrary data to its rings.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	f.Add([]byte{1, 0, 0, 0, 5, 2, 0, 0, 1, 255, 255, 3})
	op := func(kind, q byte, v uint16, x byte) []byte { return []byte{kind<<1 | q, byte(v), byte(v >> 8), x} }
	for q := range byte(2) {
		sends := bytes.Repeat(op(3, 0, 60, 0), 3)
		for _, v := range []uint16{0, 1, 2, 3, 4, 15, 16, 17, 1023, 1024, 1025, 1 << 15, 1<<16 - 1} { // indexes and descriptors
			f.Add(slices.Concat(sends, op(0, q, v, 0)))
			f.Add(slices.Concat(sends, op(1, q, v, 4)))
			f.Add(slices.Concat(sends, op(1, q, v, 4), op(1, q, v, 4)))
		}
		for _, v := range []uint16{0, netHeader - 1, netHeader, netHeader + minFrame - 1, netHeader + minFrame, framebuf.Size, framebuf.Size + 1, 1<<16 - 1} { // lengths
			f.Add(slices.Concat(sends, op(2, q, v, 0), op(2, q, 100, 0)))
		}
		f.Add(slices.Concat(bytes.Repeat(op(3, 0, 1499, 0), 20), bytes.Repeat(op(2, q, 100, 0), 40))) // a full ring that empties
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := newFake(allNet)
		n, p := open(t, d, 64, NetOptions{QueueSize: 16})
		var dst [16]framebuf.Frame
		held := map[uint32]bool{}
		for i := 0; i+3 < len(in); i += 4 {
			v := binary.LittleEndian.Uint16(in[i+1:])
			q := int(in[i]) & 1
			switch in[i] >> 1 & 3 {
			case 0:
				d.setUsed(q, v)
			case 1:
				d.done(q, uint32(v), uint32(in[i+3])*16)
			case 2:
				if id, _, _, ok := d.next(q); ok {
					d.done(q, uint32(id), uint32(v))
				}
			case 3:
				if b, ok := p.Get(); ok {
					if held[b] {
						t.Fatalf("buffer %d is in two places", b)
					}
					if n.Transmit([]framebuf.Frame{{Buf: b, Len: uint32(v % 1500)}}) == 0 {
						p.Put(b)
					}
				}
			}
			for _, f := range dst[:n.Receive(dst[:])] {
				if f.Len > framebuf.MaxLen || held[f.Buf] {
					t.Fatalf("frame %+v", f)
				}
				held[f.Buf] = true
			}
			for b := range held {
				p.Put(b)
				delete(held, b)
			}
			n.Arm()
			n.Disarm()
		}
	})
}

// BenchmarkForward is the cost of one frame received and sent on, with the
// device's side done by the same thread.
func BenchmarkForward(b *testing.B) {
	d := newFake(allNet)
	n, _ := open(b, d, 700, NetOptions{})
	var dst [64]framebuf.Frame
	b.ReportAllocs()
	for i := 0; i < b.N; i += 64 {
		for range 64 {
			id, _, _, _ := d.next(0)
			d.done(0, uint32(id), 72)
		}
		n.feat &^= featMRGRxBuf // headers are not written here
		n.Transmit(dst[:n.Receive(dst[:])])
		for {
			id, _, _, ok := d.next(1)
			if !ok {
				break
			}
			d.done(1, uint32(id), 0)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/frame")
}
