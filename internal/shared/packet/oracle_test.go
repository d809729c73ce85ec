package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// second reads a frame with gVisor's headers, as a second opinion on ParseIPv4.
// The rules that are this program's own (no source routes, no port 0, a UDP
// length that is the packet's) are written down again.
func second(f []byte) (p Packet, n int, why verdict.Reason) {
	const bad = verdict.MalformedPacket
	p.EtherType = 0x0800
	if len(f) < 34 {
		return p, 0, bad
	}
	ip := header.IPv4(f[14:])
	if !ip.IsValid(len(ip)) {
		return p, 0, bad
	}
	hl, total := int(ip.HeaderLength()), int(ip.TotalLength())
	p.Src, p.Dst = Addr(binary.BigEndian.Uint32(ip.SourceAddressSlice())), Addr(binary.BigEndian.Uint32(ip.DestinationAddressSlice()))
	p.Proto, p.TTL, p.Total, p.L4 = ip.Protocol(), ip.TTL(), ip.TotalLength(), uint16(14+hl)
	if !ip.IsChecksumValid() || !plainOptions(ip[20:hl]) {
		return p, 0, bad
	}
	p.DF = ip.Flags()&header.IPv4FlagDontFragment != 0
	if ip.More() || ip.FragmentOffset() != 0 {
		p.Fragment = true
		return p, 0, verdict.FragmentedIPv4
	}
	n, l4 := 14+total, ip[hl:total]
	sum := func() uint16 {
		return checksum.Checksum(l4, header.PseudoHeaderChecksum(ip.TransportProtocol(), ip.SourceAddress(), ip.DestinationAddress(), uint16(len(l4))))
	}
	switch p.Proto {
	case 6:
		if len(l4) < header.TCPMinimumSize {
			return p, n, bad
		}
		h := header.TCP(l4)
		if off := int(h.DataOffset()); off < header.TCPMinimumSize || off > len(h) || sum() != 0xffff {
			return p, n, bad
		}
		p.Class = ClassTCP
		p.SrcPort, p.DstPort, p.Seq, p.Ack = h.SourcePort(), h.DestinationPort(), h.SequenceNumber(), h.AckNumber()
		p.Flags, p.Window, p.Payload = uint8(h.Flags())&0x3f, h.WindowSize(), uint16(len(h.Payload()))
		if p.SrcPort == 0 || p.DstPort == 0 {
			return p, n, bad
		}
	case 17:
		if len(l4) < header.UDPMinimumSize {
			return p, n, bad
		}
		h := header.UDP(l4)
		if int(h.Length()) != len(l4) || h.Checksum() != 0 && sum() != 0xffff {
			return p, n, bad
		}
		p.Class, p.SrcPort, p.DstPort = ClassUDP, h.SourcePort(), h.DestinationPort()
		if p.DstPort == 0 {
			return p, n, bad
		}
	case 1:
		if len(l4) < header.ICMPv4MinimumSize || checksum.Checksum(l4, 0) != 0xffff {
			return p, n, bad
		}
		h := header.ICMPv4(l4)
		p.ICMPType, p.ICMPCode = uint8(h.Type()), uint8(h.Code())
		switch h.Type() {
		case header.ICMPv4Echo, header.ICMPv4EchoReply:
			p.Class, p.SrcPort, p.DstPort = ClassICMPQuery, h.Ident(), h.Ident()
		case header.ICMPv4DstUnreachable, header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem:
			p.Class = ClassICMPError
		default:
			p.Class = ClassOther
		}
	default:
		p.Class = ClassOther
	}
	return p, n, 0
}

// plainOptions is optionsValid in other words: it eats options from the front.
func plainOptions(o []byte) bool {
	for len(o) > 0 && o[0] != 0 {
		if o[0] == 131 || o[0] == 137 {
			return false
		}
		n := 1
		if o[0] != 1 {
			if len(o) == 1 || o[1] < 2 || int(o[1]) > len(o) {
				return false
			}
			n = int(o[1])
		}
		o = o[n:]
	}
	return true
}

// compare parses a frame in both ways, and by the fast path where that applies.
func compare(t *testing.T, what string, f []byte) verdict.Reason {
	t.Helper()
	f = f[:len(f):len(f)]
	var p Packet
	n, why := ParseIPv4(f, &p)
	want, wantN, wantWhy := second(f)
	if why != wantWhy || why == 0 && (n != wantN || p != want) || why == verdict.FragmentedIPv4 && p != want {
		t.Fatalf("%s: %v, %d bytes, %+v; gVisor says %v, %d bytes, %+v\n%x", what, why, n, p, wantWhy, wantN, want, f)
	}
	if len(f) >= EthLen && [6]byte(f) == [6]byte{2, 1} && Type(f) == TypeIPv4 {
		var k Tuple
		u := FastKey(f, MAC([6]byte{2, 1}), &k)
		fast := why == 0 && (p.Class == ClassTCP || p.Class == ClassUDP) && p.L4 == EthLen+MinIPv4
		if (u != 0) != fast || u != 0 && (u != n || k != Tuple{p.Src, p.Dst, p.SrcPort, p.DstPort, uint32(p.Proto)}) {
			t.Fatalf("%s: fast %d, %+v; parsed %v, %+v\n%x", what, u, k, why, p, f)
		}
		if u != 0 {
			var q Packet
			if ParseFast(f[:u], &k, &q); q != p {
				t.Fatalf("%s: %+v, plainly %+v", what, q, p)
			}
		}
	}
	return why
}

// random returns n bytes.
func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// made builds a frame of a transport header and data with right checksums: lie
// changes the transport header before its checksum is made.
func made(r *rand.Rand, proto uint8, opts []byte, n int, lie func(l4 []byte)) []byte {
	l4 := random(r, n)
	off := -1
	switch {
	case proto == TCP && n >= TCPLen:
		off = offTCPSum
		l4[12] = 5<<4 | l4[12]&15
	case proto == UDP && n >= UDPLen:
		off = 6
		binary.BigEndian.PutUint16(l4[4:], uint16(n))
	case proto == ICMP && n >= 4:
		off = 2
	}
	if lie != nil {
		lie(l4)
	}
	f := build(Addr(r.Uint32()), Addr(r.Uint32()), proto, uint8(r.Uint32()), opts, l4, off)
	if off > 0 && binary.BigEndian.Uint16(f[EthLen+MinIPv4+len(opts)+off:]) == 0 && proto == UDP {
		f[EthLen+MinIPv4+len(opts)+off], f[EthLen+MinIPv4+len(opts)+off+1] = 0xff, 0xff
	}
	return f
}

// TestTransportLengths: TCP, UDP, ICMP and what else there is, of each length
// from nothing on, in memory that ends there; the checksums are right. With and
// without padding, and with a byte less than the header says.
func TestTransportLengths(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for _, opts := range [][]byte{nil, {1, 1, 1, 1}, bytes.Repeat([]byte{1}, 40)} {
		for _, proto := range []uint8{TCP, UDP, ICMP, 0, 2, 132, 255} {
			least := map[uint8]int{TCP: 20, UDP: 8, ICMP: 8}[proto]
			for n := range 110 {
				f := made(r, proto, opts, n, nil)
				if why := compare(t, "whole", f); (why == 0) != (n >= least) {
					t.Fatalf("protocol %d of %d bytes: %v", proto, n, why)
				}
				compare(t, "padded", append(f, random(r, 1+r.IntN(9))...))
				if compare(t, "a byte less", f[:len(f)-1]) == 0 {
					t.Fatalf("protocol %d of %d bytes, a byte less: accepted", proto, n)
				}
			}
		}
	}
}

// TestLengthsThatLie: each number in a header that says how long something is,
// with each value that it can have, in packets of several lengths.
func TestLengthsThatLie(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 9))
	for _, n := range []int{20, 21, 24, 40, 59, 60, 61, 100} {
		good := 0
		for off := range 16 {
			f := made(r, TCP, nil, n, func(l4 []byte) { l4[12] = byte(off) << 4 })
			ok := compare(t, "data offset", f) == 0
			if ok != (off >= 5 && off*4 <= n) {
				t.Fatalf("data offset %d of %d bytes: accepted %v", off, n, ok)
			}
			if ok {
				good++
			}
		}
		if good == 0 {
			t.Fatal("no offset is good")
		}
		for u := range 200 {
			f := made(r, UDP, nil, n, func(l4 []byte) { binary.BigEndian.PutUint16(l4[4:], uint16(u)) })
			if ok := compare(t, "UDP length", f) == 0; ok != (u == n) {
				t.Fatalf("UDP length %d of %d bytes: accepted %v", u, n, ok)
			}
			f = made(r, UDP, nil, n, func(l4 []byte) { binary.BigEndian.PutUint16(l4[4:], uint16(u)) })
			f[EthLen+MinIPv4+6], f[EthLen+MinIPv4+7] = 0, 0
			if ok := compare(t, "UDP length, no checksum", f) == 0; ok != (u == n) {
				t.Fatalf("UDP length %d of %d bytes without checksum: accepted %v", u, n, ok)
			}
		}
		for _, proto := range []uint8{TCP, UDP, ICMP, 132} {
			for total := range 2*n + 80 {
				f := made(r, proto, nil, n, nil)
				binary.BigEndian.PutUint16(f[EthLen+offTotalLen:], uint16(total))
				fixSums(f)
				compare(t, "total length", f)
			}
			for vihl := range 256 {
				f := made(r, proto, nil, n, nil)
				f[EthLen] = byte(vihl)
				if hl := vihl & 15 * 4; hl > MinIPv4 && r.IntN(4) != 0 { // options, most of them harmless
					copy(f[EthLen+MinIPv4:], bytes.Repeat([]byte{1}, min(hl, len(f)-EthLen)-MinIPv4))
				}
				// The checksum of just that header, whatever is wrong with it.
				hl := max(min(vihl&15*4, len(f)-EthLen), MinIPv4)
				binary.BigEndian.PutUint16(f[EthLen+offSum:], 0)
				binary.BigEndian.PutUint16(f[EthLen+offSum:], ^slowSum(f[EthLen:EthLen+hl], 0))
				if vihl>>4 == 4 && vihl&15 >= 5 {
					fixSums(f)
				}
				if why := compare(t, "version and header length", f); why == 0 && (vihl>>4 != 4 || vihl&15 < 5) {
					t.Fatalf("first byte %#x: accepted", vihl)
				}
			}
		}
	}
}

// TestEveryField: ports of zero, every ICMP type, every bit of the fragment field,
// and the ends of what each field can say.
func TestEveryField(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for _, proto := range []uint8{TCP, UDP} {
		for _, src := range []uint16{0, 1, 0xff, 0x100, 0xffff} {
			for _, dst := range []uint16{0, 1, 0xff, 0x100, 0xffff} {
				f := made(r, proto, nil, 30, func(l4 []byte) {
					binary.BigEndian.PutUint16(l4, src)
					binary.BigEndian.PutUint16(l4[2:], dst)
				})
				// UDP's source port is optional (RFC 768).
				if ok := compare(t, "ports", f) == 0; ok != (dst != 0 && (src != 0 || proto == UDP)) {
					t.Fatalf("protocol %d, ports %d and %d: accepted %v", proto, src, dst, ok)
				}
			}
		}
	}
	for typ := range 256 {
		f := made(r, ICMP, nil, 8+typ%5, func(l4 []byte) { l4[0] = byte(typ) })
		if why := compare(t, "ICMP type", f); why != 0 {
			t.Fatalf("ICMP type %d: %v", typ, why)
		}
	}
	for _, proto := range []uint8{TCP, UDP, ICMP, 99} {
		for _, opts := range [][]byte{nil, {1, 1, 1, 1}} {
			for bit := range 16 {
				f := made(r, proto, opts, 32, nil)
				binary.BigEndian.PutUint16(f[EthLen+offFrag:], 1<<bit)
				fixSums(f)
				why := compare(t, "fragment field", f)
				if fragment := bit < 14; (why == verdict.FragmentedIPv4) != fragment {
					t.Fatalf("bit %d of the fragment field: %v", bit, why)
				}
			}
		}
	}
	// Each bit of the addresses of the link layer.
	for i := range 48 {
		f := made(r, UDP, nil, 8, nil)
		f[i/8] ^= 1 << (i % 8)
		if FastKey(f, MAC([6]byte{2, 1}), new(Tuple)) != 0 {
			t.Errorf("bit %d of the destination is not looked at", i)
		}
	}
}

// TestOptions: IPv4 options of all kinds with lengths that are right, one off,
// and lie.
func TestOptions(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 9))
	for kind := range 256 {
		for n := range 16 {
			for _, at := range []int{0, 1, 3, 6, 7} {
				opts := bytes.Repeat([]byte{1}, 8)
				opts[at] = byte(kind)
				if at < 7 {
					opts[at+1] = byte(n)
				}
				compare(t, "option", made(r, UDP, opts, 9, nil))
			}
		}
	}
	for _, c := range []struct {
		o  []byte
		ok bool
	}{
		{nil, true}, {[]byte{0, 131, 0, 9}, true}, {[]byte{1, 1, 1, 131}, false}, {[]byte{137, 3, 0, 0}, false}, {[]byte{7, 3, 4, 131}, false},
		{[]byte{7, 4, 131, 137}, true}, {[]byte{7, 2, 7, 2}, true}, {[]byte{7, 2, 7, 3}, false}, {[]byte{7, 1, 1, 1}, false}, {[]byte{7, 0, 1, 1}, false},
		{[]byte{1, 1, 1, 7}, false}, {[]byte{7, 5, 0, 0}, false}, {[]byte{7, 255, 0, 0}, false}, {[]byte{255, 4, 0, 0}, true},
	} {
		if got := optionsValid(c.o); got != c.ok || plainOptions(c.o) != c.ok {
			t.Errorf("%v: %v", c.o, got)
		}
		if why := compare(t, "options", made(r, UDP, c.o, 9, nil)); (why == 0) != c.ok {
			t.Errorf("%v: %v", c.o, why)
		}
	}
}

// TestTypes: the EtherType, and that of less than a header.
func TestTypes(t *testing.T) {
	f := append(make([]byte, 12), 0x86, 0xdd, 1)
	for n := range f {
		if got := Type(f[:n]); got != 0 && n < 14 || n == 14 && got != TypeIPv6 {
			t.Errorf("%d bytes: %#x", n, got)
		}
	}
	SetType(f, 0x1234)
	if Type(f) != 0x1234 || f[14] != 1 || f[11] != 0 {
		t.Errorf("%x", f)
	}
	SetMACs(f[:12:12], &[6]byte{1, 2, 3, 4, 5, 6}, &[6]byte{7, 8, 9, 10, 11, 12})
	if string(f) != "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x12\x34\x01" {
		t.Errorf("%x", f)
	}
	if MAC([6]byte{1, 2, 3, 4, 5, 6}) != 0x060504030201 {
		t.Errorf("%#x", MAC([6]byte{1, 2, 3, 4, 5, 6}))
	}
}
