package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// slowSum is RFC 1071 word by word: the oracle of Sum.
func slowSum(b []byte, start uint64) uint16 {
	s := start
	for i, v := range b {
		if i%2 == 0 {
			s += uint64(v) << 8
		} else {
			s += uint64(v)
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSum(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for n := range 300 {
		b := make([]byte, n)
		for _, fill := range []func() byte{func() byte { return byte(r.Uint32()) }, func() byte { return 0xff }, func() byte { return 0 }} {
			for i := range b {
				b[i] = fill()
			}
			for _, start := range []uint64{0, 1, 0xffff, 0x1fffe, 4 * 0xffffffff} {
				if got, want := Sum(b, start), slowSum(b, start); got != want {
					t.Fatalf("%d bytes from %#x: %#x, want %#x", n, start, got, want)
				}
			}
		}
	}
}

// build makes a frame with right checksums: opts are IPv4 options, l4 the
// transport header and data, whose checksum lies at off (-1: none).
func build(src, dst Addr, proto, ttl uint8, opts, l4 []byte, off int) []byte {
	hl := MinIPv4 + len(opts)
	f := make([]byte, EthLen+hl+len(l4))
	PutEth(f, &[6]byte{2, 1}, &[6]byte{2, 2}, TypeIPv4)
	ip := f[EthLen:]
	PutIPv4(ip, src, dst, proto, ttl, len(opts)+len(l4))
	ip[0] = 0x40 | byte(hl/4)
	copy(ip[MinIPv4:], opts)
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint16(ip[offSum:], ^slowSum(ip[:hl], 0))
	copy(ip[hl:], l4)
	if off >= 0 {
		c := ip[hl+off:]
		binary.BigEndian.PutUint16(c, 0)
		binary.BigEndian.PutUint16(c, ^slowSum(ip[hl:], pseudoOf(src, dst, proto, len(l4))))
	}
	return f
}

func pseudoOf(src, dst Addr, proto uint8, n int) uint64 {
	if proto == ICMP {
		return 0
	}
	return uint64(src>>16) + uint64(src&0xffff) + uint64(dst>>16) + uint64(dst&0xffff) + uint64(proto) + uint64(n)
}

func tcpFrame(data ...byte) []byte {
	l4 := make([]byte, TCPLen, TCPLen+len(data))
	binary.BigEndian.PutUint16(l4, 1234)
	binary.BigEndian.PutUint16(l4[2:], 80)
	l4[12], l4[13] = 0x50, SYN
	return build(0x0a000002, 0xc6336450, TCP, 64, nil, append(l4, data...), 16)
}

func udpFrame(data ...byte) []byte {
	l4 := make([]byte, UDPLen, UDPLen+len(data))
	binary.BigEndian.PutUint16(l4, 1234)
	binary.BigEndian.PutUint16(l4[2:], 53)
	binary.BigEndian.PutUint16(l4[4:], uint16(UDPLen+len(data)))
	return build(0x0a000002, 0xc6336450, UDP, 64, nil, append(l4, data...), 6)
}

func echoFrame(data ...byte) []byte {
	l4 := append([]byte{EchoRequest, 0, 0, 0, 0x12, 0x34, 0, 1}, data...)
	return build(0x0a000002, 0xc6336450, ICMP, 64, nil, l4, 2)
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name  string
		frame []byte
		class Class
		sport uint16
		dport uint16
	}{
		{"tcp", tcpFrame(1, 2, 3), ClassTCP, 1234, 80},
		{"udp", udpFrame(1), ClassUDP, 1234, 53},
		{"echo", echoFrame(1, 2), ClassICMPQuery, 0x1234, 0x1234},
		{"other protocol", build(1<<24, 2<<24, 132, 64, nil, []byte{1}, -1), ClassOther, 0, 0},
		{"options", build(0x0a000002, 0xc6336450, UDP, 64, []byte{1, 7, 3, 0}, udpFrame(9)[EthLen+MinIPv4:], 6), ClassUDP, 1234, 53},
		{"padding", append(udpFrame(1), make([]byte, 17)...), ClassUDP, 1234, 53},
	} {
		var p Packet
		n, why := ParseIPv4(c.frame, &p)
		if why != 0 || p.Class != c.class || p.SrcPort != c.sport || p.DstPort != c.dport {
			t.Errorf("%s: %v, %+v", c.name, why, p)
		}
		if n != EthLen+int(p.Total) {
			t.Errorf("%s: length %d of a packet of %d bytes", c.name, n, p.Total)
		}
	}
}

// TestParseEveryBit: whichever single bit of the headers or the data is wrong,
// a checksum shows it, except where none covers it.
func TestParseEveryBit(t *testing.T) {
	for name, good := range map[string][]byte{"tcp": tcpFrame(1, 2, 3), "udp": udpFrame(1, 2), "echo": echoFrame(5, 6, 7)} {
		for i := EthLen; i < len(good); i++ {
			for bit := range 8 {
				f := append([]byte(nil), good...)
				f[i] ^= 1 << bit
				var p Packet
				if _, why := ParseIPv4(f, &p); why != verdict.MalformedPacket {
					t.Errorf("%s: byte %d bit %d wrong: %v", name, i, bit, why)
				}
			}
		}
	}
}

func TestParseTruncated(t *testing.T) {
	for name, good := range map[string][]byte{"tcp": tcpFrame(1, 2, 3), "udp": udpFrame(1, 2), "echo": echoFrame(5, 6, 7)} {
		for n := range good {
			var p Packet
			if _, why := ParseIPv4(good[:n], &p); why != verdict.MalformedPacket {
				t.Errorf("%s cut to %d bytes: %v", name, n, why)
			}
		}
	}
}

func TestUDPWithoutChecksum(t *testing.T) {
	f := udpFrame(1, 2, 3)
	l4 := f[EthLen+MinIPv4:]
	l4[6], l4[7] = 0, 0
	var p Packet
	if _, why := ParseIPv4(f, &p); why != 0 {
		t.Fatal(why)
	}
	Apply(f, &p, &Rewrite{Src: 0xcb00710a, Dst: p.Dst, SrcPort: 9, DstPort: p.DstPort})
	if l4[6] != 0 || l4[7] != 0 {
		t.Fatal("a missing checksum became one")
	}
}

// TestUDPChecksumZero: a sum that comes out as zero is sent as 0xffff.
func TestUDPChecksumZero(t *testing.T) {
	found := false
	for port := range uint16(65535) {
		f := udpFrame(1, 2, 3)
		var p Packet
		ParseIPv4(f, &p)
		Apply(f, &p, &Rewrite{Src: p.Src, Dst: p.Dst, SrcPort: port, DstPort: p.DstPort})
		switch binary.BigEndian.Uint16(f[EthLen+MinIPv4+6:]) {
		case 0:
			t.Fatalf("port %d: the checksum is gone", port)
		case 0xffff:
			found = true
		}
		if _, why := ParseIPv4(f, &p); why != 0 {
			t.Fatalf("port %d: %v", port, why)
		}
	}
	if !found {
		t.Fatal("no port makes the sum zero: the test shows nothing")
	}
}

// TestApply compares the incremental checksums with those computed anew, and
// takes every rewrite back.
func TestApply(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		for _, make := range []func(...byte) []byte{tcpFrame, udpFrame, echoFrame} {
			f := make(byte(r.Uint32()), byte(r.Uint32()))
			before := append([]byte(nil), f...)
			var p, q Packet
			ParseIPv4(f, &p)
			to := Rewrite{Src: edge(r), Dst: edge(r), SrcPort: uint16(edge(r)) | 1, DstPort: uint16(edge(r)) | 1}
			if p.Class == ClassICMPQuery {
				to.DstPort = to.SrcPort
			}
			Apply(f, &p, &to)
			if _, why := ParseIPv4(f, &q); why != 0 {
				t.Fatalf("%+v: %v", to, why)
			}
			if q.Src != to.Src || q.Dst != to.Dst || q.SrcPort != to.SrcPort || q.DstPort != to.DstPort || q.TTL != p.TTL-1 {
				t.Fatalf("wanted %+v, got %+v", to, q)
			}
			Apply(f, &q, &Rewrite{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort})
			before[EthLen+offTTL] -= 2
			binary.BigEndian.PutUint16(before[EthLen+offSum:], 0)
			binary.BigEndian.PutUint16(before[EthLen+offSum:], ^slowSum(before[EthLen:EthLen+MinIPv4], 0))
			if string(f) != string(before) {
				t.Fatalf("taken back:\n%x\nwant\n%x", f, before)
			}
		}
	}
}

// TestRFC1624_S3_EchoOfZeros: the checksum of an echo reply without a bit set has
// the other zero, which no update of a checksum gives.
func TestRFC1624_S3_EchoOfZeros(t *testing.T) {
	for _, data := range [][]byte{nil, make([]byte, 3), {0xff, 0xff}, {0xff, 0xfe, 0, 1}} {
		f := build(1, 2, ICMP, 9, nil, append([]byte{EchoReply, 0, 0, 0, 0x12, 0x34, 0, 0}, data...), 2)
		var p, q Packet
		ParseIPv4(f, &p)
		Apply(f, &p, &Rewrite{Src: 1, Dst: 3})
		if _, why := ParseIPv4(f, &q); why != 0 || q.SrcPort != 0 {
			t.Fatalf("%x: %v", f, why)
		}
		m := f[EthLen+MinIPv4:]
		got := binary.BigEndian.Uint16(m[2:])
		FinishICMP(m)
		if want := binary.BigEndian.Uint16(m[2:]); got != want {
			t.Fatalf("%x: checksum %#x, want %#x", m, got, want)
		}
	}
}

// edge returns a random number, often one at which carries go wrong.
func edge(r *rand.Rand) Addr {
	return [...]Addr{Addr(r.Uint32()), 0, 0xffffffff, 0xffff, 0xffff0000, 0xfffffffe}[r.IntN(6)]
}

func TestEmbedded(t *testing.T) {
	for name, frame := range map[string][]byte{"tcp": tcpFrame(1), "udp": udpFrame(1, 2), "echo": echoFrame(5)} {
		var whole, p, q Packet
		ParseIPv4(frame, &whole)
		b := append([]byte(nil), frame[EthLen:][:28]...) // the least that is quoted
		if !ParseEmbedded(b, &p) || p.SrcPort != whole.SrcPort || p.Src != whole.Src || p.Class != whole.Class {
			t.Fatalf("%s: %+v", name, p)
		}
		to := Rewrite{Src: 0xcb00710a, Dst: 0x01020304, SrcPort: 40000, DstPort: 50000}
		if p.Class == ClassICMPQuery {
			to.DstPort = to.SrcPort
		}
		RewriteEmbedded(b, &p, &to)
		if !ParseEmbedded(b, &q) || q.Src != to.Src || q.Dst != to.Dst || q.SrcPort != to.SrcPort || q.DstPort != to.DstPort {
			t.Fatalf("%s: %+v", name, q)
		}
		for n := range 28 {
			if ParseEmbedded(b[:n], &q) {
				t.Fatalf("%s: accepted with %d bytes", name, n)
			}
		}
		b[offTTL]++
		if ParseEmbedded(b, &q) {
			t.Fatalf("%s: accepted with a wrong header checksum", name)
		}
	}
}

// TestRFC768_QuotedChecksums: the UDP checksum of a quoted packet stays right and
// never becomes "none", and none stays none.
func TestRFC768_QuotedChecksums(t *testing.T) {
	found := false
	for port := range uint16(65535) {
		b := udpFrame(1, 2, 3, 4)[EthLen:]
		var p Packet
		ParseEmbedded(b, &p)
		to := Rewrite{Src: 0x01020304, Dst: p.Dst, SrcPort: port, DstPort: p.DstPort}
		RewriteEmbedded(b, &p, &to)
		sum := binary.BigEndian.Uint16(b[MinIPv4+6:])
		if found = found || sum == 0xffff; sum == 0 || slowSum(b[MinIPv4:], pseudoOf(to.Src, to.Dst, UDP, len(b)-MinIPv4)) != 0xffff {
			t.Fatalf("port %d: %#x", port, sum)
		}
		clear(b[MinIPv4+6 : MinIPv4+8])
		ParseEmbedded(b, &p)
		if RewriteEmbedded(b, &p, &Rewrite{Src: 9, Dst: 8, SrcPort: 7, DstPort: 6}); b[MinIPv4+6]|b[MinIPv4+7] != 0 {
			t.Fatal("none became one")
		}
	}
	if !found {
		t.Fatal("no port makes the sum zero: the test shows nothing")
	}
}

func TestParseAllocates(t *testing.T) {
	for name, f := range map[string][]byte{"tcp": tcpFrame(1), "udp": udpFrame(1), "echo": echoFrame(1)} {
		var p Packet
		if n := testing.AllocsPerRun(100, func() { ParseIPv4(f, &p) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzParse: no input makes Parse look outside the frame, and what it accepts
// can be rewritten to something that it accepts as well.
func FuzzParse(f *testing.F) {
	for _, seed := range [][]byte{
		nil, tcpFrame(), tcpFrame(1, 2, 3), udpFrame(), udpFrame(1), echoFrame(), echoFrame(1, 2),
		build(1<<24, 2<<24, UDP, 1, []byte{7, 4, 4, 0}, udpFrame(1)[EthLen+MinIPv4:], 6),
		build(1<<24, 2<<24, ICMP, 9, nil, append([]byte{Unreachable, 3, 0, 0, 0, 0, 0, 0}, udpFrame(7)[EthLen:]...), 2),
		build(1<<24, 2<<24, 132, 9, nil, []byte{1, 2, 3}, -1),
	} {
		f.Add(seed, uint32(0xcb00710a), uint16(4000))
	}
	for _, seed := range hostile() {
		f.Add(seed, uint32(0xffffffff), uint16(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, src uint32, port uint16) {
		var p, q Packet
		n, why := ParseIPv4(b, &p)
		if why != 0 {
			return
		}
		if n > len(b) || int(p.L4) > n {
			t.Fatalf("length %d, transport at %d, of a frame of %d", n, p.L4, len(b))
		}
		if p.Class == ClassICMPError {
			if inner := b[int(p.L4)+ICMPLen : n]; ParseEmbedded(inner, &q) {
				RewriteEmbedded(inner, &q, &Rewrite{Src: Addr(src), Dst: q.Dst, SrcPort: port, DstPort: q.DstPort})
				if !ParseEmbedded(inner, &q) {
					t.Fatal("the embedded packet is broken")
				}
				FinishICMP(b[p.L4:n])
			}
		}
		r := Rewrite{Src: Addr(src), Dst: p.Dst, SrcPort: max(port, 1), DstPort: p.DstPort}
		Apply(b[:n], &p, &r)
		if _, why := ParseIPv4(b[:n], &q); why != 0 || q.Src != r.Src {
			t.Fatalf("%v after %+v", why, r)
		}
	})
}
