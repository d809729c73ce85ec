package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestPieceOf: what fragments can be, with and without options, up to the end of
// the largest datagram.
func TestPieceOf(t *testing.T) {
	for _, c := range []struct {
		hl, total int
		field     uint16
		want      Piece
		ok        bool
	}{
		{20, 21, 0, Piece{0, 1, false}, true},
		{20, 20, 0, Piece{0, 0, false}, false},
		{20, 20, flagMF, Piece{0, 0, true}, false},
		{20, 28, flagMF, Piece{0, 8, true}, true},
		{20, 27, flagMF, Piece{0, 7, true}, false},
		{20, 29, flagMF | 1, Piece{8, 9, true}, false},
		{20, 36, flagMF | flagDF | 0x8000 | 3, Piece{24, 16, true}, true},
		{20, 29, 1, Piece{8, 9, false}, true},
		{60, 69, 2, Piece{16, 9, false}, true},
		{60, 60, 2, Piece{16, 0, false}, false},
		{60, 68, flagMF | 2, Piece{16, 8, true}, true},
		// 20 bytes of header, 65515 of payload: the most that there can be.
		{20, 20 + 11, 8188, Piece{65504, 11, false}, true},
		{20, 20 + 12, 8188, Piece{65504, 12, false}, false},
		{24, 24 + 7, 8188, Piece{65504, 7, false}, true},
		{24, 24 + 8, 8188, Piece{65504, 8, false}, false},
		{20, 20 + 8, flagMF | 8191, Piece{65528, 8, true}, false},
		{20, 21, 8191, Piece{65528, 1, false}, false},
		{20, 65535, 0, Piece{0, 65515, false}, true},
	} {
		f := make([]byte, EthLen+c.hl)
		binary.BigEndian.PutUint16(f[EthLen+offFrag:], c.field)
		p := Packet{L4: uint16(EthLen + c.hl), Total: uint16(c.total)}
		if got, ok := PieceOf(f, &p); got != c.want || ok != c.ok {
			t.Errorf("%+v: %+v, %v", c, got, ok)
		}
	}
}

// TestReassembled: datagrams cut at each place that there is, of which the first
// fragment and a sum of the rest are read as the whole is.
func TestReassembled(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 9))
	for _, proto := range []uint8{TCP, UDP, ICMP, 99} {
		for _, nopts := range []int{0, 8, 40} {
			whole := made(r, proto, make([]byte, nopts), 100, nil)
			var want Packet
			if _, why := ParseIPv4(whole, &want); why != 0 {
				t.Fatal(why)
			}
			hl := MinIPv4 + nopts
			for at := 8; at < 100; at += 8 {
				f := bytes.Clone(whole[:EthLen+hl+at])
				ip := f[EthLen:]
				binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(len(ip)))
				binary.BigEndian.PutUint16(ip[offFrag:], flagMF|flagDF)
				binary.BigEndian.PutUint16(ip[offSum:], 0)
				binary.BigEndian.PutUint16(ip[offSum:], ^slowSum(ip[:hl], 0))
				var p Packet
				if _, why := ParseIPv4(append(f, 1, 2, 3), &p); why != verdict.FragmentedIPv4 || !p.DF {
					t.Fatal(why)
				}
				rest := uint64(slowSum(whole[EthLen+hl+at:], 0))
				why := ParseFirst(append(f, 1, 2, 3), &p, 100, rest)
				least := map[uint8]int{TCP: 20, UDP: 8, ICMP: 8}[proto]
				if at < least {
					if why != verdict.MalformedPacket {
						t.Fatalf("protocol %d, first fragment of %d bytes: %v", proto, at, why)
					}
					continue
				}
				q := want
				q.Fragment, q.DF = true, true
				if why != 0 || p != q {
					t.Fatalf("protocol %d cut at %d: %v, %+v, want %+v", proto, at, why, p, q)
				}
				if proto != 99 {
					p = Packet{Src: p.Src, Dst: p.Dst, Proto: proto, L4: p.L4, Total: uint16(hl + at)}
					if ParseFirst(f, &p, 100, rest^1) != verdict.MalformedPacket {
						t.Fatalf("protocol %d: the rest's sum is not looked at", proto)
					}
				}
				// Put together.
				got := append(f, whole[EthLen+hl+at:]...)
				Unfragment(got)
				exp := bytes.Clone(whole)
				exp[EthLen+offFrag] = 0x40
				binary.BigEndian.PutUint16(exp[EthLen+offSum:], 0)
				binary.BigEndian.PutUint16(exp[EthLen+offSum:], ^slowSum(exp[EthLen:EthLen+hl], 0))
				if !bytes.Equal(got, exp) {
					t.Fatalf("put together:\n%x\n%x", got, exp)
				}
			}
		}
	}
	// The header may be whole in the first fragment while its options are not.
	f := made(r, TCP, nil, 40, func(l4 []byte) { l4[12] = 10 << 4 })
	var p Packet
	ParseIPv4(f, &p)
	p.Total = MinIPv4 + 32
	if why := ParseFirst(f, &p, 40, uint64(slowSum(f[EthLen+MinIPv4+32:], 0))); why != verdict.MalformedPacket {
		t.Errorf("options behind the first fragment: %v", why)
	}
}

// TestCutPieces pins the fragments: how many, how long, which flags.
func TestCutPieces(t *testing.T) {
	for _, c := range []struct {
		opts     []byte
		payload  int
		mtu      int
		field    uint16
		lengths  []int // of the fragments, with header
		fields   []uint16
		announce int
	}{
		{nil, 100, 120, 0, []int{120}, []uint16{0}, 3},
		{nil, 101, 120, 0, []int{116, 25}, []uint16{flagMF, 12}, 3},
		{nil, 96, 115, 0, []int{108, 28}, []uint16{flagMF, 11}, 3},
		{nil, 96, 68, 0, []int{68, 68}, []uint16{flagMF, 6}, 4},
		{nil, 97, 68, 0, []int{68, 68, 21}, []uint16{flagMF, flagMF | 6, 12}, 4},
		{nil, 64, 75, 0, []int{68, 36}, []uint16{flagMF, 6}, 3},
		// A fragment that is cut again: its end is not the datagram's.
		{nil, 96, 68, flagMF | 100, []int{68, 68}, []uint16{flagMF | 100, flagMF | 106}, 4},
		{nil, 96, 68, 100, []int{68, 68}, []uint16{flagMF | 100, 106}, 4},
		// An MTU with no room: 8 bytes each.
		{nil, 17, 20, 0, []int{28, 28, 21}, []uint16{flagMF, flagMF | 1, 2}, 4},
		{nil, 17, 0, 0, []int{28, 28, 21}, []uint16{flagMF, flagMF | 1, 2}, 4},
		{nil, 16, 28, 0, []int{28, 28}, []uint16{flagMF, 1}, 4},
		// Options: all in the first, those to be copied in the others.
		{[]byte{7, 4, 4, 0}, 64, 68, 0, []int{64, 44}, []uint16{flagMF, 5}, 3},
		{[]byte{148, 4, 0, 0}, 64, 68, 0, []int{64, 48}, []uint16{flagMF, 5}, 3},
		{[]byte{7, 4, 4, 0, 148, 4, 0, 0}, 80, 68, 0, []int{68, 64}, []uint16{flagMF, 5}, 4},
		{bytes.Repeat([]byte{1}, 40), 24, 60, 0, []int{68, 36}, []uint16{flagMF, 1}, 5},
		{nil, 0, 68, 0, nil, nil, 2},
	} {
		ip := build(1, 2, 99, 9, c.opts, make([]byte, c.payload), -1)[EthLen:]
		for i := range c.payload {
			ip[MinIPv4+len(c.opts)+i] = byte(i + 1)
		}
		binary.BigEndian.PutUint16(ip[offFrag:], c.field)
		cut := NewCutter(ip, c.mtu)
		if got := cut.Pieces(); got != c.announce {
			t.Errorf("%d bytes, MTU %d: %d announced, want %d", c.payload, c.mtu, got, c.announce)
		}
		b := bytes.Repeat([]byte{0xee}, 200)
		at := 0
		for i := 0; ; i++ {
			n := cut.Next(b)
			if n == 0 {
				if i != len(c.lengths) || cut.Next(b) != 0 {
					t.Errorf("%d bytes, MTU %d: %d fragments", c.payload, c.mtu, i)
				}
				break
			}
			if i >= len(c.lengths) || n != c.lengths[i] || binary.BigEndian.Uint16(b[offFrag:]) != c.fields[i] {
				t.Fatalf("%d bytes with %d of options, MTU %d: fragment %d has %d bytes, field %#x", c.payload, len(c.opts), c.mtu, i, n, binary.BigEndian.Uint16(b[offFrag:]))
			}
			hl := int(b[0]&15) * 4
			if slowSum(b[:hl], 0) != 0xffff || int(binary.BigEndian.Uint16(b[offTotalLen:])) != n || !bytes.Equal(b[hl:n], ip[MinIPv4+len(c.opts)+at:][:n-hl]) {
				t.Fatalf("fragment %d: %x", i, b[:n])
			}
			at += n - hl
		}
	}
}

// TestRFC791_S31_CopiedOptions: which options the further fragments carry, with
// lengths that lie.
func TestRFC791_S31_CopiedOptions(t *testing.T) {
	for _, c := range []struct{ in, want []byte }{
		{nil, nil},
		{[]byte{1, 1, 1, 1}, nil},
		{[]byte{0, 148, 4, 0}, nil},
		{[]byte{0, 2, 148, 2}, nil},
		{[]byte{148, 4, 5, 6}, []byte{148, 4, 5, 6}},
		{[]byte{20, 4, 5, 6}, nil},
		{[]byte{1, 148, 3, 5}, []byte{148, 3, 5, 0}},
		{[]byte{148, 3, 5, 1}, []byte{148, 3, 5, 0}},
		{[]byte{148, 2, 1, 130, 2, 9, 9, 9}, []byte{148, 2, 130, 2}},
		{[]byte{1, 1, 148, 6, 7, 8, 9, 10}, []byte{148, 6, 7, 8, 9, 10, 0, 0}},
		{[]byte{7, 2, 148, 2, 7, 2, 130, 2}, []byte{148, 2, 130, 2}},
		{[]byte{7, 5, 0, 0, 0, 148, 3, 9}, []byte{148, 3, 9, 0}},
		{[]byte{148, 2, 0, 130}, []byte{148, 2, 0, 0}},
		{[]byte{148, 0, 130, 2}, nil},
		{[]byte{148, 1, 130, 2}, nil},
		{[]byte{148, 5, 0, 0}, nil},
		{[]byte{1, 1, 1, 148}, nil},
		{[]byte{148, 2, 130, 3}, []byte{148, 2, 0, 0}},
		{[]byte{129, 2, 7, 255}, []byte{129, 2, 0, 0}},
	} {
		o := append(bytes.Clone(c.in), 0xee)
		n := copiedOptions(o[:len(c.in):len(c.in)])
		if !bytes.Equal(o[:n], c.want) && n+len(c.want) != 0 || o[len(c.in)] != 0xee {
			t.Errorf("%v: %v, want %v", c.in, o[:n], c.want)
		}
	}
}

// TestRFC9293_S31_ClampEnds: options end where the data offset says and where they
// say themselves; what lies, or reaches behind the end, stops the reading and
// changes nothing.
func TestRFC9293_S31_ClampEnds(t *testing.T) {
	for _, c := range []struct {
		what    string
		in      []byte
		off     int // data offset in bytes; 0: all of in
		want    []byte
		lowered bool
	}{
		{"one", []byte{2, 4, 5, 180}, 0, []byte{2, 4, 5, 80}, true},
		{"just the limit", []byte{2, 4, 5, 80}, 0, []byte{2, 4, 5, 80}, false},
		{"one more", []byte{2, 4, 5, 81}, 0, []byte{2, 4, 5, 80}, true},
		{"one less", []byte{2, 4, 5, 79}, 0, []byte{2, 4, 5, 79}, false},
		{"behind no-operations, at an odd place", []byte{1, 2, 4, 5, 180, 1, 1, 1}, 0, []byte{1, 2, 4, 5, 80, 1, 1, 1}, true},
		{"behind another", []byte{3, 3, 7, 2, 4, 5, 180, 0}, 0, []byte{3, 3, 7, 2, 4, 5, 80, 0}, true},
		{"two", []byte{2, 4, 5, 180, 2, 4, 255, 255}, 0, []byte{2, 4, 5, 80, 2, 4, 5, 80}, true},
		{"two, one of them small", []byte{2, 4, 5, 180, 2, 4, 0, 255}, 0, []byte{2, 4, 5, 80, 2, 4, 0, 255}, true},
		{"two, the first of them small", []byte{2, 4, 0, 255, 2, 4, 5, 180}, 0, []byte{2, 4, 0, 255, 2, 4, 5, 80}, true},
		{"behind the end of options", []byte{0, 1, 1, 1, 2, 4, 5, 180}, 0, []byte{0, 1, 1, 1, 2, 4, 5, 180}, false},
		{"in the data", []byte{1, 1, 1, 1, 2, 4, 5, 180}, 24, []byte{1, 1, 1, 1, 2, 4, 5, 180}, false},
		{"none at all, data alone", []byte{2, 4, 5, 180}, 20, []byte{2, 4, 5, 180}, false},
		{"cut by the end, into the data", []byte{1, 1, 2, 4, 5, 180, 0, 0}, 24, []byte{1, 1, 2, 4, 5, 180, 0, 0}, false},
		{"its kind is the last byte", []byte{1, 1, 1, 2}, 0, []byte{1, 1, 1, 2}, false},
		{"its kind is the last byte, data behind", []byte{1, 1, 1, 2, 4, 9, 9, 9}, 24, []byte{1, 1, 1, 2, 4, 9, 9, 9}, false},
		{"length 0", []byte{9, 0, 2, 4, 255, 255, 0, 0}, 0, []byte{9, 0, 2, 4, 255, 255, 0, 0}, false},
		{"length 1", []byte{9, 1, 2, 4, 255, 255, 0, 0}, 0, []byte{9, 1, 2, 4, 255, 255, 0, 0}, false},
		{"length 2", []byte{9, 2, 2, 4, 255, 255, 0, 0}, 0, []byte{9, 2, 2, 4, 5, 80, 0, 0}, true},
		{"up to the end", []byte{9, 4, 2, 4}, 0, []byte{9, 4, 2, 4}, false},
		{"one too long", []byte{2, 4, 255, 255, 2, 5, 255, 255}, 0, []byte{2, 4, 5, 80, 2, 5, 255, 255}, true},
		{"length 3", []byte{2, 3, 255, 2, 4, 255, 255, 0}, 0, []byte{2, 3, 255, 2, 4, 5, 80, 0}, true},
		{"length 5", []byte{2, 5, 255, 255, 255, 1, 1, 1}, 0, []byte{2, 5, 255, 255, 255, 1, 1, 1}, false},
		{"40 bytes", append(bytes.Repeat([]byte{1}, 36), 2, 4, 255, 255), 0, append(bytes.Repeat([]byte{1}, 36), 2, 4, 5, 80), true},
	} {
		off := c.off
		if off == 0 {
			off = TCPLen + len(c.in)
		}
		l4 := append(make([]byte, TCPLen), c.in...)
		l4[12], l4[13] = byte(off/4)<<4, SYN
		binary.BigEndian.PutUint16(l4[offTCPSum:], ^slowSum(l4, 0))
		if got := ClampMSS(l4[:len(l4):len(l4)], 0x550); got != c.lowered || !bytes.Equal(l4[TCPLen:], c.want) || slowSum(l4, 0) != 0xffff {
			t.Errorf("%s: %v, %v, want %v", c.what, got, l4[TCPLen:], c.want)
		}
	}
}
