package virtio

import (
	"fmt"
	"math/rand"
	"testing"
	"unsafe"
)

// newRing sets up a queue alone, with its device's side, at the given index of
// both rings.
func newRing(t testing.TB, size uint16, event bool, index uint16) (*queue, *fakeNet) {
	d := newFake(featEventIdx)
	d.status = 11
	if event {
		d.accepted = featEventIdx
	}
	q, err := setupQueue(NewMMIO(d), 0, size, event, d.alloc)
	if err != nil || len(d.broken) > 0 {
		t.Fatal(err, d.broken)
	}
	d.status = 15
	q.availIdx, q.next, q.usedIdx, q.looked = index, index, index, index
	*q.availHead = uint32(index) << 16
	d.q[0].seen, d.q[0].idx = index, index
	d.setUsed(0, index)
	q.suppress()
	return q, d
}

// A posted buffer, as the model knows it.
type posted struct {
	buf, n, addr uint32
	write        bool
	id           uint16
	written      uint32
}

// TestQueueAgainstModel runs long random sequences of all that driver and device
// do, at each size and across the wrap of the indexes, and compares every answer
// with lists: what is posted arrives in order and unchanged, what is returned in
// any order comes back in that order, notifications and interrupts are asked for
// and given exactly when the other side wants them (virtio 1.2, 2.7.7 and 2.7.10).
func TestQueueAgainstModel(t *testing.T) {
	for _, size := range []uint16{1, 2, 8, 64, 1024} {
		for _, event := range []bool{true, false} {
			for seed := range int64(2) {
				t.Run(fmt.Sprintf("%d %v %d", size, event, seed), func(t *testing.T) { queueAgainstModel(t, size, event, seed) })
			}
		}
	}
}

func queueAgainstModel(t *testing.T, size uint16, event bool, seed int64) {
	const index = 0xffff - 60
	q, d := newRing(t, size, event, index)
	r := rand.New(rand.NewSource(seed))
	var hidden, visible, taken, done []posted // not published; with the device; returned
	availIdx, usedIdx, notifies := uint16(index), uint16(index), uint64(0)
	irqAt, irqOff, looked, quiet := uint16(index-1), true, uint16(index), false
	sequence := uint32(0)
	for step := range 2500 {
		switch r.Intn(8) {
		case 0, 1: // post
			for range r.Intn(int(size) + 1) {
				if q.room() == 0 {
					break
				}
				sequence++
				p := posted{buf: sequence, n: 1 + uint32(r.Intn(2000)), addr: sequence % 1e6, write: r.Intn(2) == 0}
				flags := uint16(0)
				if p.write {
					flags = descWrite
				}
				q.post(memBase+uint64(p.addr), p.n, flags, p.buf)
				hidden = append(hidden, p)
			}
		case 2: // publish, to a device that wants a notification at some index, or none
			at := availIdx + uint16(r.Intn(2*int(size)+4)) - 3
			*(*uint16)(unsafe.Pointer(&d.at(d.q[0].used)[4+8*uint32(size)])) = at
			if quiet = r.Intn(2) == 0; quiet {
				*d.head(d.q[0].used) |= usedNoNotify
			}
			want := len(hidden) > 0 && (!event && !quiet || event && at-availIdx < uint16(len(hidden)))
			availIdx += uint16(len(hidden))
			visible, hidden = append(visible, hidden...), nil
			if got := q.publish(); got != want {
				t.Fatalf("step %d: publish = %v, want %v; index %d, asked at %d", step, got, want, availIdx, at)
			}
			if want {
				notifies++
			}
			*d.head(d.q[0].used) &^= usedNoNotify
		case 3: // the device takes
			for range r.Intn(int(size) + 1) {
				id, b, write, ok := d.next(0)
				if ok != (len(visible) > 0) {
					t.Fatalf("step %d: the device sees a buffer: %v, want %v", step, ok, !ok)
				}
				if !ok {
					break
				}
				p := visible[0]
				visible = visible[1:]
				if len(b) != int(p.n) || write != p.write || &b[0] != &d.mem[p.addr] {
					t.Fatalf("step %d: the device got %d bytes, writable %v, want %+v", step, len(b), write, p)
				}
				for _, o := range taken {
					if o.id == id {
						t.Fatalf("step %d: descriptor %d is posted twice", step, id)
					}
				}
				p.id = id
				taken = append(taken, p)
			}
		case 4, 5: // the device returns, in any order
			for range r.Intn(int(size) + 1) {
				if len(taken) == 0 {
					break
				}
				i := r.Intn(len(taken))
				p := taken[i]
				taken = append(taken[:i], taken[i+1:]...)
				p.written = r.Uint32()
				want := !event && !irqOff || event && usedIdx+uint16(len(done)) == irqAt
				if got := d.done(0, uint32(p.id), p.written); got != want {
					t.Fatalf("step %d: interrupt %v, want %v", step, got, want)
				}
				done = append(done, p)
			}
		case 6: // the driver takes back
			n := q.pending()
			if n != len(done) {
				t.Fatalf("step %d: %d pending, want %d", step, n, len(done))
			}
			for range r.Intn(n + 1) {
				buf, written := q.take()
				if buf != done[0].buf || written != done[0].written {
					t.Fatalf("step %d: buffer %d with %d bytes, want %+v", step, buf, written, done[0])
				}
				done = done[1:]
				usedIdx++
			}
		case 7:
			switch r.Intn(3) {
			case 0:
				q.suppress()
				irqAt, irqOff = usedIdx-1, true
			case 1:
				irqAt, irqOff = usedIdx, false
				if got := q.arm(); got != (len(done) > 0) {
					t.Fatalf("step %d: arm = %v with %d returned", step, got, len(done))
				}
			case 2:
				head := usedIdx + uint16(len(done))
				want := head == looked && head != availIdx
				if got := q.idle(); got != want {
					t.Fatalf("step %d: idle = %v, want %v", step, got, want)
				}
				looked = head
			}
		}
		with := len(hidden) + len(visible) + len(taken) + len(done)
		if q.room() != int(size)-with || q.notifies != notifies || q.stopped != "" || q.badIndex+q.badID != 0 {
			t.Fatalf("step %d: room %d, want %d; %d notifications, want %d; %q", step, q.room(), int(size)-with, q.notifies, notifies, q.stopped)
		}
	}
	if size > 1 && availIdx > index {
		t.Errorf("the index went from %d to %d only", index, availIdx)
	}
}

// TestUsedRingLies: each number in the used ring, off by one and far off. An invalid one is
// refused and counted once, and nothing is taken from then on; a valid one is taken.
func TestUsedRingLies(t *testing.T) {
	for _, size := range []uint16{8, 1024} {
		n := uint32(size)
		for _, c := range []struct {
			name  string
			given int // buffers that the device has: descriptors 0 to given-1
			ids   []uint32
			ahead int // of the entries written, the index is
			taken int // buffers that come back
			index uint64
			id    uint64
		}{
			{"nothing", 4, nil, 0, 0, 0, 0},
			{"the first", 4, []uint32{0}, 0, 1, 0, 0},
			{"the last given", 4, []uint32{3}, 0, 1, 0, 0},
			{"the first not given", 4, []uint32{4}, 0, 0, 0, 1},
			{"the last of the ring", int(n), []uint32{n - 1}, 0, 1, 0, 0},
			{"behind the ring", int(n), []uint32{n}, 0, 0, 0, 1},
			{"behind the ring, by the array's length", int(n), []uint32{maxQueue}, 0, 0, 0, 1},
			{"one of the ring beyond the array", int(n), []uint32{maxQueue + 1}, 0, 0, 0, 1},
			{"one of the ring beyond 16 bits", int(n), []uint32{1<<16 + 1}, 0, 0, 0, 1},
			{"all ones", int(n), []uint32{1<<32 - 1}, 0, 0, 0, 1},
			{"the same twice", 4, []uint32{2, 2}, 0, 1, 0, 1},
			{"one between right ones", 4, []uint32{0, 4, 1}, 0, 1, 0, 1},
			{"all", 4, []uint32{3, 2, 1, 0}, 0, 4, 0, 0},
			{"one ahead of all", 4, []uint32{3, 2, 1, 0}, 1, 0, 1, 0},
			{"ahead by one of none", 0, nil, 1, 0, 1, 0},
			{"behind by one", 4, nil, -1, 0, 1, 0},
			{"all of a full ring", int(n), []uint32{5}, int(n) - 1, 2, 0, 1}, // the rest says 0, and 0 again
			{"one ahead of a full ring", int(n), []uint32{5}, int(n), 0, 1, 0},
			{"half of all indexes", int(n), nil, 1 << 15, 0, 1, 0},
		} {
			q, d := newRing(t, size, true, 0)
			for i := range c.given {
				q.post(memBase, 100, 0, 1000+uint32(i))
			}
			q.publish()
			for _, id := range c.ids {
				d.done(0, id, 7)
			}
			d.setUsed(0, uint16(len(c.ids)+c.ahead))
			room := q.room()
			taken := 0
			for range 3 {
				for k := q.pending(); k > 0; k-- {
					b, ln := q.take()
					if b == noBuf {
						if q.badUsed(); ln != 0 {
							t.Errorf("%d, %s: %d bytes of no buffer", size, c.name, ln)
						}
						break
					}
					if taken < len(c.ids) && (b != 1000+c.ids[taken] || ln != 7) {
						t.Errorf("%d, %s: buffer %d of %d bytes came back", size, c.name, b, ln)
					}
					taken++
				}
			}
			if taken != c.taken || q.room() != room+taken || q.badIndex != c.index || q.badID != c.id {
				t.Errorf("%d, %s: %d taken, want %d; room for %d; %d indexes and %d ids refused, want %d and %d", size, c.name, taken, c.taken, q.room(), q.badIndex, q.badID, c.index, c.id)
			}
			if (q.stopped != "") != (c.index+c.id > 0) || q.stopped != "" && q.stopped[:9] != "queue 0: " {
				t.Errorf("%d, %s: stopped %q", size, c.name, q.stopped)
			}
		}
	}
}

// TestRingLayout compares the layout with the numbers of virtio 1.2, 2.7: 16
// bytes a descriptor; flags, index and 2 bytes an entry, then used_event; flags,
// index and 8 bytes an entry, then avail_event; each on cache lines of its own.
func TestRingLayout(t *testing.T) {
	for _, c := range [][4]int{{1, 16, 64, 128}, {2, 32, 64, 128}, {4, 64, 128, 192}, {8, 128, 192, 320}, {9, 144, 192, 320},
		{16, 256, 320, 512}, {64, 1024, 1216, 1792}, {256, 4096, 4672, 6784}, {1024, 16384, 18496, 26752}} {
		avail, used, size := ringBytes(c[0])
		if [4]int{c[0], avail, used, size} != c {
			t.Errorf("%d descriptors: avail %d, used %d, size %d; want %v", c[0], avail, used, size, c[1:])
		}
	}
	for n := 1; n <= maxQueue; n++ {
		avail, used, size := ringBytes(n)
		if avail < 16*n || used < avail+6+2*n || size < used+6+8*n || used%64 != 0 || size%64 != 0 || used-(avail+6+2*n) > 63 || size-(used+6+8*n) > 63 {
			t.Fatalf("%d descriptors: avail %d, used %d, size %d", n, avail, used, size)
		}
	}
}

// TestUsedLines: fetch prefetches the lines of the next entries, one for eight entries,
// around the end of the ring, and no more than usedLines.
func TestUsedLines(t *testing.T) {
	q, _ := newRing(t, 1024, true, 1000)
	for _, c := range [][2]int{{0, 0}, {1, 1}, {8, 1}, {9, 2}, {64, 8}, {255, 32}, {256, 32}, {257, 32}, {1024, 32}} {
		var l [usedLines]uintptr
		if got := q.lines(c[0], &l); got != c[1] {
			t.Errorf("%d entries: %d lines, want %d", c[0], got, c[1])
		}
		for i := range c[1] {
			if want := uintptr(unsafe.Pointer(&q.used[(1000+8*i)%1024])); l[i] != want {
				t.Errorf("%d entries: line %d is %#x, want %#x", c[0], i, l[i], want)
			}
		}
	}
}
