package framebuf

import "testing"

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
