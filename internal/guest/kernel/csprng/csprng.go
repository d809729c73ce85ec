// Package csprng is the kernel's generator of random numbers: ChaCha20's block function
// (RFC 8439, 2.3) with a key that each block replaces, so that what was given out cannot
// be computed from the state. It runs without Go's runtime: no allocation, no pointers in
// memory.
package csprng

import "math/bits"

// A Generator is the state. The zero Generator has no secret: Mix comes first.
type Generator struct{ key [8]uint32 }

// Mix adds a seed to the state, which is not less random afterwards, whatever the seed is.
func (g *Generator) Mix(seed *[4]uint64) {
	for i, v := range seed {
		g.key[2*i] ^= uint32(v)
		g.key[2*i+1] ^= uint32(v >> 32)
	}
	var out [4]uint64
	g.Next(&out)
}

// Next sets out to the next 32 bytes.
func (g *Generator) Next(out *[4]uint64) {
	var b [16]uint32
	block(&g.key, &b)
	copy(g.key[:], b[:8])
	for i := range out {
		out[i] = uint64(b[8+2*i]) | uint64(b[9+2*i])<<32
	}
}

// block is ChaCha20's, with a counter and a nonce of zero.
func block(key *[8]uint32, out *[16]uint32) {
	var in [16]uint32
	in[0], in[1], in[2], in[3] = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574
	copy(in[4:12], key[:])
	permute(&in, out)
}

// permute runs the twenty rounds and adds the input.
func permute(in, out *[16]uint32) {
	*out = *in
	for range 10 {
		quarter(out, 0, 4, 8, 12)
		quarter(out, 1, 5, 9, 13)
		quarter(out, 2, 6, 10, 14)
		quarter(out, 3, 7, 11, 15)
		quarter(out, 0, 5, 10, 15)
		quarter(out, 1, 6, 11, 12)
		quarter(out, 2, 7, 8, 13)
		quarter(out, 3, 4, 9, 14)
	}
	for i := range out {
		out[i] += in[i]
	}
}

// quarter is the quarter round (RFC 8439, 2.1).
func quarter(s *[16]uint32, a, b, c, d int) {
	s[a] += s[b]
	s[d] = bits.RotateLeft32(s[d]^s[a], 16)
	s[c] += s[d]
	s[b] = bits.RotateLeft32(s[b]^s[c], 12)
	s[a] += s[b]
	s[d] = bits.RotateLeft32(s[d]^s[a], 8)
	s[c] += s[d]
	s[b] = bits.RotateLeft32(s[b]^s[c], 7)
}
