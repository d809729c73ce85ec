package packet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// slowSum is RFC 1071 as it is written: 16-bit words, end-around carry.
func slowSum(b []byte, start uint64) uint16 {
	s := start
	for i := 0; i+1 < len(b); i += 2 {
		s += uint64(b[i])<<8 | uint64(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint64(b[len(b)-1]) << 8
	}
	for s>>16 != 0 {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSumAgainstRFC1071(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "b")
		start := uint64(rapid.Uint32().Draw(t, "start"))
		if got, want := Sum(b, start), slowSum(b, start); got != want && got%0xffff != want%0xffff {
			t.Fatalf("Sum = %#x, want %#x", got, want)
		}
	})
	if got := Sum(bytes.Repeat([]byte{0xff}, 1500), 0); got != 0xffff {
		t.Fatalf("all ones: %#x", got)
	}
}

// build makes a frame with valid checksums.
func build(src, dst Addr, proto uint8, l4 []byte) []byte {
	f := make([]byte, EthLen+MinIPv4+len(l4))
	PutEth(f, &[6]byte{2}, &[6]byte{4}, TypeIPv4)
	PutIPv4(f[EthLen:], src, dst, proto, 64, len(l4))
	copy(f[EthLen+MinIPv4:], l4)
	l4 = f[EthLen+MinIPv4:]
	p := &Packet{Src: src, Dst: dst, Proto: proto}
	switch proto {
	case TCP:
		binary.BigEndian.PutUint16(l4[16:], ^Sum(l4, pseudo(p, len(l4))))
	case UDP:
		c := ^Sum(l4, pseudo(p, len(l4)))
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(l4[6:], c)
	case ICMP:
		FinishICMP(l4)
	}
	return f
}

// drawFrame draws a valid TCP, UDP or ICMP echo frame.
func drawFrame(t *rapid.T) []byte {
	data := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "data")
	port := rapid.Uint16Range(1, 65535)
	src, dst := Addr(rapid.Uint32().Draw(t, "src")), Addr(rapid.Uint32().Draw(t, "dst"))
	switch proto := rapid.SampledFrom([]uint8{TCP, UDP, ICMP}).Draw(t, "proto"); proto {
	case TCP:
		h := make([]byte, 20, 80)
		binary.BigEndian.PutUint16(h, port.Draw(t, "sport"))
		binary.BigEndian.PutUint16(h[2:], port.Draw(t, "dport"))
		h[12], h[13] = 5<<4, rapid.Byte().Draw(t, "flags")
		return build(src, dst, TCP, append(h, data...))
	case UDP:
		h := make([]byte, 8, 80)
		binary.BigEndian.PutUint16(h, port.Draw(t, "sport"))
		binary.BigEndian.PutUint16(h[2:], port.Draw(t, "dport"))
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
		f := build(src, dst, UDP, append(h, data...))
		if rapid.Bool().Draw(t, "no checksum") {
			binary.BigEndian.PutUint16(f[EthLen+MinIPv4+6:], 0)
		}
		return f
	default:
		h := make([]byte, 8, 80)
		h[0] = EchoRequest
		binary.BigEndian.PutUint16(h[4:], port.Draw(t, "id"))
		return build(src, dst, ICMP, append(h, data...))
	}
}

// TestApplyKeepsChecksums: after a rewrite every checksum still verifies, the
// fields are the new ones, and the reverse rewrite restores the packet but for
// its TTL.
func TestApplyKeepsChecksums(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFrame(t)
		orig := bytes.Clone(f)
		var p Packet
		if _, why := ParseIPv4(f, &p); why != 0 {
			t.Fatalf("a valid frame is %v", why)
		}
		r := Rewrite{Src: Addr(rapid.Uint32().Draw(t, "nsrc")), Dst: Addr(rapid.Uint32().Draw(t, "ndst")),
			SrcPort: rapid.Uint16Range(1, 65535).Draw(t, "nsport"), DstPort: rapid.Uint16Range(1, 65535).Draw(t, "ndport")}
		if p.Class == Query {
			r.DstPort = r.SrcPort
		}
		Apply(f, &p, &r)
		var q Packet
		if _, why := ParseIPv4(f, &q); why != 0 {
			t.Fatalf("the rewritten frame is %v", why)
		}
		if q.Src != r.Src || q.Dst != r.Dst || q.SrcPort != r.SrcPort || q.DstPort != r.DstPort || q.TTL != p.TTL-1 {
			t.Fatalf("got %+v, want %+v", q, r)
		}
		if orig[EthLen+9] == UDP && orig[EthLen+26] == 0 && orig[EthLen+27] == 0 && (f[EthLen+26] != 0 || f[EthLen+27] != 0) {
			t.Fatal("a UDP checksum of zero did not stay zero")
		}
		Apply(f, &q, &Rewrite{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort})
		var back Packet
		if _, why := ParseIPv4(f, &back); why != 0 {
			t.Fatalf("back: %v", why)
		}
		f[EthLen+8] = orig[EthLen+8]
		if !bytes.Equal(f[EthLen+12:EthLen+20], orig[EthLen+12:EthLen+20]) || back.SrcPort != p.SrcPort || back.DstPort != p.DstPort {
			t.Fatal("the reverse rewrite does not restore the packet")
		}
	})
}

// TestRewriteEmbedded: the header quoted in an ICMP error stays valid.
func TestRewriteEmbedded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ip := drawFrame(t)[EthLen:]
		var p Packet
		if !ParseEmbedded(ip, &p) {
			t.Fatal("a valid quotation is refused")
		}
		r := Rewrite{Src: Addr(rapid.Uint32().Draw(t, "nsrc")), Dst: p.Dst, SrcPort: rapid.Uint16().Draw(t, "nsport"), DstPort: p.DstPort}
		if p.Class == Query {
			r.DstPort = r.SrcPort
		}
		RewriteEmbedded(ip, &p, &r)
		var q Packet
		if !ParseEmbedded(ip, &q) || q.Src != r.Src || q.SrcPort != r.SrcPort {
			t.Fatalf("got %+v, want %+v", q, r)
		}
	})
}

// FuzzParse: no frame makes the parsers read outside of it, and what they
// accept is consistent.
func FuzzParse(f *testing.F) {
	f.Add(build(1, 2, TCP, append(make([]byte, 12), 5<<4, 2, 0, 0, 0, 0, 0, 0)))
	f.Add(build(1, 2, UDP, []byte{0, 1, 0, 2, 0, 8, 0, 0}))
	f.Add(build(1, 2, ICMP, make([]byte, 36)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 2036 {
			return
		}
		b = b[:len(b):len(b)]
		var p Packet
		n, why := ParseIPv4(b, &p)
		if why == 0 {
			if n > len(b) || int(p.L4) > n || int(p.Total)+EthLen != n || p.Class == 0 {
				t.Fatalf("accepted %+v of %d bytes", p, len(b))
			}
			if p.Class == Error && ParseEmbedded(b[int(p.L4)+ICMPLen:n], &p) {
				RewriteEmbedded(b[n-(n-int(EthLen+MinIPv4+ICMPLen)):n], &p, &Rewrite{})
			} else if p.Class != Error {
				Apply(b, &p, &Rewrite{Src: 1, Dst: 2, SrcPort: 3, DstPort: 3})
			}
		}
		var m ARPMessage
		ParseARP(b, &m)
		Type(b)
	})
}

func TestARPRoundTrip(t *testing.T) {
	m := ARPMessage{Op: ARPReply, SenderMAC: [6]byte{2, 1}, SenderAddr: 0x0a000001, TargetMAC: [6]byte{2, 2}, TargetAddr: 0x0a000002}
	f := make([]byte, 64)
	n := PutARP(f, &m.TargetMAC, &m)
	var g ARPMessage
	if n != 60 || !ParseARP(f[:n], &g) || g != m || Type(f) != TypeARP {
		t.Fatalf("%d bytes, %+v", n, g)
	}
	f[EthLen+7] = 9
	if ParseARP(f[:n], &g) {
		t.Fatal("an unknown operation is accepted")
	}
}

func TestAddr16(t *testing.T) {
	a := Addr(0xc0000201)
	if b, ok := AddrFrom16(a.To16()); !ok || b != a {
		t.Fatalf("%#x %v", b, ok)
	}
	if _, ok := AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8}); ok {
		t.Fatal("an IPv6 address is taken for IPv4")
	}
}

func BenchmarkParseUDP(b *testing.B) {
	f := build(0x0a000002, 0xc6336450, UDP, []byte{0, 9, 0, 9, 0, 18, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
	var p Packet
	b.ReportAllocs()
	for b.Loop() {
		if _, why := ParseIPv4(f, &p); why != 0 {
			b.Fatal(why)
		}
	}
}
