package framebuf

import (
	"bytes"
	"testing"
)

// TestLongBuffers: long buffers have numbers, memory and bus addresses of their own, and hold
// the longest frame; what is given back wrongly is ignored.
func TestLongBuffers(t *testing.T) {
	p := NewPool(make([]byte, 3*Size), 0x1000)
	if p.AddLong(make([]byte, 2*LongSize+5), 0x90000); p.Cap() != 3 || p.FreeLong() != 2 || p.Free() != 3 {
		t.Fatalf("%d and %d free of %d", p.Free(), p.FreeLong(), p.Cap())
	}
	seen := map[uint32]bool{}
	for range 2 {
		b, ok := p.GetLong()
		if !ok || seen[b] || !p.IsLong(b) || p.Bus(b) != 0x90000+uint64(b-3)*LongSize || len(p.Whole(b)) != LongSize {
			t.Fatalf("buffer %d %v", b, ok)
		}
		seen[b] = true
		p.Whole(b)[LongSize-1] = byte(b)
	}
	if _, ok := p.GetLong(); ok {
		t.Fatal("a third buffer of two")
	}
	if p.Whole(3)[LongSize-1] != 3 || p.Whole(4)[LongSize-1] != 4 || p.Line(4, 64)-p.Line(3, 64) != LongSize || p.Line(2, 0)-p.Line(1, 0) != Size {
		t.Error("they are not apart")
	}
	if p.IsLong(2) || p.Bus(2) != p.Phys(2) || &p.Whole(2)[0] != &p.Buffer(2)[0] {
		t.Error("an ordinary buffer is not the same as before")
	}
	p.Put(5) // not ours
	p.Put(4)
	p.Put(3)
	p.Put(3) // one too many
	if p.FreeLong() != 2 || p.Free() != 3 {
		t.Fatalf("%d and %d free", p.Free(), p.FreeLong())
	}
	if q := NewPool(make([]byte, Size), 0); q.FreeLong() != 0 || q.Free() != 1 {
		t.Error("a pool without long buffers has some")
	} else if _, ok := q.GetLong(); ok {
		t.Error("it gave one")
	}
}

// TestLongFrame: a large frame in a long buffer, or in both kinds, has the bytes that were put
// there, and none for the code of ordinary frames.
func TestLongFrame(t *testing.T) {
	p := NewPool(make([]byte, 3*Size), 0)
	p.AddLong(make([]byte, 2*LongSize), 0)
	long, _ := p.GetLong()
	whole := p.Whole(long)[Headroom:][:MaxTotal]
	for i := range whole {
		whole[i] = byte(i * 7 >> 3)
	}
	f := p.Chain([]uint32{long}, []uint32{MaxTotal}, Large{First: MaxTotal})
	got := make([]byte, MaxTotal+1)
	if l := p.Large(f); l.Parts != 1 || l.Total != MaxTotal || !bytes.Equal(p.First(f), whole) || p.Copy(got, f, 0) != MaxTotal || !bytes.Equal(got[:MaxTotal], whole) {
		t.Errorf("%+v", *l)
	}
	if n := p.Copy(got, f, MaxTotal-3); n != 3 || !bytes.Equal(got[:3], whole[MaxTotal-3:]) || p.Bytes(f) != nil {
		t.Errorf("%d bytes at its end, %d for others", n, len(p.Bytes(f)))
	}
	p.Release(f)
	b, _ := p.Get()
	long, _ = p.GetLong()
	f = p.Chain([]uint32{b, long}, []uint32{100, 60_000}, Large{First: 100})
	if l := p.Large(f); l.Parts != 2 || l.Total != 60_100 || p.Copy(got, f, 100) != 60_000 || !bytes.Equal(got[:60_000], p.Whole(long)[:60_000]) {
		t.Errorf("%+v", *l)
	}
	if p.Release(f); p.Free() != 3 || p.FreeLong() != 2 {
		t.Errorf("%d and %d free", p.Free(), p.FreeLong())
	}
}

// TestSplit: each of several pools has a part of the buffers, long ones too, and takes all that
// are given to it.
func TestSplit(t *testing.T) {
	p := NewPool(make([]byte, 9*Size), 0)
	p.AddLong(make([]byte, 5*LongSize), 0)
	seen := map[uint32]bool{}
	pools := p.Split(2)
	for i, q := range pools {
		if q.Free() != 4+i || q.FreeLong() != 2+i || q.Cap() != 9 {
			t.Fatalf("pool %d has %d and %d", i, q.Free(), q.FreeLong())
		}
		for range 4 + i {
			b, ok := q.Get()
			if !ok || seen[b] || q.IsLong(b) {
				t.Fatalf("pool %d: buffer %d", i, b)
			}
			seen[b] = true
		}
		for range 2 + i {
			b, ok := q.GetLong()
			if !ok || seen[b] || !q.IsLong(b) {
				t.Fatalf("pool %d: long buffer %d", i, b)
			}
			seen[b] = true
		}
	}
	for b := range seen {
		pools[1].Put(b)
	}
	if pools[1].Free() != 9 || pools[1].FreeLong() != 5 || pools[0].Free() != 0 || pools[0].FreeLong() != 0 {
		t.Errorf("%d and %d free in one, %d and %d in the other", pools[1].Free(), pools[1].FreeLong(), pools[0].Free(), pools[0].FreeLong())
	}
	defer func() {
		if recover() == nil {
			t.Error("a pool whose long buffers are in use is split")
		}
	}()
	p = NewPool(make([]byte, 9*Size), 0)
	p.AddLong(make([]byte, 5*LongSize), 0)
	p.GetLong()
	p.Split(2)
}
