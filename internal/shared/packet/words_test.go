package packet

import (
	"math/rand/v2"
	"testing"
)

// TestWords: what is set in whole words is what is set field by field.
func TestWords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		src, dst, from, to, proto := Addr(r.Uint32()), Addr(r.Uint32()), uint16(r.Uint32()), uint16(r.Uint32()), r.Uint32()
		k := Tuple{1, 2, 3, 4, 5}
		if k.Set(src, dst, from, to, proto); k != (Tuple{src, dst, from, to, proto}) {
			t.Fatalf("%+v", k)
		}
		x := [3]Rewrite{{1, 2, 3, 4}, {1, 2, 3, 4}, {1, 2, 3, 4}}
		if x[1].Set(src, dst, from, to); x != [3]Rewrite{{1, 2, 3, 4}, {src, dst, from, to}, {1, 2, 3, 4}} {
			t.Fatalf("%+v", x)
		}
		b := [16]byte{3: 9, 12: 9}
		if src.Put16(&b); b != src.To16() {
			t.Fatalf("%v: %v", src, b)
		}
	}
}
