package dot

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"testing"
)

// TestRing: bytes are read as they were written, whatever the lengths; a full or an
// empty ring passes none.
func TestRing(t *testing.T) {
	r := newRing(64)
	if r.Read(make([]byte, 5)) != 0 || r.Write(make([]byte, 100)) != 64 || r.Write([]byte("x")) != 0 || r.Room() != 0 || r.Len() != 64 {
		t.Fatal("the limits are not kept")
	}
	r.reset()
	const total = 1 << 20
	src := make([]byte, total)
	for i := range src {
		src[i] = byte(i * 31 >> 3)
	}
	go func() {
		rnd := rand.New(rand.NewPCG(1, 2))
		for n := 0; n < total; {
			k := r.Write(src[n:min(total, n+1+rnd.IntN(90))])
			if n += k; k == 0 {
				runtime.Gosched()
			}
		}
	}()
	rnd := rand.New(rand.NewPCG(3, 4))
	var got []byte
	buf := make([]byte, 100)
	for len(got) < total {
		n := r.Read(buf[:1+rnd.IntN(99)])
		got = append(got, buf[:n]...)
		if n == 0 {
			runtime.Gosched()
		}
	}
	if !bytes.Equal(got, src) {
		t.Fatal("other bytes than were written")
	}
}

func FuzzRing(f *testing.F) {
	f.Add([]byte("\x05\x85\x45\x10\xff"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		r := newRing(32)
		var want []byte
		next := byte(0)
		for _, op := range ops {
			n := int(op & 0x3f)
			if op&0x80 == 0 {
				b := make([]byte, n)
				for i := range b {
					b[i] = next + byte(i)
				}
				k := r.Write(b)
				if k != min(n, 32-len(want)) {
					t.Fatalf("took %d of %d with %d inside", k, n, len(want))
				}
				want = append(want, b[:k]...)
				next += byte(k)
				continue
			}
			b := make([]byte, n)
			k := r.Read(b)
			if k != min(n, len(want)) || !bytes.Equal(b[:k], want[:k]) {
				t.Fatalf("read %x of %x", b[:k], want)
			}
			want = want[k:]
		}
		if r.Len() != len(want) || r.Room() != 32-len(want) {
			t.Fatalf("%d inside, %d fit; want %d", r.Len(), r.Room(), len(want))
		}
	})
}
