package framebuf

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestLarge: a chain of any length has the bytes that were put into its buffers, in order,
// from any offset on, and all of its buffers go back to the pool.
func TestLarge(t *testing.T) {
	for _, span := range []int{1, 5} {
		testLarge(t, NewPoolOf(make([]byte, 3*MaxParts*span*Size), 0, span))
	}
}

func testLarge(t *testing.T, p *Pool) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		k := 1 + r.IntN(MaxParts)
		var bufs, n [MaxParts]uint32
		var want []byte
		first := 1 + r.IntN(p.MaxLen())
		for i := range k {
			b, _ := p.Get()
			bufs[i], n[i] = b, uint32(1+r.IntN(int(p.Size())))
			data := p.Buffer(b)[:n[i]]
			if i == 0 {
				data = p.Buffer(b)[Headroom : Headroom+first]
			}
			for j := range data {
				data[j] = byte(r.Uint32())
			}
			want = append(want, data...)
		}
		f := p.Chain(bufs[:k], n[:k], Large{First: uint32(first), Size: 1448})
		l := p.Large(f)
		if !f.IsLarge() || int(l.Total) != len(want) || int(l.Parts) != k || l.Size != 1448 || !bytes.Equal(p.First(f), want[:first]) {
			t.Fatalf("seed %d: %+v, want %d bytes in %d", seed, *l, len(want), k)
		}
		for range 20 {
			off := r.IntN(len(want) + 1)
			got := make([]byte, r.IntN(len(want)+100))
			m := p.Copy(got, f, off)
			if m != min(len(got), len(want)-off) || !bytes.Equal(got[:m], want[off:off+m]) {
				t.Fatalf("seed %d: %d bytes from %d on of %d", seed, m, off, len(want))
			}
		}
		if p.Free() != p.Cap()-k {
			t.Fatalf("seed %d: %d free", seed, p.Free())
		}
		p.Release(f)
		if p.Free() != p.Cap() || l.Parts != 0 {
			t.Fatalf("seed %d: %d free after the release of %d", seed, p.Free(), k)
		}
	}
	b, _ := p.Get()
	p.Release(Frame{Buf: b}) // empty: no chain, whatever was in that buffer before
	p.Release(Frame{Buf: 1 << 30})
	if b, _ := p.Get(); p.Free() != p.Cap()-1 {
		t.Errorf("%d free with %d taken", p.Free(), b)
	}
	const most = MaxLen + (MaxParts-1)*Size
	if most < MaxTotal || most-Size >= MaxTotal {
		t.Errorf("%d buffers hold %d bytes", MaxParts, most)
	}
}
