package framebuf

import (
	"slices"
	"testing"
)

func TestPool(t *testing.T) {
	p := NewPool(make([]byte, 3*Size+5), 0x1000)
	if p.Cap() != 3 || p.Free() != 3 {
		t.Fatalf("%d buffers, %d free", p.Cap(), p.Free())
	}
	seen := map[uint32]bool{}
	for range 3 {
		b, ok := p.Get()
		if !ok || seen[b] || p.Phys(b) != 0x1000+uint64(b)*Size || len(p.Buffer(b)) != Size {
			t.Fatalf("buffer %d %v", b, ok)
		}
		seen[b] = true
	}
	if _, ok := p.Get(); ok {
		t.Fatal("a fourth buffer of three")
	}
	p.Put(7) // not ours
	p.Put(1)
	if b, ok := p.Get(); !ok || b != 1 || p.Free() != 0 {
		t.Fatalf("got %d %v", b, ok)
	}
	p.Put(0)
	p.Put(1)
	p.Put(2)
	p.Put(2) // one too many
	if p.Free() != 3 {
		t.Fatalf("%d free of 3", p.Free())
	}
	f := Frame{Buf: 2, Len: 60}
	p.Bytes(f)[59] = 7
	if p.Buffer(2)[Headroom+59] != 7 {
		t.Fatal("Bytes is not the buffer's memory")
	}
}

// TestPoolOfSpans: buffers for long frames lie one after the other, the bytes of each are its
// own, and a frame is as long as its buffer at most.
func TestPoolOfSpans(t *testing.T) {
	for _, span := range []int{1, 3, 5} {
		p := NewPoolOf(make([]byte, 4*span*Size+span*Size-1), 0x1000, span)
		if p.Cap() != 4 || p.Free() != 4 || p.Size() != uint32(span*Size) || p.MaxLen() != span*Size-Headroom || p.Numbers() != 4*span {
			t.Fatalf("span %d: %d buffers of %d", span, p.Cap(), p.Size())
		}
		links := NewLinks(p)
		var q Queue
		at := map[uint64]bool{}
		for i := range 4 {
			b, ok := p.Get()
			if !ok || len(p.Buffer(b)) != span*Size || p.Phys(b) != 0x1000+uint64(i*span*Size) || at[p.Phys(b)] {
				t.Fatalf("span %d: buffer %d at %#x, %v", span, b, p.Phys(b), ok)
			}
			at[p.Phys(b)] = true
			f := Frame{Buf: b, Len: uint32(p.MaxLen())}
			for j := range p.Bytes(f) {
				p.Bytes(f)[j] = byte(i)
			}
			links.Push(&q, f, uint32(i))
			l := p.Chain([]uint32{b}, []uint32{0}, Large{First: uint32(p.MaxLen())})
			if !l.IsLarge() || len(p.First(l)) != p.MaxLen() {
				t.Errorf("span %d: a large frame with %d bytes", span, len(p.First(l)))
			}
		}
		if b, ok := p.Get(); ok {
			t.Fatalf("span %d: a fifth buffer: %d", span, b)
		}
		for i := range 4 {
			f := links.Pop(&q)
			for _, x := range p.Bytes(f) {
				if x != byte(i) {
					t.Fatalf("span %d: buffer %d has the bytes of %d", span, i, x)
				}
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("span %d: a frame that is longer than its buffer", span)
					}
				}()
				p.Bytes(Frame{Buf: f.Buf, Len: f.Len + 1})
			}()
			p.Put(f.Buf)
		}
		p.Put(uint32(4 * span)) // not ours
		if p.Free() != 4 {
			t.Errorf("span %d: %d free", span, p.Free())
		}
	}
	for n, want := range map[int]int{0: 1, 1514: 1, MaxLen: 1, MaxLen + 1: 3, 3*Size - Headroom: 3, 3*Size - Headroom + 1: 5, 9014: 5, 1 << 20: 5} {
		if got := Span(n); got != want {
			t.Errorf("frames of %d bytes: %d", n, got)
		}
	}
}

// TestPoolOfMany: Take and Give are Get and Put for many: the hottest buffers first, and no
// more than there are.
func TestPoolOfMany(t *testing.T) {
	p := NewPool(make([]byte, 6*Size), 0)
	for _, b := range []uint32{0, 1, 2} {
		p.Get()
		p.Get()
		p.Put(b)
		p.Put(5 - b)
	}
	had := slices.Clone(p.free)
	if got := p.Take(2); !slices.Equal(got, had[4:]) || p.Free() != 4 {
		t.Fatalf("took %v of %v, %d free", got, had, p.Free())
	}
	if got := p.Take(0); len(got) != 0 || p.Free() != 4 {
		t.Fatalf("took %v, %d free", got, p.Free())
	}
	if got := p.Take(7); !slices.Equal(got, had[:4]) || p.Free() != 0 {
		t.Fatalf("took %v of %v, %d free", got, had[:4], p.Free())
	}
	if n := len(p.Room()); n != 6 {
		t.Fatalf("room for %d of 6", n)
	}
	copy(p.Room(), []uint32{4, 2, 3})
	p.Give(2)
	if b, ok := p.Get(); !ok || b != 2 || p.Free() != 1 || len(p.Room()) != 5 {
		t.Fatalf("got %d, %d free", b, p.Free())
	}
	p.Put(0)
	if p.Start(0) != (*[Headroom]byte)(p.Buffer(0)) {
		t.Error("Start is another place")
	}
}
