package packet

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// FuzzEmbedded: whatever an ICMP error quotes, nothing outside of it is looked
// at, what is accepted can be translated, and back again to what it was.
func FuzzEmbedded(f *testing.F) {
	for _, fr := range [][]byte{tcpFrame(1, 2, 3), udpFrame(1), echoFrame(1), build(1<<24, 2<<24, TCP, 9, []byte{7, 4, 4, 0}, tcpFrame()[EthLen+MinIPv4:], 16)} {
		f.Add(fr[EthLen:], uint32(0xcb00710a), uint16(4000))
		f.Add(fr[EthLen:][:MinIPv4+8], uint32(0), uint16(0xffff))
	}
	for _, fr := range hostile() {
		f.Add(fr[EthLen:], uint32(0xffffffff), uint16(0))
	}
	f.Fuzz(func(t *testing.T, b []byte, addr uint32, port uint16) {
		var p, q Packet
		if !ParseEmbedded(b, &p) {
			return
		}
		old := bytes.Clone(b)
		b = bytes.Clone(b)
		r := Rewrite{Src: Addr(addr), Dst: p.Dst, SrcPort: port, DstPort: p.DstPort}
		RewriteEmbedded(b, &p, &r)
		if !ParseEmbedded(b, &q) || q.Src != r.Src || q.SrcPort != r.SrcPort || q.Dst != p.Dst || p.Class != ClassICMPQuery && q.DstPort != p.DstPort {
			t.Fatalf("%+v after %+v", q, r)
		}
		RewriteEmbedded(b, &q, &Rewrite{Src: p.Src, Dst: p.Dst, SrcPort: p.SrcPort, DstPort: p.DstPort})
		// Checksums have two forms of zero; apart from that all is as it was.
		normal(b, &p)
		normal(old, &p)
		if !bytes.Equal(b, old) {
			t.Fatalf("%x became %x", old, b)
		}
	})
}

// normal makes all checksums of a quoted packet that say the same the same.
func normal(b []byte, p *Packet) {
	offs := []int{offSum}
	switch p.Class {
	case ClassTCP:
		offs = append(offs, int(p.L4)+offTCPSum)
	case ClassUDP:
		offs = append(offs, int(p.L4)+6)
	case ClassICMPQuery:
		offs = append(offs, int(p.L4)+2)
	}
	for _, o := range offs {
		if o+2 <= len(b) && binary.BigEndian.Uint16(b[o:]) == 0xffff {
			b[o], b[o+1] = 0, 0
		}
	}
}

// hostile are frames whose transport header is of each length about the shortest
// and whose numbers about lengths are one off, or as large as can be.
func hostile() (all [][]byte) {
	r := rand.New(rand.NewPCG(9, 9))
	for _, proto := range []uint8{TCP, UDP, ICMP} {
		for _, n := range []int{0, 1, 7, 8, 9, 19, 20, 21, 24, 60} {
			f := made(r, proto, nil, n, nil)
			all = append(all, f, f[:len(f)-min(1, n)], append(bytes.Clone(f), 9))
			whole := byte(len(f) - EthLen)
			for _, c := range []struct {
				at     int
				values []byte
			}{
				{EthLen, []byte{0x40, 0x44, 0x46, 0x4f, 0x55}},
				{EthLen + 3, []byte{0, 19, whole - 1, whole + 1, 255}},
				{EthLen + MinIPv4 + 5, []byte{0, 7, byte(n) - 1, byte(n) + 1, 255}},
				{EthLen + MinIPv4 + 12, []byte{0, 0x40, 0x60, 0xf0}},
			} {
				for _, v := range c.values {
					if c.at < len(f) {
						g := bytes.Clone(f)
						g[c.at] = v
						all = append(all, g)
					}
				}
			}
		}
	}
	return all
}

// hostileOptions are options of TCP that end where they should not.
func hostileOptions() (all [][]byte) {
	for _, kind := range []byte{0, 1, 2, 3, 4, 5, 8, 255} {
		for _, n := range []byte{0, 1, 2, 3, 4, 5, 10, 11, 39, 40, 41, 255} {
			for _, size := range []int{4, 12, 40} {
				o := bytes.Repeat([]byte{1}, size)
				o[0], o[1] = kind, n
				end := bytes.Repeat([]byte{1}, size)
				end[size-2], end[size-1] = kind, n
				all = append(all, o, end)
			}
		}
	}
	return all
}

// FuzzARP: what is read can be written and is the same.
func FuzzARP(f *testing.F) {
	b := make([]byte, 60)
	PutARP(b, &[6]byte{1}, &ARPMessage{Op: ARPRequest, SenderMAC: [6]byte{2, 3}, SenderAddr: 4, TargetAddr: 5})
	f.Add(b)
	f.Add(b[:EthLen+ARPLen])
	f.Fuzz(func(t *testing.T, b []byte) {
		var m, n ARPMessage
		if !ParseARP(b, &m) {
			return
		}
		w := make([]byte, 60)
		PutARP(w, (*[6]byte)(b), &m)
		n.TargetMAC = m.TargetMAC
		if !ParseARP(w, &n) {
			t.Fatal("what was written cannot be read")
		}
		n.TargetMAC = m.TargetMAC // not written: see PutARP
		if m != n {
			t.Fatalf("%+v became %+v", m, n)
		}
	})
}

// FuzzClampMSS: whatever the options are, nothing outside of them is looked at,
// nothing but each MSS and the checksum changes, and that stays right.
func FuzzClampMSS(f *testing.F) {
	f.Add([]byte{2, 4, 5, 0xb4, 1, 3, 3, 7}, uint16(1360))
	f.Add([]byte{1, 2, 4, 5, 0xb4, 0, 0, 0}, uint16(1360))
	f.Add([]byte{8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 0xff, 0xff, 0, 0}, uint16(536))
	f.Add([]byte{2, 4, 5, 0xb4, 2, 4, 5, 0xb4}, uint16(1))
	for _, o := range hostileOptions() {
		f.Add(o, uint16(1360))
	}
	f.Fuzz(func(t *testing.T, opts []byte, limit uint16) {
		opts = opts[:min(len(opts), 40)&^3]
		l4 := append(make([]byte, TCPLen), opts...)
		l4[12], l4[13] = byte(len(l4)/4)<<4, SYN
		binary.BigEndian.PutUint16(l4[offTCPSum:], ^Sum(l4, 0))
		old := bytes.Clone(l4)
		if !ClampMSS(l4, limit) {
			if !bytes.Equal(old, l4) {
				t.Fatal("changed without saying so")
			}
			return
		}
		if Sum(l4, 0) != 0xffff {
			t.Fatalf("%x became %x, whose checksum is wrong", old, l4)
		}
		if ClampMSS(l4, limit) {
			t.Fatalf("%x is still more than %d", l4, limit)
		}
		copy(l4[offTCPSum:], old[offTCPSum:offTCPSum+2])
		for i := TCPLen; i < len(old) && old[i] != optEnd; i++ {
			if old[i] == optNop {
				continue
			}
			if i+1 == len(old) || old[i+1] < 2 || i+int(old[i+1]) > len(old) {
				break
			}
			if old[i] == optMSS && old[i+1] == 4 {
				binary.BigEndian.PutUint16(old[i+2:], min(binary.BigEndian.Uint16(old[i+2:]), limit))
			}
			i += int(old[i+1]) - 1
		}
		if !bytes.Equal(old, l4) {
			t.Fatalf("want %x, got %x", old, l4)
		}
	})
}

// FuzzCutter: the fragments of any packet fit the MTU, and together are the
// packet.
func FuzzCutter(f *testing.F) {
	f.Add(udpFrame(make([]byte, 1400)...)[EthLen:], uint16(576))
	f.Add(build(1, 2, UDP, 9, []byte{7, 4, 4, 0, 148, 4, 0, 0}, make([]byte, 100), -1)[EthLen:], uint16(68))
	f.Add(build(1, 2, UDP, 9, []byte{0x87, 40}, make([]byte, 100), -1)[EthLen:], uint16(68))
	f.Fuzz(func(t *testing.T, ip []byte, mtu uint16) {
		if len(ip) < MinIPv4 || len(ip) > 1<<14 {
			return
		}
		ip = bytes.Clone(ip)
		hl := int(ip[0]&15) * 4
		if hl < MinIPv4 || hl > len(ip) {
			return
		}
		ip[0] = 0x40 | byte(hl/4)
		binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(len(ip)))
		w := binary.BigEndian.Uint16(ip[offFrag:]) &^ flagDF
		start := int(w&fragOffset) * 8
		if start+len(ip)-hl > 0xffff {
			w, start = w&^fragOffset, 0
		}
		binary.BigEndian.PutUint16(ip[offFrag:], w)
		limit := max(int(mtu), 68)
		c := NewCutter(ip, limit)
		want := c.Pieces()
		b := make([]byte, max(limit, len(ip)))
		at, n := hl, 0
		for {
			k := c.Next(b)
			if k == 0 {
				break
			}
			n++
			fhl := int(b[0]&15) * 4
			if k > limit || k < fhl || Sum(b[:fhl], 0) != 0xffff || int(binary.BigEndian.Uint16(b[offTotalLen:])) != k {
				t.Fatalf("fragment %x", b[:k])
			}
			fw := binary.BigEndian.Uint16(b[offFrag:])
			last := at+k-fhl == len(ip)
			if int(fw&fragOffset)*8 != start+at-hl || fw&flagMF == 0 != (last && w&flagMF == 0) || !last && (k-fhl)%8 != 0 {
				t.Fatalf("fragment at %d: %x", at, b[:k])
			}
			if !bytes.Equal(b[fhl:k], ip[at:at+k-fhl]) {
				t.Fatalf("fragment at %d is not what it was", at)
			}
			at += k - fhl
		}
		if at != len(ip) || n > want {
			t.Fatalf("%d of %d bytes in %d fragments, at most %d were announced", at, len(ip), n, want)
		}
	})
}
