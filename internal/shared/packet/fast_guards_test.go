package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// plainFrame is a UDP frame without a checksum and its receiver's address.
func plainFrame(id uint16, src, dst Addr, data int) ([]byte, uint64) {
	f := make([]byte, EthLen+MinIPv4+UDPLen+data)
	to, from := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}
	PutEth(f, &to, &from, TypeIPv4)
	ip := f[EthLen:]
	PutIPv4(ip, src, dst, UDP, 64, UDPLen+data)
	SetID(ip, id)
	binary.BigEndian.PutUint16(ip[20:], 4000)
	binary.BigEndian.PutUint16(ip[22:], 53)
	binary.BigEndian.PutUint16(ip[24:], uint16(UDPLen+data))
	return f, MAC(to)
}

// TestFastKeyGuards: a frame of another type, or with any bit of its IP header changed that
// its checksum covers, is none for the fast path, whatever its sum carries.
func TestFastKeyGuards(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var k Tuple
	for n := range 2000 {
		src, dst, id := Addr(r.Uint32()), Addr(r.Uint32()), uint16(r.Uint32())
		if n%2 == 0 { // whose sum of 64 bits is just below a carry, and goes round with the rest
			var b [4]byte
			binary.LittleEndian.PutUint32(b[:], 0xffffffff-uint32(id>>8|id<<8))
			src, dst = Addr(binary.BigEndian.Uint32(b[:])), 0xfafafafa
		}
		f, self := plainFrame(id, src, dst, 10)
		if got := FastKey(f, self, &k); got != len(f) || k.Src != src || k.Dst != dst {
			t.Fatalf("%x: %d, %+v", f, got, k)
		}
		bit := r.IntN(8 * MinIPv4)
		f[EthLen+bit/8] ^= 1 << (bit % 8)
		if got := FastKey(f, self, &k); got != 0 {
			t.Fatalf("with bit %d changed: %x: %d", bit, f, got)
		}
	}
	for bit := range 8 * EthLen {
		f, self := plainFrame(7, 0x0a000002, 0xc0000201, 10)
		f[bit/8] ^= 1 << (bit % 8)
		if got := FastKey(f, self, &k) != 0; got != (bit/8 >= 6 && bit/8 < 12) { // the sender's address may be any
			t.Errorf("with bit %d of the Ethernet header changed: %v", bit, got)
		}
	}
}

// TestFastKeyShort: a UDP packet shorter than its header is none, though it says so itself.
func TestFastKeyShort(t *testing.T) {
	var k Tuple
	for n := range UDPLen + 2 {
		f, self := plainFrame(7, 0x0a000002, 0xc0000201, 10)
		binary.BigEndian.PutUint16(f[EthLen+24:], uint16(n))
		ip := f[EthLen:]
		binary.BigEndian.PutUint16(ip[2:], uint16(MinIPv4+n))
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^Sum(ip[:MinIPv4], 0))
		if got, want := FastKey(f, self, &k), EthLen+MinIPv4+n; n < UDPLen && got != 0 || n >= UDPLen && got != want {
			t.Errorf("%d bytes of UDP: %d", n, got)
		}
	}
}

// TestClampMSSEnds: behind the end of the options there are none, and behind one of two bytes
// there may be.
func TestClampMSSEnds(t *testing.T) {
	for opts, want := range map[string]bool{"\x00\x02\x02\x04\x23\x28\x00\x00": false, "\x00\x00\x02\x04\x23\x28\x00\x00": false, "\x02\x04\x23\x28": true,
		"\x04\x02\x02\x04\x23\x28\x01\x00": true, "\x01\x01\x02\x04\x23\x28\x01\x04": true, "\x01\x02\x04\x23\x28\x01\x04\x02": true, "\x02\x04\x05\xb4": false} {
		l4 := append(make([]byte, TCPLen), opts...)
		l4[12] = byte(len(l4)/4) << 4
		if got := ClampMSS(l4, 1460); got != want || !want && string(l4[TCPLen:]) != opts {
			t.Errorf("%x: lowered %v, to %x", opts, got, l4[TCPLen:])
		}
	}
}
