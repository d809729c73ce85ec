package handover

import (
	"encoding/binary"
	"runtime"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/thurward/thurward/internal/guest/framebuf"
)

// TestRing compares a ring with a queue: items come out in order, each once, none before it
// is published, and one is refused only when the ring is full.
func TestRing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 5).Draw(t, "size")
		r := New(size)
		var hidden, shown []Item
		next := uint32(0)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				next++
				i := Item{Flow: next, Kind: Frame, Frame: framebuf.Frame{Buf: next, Len: 60}}
				room := len(hidden)+len(shown) < size
				if n := rapid.IntRange(0, size+1).Draw(t, "room"); r.Room(n) != (len(hidden)+len(shown)+n <= size) {
					t.Fatalf("room for %d of %d with %d", n, size, len(hidden)+len(shown))
				}
				if r.Put(&i) != room {
					t.Fatalf("put with %d of %d", len(hidden)+len(shown), size)
				}
				if room {
					hidden = append(hidden, i)
				}
			},
			"publish": func(t *rapid.T) {
				if r.Publish() != (len(hidden) > 0) {
					t.Fatalf("published %d", len(hidden))
				}
				shown, hidden = append(shown, hidden...), nil
			},
			"take": func(t *rapid.T) {
				if r.Empty() != (len(shown) == 0) {
					t.Fatalf("empty with %d", len(shown))
				}
				dst := make([]Item, rapid.IntRange(0, 2*size).Draw(t, "n"))
				n := r.Take(dst)
				// What was published since the last look may wait for the next call.
				if n > len(shown) || n == 0 && len(dst) > 0 && len(shown) > 0 {
					t.Fatalf("took %d of %d", n, len(shown))
				}
				for i := range dst[:n] {
					if dst[i] != shown[i] {
						t.Fatalf("item %d is %+v, want %+v", i, dst[i], shown[i])
					}
				}
				shown = shown[n:]
			},
		})
	})
	for _, n := range []int{0, -1, 3, 100} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a ring of %d", n)
				}
			}()
			New(n)
		}()
	}
}

// TestRingLayout: what one side writes shares no cache line with what the other one does.
func TestRingLayout(t *testing.T) {
	var r Ring
	line := func(o uintptr) uintptr { return o / 64 }
	producer := []uintptr{line(unsafe.Offsetof(r.put)), line(unsafe.Offsetof(r.free)), line(unsafe.Offsetof(r.head))}
	for _, p := range producer {
		for _, c := range []uintptr{line(unsafe.Offsetof(r.seen)), line(unsafe.Offsetof(r.tail)), line(unsafe.Offsetof(r.item))} {
			if p == c {
				t.Errorf("line %d is both sides'", p)
			}
		}
	}
	if n := unsafe.Sizeof(Item{}); n != 32 {
		t.Errorf("an item has %d bytes", n)
	}
}

// TestOwnershipCrosses: two workers pass the buffers of one memory to and fro, each writing
// in those that it owns. Under the race detector this fails unless what was written before
// Publish is seen after Take. No buffer is lost, and none has two owners.
func TestOwnershipCrosses(t *testing.T) {
	const buffers, rounds = 64, 20000
	mem := make([]uint64, buffers*8)
	there, back := New(16), New(16)
	done := make(chan [buffers]int)
	go func() { // the other worker: adds one to what it gets, and returns it
		var got [buffers]int
		var in [8]Item
		for n := 0; n < rounds; {
			k := there.Take(in[:])
			for i := range in[:k] {
				b := mem[in[i].Frame.Buf*8:][:8]
				for j := range b {
					b[j]++
				}
				got[in[i].Frame.Buf]++
				for !back.Put(&Item{Kind: Buffer, Frame: in[i].Frame}) {
					back.Publish()
					runtime.Gosched()
				}
			}
			n += k
			if !back.Publish() {
				runtime.Gosched()
			}
		}
		done <- got
	}()
	var free []uint32
	for i := range uint32(buffers) {
		free = append(free, i)
	}
	sent, had := 0, [buffers]int{}
	var in [8]Item
	for returned := 0; returned < rounds; {
		for sent < rounds && len(free) > 0 {
			buf := free[0]
			binary.NativeEndian.PutUint64(make([]byte, 8), mem[buf*8]) // read it: it is ours
			mem[buf*8+7]++
			if !there.Put(&Item{Kind: Frame, Frame: framebuf.Frame{Buf: buf}}) {
				mem[buf*8+7]--
				break
			}
			free = free[1:]
			sent++
		}
		there.Publish()
		k := back.Take(in[:])
		for i := range in[:k] {
			free = append(free, in[i].Frame.Buf)
			had[in[i].Frame.Buf]++
		}
		if returned += k; k == 0 {
			runtime.Gosched()
		}
	}
	got := <-done
	seen := map[uint32]bool{}
	for _, b := range free {
		if seen[b] {
			t.Errorf("buffer %d twice", b)
		}
		seen[b] = true
	}
	for i := range got {
		if got[i] != had[i] || mem[i*8] != uint64(got[i]) || mem[i*8+7] != 2*uint64(got[i]) {
			t.Errorf("buffer %d: sent back %d times, returned %d, has %v", i, got[i], had[i], mem[i*8:][:8])
		}
	}
	if len(free) != buffers {
		t.Errorf("%d of %d buffers", len(free), buffers)
	}
}
