package virtio

import (
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// peek returns the descriptor that the device takes next of queue i, and its number.
func (d *fakeNet) peek(i int) (id uint16, e []byte) {
	q := &d.q[i]
	id = binary.LittleEndian.Uint16(d.at(q.avail)[4+2*(uint32(q.seen)%q.num):])
	return id, d.at(q.desc)[16*uint64(id):][:16]
}

// TestDescriptors: what the device finds in the descriptors of buffers that are posted many at
// a time, whatever it has written there before.
func TestDescriptors(t *testing.T) {
	d := newFake(allNet)
	n, p := open(t, d, 200, NetOptions{QueueSize: 64})
	check := func(i int, b, ln uint32, flags uint16) {
		t.Helper()
		_, e := d.peek(i)
		if binary.LittleEndian.Uint64(e) != p.Phys(b) || binary.LittleEndian.Uint32(e[8:]) != ln ||
			binary.LittleEndian.Uint16(e[12:]) != flags || binary.LittleEndian.Uint16(e[14:]) != 0 {
			t.Fatalf("queue %d: descriptor %x; want %#x, %d bytes, flags %d", i, e, p.Phys(b), ln, flags)
		}
	}
	spoil := func(e []byte) {
		for i := range e {
			e[i] = 0xff
		}
	}
	for range 200 {
		id, e := d.peek(0)
		b := n.rx.buf[id]
		check(0, b, p.Size(), descWrite)
		d.deliver(make([]byte, 100))
		spoil(e)
		var dst [4]framebuf.Frame
		if k := n.Receive(dst[:]); k != 1 || dst[0] != (framebuf.Frame{Buf: b, Len: 100}) {
			t.Fatalf("%d frames, %+v", k, dst[0])
		}
		n.Transmit(dst[:1])
		check(1, b, netHeader+100, 0)
		_, sent := d.peek(1)
		d.sent()
		spoil(sent)
		n.Kick()
	}
}

// TestReturnedWrongly: a device that returns a buffer twice, or one that is out of range, in
// the middle of many, is stopped there, and what came before it is taken.
func TestReturnedWrongly(t *testing.T) {
	for name, other := range map[string]func(before, id uint16) uint32{
		"twice":                 func(before, _ uint16) uint32 { return uint32(before) },
		"beyond all queues":     func(_, id uint16) uint32 { return uint32(id) + maxQueue },
		"the first beyond":      func(_, _ uint16) uint32 { return maxQueue },
		"far beyond all queues": func(_, id uint16) uint32 { return uint32(id) + 1<<16 },
		"not the device's":      func(_, _ uint16) uint32 { return 100 },
	} {
		for _, sent := range []bool{false, true} {
			d := newFake(allNet)
			n, p := open(t, d, 200, NetOptions{QueueSize: 64})
			var dst [64]framebuf.Frame
			i, k := 0, 0
			give := func(id uint16, b []byte, as uint32) {
				if i == 0 {
					clear(b[:netHeader])
					b[hdrBuffers] = 1
				}
				d.done(i, as, 72)
			}
			if sent {
				for range 20 {
					d.deliver(make([]byte, 60))
				}
				i, k = 1, n.Transmit(dst[:n.Receive(dst[:])])
			}
			id, b, _, _ := d.next(i)
			next, c, _, _ := d.next(i)
			give(next, c, uint32(next))
			give(id, b, other(next, id)) // the lowest is still the device's
			for range 5 {
				id, b, _, _ = d.next(i)
				give(id, b, uint32(id))
			}
			free := p.Free()
			if sent {
				if n.Kick(); p.Free() != free+1 || k != 20 {
					t.Errorf("%s: %d of %d sent buffers taken back, want 1", name, p.Free()-free, k)
				}
			} else if got := n.Receive(dst[:]); got != 1 || dst[0].Len != 60 {
				t.Errorf("%s: %d frames, want 1", name, got)
			}
			if n.Stopped() == "" || n.Counters().BadID != 1 {
				t.Errorf("%s, sent %v: stopped %q, %d wrong numbers", name, sent, n.Stopped(), n.Counters().BadID)
			}
		}
	}
}

// TestMixedRoom: large frames between ordinary ones are posted while there is room for all of
// their buffers, and empty ones alone.
func TestMixedRoom(t *testing.T) {
	for _, c := range []struct{ room, frames, length int }{{2, 2, 60}, {3, 2, 60}, {5, 3, 2260}, {6, 4, 2320}, {7, 4, 2320}, {0, 0, 0}} {
		d := newFake(allOffloads)
		n, p := openOffloads(t, d, 700, NetOptions{})
		var bufs [6]uint32
		for i := range bufs {
			bufs[i], _ = p.Get()
		}
		whole := p.Chain(bufs[2:5], []uint32{0, 1000, 200}, framebuf.Large{First: 1000, Size: 1000, Segments: 3, Headers: 54, Transport: 34})
		src := []framebuf.Frame{{Buf: bufs[0], Len: 60}, {Buf: bufs[1]}, whole, {Buf: bufs[5], Len: 60}}
		all := n.tx.nfree
		n.tx.nfree = c.room // the device has the others
		if got := n.Transmit(src); got != c.frames || n.tx.nfree != max(c.room-6, 0)+map[int]int{3: 1}[c.room] {
			t.Errorf("room %d: %d frames, %d left", c.room, got, n.tx.nfree)
		}
		if n.tx.nfree = all; n.c.TxBytes != uint64(c.length) || n.c.TxFull != uint64(len(src)-c.frames) {
			t.Errorf("room %d: %+v", c.room, n.c)
		}
	}
}

// TestHeaderBytes: of the header of a received frame those bytes decide that virtio says, whatever
// the others are.
func TestHeaderBytes(t *testing.T) {
	for _, merges := range []bool{false, true} {
		feat := uint64(allNet)
		if !merges {
			feat &^= featMRGRxBuf
		}
		d := newFake(feat)
		n, p := open(t, d, 200, NetOptions{QueueSize: 64})
		for i := range netHeader {
			for _, x := range []byte{0, 1, 2, 255} {
				for _, low := range []byte{0, 1, 2} {
					id, b, _, _ := d.next(0)
					clear(b[:netHeader])
					b[hdrBuffers], b[i] = low, x
					good := b[hdrFlags]&needsCsum == 0 && b[hdrGSO] == gsoNone && (!merges || b[hdrBuffers] == 1 && b[hdrBuffers+1] == 0)
					header := [netHeader]byte(b)
					d.done(0, uint32(id), 72)
					var dst [4]framebuf.Frame
					k := n.Receive(dst[:])
					if (k == 1) != good || n.Stopped() != "" {
						t.Fatalf("header %x: %d frames, stopped %q", header, k, n.Stopped())
					}
					for _, f := range dst[:k] {
						p.Put(f.Buf)
					}
				}
			}
		}
	}
}
