package virtio

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/shared/packet"
)

const allOffloads = allNet | featCsum | featGuestCsm | featGuestTSO | featHostTSO

// openOffloads opens a device with offloads.
func openOffloads(t testing.TB, d *fakeNet, buffers int, opt NetOptions) (*Net, *framebuf.Pool) {
	t.Helper()
	p := d.pool(buffers)
	dev, err := FindNet(NewMMIO(d), Wanted{Offloads: true})
	if err != nil {
		t.Fatal(err)
	}
	n, err := dev.Open(d.alloc, p, opt)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.broken) > 0 {
		t.Fatalf("the driver broke the device's rules: %v", d.broken)
	}
	return n, p
}

// A netHdr is the header of a frame from the device.
type netHdr struct {
	flags, gso               byte
	len, size, start, offset uint16
	buffers                  uint16
	lie                      bool // buffers is as it stands here, not what was used
	long, empty, again       int  // number of a buffer that is used with a wrong length, or twice
}

// spread delivers a frame in as many buffers as it needs; false if there are too few.
func (d *fakeNet) spread(h netHdr, f []byte) bool {
	var ids []uint16
	var lens, most []uint32
	var head []byte
	all := append(make([]byte, netHeader), f...)
	for len(all) > 0 {
		id, b, _, ok := d.next(0)
		if !ok {
			return false
		}
		if head == nil {
			head = b
		}
		k := copy(b, all)
		all = all[k:]
		ids, lens, most = append(ids, id), append(lens, uint32(k)), append(most, uint32(len(b)))
	}
	if !h.lie {
		h.buffers = uint16(len(ids))
	}
	head[hdrFlags], head[hdrGSO] = h.flags, h.gso
	for i, v := range []uint16{h.len, h.size, h.start, h.offset, h.buffers} {
		binary.LittleEndian.PutUint16(head[hdrLen+2*i:], v)
	}
	for i, id := range ids {
		switch i {
		case 0:
		case h.empty:
			lens[i] = 0
		case h.long:
			lens[i] = most[i] + 1
		case h.again:
			id = ids[0]
		}
		d.done(0, uint32(id), lens[i])
	}
	return true
}

// large is the header of a large frame.
func large(f []byte) netHdr {
	return netHdr{flags: needsCsum, gso: gsoTCPv4, len: 54, size: 1448, start: 34, offset: tcpChecksum}
}

func noise(n int) []byte {
	f := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 1))
	for i := range f {
		f[i] = byte(r.Uint32())
	}
	return f
}

// TestOffloadsNegotiated: an offload is taken only with those that it depends on.
func TestOffloadsNegotiated(t *testing.T) {
	for _, c := range []struct {
		offered, want uint64
		takes, sends  bool
	}{
		{allOffloads, allOffloads, true, true},
		{allOffloads | 1<<8 | 1<<9 | 1<<10 | 1<<12 | 1<<14 | 1<<22, allOffloads, true, true}, // IPv6, ECN, UFO, MQ
		{allOffloads &^ featMRGRxBuf, allOffloads &^ (featMRGRxBuf | featGuestTSO), false, true},
		{allOffloads &^ featGuestCsm, allOffloads &^ (featGuestCsm | featGuestTSO), false, true},
		{allOffloads &^ featCsum, allOffloads &^ (featCsum | featHostTSO), true, false},
		{allOffloads &^ featHostTSO, allOffloads &^ featHostTSO, true, false},
		{allOffloads &^ featGuestTSO, allOffloads &^ featGuestTSO, false, true},
		{allNet, allNet, false, false},
	} {
		d := newFake(c.offered)
		n, _ := openOffloads(t, d, 600, NetOptions{})
		takes, sends := n.Large()
		if d.accepted != c.want|featVersion1 || takes != c.takes || sends != c.sends {
			t.Errorf("offered %#x: accepted %#x, want %#x; takes %v, sends %v", c.offered, d.accepted, c.want|featVersion1, takes, sends)
		}
		d = newFake(c.offered)
		open(t, d, 600, NetOptions{})
		if d.accepted&^featVersion1 != c.offered&allNet {
			t.Errorf("without offloads %#x was accepted", d.accepted)
		}
	}
	for size, ok := range map[int]bool{32: false, 64: false, 128: true, 256: true} {
		d := newFake(allOffloads)
		dev, err := FindNet(NewMMIO(d), Wanted{Offloads: true})
		if err == nil {
			_, err = dev.Open(d.alloc, d.pool(600), NetOptions{QueueSize: size})
		}
		if (err == nil) != ok || !ok && d.status&statusFailed == 0 {
			t.Errorf("queues of %d: %v", size, err)
		}
	}
}

// TestLargeFrames: large frames of every number of buffers arrive and leave whole, among
// ordinary ones, and no buffer is lost.
func TestLargeFrames(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openOffloads(t, d, 700, NetOptions{})
	free := p.Free()
	var dst [64]framebuf.Frame
	for round, size := range []int{60, 1972, 1973, 3956, 3957, 10_000, 40_001, 65_000, framebuf.MaxTotal, 66, 65_549} {
		f := noise(size)
		h := large(f)
		if size == 60 {
			h.size = 48
		}
		if !d.spread(h, f) {
			t.Fatal("no room")
		}
		d.deliver(f[:60])
		k := n.Receive(dst[:])
		if k != 2 || !dst[0].IsLarge() || dst[1].IsLarge() {
			t.Fatalf("%d bytes: %d frames %+v; %q", size, k, dst[:k], n.Stopped())
		}
		l := p.Large(dst[0])
		got := make([]byte, size+1)
		if m := p.Copy(got, dst[0], 0); int(l.Total) != size || m != size || !bytes.Equal(got[:m], f) || l.Transport != 34 || l.Size != h.size {
			t.Fatalf("%d bytes: %+v, %d copied", size, *l, m)
		}
		l.Headers, l.Segments = 66, 2
		parts := int(l.Parts)
		room := n.tx.room()
		if n.Transmit(dst[:2]) != 2 || n.tx.room() != room-parts-1 {
			t.Fatalf("%d bytes: room %d of %d for %d parts", size, n.tx.room(), room, parts)
		}
		out, hdr := d.sentLarge(t)
		if !bytes.Equal(out, f) || hdr != (netHdr{flags: needsCsum, gso: gsoTCPv4, len: 66, size: h.size, start: 34, offset: 16}) {
			t.Fatalf("%d bytes: sent %d with %+v", size, len(out), hdr)
		}
		if out, hdr := d.sentLarge(t); len(out) != 60 || hdr != (netHdr{}) {
			t.Fatalf("then %d bytes with %+v", len(out), hdr)
		}
		n.Kick()
		if p.Free() != free || n.tx.room() != 256 {
			t.Fatalf("round %d: %d of %d free, room for %d", round, p.Free(), free, n.tx.room())
		}
	}
	if c := n.Counters(); c.RxLarge != 11 || c.TxLarge != 11 || c.RxMalformed != 0 || c.RxPackets != 22 || c.RxBytes != c.TxBytes {
		t.Errorf("%+v", *c)
	}
}

// sentLarge returns the next frame that the driver sends, and its header.
func (d *fakeNet) sentLarge(t testing.TB) ([]byte, netHdr) {
	t.Helper()
	q := &d.q[1]
	id, b, _, ok := d.next(1)
	if !ok {
		t.Fatal("nothing was sent")
	}
	var h netHdr
	h.flags, h.gso = b[hdrFlags], b[hdrGSO]
	for i, v := range []*uint16{&h.len, &h.size, &h.start, &h.offset, &h.buffers} {
		*v = binary.LittleEndian.Uint16(b[hdrLen+2*i:])
	}
	f := append([]byte(nil), b[netHeader:]...)
	e := d.at(q.desc)[16*uint64(id):]
	for i := 0; binary.LittleEndian.Uint16(e[12:])&descNext != 0; i++ {
		if i > framebuf.MaxParts {
			t.Fatal("the request has no end")
		}
		e = d.at(q.desc)[16*uint64(binary.LittleEndian.Uint16(e[14:])):]
		k := binary.LittleEndian.Uint32(e[8:])
		f = append(f, d.at(binary.LittleEndian.Uint64(e))[:k]...)
	}
	d.done(1, uint32(id), 0)
	return f, h
}

// TestTransmitRoom: a large frame is sent whole or not at all.
func TestTransmitRoom(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openOffloads(t, d, 900, NetOptions{})
	var fs []framebuf.Frame
	for range 9 {
		if !d.spread(large(nil), noise(60_000)) {
			n.Receive(nil)
		}
		var dst [64]framebuf.Frame
		for _, f := range dst[:n.Receive(dst[:])] {
			p.Large(f).Headers, p.Large(f).Segments = 66, 42
			fs = append(fs, f)
		}
	}
	k := n.Transmit(fs)
	parts := int(p.Large(fs[len(fs)-1]).Parts)
	if k != 256/parts || n.tx.room() != 256-k*parts || n.c.TxFull != uint64(len(fs)-k) {
		t.Fatalf("%d of %d were taken, each of %d parts; room for %d", k, len(fs), parts, n.tx.room())
	}
	for _, f := range fs[k:] {
		p.Release(f)
	}
	for range k {
		d.sentLarge(t)
	}
	n.Kick()
	if n.rx.room() != 0 || p.Free() != p.Cap()-256 {
		t.Errorf("%d free of %d", p.Free(), p.Cap())
	}
}

// TestBurst: with large frames a batch has no more buffers than the other side has room for.
func TestBurst(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openOffloads(t, d, 900, NetOptions{})
	for range 30 {
		d.deliver(noise(60))
	}
	for d.spread(large(nil), noise(64_000)) {
		d.deliver(noise(60))
	}
	var dst [64]framebuf.Frame
	frames := 0
	for {
		before := n.rx.usedIdx
		k := n.Receive(dst[:])
		if k == 0 {
			break
		}
		if took := n.rx.usedIdx - before; took > Burst {
			t.Errorf("%d buffers", took)
		}
		frames += k
		for _, f := range dst[:k] {
			p.Release(f)
		}
	}
	if frames < 30+6+6 || p.Free() != p.Cap()-256 {
		t.Errorf("%d frames, %d free", frames, p.Free())
	}
}

// TestCompletes: unfinished checksums of ordinary frames are finished on arrival.
func TestCompletes(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openOffloads(t, d, 600, NetOptions{})
	for _, c := range []struct {
		size          int
		start, offset uint16
	}{{100, 34, 6}, {1514, 34, 16}, {1972, 34, 16}, {60, 42, 16}, {60, 0, 58}, {60, 58, 0}} {
		f := noise(c.size)
		want := bytes.Clone(f)
		packet.FinishChecksum(want, int(c.start), int(c.offset))
		d.spread(netHdr{flags: needsCsum, start: c.start, offset: c.offset}, f)
		d.spread(netHdr{flags: 2}, f) // DATA_VALID: it is complete
		var dst [8]framebuf.Frame
		k := n.Receive(dst[:])
		if k != 2 || !bytes.Equal(p.Bytes(dst[0]), want) || !bytes.Equal(p.Bytes(dst[1]), f) {
			t.Errorf("%+v: %d frames", c, k)
		}
		for _, f := range dst[:k] {
			p.Put(f.Buf)
		}
	}
	if c := n.Counters(); c.RxCompleted != 6 || c.RxMalformed != 0 {
		t.Errorf("%+v", *c)
	}
}

// TestHostileOffloads: what a device says about a frame beside its bytes is checked; a frame
// with a wrong header is dropped and counted, and one that lies about the ring stops the
// device. The frames after it arrive, and no buffer is lost.
func TestHostileOffloads(t *testing.T) {
	with := func(edit func(h *netHdr)) netHdr { h := large(nil); edit(&h); return h }
	for _, c := range []struct {
		name  string
		feat  uint64
		h     netHdr
		size  int
		good  bool
		stops bool
	}{
		{"no fault", allOffloads, large(nil), 9000, true, false},
		{"no fault in one buffer", allOffloads, large(nil), 1900, true, false},
		{"gso_size 0", allOffloads, with(func(h *netHdr) { h.size = 0 }), 9000, false, false},
		{"gso_size 47", allOffloads, with(func(h *netHdr) { h.size = 47 }), 9000, false, false},
		{"gso_size 48", allOffloads, with(func(h *netHdr) { h.size = 48 }), 9000, true, false},
		{"gso_size 0 in one buffer", allOffloads, with(func(h *netHdr) { h.size = 0 }), 1000, false, false},
		{"header longer than the frame", allOffloads, with(func(h *netHdr) { h.len = 9001 }), 9000, false, false},
		{"header as long as the frame", allOffloads, with(func(h *netHdr) { h.len = 9000 }), 9000, true, false},
		{"csum_start beyond it", allOffloads, with(func(h *netHdr) { h.start = 9001 }), 9000, false, false},
		{"csum_start at the end of its buffer", allOffloads, with(func(h *netHdr) { h.start = 1972 - 17 }), 9000, false, false},
		{"csum_start just before", allOffloads, with(func(h *netHdr) { h.start = 1972 - 18 }), 9000, true, false},
		{"the largest csum_start", allOffloads, with(func(h *netHdr) { h.start = 0xffff }), 9000, false, false},
		{"csum_offset of UDP", allOffloads, with(func(h *netHdr) { h.offset = 6 }), 9000, false, false},
		{"no unfinished checksum", allOffloads, with(func(h *netHdr) { h.flags = 0 }), 9000, false, false},
		{"UDP", allOffloads, with(func(h *netHdr) { h.gso = 3 }), 9000, false, false},
		{"IPv6", allOffloads, with(func(h *netHdr) { h.gso = 4 }), 9000, false, false},
		{"USO", allOffloads, with(func(h *netHdr) { h.gso = 5 }), 9000, false, false},
		{"ECN, which was not negotiated", allOffloads, with(func(h *netHdr) { h.gso |= 0x80 }), 9000, false, false},
		{"not large, in several", allOffloads, netHdr{}, 9000, false, false},
		{"not large, unfinished, in several", allOffloads, netHdr{flags: needsCsum, start: 34, offset: 16}, 9000, false, false},
		{"longer than a packet can be", allOffloads, large(nil), framebuf.MaxTotal + 1, false, false},
		{"far longer", allOffloads, large(nil), 100_000, false, false},
		{"shorter than Ethernet", allOffloads, large(nil), 13, false, false},
		{"unfinished beyond the frame", allOffloads, netHdr{flags: needsCsum, start: 90, offset: 9}, 100, false, false},
		{"unfinished at its end", allOffloads, netHdr{flags: needsCsum, start: 90, offset: 8}, 100, true, false},
		{"unfinished, sums wrap", allOffloads, netHdr{flags: needsCsum, start: 0xffff, offset: 3}, 100, false, false},
		{"no buffers", allOffloads, with(func(h *netHdr) { h.lie, h.buffers = true, 0 }), 1000, false, false},
		{"more buffers than used", allOffloads, with(func(h *netHdr) { h.lie, h.buffers = true, 12 }), 9000, false, true},
		{"all of them", allOffloads, with(func(h *netHdr) { h.lie, h.buffers = true, 0xffff }), 9000, false, true},
		{"an empty buffer", allOffloads, with(func(h *netHdr) { h.empty = 2 }), 9000, false, true},
		{"a buffer too long", allOffloads, with(func(h *netHdr) { h.long = 2 }), 9000, false, true},
		{"a buffer twice", allOffloads, with(func(h *netHdr) { h.again = 2 }), 9000, false, true},
		{"without checksum offload", allOffloads &^ featGuestCsm, large(nil), 1900, false, false},
		{"unfinished without offload", allOffloads &^ featGuestCsm, netHdr{flags: needsCsum, start: 34, offset: 16}, 100, false, false},
		{"without segmentation offload", allOffloads &^ featGuestTSO, large(nil), 1900, false, false},
		{"in one buffer of no number", allOffloads &^ featMRGRxBuf, netHdr{flags: needsCsum, start: 34, offset: 16}, 100, true, false},
	} {
		d := newFake(c.feat)
		n, p := openOffloads(t, d, 700, NetOptions{})
		d.deliver(noise(60))
		if !d.spread(c.h, noise(c.size)) {
			t.Fatal("no room")
		}
		d.deliver(noise(61))
		var dst [64]framebuf.Frame
		k := n.Receive(dst[:])
		want := 1
		if c.good {
			want++
		}
		if !c.stops {
			want++
		}
		m := n.Counters()
		if k != want || (n.Stopped() != "") != c.stops || c.stops != (m.BadLength+m.BadID+m.BadIndex > 0) || (m.RxMalformed == 1) != (!c.good && !c.stops) {
			t.Errorf("%s: %d frames, want %d; stopped %q; %+v", c.name, k, want, n.Stopped(), *m)
		}
		for _, f := range dst[:k] {
			p.Release(f)
		}
		if left := p.Cap() - p.Free() - (int(n.rx.size) - n.rx.room()); left != 0 {
			t.Errorf("%s: %d buffers are nobody's", c.name, left)
		}
	}
}

// TestHostileReturns: a device that returns another descriptor of a request than the first,
// or one twice, is stopped.
func TestHostileReturns(t *testing.T) {
	for name, ret := range map[string]func(d *fakeNet, first, second uint16){
		"the second":  func(d *fakeNet, _, b uint16) { d.done(1, uint32(b), 0) },
		"first twice": func(d *fakeNet, a, _ uint16) { d.done(1, uint32(a), 0); d.done(1, uint32(a), 0) },
	} {
		d := newFake(allOffloads)
		n, p := openOffloads(t, d, 700, NetOptions{})
		d.spread(large(nil), noise(9000))
		var dst [4]framebuf.Frame
		k := n.Receive(dst[:])
		n.Transmit(dst[:k])
		id, _, _, _ := d.next(1)
		e := d.at(d.q[1].desc)[16*uint64(id):]
		second := binary.LittleEndian.Uint16(e[14:])
		binary.LittleEndian.PutUint16(e[14:], 200) // what the device writes there is not followed
		ret(d, id, second)
		n.Kick()
		if n.Stopped() == "" || n.Counters().BadID+n.Counters().BadIndex == 0 || p.Free() > p.Cap()-256 {
			t.Errorf("%s: stopped %q, %d free of %d", name, n.Stopped(), p.Free(), p.Cap())
		}
	}
}

// FuzzOffloads: whatever a device says about its frames, those that come out lie in their
// buffers, and no buffer is in two places or lost.
func FuzzOffloads(f *testing.F) {
	f.Add([]byte{1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 3, 0, 40}, uint16(5000))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 1, 0, 200}, uint16(100))
	f.Add([]byte{1, 1, 54, 0, 0x20, 0x23, 34, 0, 16, 0, 3, 0, 40}, uint16(40000))
	f.Add(bytes.Repeat([]byte{1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 3, 0, 0}, 12), uint16(21_001)) // long buffers
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		d := newFake(allOffloads)
		d.span = 1 + int(size>>15)*2
		n, p := openLong(t, d, 400-150*int(size>>15), 5, NetOptions{QueueSize: 128})
		for len(in) >= 13 && n.Stopped() == "" {
			w := func(i int) uint16 { return binary.LittleEndian.Uint16(in[i:]) }
			h := netHdr{flags: in[0], gso: in[1], len: w(2), size: w(4), start: w(6), offset: w(8), buffers: w(10), lie: in[12]&1 != 0}
			h.empty, h.long, h.again = int(in[12]>>1&3)*9, int(in[12]>>3&3)*9, int(in[12]>>5&3)*9
			in = in[13:]
			d.spread(h, make([]byte, size))
			if size&1 != 0 {
				d.deliver(make([]byte, 60))
			}
			var dst [16]framebuf.Frame
			k := n.Receive(dst[:])
			for _, f := range dst[:k] {
				if f.IsLarge() {
					l := p.Large(f)
					b := make([]byte, framebuf.MaxTotal+1)
					if m := p.Copy(b, f, 0); m != int(l.Total) || m > framebuf.MaxTotal || l.Parts == 0 || l.Parts > framebuf.MaxParts || l.Size < minSegment {
						t.Fatalf("%+v has %d bytes", *l, m)
					}
					l.Headers, l.Segments = 54, 2
				} else if f.Len < minFrame || int(f.Len) > p.MaxLen() {
					t.Fatalf("%+v", f)
				}
			}
			for _, f := range dst[n.Transmit(dst[:k]):k] {
				p.Release(f)
			}
			for range d.pendingSent() {
				d.sentLarge(t)
			}
			n.Kick()
			if left := p.Cap() - p.Free() + 5 - p.FreeLong() - (128 - n.rx.room()) - (128 - n.tx.room()); left != 0 && n.Stopped() == "" {
				t.Fatalf("%d buffers are nobody's", left)
			}
		}
	})
}

// pendingSent returns how many requests of the transmit queue the device has not taken.
func (d *fakeNet) pendingSent() int {
	return int(uint16(*d.head(d.q[1].avail)>>16) - d.q[1].seen)
}

// TestRenewWithLarge: a device that is set up again while it has large frames loses frames,
// not buffers, and takes large frames afterwards.
func TestRenewWithLarge(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openOffloads(t, d, 900, NetOptions{})
	var dst [8]framebuf.Frame
	for range 3 {
		d.spread(large(nil), noise(30_000))
	}
	k := n.Receive(dst[:])
	for _, f := range dst[:k] {
		p.Large(f).Headers, p.Large(f).Segments = 66, 21
	}
	if n.Transmit(dst[:k]) != 3 {
		t.Fatal("they were not taken")
	}
	d.sentLarge(t)                      // returned, and not yet seen
	d.spread(large(nil), noise(10_000)) // received, and not yet seen
	n.giveUp("the test says so")
	if err := n.Renew(); err != nil {
		t.Fatal(err)
	}
	if c := n.Counters(); c.TxLost != 2 || c.Renewals != 1 {
		t.Errorf("%+v", *c)
	}
	if p.Free() != p.Cap()-256 || n.tx.room() != 256 {
		t.Errorf("%d free of %d, room for %d", p.Free(), p.Cap(), n.tx.room())
	}
	f := noise(20_000)
	d.spread(large(f), f)
	if k := n.Receive(dst[:]); k != 1 || !dst[0].IsLarge() {
		t.Fatalf("%d frames afterwards; %q", k, n.Stopped())
	}
	p.Large(dst[0]).Headers, p.Large(dst[0]).Segments = 66, 14
	n.Transmit(dst[:1])
	if out, _ := d.sentLarge(t); !bytes.Equal(out, f) {
		t.Errorf("%d bytes", len(out))
	}
}
