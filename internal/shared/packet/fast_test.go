package packet

import (
	"bytes"
	"testing"
)

// fastSeeds are frames near the bounds of what FastKey takes.
func fastSeeds() [][]byte {
	u := fastFrame()
	var seeds [][]byte
	add := func(edit func(f []byte) []byte) { seeds = append(seeds, edit(bytes.Clone(u))) }
	add(func(f []byte) []byte { return f })
	add(func(f []byte) []byte { return append(f, 1, 2, 3) })
	add(func(f []byte) []byte { f[40], f[41] = 0, 0; return f })
	add(func(f []byte) []byte { f[50]++; return f })
	t := make([]byte, 74)
	copy(t, u[:EthLen])
	PutIPv4(t[EthLen:], 0x0a000001, 0xc0000201, TCP, 64, 40)
	l4 := t[34:]
	copy(l4, []byte{0x10, 0, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 'h', 'e', 'l', 'l', 'o'})
	p := Packet{Src: 0x0a000001, Dst: 0xc0000201, Proto: TCP}
	s := ^Sum(l4, pseudo(&p, len(l4)))
	l4[16], l4[17] = byte(s>>8), byte(s)
	return append(seeds, t)
}

// fixSums writes right checksums where the frame is well formed, so that a
// fuzzer gets behind them.
func fixSums(f []byte) {
	if len(f) < EthLen+MinIPv4 {
		return
	}
	ip := f[EthLen:]
	hl, total := int(ip[0]&15)*4, int(ip[2])<<8|int(ip[3])
	if hl < MinIPv4 || total < hl || total > len(ip) {
		return
	}
	ip[10], ip[11] = 0, 0
	s := ^Sum(ip[:hl], 0)
	ip[10], ip[11] = byte(s>>8), byte(s)
	l4 := ip[hl:total]
	off := map[byte]int{TCP: 16, UDP: 6}[ip[9]]
	if off == 0 || len(l4) < off+2 {
		return
	}
	l4[off], l4[off+1] = 0, 0
	p := Packet{Proto: ip[9]}
	for i := range 4 {
		p.Src, p.Dst = p.Src<<8|Addr(ip[12+i]), p.Dst<<8|Addr(ip[16+i])
	}
	s = ^Sum(l4, pseudo(&p, len(l4)))
	l4[off], l4[off+1] = byte(s>>8), byte(s)
}

// FuzzFastKey: FastKey takes a frame exactly when ParseIPv4 finds a valid TCP or UDP
// packet without options in it; both read the same of it, and translate it alike.
func FuzzFastKey(f *testing.F) {
	for _, s := range fastSeeds() {
		f.Add(s, true)
		f.Add(s, false)
	}
	for _, s := range hostile() {
		f.Add(s, true)
		f.Add(s, false)
	}
	self := [6]byte{2, 1}
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if len(b) < EthLen {
			return
		}
		b = bytes.Clone(b)
		copy(b, self[:])
		b[12], b[13] = 8, 0
		if fix {
			fixSums(b)
		}
		var k Tuple
		n := FastKey(b, MAC(self), &k)
		var p Packet
		m, why := ParseIPv4(b, &p)
		want := why == 0 && (p.Class == ClassTCP || p.Class == ClassUDP) && p.L4 == EthLen+MinIPv4
		if (n != 0) != want {
			t.Fatalf("fast: %v; parsed: %v, class %d", n != 0, why, p.Class)
		}
		if n == 0 {
			return
		}
		if n != m || (k != Tuple{p.Src, p.Dst, p.SrcPort, p.DstPort, uint32(p.Proto)}) {
			t.Fatalf("length %d and %d, %+v and %+v", n, m, k, p)
		}
		var u Packet
		if ParseFast(b[:n], &k, &u); u != p {
			t.Fatalf("%+v, plainly %+v", u, p)
		}
		if p.TTL < 2 {
			return
		}
		r := Rewrite{Src: p.Dst + 77, Dst: p.Src, SrcPort: p.DstPort ^ 0x101 | 2, DstPort: p.SrcPort | 1}
		plain := bytes.Clone(b[:m])
		Apply(plain, &p, &r)
		translateFast(b[:n], k.Proto, &r)
		// A checksum may be written as either zero of one's complement.
		var q Packet
		if _, why := ParseIPv4(b[:n], &q); why != 0 {
			t.Fatalf("what was translated is %v: %x, plainly %x", why, b[:n], plain)
		}
		sums := map[int]bool{24: true, 25: true}
		if p.Class == ClassTCP {
			sums[50], sums[51] = true, true
		} else {
			sums[40], sums[41] = true, true
		}
		for i := range plain {
			if plain[i] != b[i] && !sums[i] {
				t.Fatalf("byte %d: %x, plainly %x", i, b[:n], plain)
			}
		}
	})
}

// TestFastKeyCarries: payloads of ones, whose partial sums carry out of 64 bits at each
// addition, have the same checksum in FastKey as in ParseIPv4, at all lengths.
func TestFastKeyCarries(t *testing.T) {
	for n := range 200 {
		f := udpFrame(bytes.Repeat([]byte{0xff}, n)...)
		var p Packet
		var k Tuple
		want, why := ParseIPv4(f, &p)
		if why != 0 {
			t.Fatalf("%d bytes: %v", n, why)
		}
		if got := FastKey(f, MAC([6]byte(f)), &k); got != want {
			t.Errorf("%d bytes of ones: %d, want %d", n, got, want)
		}
		f[len(f)-1] ^= 1
		if _, why := ParseIPv4(f, &p); why == 0 || FastKey(f, MAC([6]byte(f)), &k) != 0 {
			t.Errorf("%d bytes, of which one is wrong: %v", n, why)
		}
	}
}
