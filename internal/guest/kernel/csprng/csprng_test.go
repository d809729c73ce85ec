package csprng

import (
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// TestBlock: the vector of RFC 8439, 2.3.2.
func TestBlock(t *testing.T) {
	var in, out [16]uint32
	in[0], in[1], in[2], in[3] = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574
	for i := range 8 {
		in[4+i] = binary.LittleEndian.Uint32([]byte{byte(4 * i), byte(4*i + 1), byte(4*i + 2), byte(4*i + 3)})
	}
	in[12], in[13], in[14] = 1, 0x09000000, 0x4a000000
	permute(&in, &out)
	var b []byte
	for _, v := range out {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	const want = "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e" +
		"d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// And that of a key of zeros (RFC 8439, A.1, test vector 1).
	var key [8]uint32
	block(&key, &out)
	if out[0] != 0xade0b876 || out[15] != 0x8665eeb2 {
		t.Errorf("%#x … %#x", out[0], out[15])
	}
}

// TestGenerator: what comes depends on all seeds and on each of their bits, nothing comes
// twice, and the key is another after each output.
func TestGenerator(t *testing.T) {
	seen := map[[4]uint64]bool{}
	take := func(g *Generator) {
		t.Helper()
		for range 3 {
			var out [4]uint64
			before := g.key
			g.Next(&out)
			if seen[out] || g.key == before {
				t.Fatalf("%x comes twice, or the key stays", out)
			}
			seen[out] = true
		}
	}
	for i := range 256 {
		var g Generator
		var seed [4]uint64
		seed[i/64] = 1 << (i % 64)
		g.Mix(&seed)
		take(&g)
		g.Mix(&[4]uint64{}) // also a seed of zeros leads elsewhere
		take(&g)
	}
	a, b := Generator{}, Generator{}
	a.Mix(&[4]uint64{1, 2, 3, 4})
	b.Mix(&[4]uint64{1, 2, 3, 4})
	if a != b {
		t.Error("two generators with one seed differ")
	}
	b.Mix(&[4]uint64{5})
	take(&a)
	take(&b)
}
