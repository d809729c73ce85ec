package virtio

import (
	"bytes"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// openLong opens a device with offloads, whose pool has some long buffers.
func openLong(t testing.TB, d *fakeNet, buffers, long int, opt NetOptions) (*Net, *framebuf.Pool) {
	t.Helper()
	n, p := openOffloads(t, d, buffers, opt)
	m, err := d.alloc(long * framebuf.LongSize)
	if err != nil {
		t.Fatal(err)
	}
	p.AddLong(m.Mem, m.Phys)
	return n, p
}

// free returns how many buffers of both kinds are free.
func free(p *framebuf.Pool) [2]int { return [2]int{p.Free(), p.FreeLong()} }

// onlyLong receives large frames until the receive queue has nothing but long buffers.
func (n *Net) onlyLong(t testing.TB, d *fakeNet, p *framebuf.Pool) {
	t.Helper()
	var dst [64]framebuf.Frame
	for range 16 {
		d.spread(large(nil), noise(40_000))
		for _, f := range dst[:n.Receive(dst[:])] {
			p.Release(f)
		}
	}
	if int(n.rx.size)-n.rx.room() != n.long.posted || n.long.posted == 0 {
		t.Fatalf("the device has %d buffers, %d of them long", int(n.rx.size)-n.rx.room(), n.long.posted)
	}
}

// TestLongBuffers: while large frames come each lies in one buffer, for both devices, and
// arrives and leaves whole; ordinary frames among them do too, in buffers of their own. When
// no more large frames come there are no long buffers. None is lost of either kind.
func TestLongBuffers(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openLong(t, d, 500, 12, NetOptions{})
	start := free(p)
	n.onlyLong(t, d, p)
	if n.long.posted < 11 || n.long.posted+p.FreeLong() != 12 {
		t.Fatalf("%d posted, %d free", n.long.posted, p.FreeLong())
	}
	var dst [64]framebuf.Frame
	for round, size := range []int{60, 1972, 1973, 10_000, 65_000, framebuf.MaxTotal} {
		f, small := noise(size), noise(1514)
		h := large(f)
		h.size = 48
		d.spread(h, f)
		d.deliver(small)
		d.spread(netHdr{flags: needsCsum, start: 34, offset: 16}, small)
		if k := n.Receive(dst[:]); k != 3 || !dst[0].IsLarge() || dst[1].IsLarge() || dst[2].IsLarge() {
			t.Fatalf("%d bytes: %d frames %+v; %q", size, k, dst[:k], n.Stopped())
		}
		l := p.Large(dst[0])
		got := make([]byte, size+1)
		if m := p.Copy(got, dst[0], 0); l.Parts != 1 || m != size || !bytes.Equal(got[:m], f) || !bytes.Equal(p.First(dst[0]), f) {
			t.Fatalf("%d bytes: %+v, %d copied", size, *l, m)
		}
		if !bytes.Equal(p.Bytes(dst[1]), small) || bytes.Equal(p.Bytes(dst[2]), small) {
			t.Fatal("ordinary frames are not as they were, or the checksum of one was not completed")
		}
		l.Headers, l.Segments = 66, 2
		room := n.tx.room()
		if n.Transmit(dst[:3]) != 3 || n.tx.room() != room-3 {
			t.Fatalf("%d bytes: room %d of %d", size, n.tx.room(), room)
		}
		if out, hdr := d.sentLarge(t); !bytes.Equal(out, f) || hdr.gso != gsoTCPv4 || hdr.len != 66 {
			t.Fatalf("%d bytes: sent %d with %+v", size, len(out), hdr)
		}
		if out, _ := d.sentLarge(t); !bytes.Equal(out, small) {
			t.Fatal("an ordinary frame is not as it was")
		}
		d.sentLarge(t)
		n.Kick()
		if n.long.posted < 11 || n.long.posted+p.FreeLong() != 12 || p.Free() != p.Cap() {
			t.Fatalf("round %d: %d posted, %v free", round, n.long.posted, free(p))
		}
	}
	for range 200 {
		d.deliver(noise(60))
		for _, f := range dst[:n.Receive(dst[:])] {
			p.Release(f)
		}
	}
	if n.long.posted != 0 || free(p) != start || n.rx.room() != 0 {
		t.Errorf("%d posted, %v free, room for %d", n.long.posted, free(p), n.rx.room())
	}
	if c := n.Counters(); c.RxMalformed != 0 || c.RxNoBuffer != 0 || c.RxLarge != 16+6 || c.TxLarge != 6 {
		t.Errorf("%+v", *c)
	}
}

// TestLongKeepCredit: one large frame in eight keeps long buffers posted, one in twenty does
// not.
func TestLongKeepCredit(t *testing.T) {
	for every, keep := range map[int]bool{8: true, 20: false} {
		d := newFake(allOffloads)
		n, p := openLong(t, d, 600, 4, NetOptions{})
		n.onlyLong(t, d, p)
		for i := range 400 {
			if f := noise(3000); i%every == 0 {
				d.spread(large(f), f)
			} else {
				d.deliver(f[:60])
			}
			var dst [4]framebuf.Frame
			for _, f := range dst[:n.Receive(dst[:])] {
				p.Release(f)
			}
		}
		if n.long.credit > 0 != keep {
			t.Errorf("one in %d: credit %d", every, n.long.credit)
		}
	}
}

// TestLongAreAway: with all long buffers on their way frames come in ordinary ones, and in
// long ones again when some have been sent; a frame that begins in an ordinary buffer and
// ends in a long one is whole.
func TestLongAreAway(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openLong(t, d, 700, 3, NetOptions{})
	start := free(p)
	n.onlyLong(t, d, p)
	var dst [64]framebuf.Frame
	want := noise(50_000)
	sent := 0
	take := func(parts uint16) {
		t.Helper()
		if !d.spread(large(want), want) || n.Receive(dst[:]) != 1 {
			t.Fatal("not received")
		}
		l := p.Large(dst[0])
		got := make([]byte, len(want))
		if p.Copy(got, dst[0], 0); l.Parts != parts || !bytes.Equal(got, want) {
			t.Fatalf("%d parts, want %d; its bytes are right: %v", l.Parts, parts, bytes.Equal(got, want))
		}
		l.Headers, l.Segments = 66, 35
		n.Transmit(dst[:1])
		sent++
	}
	take(1)
	take(1)
	take(1)
	if n.long.posted != 0 || n.rx.room() != 0 {
		t.Fatalf("%d long ones posted, room for %d", n.long.posted, n.rx.room())
	}
	take(26)
	for range 3 { // the long ones come back
		if out, _ := d.sentLarge(t); !bytes.Equal(out, want) {
			t.Fatal("it was not sent as it came")
		}
		sent--
	}
	n.Kick()
	take(26)
	for range 204 { // the ordinary ones before the long ones
		d.deliver(noise(60))
	}
	for _, f := range dst[:n.Receive(dst[:])] {
		p.Release(f)
	}
	for k := n.Receive(dst[:]); k > 0; k = n.Receive(dst[:]) {
		for _, f := range dst[:k] {
			p.Release(f)
		}
	}
	for ; sent > 0; sent-- {
		if out, _ := d.sentLarge(t); !bytes.Equal(out, want) {
			t.Fatal("it was not sent as it came")
		}
	}
	n.Kick()
	used := [2]int{int(n.rx.size) - n.rx.room() - n.long.posted, n.long.posted}
	if f := free(p); f[0]+used[0] != start[0]+256 || f[1]+used[1] != start[1] {
		t.Errorf("%v free, %v posted, of %d and 3", f, used, p.Cap())
	}
}

// TestLongEndsInLong: a frame that begins in an ordinary buffer and ends in a long one is
// whole.
func TestLongEndsInLong(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openLong(t, d, 600, 8, NetOptions{})
	var dst [64]framebuf.Frame
	n.long.credit = creditMost
	for range 255 {
		d.deliver(noise(60))
	}
	for left := 255; left > 0; {
		k := n.Receive(dst[:8])
		for _, f := range dst[:k] {
			p.Release(f)
		}
		n.long.credit = creditMost
		left -= k
	}
	want := noise(50_000)
	d.spread(large(want), want)
	k := n.Receive(dst[:])
	got := make([]byte, len(want))
	if k != 1 || p.Large(dst[0]).Parts != 2 || p.Copy(got, dst[0], 0) != len(want) || !bytes.Equal(got, want) {
		t.Fatalf("%d frames, %+v", k, *p.Large(dst[0]))
	}
	l := p.Large(dst[0])
	l.Headers, l.Segments = 66, 35
	n.Transmit(dst[:1])
	if out, _ := d.sentLarge(t); !bytes.Equal(out, want) {
		t.Fatal("it was not sent as it came")
	}
	n.Kick()
	if p.Free() != p.Cap() || p.FreeLong()+n.long.posted != 8 {
		t.Errorf("%v free, %d posted", free(p), n.long.posted)
	}
}

// TestHostileLong: what a device may say wrongly about a frame in a long buffer.
func TestHostileLong(t *testing.T) {
	plain := func(size int) netHdr { return netHdr{lie: true, buffers: 1} }
	for _, c := range []struct {
		name        string
		h           netHdr
		size        int
		good, stops bool
	}{
		{"no fault", large(nil), 60_000, true, false},
		{"the longest", large(nil), framebuf.MaxTotal, true, false},
		{"longer than a packet can be", large(nil), framebuf.MaxTotal + 1, false, false},
		{"as long as the buffer", large(nil), framebuf.LongSize - netHeader, false, false},
		{"the longest ordinary one", plain(0), framebuf.MaxLen, true, false},
		{"a longer one that is not large", plain(0), framebuf.MaxLen + 1, false, false},
		{"a far longer one", plain(0), 60_000, false, false},
		{"unfinished, beyond its end", netHdr{flags: needsCsum, start: 98, offset: 1}, 100, false, false},
		{"unfinished, beyond a buffer", netHdr{flags: needsCsum, start: 60_000, offset: 1}, 100, false, false},
		{"gso_size 0", netHdr{flags: needsCsum, gso: gsoTCPv4, start: 34, offset: 16}, 9000, false, false},
		{"header longer than the frame", netHdr{flags: needsCsum, gso: gsoTCPv4, len: 9001, size: 1448, start: 34, offset: 16}, 9000, false, false},
		{"csum_start beyond it", netHdr{flags: needsCsum, gso: gsoTCPv4, size: 1448, start: 9000, offset: 16}, 9000, false, false},
		{"no header", plain(0), 5, false, false},
		{"in more buffers than used", netHdr{lie: true, buffers: 2}, 9000, false, true},
	} {
		d := newFake(allOffloads)
		n, p := openLong(t, d, 600, 6, NetOptions{})
		n.onlyLong(t, d, p)
		d.spread(c.h, noise(c.size))
		var dst [8]framebuf.Frame
		k := n.Receive(dst[:])
		m := n.Counters()
		if (k == 1) != c.good || (n.Stopped() != "") != c.stops || (m.RxMalformed == 1) != (!c.good && !c.stops) {
			t.Errorf("%s: %d frames; stopped %q; %+v", c.name, k, n.Stopped(), *m)
		}
		for _, f := range dst[:k] {
			p.Release(f)
		}
		if p.Free() != p.Cap() || p.FreeLong()+n.long.posted != 6 || n.long.posted != int(n.rx.size)-n.rx.room() {
			t.Errorf("%s: %v free, %d posted", c.name, free(p), n.long.posted)
		}
	}
	for _, ln := range []uint32{0, netHeader - 1, framebuf.LongSize + 1, 1 << 31} {
		d := newFake(allOffloads)
		n, p := openLong(t, d, 600, 6, NetOptions{})
		n.onlyLong(t, d, p)
		id, _, _, _ := d.next(0)
		d.done(0, uint32(id), ln)
		var dst [8]framebuf.Frame
		if k := n.Receive(dst[:]); k != 0 || n.Stopped() == "" || n.Counters().BadLength != 1 {
			t.Errorf("%d bytes written: %d frames, stopped %q", ln, k, n.Stopped())
		}
		if err := n.Renew(); err != nil || n.long.posted != 0 || p.FreeLong() != 6 || p.Free() != p.Cap()-256 {
			t.Errorf("%v; %d posted, %v free", err, n.long.posted, free(p))
		}
	}
}

// TestLongWithoutOthers: an ordinary frame in a long buffer for which there is no other
// buffer is dropped and counted.
func TestLongWithoutOthers(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openLong(t, d, 300, 4, NetOptions{})
	n.onlyLong(t, d, p)
	for p.Free() > 1 {
		p.Get()
	}
	var dst [8]framebuf.Frame
	d.deliver(noise(60))
	d.deliver(noise(61))
	if k := n.Receive(dst[:]); k != 1 || n.Counters().RxNoBuffer != 1 || n.Counters().RxMalformed != 0 || p.FreeLong()+n.long.posted != 4 {
		t.Errorf("%d frames, %v free, %+v", k, free(p), *n.Counters())
	}
}

// TestLongIdle: with long buffers posted the driver asks for no interrupt of sent frames.
func TestLongIdle(t *testing.T) {
	d := newFake(allOffloads)
	n, p := openLong(t, d, 400, manyLong, NetOptions{})
	n.onlyLong(t, d, p)
	b, _ := p.Get()
	n.Transmit([]framebuf.Frame{{Buf: b, Len: 60}})
	n.Arm()
	id, _, _, _ := d.next(1)
	if d.done(1, uint32(id), 0) {
		t.Error("a sent frame interrupts")
	}
	if d.spread(large(nil), noise(9000)); n.rx.pending() == 0 || n.Arm() != true {
		t.Error("a received one does not")
	}
}
