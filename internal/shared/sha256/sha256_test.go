package sha256

import (
	stdlib "crypto/sha256"
	"math/big"
	"testing"
)

// Every length through which padding goes differently, three times over, at each alignment.
func TestSum256(t *testing.T) {
	b := make([]byte, 4*BlockSize+8)
	for i := range b {
		b[i] = byte(i*7 + i>>3)
	}
	for at := range 8 {
		for n := range len(b) - at {
			if got, want := Sum256(b[at:at+n]), stdlib.Sum256(b[at:at+n]); got != want {
				t.Fatalf("%d bytes from %d: %x, want %x", n, at, got, want)
			}
		}
	}
}

// The examples that the standard's authors give, so that not all depends on one library.
func TestExamples(t *testing.T) {
	long := make([]byte, 1_000_000)
	for i := range long {
		long[i] = 'a'
	}
	for in, want := range map[string]string{
		"":    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
		"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq": "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
		string(long): "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
	} {
		if got := hexOf(Sum256([]byte(in))); got != want {
			t.Errorf("%.60q: %s, want %s", in, got, want)
		}
	}
}

// A constant is the fraction of a root of a prime: the standard's tables were typed.
func TestConstants(t *testing.T) {
	n := 0
	for p := int64(2); n < len(constants); p++ {
		if !big.NewInt(p).ProbablyPrime(20) {
			continue
		}
		if n < len(initial) {
			// floor(sqrt(p) * 2^32)
			r := new(big.Int).Sqrt(new(big.Int).Lsh(big.NewInt(p), 64))
			if got := uint32(r.Uint64()); got != initial[n] {
				t.Errorf("square root of %d: %#x, want %#x", p, initial[n], got)
			}
		}
		if got := uint32(cubeRoot(new(big.Int).Lsh(big.NewInt(p), 96)).Uint64()); got != constants[n] {
			t.Errorf("cube root of %d: %#x, want %#x", p, constants[n], got)
		}
		n++
	}
}

// cubeRoot is the largest r with r³ at most v.
func cubeRoot(v *big.Int) *big.Int {
	r := new(big.Int)
	for i := v.BitLen()/3 + 1; i >= 0; i-- {
		if s := new(big.Int).SetBit(r, i, 1); new(big.Int).Exp(s, big.NewInt(3), nil).Cmp(v) <= 0 {
			r = s
		}
	}
	return r
}

func FuzzSum256(f *testing.F) {
	f.Add([]byte("abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := Sum256(b), stdlib.Sum256(b); got != want {
			t.Fatalf("%x: %x, want %x", b, got, want)
		}
	})
}

func BenchmarkSum256(b *testing.B) {
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		Sum256(p)
	}
}

func hexOf(sum [Size]byte) string {
	const digits = "0123456789abcdef"
	s := make([]byte, 0, 2*Size)
	for _, c := range sum {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}
