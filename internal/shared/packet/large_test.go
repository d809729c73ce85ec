package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// largeFrame makes the frame of a TCP segment with n bytes of payload, whose checksum is
// that of the pseudo-header.
func largeFrame(n, ipOpts, tcpOpts int, flags uint8) []byte {
	hl, off := MinIPv4+ipOpts, TCPLen+tcpOpts
	f := make([]byte, EthLen+hl+off+n)
	SetType(f, TypeIPv4)
	ip := f[EthLen:]
	PutIPv4(ip, 0x0a000002, 0xcb007101, TCP, 64, off+n)
	ip[0] = 0x40 | byte(hl/4)
	binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(len(ip)))
	for i := range ipOpts {
		ip[MinIPv4+i] = 1 // no operation
	}
	binary.BigEndian.PutUint16(ip[offID:], 0xfffe)
	fixIP(f)
	l4 := ip[hl:]
	binary.BigEndian.PutUint16(l4, 40000)
	binary.BigEndian.PutUint16(l4[2:], 443)
	binary.BigEndian.PutUint32(l4[4:], 0xfffff000)
	binary.BigEndian.PutUint32(l4[8:], 77)
	l4[12], l4[13] = byte(off/4)<<4, flags
	binary.BigEndian.PutUint16(l4[14:], 500)
	for i := range tcpOpts {
		l4[TCPLen+i] = 1
	}
	r := rand.New(rand.NewPCG(uint64(n), 0))
	for i := off; i < len(l4); i++ {
		l4[i] = byte(r.Uint32())
	}
	partial(f, hl)
	return f
}

func fixIP(f []byte) {
	ip := f[EthLen:]
	hl := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[offSum:], 0)
	binary.BigEndian.PutUint16(ip[offSum:], ^Sum(ip[:hl], 0))
}

// partial writes the checksum of the pseudo-header, as Linux does.
func partial(f []byte, hl int) {
	var b [12]byte
	copy(b[:8], f[EthLen+12:])
	b[9] = TCP
	binary.BigEndian.PutUint16(b[10:], uint16(len(f)-EthLen-hl))
	binary.BigEndian.PutUint16(f[EthLen+hl+offTCPSum:], Sum(b[:], 0))
}

// TestParseLarge: what is read from a large frame is what ParseIPv4 reads from it once its
// checksum is finished; what no sender makes is malformed.
func TestParseLarge(t *testing.T) {
	for _, c := range []struct{ n, ip, tcp int }{{1, 0, 0}, {60000, 0, 12}, {65495, 0, 0}, {9000, 40, 40}, {3000, 4, 0}} {
		f := largeFrame(c.n, c.ip, c.tcp, ACK|PSH)
		l4 := EthLen + MinIPv4 + c.ip
		var p, want Packet
		n, why := ParseLarge(f[:l4+TCPLen+c.tcp], len(f), l4, &p)
		if why != 0 || n != l4+TCPLen+c.tcp {
			t.Errorf("%+v: headers of %d bytes, %v", c, n, why)
			continue
		}
		FinishChecksum(f, l4, offTCPSum)
		if _, why := ParseIPv4(f, &want); why != 0 || p != want {
			t.Errorf("%+v: %+v, want %+v (%v)", c, p, want, why)
		}
	}
	for name, edit := range map[string]func(f []byte) (head, total, start int){
		"no fault":             func(f []byte) (int, int, int) { return 0, 0, 0 },
		"headers are cut":      func(f []byte) (int, int, int) { return 34 + 20 + 11, 0, 0 },
		"TCP header is cut":    func(f []byte) (int, int, int) { return 34 + 19, 0, 0 },
		"IP header is cut":     func(f []byte) (int, int, int) { return 33, 0, 0 },
		"nothing":              func(f []byte) (int, int, int) { return -1, 0, 0 },
		"longer than its IP":   func(f []byte) (int, int, int) { return 0, 1, 0 },
		"shorter than its IP":  func(f []byte) (int, int, int) { return 0, -1, 0 },
		"another start":        func(f []byte) (int, int, int) { return 0, 0, 2 },
		"start in the payload": func(f []byte) (int, int, int) { return 0, 0, 2000 },
		"version":              func(f []byte) (int, int, int) { f[14] = 0x55; fixIP(f); return 0, 0, 0 },
		"header length":        func(f []byte) (int, int, int) { f[14] = 0x44; return 0, 0, 0 },
		"IP checksum":          func(f []byte) (int, int, int) { f[24] ^= 1; return 0, 0, 0 },
		"a fragment":           func(f []byte) (int, int, int) { f[20] = 0x20; fixIP(f); return 0, 0, 0 },
		"a last fragment":      func(f []byte) (int, int, int) { f[21] = 1; fixIP(f); return 0, 0, 0 },
		"UDP":                  func(f []byte) (int, int, int) { f[23] = UDP; fixIP(f); return 0, 0, 0 },
		"SYN":                  func(f []byte) (int, int, int) { f[47] |= SYN; return 0, 0, 0 },
		"RST":                  func(f []byte) (int, int, int) { f[47] |= RST; return 0, 0, 0 },
		"data offset":          func(f []byte) (int, int, int) { f[46] = 4 << 4; return 0, 0, 0 },
		"port 0":               func(f []byte) (int, int, int) { f[34], f[35] = 0, 0; return 0, 0, 0 },
		"pseudo-header's sum":  func(f []byte) (int, int, int) { f[50] ^= 1; return 0, 0, 0 },
		"no sum at all":        func(f []byte) (int, int, int) { f[50], f[51] = 0, 0; return 0, 0, 0 },
	} {
		f := largeFrame(5000, 0, 12, ACK)
		head, total, start := edit(f)
		if head == 0 {
			head = 1972
		}
		var p Packet
		_, why := ParseLarge(f[:max(head, 0)], len(f)+total, 34+start, &p)
		if (why == 0) != (name == "no fault") || why != 0 && why != verdict.MalformedPacket {
			t.Errorf("%s: %v", name, why)
		}
	}
	f := largeFrame(0, 0, 0, ACK)
	var p Packet
	if _, why := ParseLarge(f, len(f), 34, &p); why == 0 {
		t.Error("without payload")
	}
}

// FuzzParseLarge: no frame is accepted as a large one that would not be valid once its
// checksum is finished, and its segments are valid and have all of its payload.
func FuzzParseLarge(f *testing.F) {
	f.Add(largeFrame(3000, 0, 12, ACK|PSH|FIN), uint16(1448), uint16(34))
	f.Add(largeFrame(200, 8, 0, ACK|CWR), uint16(48), uint16(42))
	f.Fuzz(func(t *testing.T, b []byte, size, start uint16) {
		if len(b) > 1972 || size < 48 {
			return
		}
		var p, want Packet
		n, why := ParseLarge(b, len(b), int(start), &p)
		if why != 0 {
			return
		}
		headers := bytes.Clone(b[:n])
		payload := bytes.Clone(b[n:])
		FinishChecksum(b, int(p.L4), offTCPSum)
		k, why := ParseIPv4(b, &want)
		if why != 0 || k != len(b) || want != p {
			t.Fatalf("%+v, and when finished %+v, %d, %v", p, want, k, why)
		}
		var all []byte
		for i := 0; i*int(size) < len(payload); i++ {
			part := payload[i*int(size) : min((i+1)*int(size), len(payload))]
			s := make([]byte, n+len(part))
			copy(s[n:], part)
			PutSegment(s, headers, &p, i, int(size))
			var q Packet
			if _, why := ParseIPv4(s, &q); why != 0 || q.Seq != p.Seq+uint32(i)*uint32(size) || q.Src != p.Src || q.SrcPort != p.SrcPort || q.Ack != p.Ack {
				t.Fatalf("segment %d: %+v, %v", i, q, why)
			}
			all = append(all, s[n:]...)
		}
		if !bytes.Equal(all, payload) {
			t.Fatal("the segments have other bytes")
		}
	})
}

// TestApplyLarge: a large frame that is translated and finished is the finished one
// translated.
func TestApplyLarge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		f := largeFrame(100+r.IntN(100), 0, 12, ACK)
		for i := range 8 {
			f[26+i] = byte(r.Uint32())
		}
		if r.IntN(8) == 0 { // sums that are 0xffff
			copy(f[26:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}
		fixIP(f)
		partial(f, MinIPv4)
		var p Packet
		if _, why := ParseLarge(f, len(f), 34, &p); why != 0 {
			t.Fatal(why)
		}
		w := Rewrite{Src: Addr(r.Uint32()), Dst: p.Dst, SrcPort: uint16(r.Uint32()) | 1, DstPort: p.DstPort}
		if r.IntN(2) == 0 {
			w.Dst, w.DstPort = Addr(r.Uint32()), uint16(r.Uint32())|1
		}
		g := bytes.Clone(f)
		ApplyLarge(f, &p, &w)
		var q Packet
		if _, why := ParseLarge(f, len(f), 34, &q); why != 0 || q.Src != w.Src || q.DstPort != w.DstPort || q.TTL != p.TTL-1 {
			t.Fatalf("the translated frame: %+v, %v", q, why)
		}
		FinishChecksum(f, 34, offTCPSum)
		FinishChecksum(g, 34, offTCPSum)
		Apply(g, &p, &w)
		if !bytes.Equal(f, g) {
			t.Fatalf("%x, want %x", f[:66], g[:66])
		}
	}
}

// TestFinishChecksum: a sum of nothing else than zeros is written as 0xffff, since 0 means
// none for UDP.
func TestFinishChecksum(t *testing.T) {
	f := []byte{9, 9, 0xff, 0xff, 0, 0}
	FinishChecksum(f, 2, 2)
	if !bytes.Equal(f, []byte{9, 9, 0xff, 0xff, 0xff, 0xff}) {
		t.Errorf("%x", f)
	}
	f = []byte{1, 2, 3, 4, 5, 6, 7}
	FinishChecksum(f, 1, 2)
	if Sum(f[1:], 0) == 0 || !bytes.Equal(f[:3], []byte{1, 2, 3}) {
		t.Errorf("%x", f)
	}
}
