// Package sha256 computes SHA-256 (FIPS 180-4) in the image. It takes the place of
// crypto/sha256 there, which brings the whole of Go's FIPS 140 module with it: AES, SHA-3, a
// generator, entropy from timing, files and the clock, 20 packages that would be linked
// into the trusted base and never run (ADR 0072). What it hashes is public, or random and
// hashed once, so that the time that it takes tells nothing. The host's programs use
// crypto/sha256.
package sha256

import (
	"encoding/binary"
	"math/bits"
)

// Size is the length of a digest, and BlockSize that of what one round of it takes, in bytes.
const (
	Size      = 32
	BlockSize = 64
)

// The first 32 bits of the fractional parts of the square roots of the first 8 primes, and
// of the cube roots of the first 64 (FIPS 180-4, 5.3.3 and 4.2.2). The test computes them.
var (
	initial = [8]uint32{
		0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
	}
	constants = [64]uint32{
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	}
)

// Sum256 returns the digest of b.
func Sum256(b []byte) (sum [Size]byte) {
	h := initial
	n := uint64(len(b))
	for len(b) >= BlockSize {
		block(&h, (*[BlockSize]byte)(b))
		b = b[BlockSize:]
	}
	// A bit, zeros, and the length in bits, in one block or two (5.1.1).
	var last [2 * BlockSize]byte
	copy(last[:], b)
	last[len(b)] = 0x80
	end := BlockSize
	if len(b)+1+8 > BlockSize {
		end = 2 * BlockSize
	}
	binary.BigEndian.PutUint64(last[end-8:], n<<3)
	block(&h, (*[BlockSize]byte)(last[:]))
	if end > BlockSize {
		block(&h, (*[BlockSize]byte)(last[BlockSize:]))
	}
	for i, v := range h {
		binary.BigEndian.PutUint32(sum[4*i:], v)
	}
	return sum
}

// block takes one block into the state (6.2.2).
func block(state *[8]uint32, p *[BlockSize]byte) {
	var w [len(constants)]uint32
	for i := range 16 {
		w[i] = binary.BigEndian.Uint32(p[4*i:])
	}
	for i := 16; i < len(w); i++ {
		y, z := w[i-15], w[i-2]
		w[i] = w[i-16] + w[i-7] +
			(bits.RotateLeft32(y, -7) ^ bits.RotateLeft32(y, -18) ^ y>>3) +
			(bits.RotateLeft32(z, -17) ^ bits.RotateLeft32(z, -19) ^ z>>10)
	}
	a, b, c, d, e, f, g, h := state[0], state[1], state[2], state[3], state[4], state[5], state[6], state[7]
	for i := range w {
		t1 := h + (bits.RotateLeft32(e, -6) ^ bits.RotateLeft32(e, -11) ^ bits.RotateLeft32(e, -25)) +
			((f^g)&e ^ g) + constants[i] + w[i]
		t2 := (bits.RotateLeft32(a, -2) ^ bits.RotateLeft32(a, -13) ^ bits.RotateLeft32(a, -22)) +
			(a&b ^ a&c ^ b&c)
		a, b, c, d, e, f, g, h = t1+t2, a, b, c, d+t1, e, f, g
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
	state[4] += e
	state[5] += f
	state[6] += g
	state[7] += h
}
