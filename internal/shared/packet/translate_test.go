package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// again gives a frame without options new addresses and ports, a TTL less and
// checksums made anew: what every translation has to come to.
func again(f []byte, r *Rewrite) []byte {
	f = bytes.Clone(f)
	ip := f[EthLen:]
	l4 := ip[MinIPv4:]
	binary.BigEndian.PutUint32(ip[offSrc:], uint32(r.Src))
	binary.BigEndian.PutUint32(ip[offDst:], uint32(r.Dst))
	ip[offTTL]--
	binary.BigEndian.PutUint16(l4, r.SrcPort)
	binary.BigEndian.PutUint16(l4[2:], r.DstPort)
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint16(ip[offSum:], ^slowSum(ip[:MinIPv4], 0))
	off := offTCPSum
	if ip[offProto] == UDP {
		if off = 6; l4[6]|l4[7] == 0 {
			return f
		}
	}
	binary.BigEndian.PutUint16(l4[off:], 0)
	s := ^slowSum(l4, pseudoOf(r.Src, r.Dst, ip[offProto], len(l4)))
	if s == 0 && off == 6 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(l4[off:], s)
	return f
}

// TestTranslations: the two ways to translate a packet come to what checksums
// made anew say, with addresses and ports at which carries go wrong.
func TestTranslations(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	for i := range 8000 {
		proto := []uint8{TCP, UDP, UDP}[i%3]
		n := 20 + r.IntN(70)
		f := made(r, proto, nil, n, func(l4 []byte) {
			binary.BigEndian.PutUint16(l4, uint16(edge(r))|1)
			binary.BigEndian.PutUint16(l4[2:], uint16(edge(r))|2)
		})
		if f[EthLen+offTTL] < 2 {
			continue
		}
		if i%3 == 2 && r.IntN(4) == 0 { // without a checksum
			f[EthLen+MinIPv4+6], f[EthLen+MinIPv4+7] = 0, 0
		}
		var k Tuple
		var p Packet
		if m, why := ParseIPv4(f, &p); why != 0 || FastKey(f, MAC([6]byte{2, 1}), &k) != m {
			t.Fatalf("%x: %v", f, why)
		}
		to := Rewrite{Src: edge(r), Dst: edge(r), SrcPort: uint16(edge(r)), DstPort: uint16(edge(r))}
		switch r.IntN(4) { // one side alone, as NAT has it
		case 0:
			to.Src, to.SrcPort = p.Src, p.SrcPort
		case 1:
			to.Dst, to.DstPort = p.Dst, p.DstPort
		}
		want := again(f, &to)
		plain, fast := bytes.Clone(f), bytes.Clone(f)
		Apply(plain, &p, &to)
		translateFast(fast, k.Proto, &to)
		q := Packet{Class: p.Class, L4: MinIPv4}
		for _, b := range [][]byte{want, plain, fast} {
			if proto == UDP && b[EthLen+MinIPv4+6]|b[EthLen+MinIPv4+7] == 0 && want[EthLen+MinIPv4+6]|want[EthLen+MinIPv4+7] != 0 {
				t.Fatalf("a checksum became none: %x", b)
			}
			normal(b[EthLen:], &q)
		}
		if !bytes.Equal(plain, want) || !bytes.Equal(fast, want) {
			t.Fatalf("%+v of\n%x:\n%x by Apply\n%x by the fast path\n%x wanted", to, f, plain, fast, want)
		}
	}
}

// TestShortWayKeepsChecksums: of UDP, whatever sum comes out: never none, and none
// stays none.
func TestShortWayKeepsChecksums(t *testing.T) {
	found := false
	for port := range uint16(65535) {
		f := udpFrame(1, 2, 3)
		to := Rewrite{Src: 0x0a000002, Dst: 0xc6336450, SrcPort: port, DstPort: 53}
		translateFast(f, UDP, &to)
		got := binary.BigEndian.Uint16(f[EthLen+MinIPv4+6:])
		if found = found || got == 0xffff; got == 0 || slowSum(f[EthLen+MinIPv4:], pseudoOf(to.Src, to.Dst, UDP, 11)) != 0xffff {
			t.Fatalf("port %d: %#x", port, got)
		}
	}
	if !found {
		t.Fatal("no port makes the sum zero: the test shows nothing")
	}
}
