package packet

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// TestAddresses: an address is of the family in the last four bytes behind ten
// zeros and two ones, and each of these twelve counts.
func TestAddresses(t *testing.T) {
	b := [16]byte{10: 0xff, 11: 0xff, 12: 1, 13: 2, 14: 3, 15: 4}
	if a, ok := AddrFrom16(b); !ok || a != 0x01020304 || a.To16() != b {
		t.Errorf("%#x, %v, %v", a, ok, a.To16())
	}
	if a, ok := AddrFrom16(Addr(0xfffefdfc).To16()); !ok || a != 0xfffefdfc {
		t.Errorf("%#x", a)
	}
	for i := range 12 {
		for _, v := range []byte{0, 1, 0x80, 0xfe, 0xff} {
			c := b
			c[i] = v
			a, ok := AddrFrom16(c)
			if good := c == b; ok != good || !good && a != 0 {
				t.Errorf("%v: %#x, %v", c, a, ok)
			}
		}
	}
	if m := Mask([16]byte{0: 9, 12: 0xff, 13: 0xfe, 14: 0xfd, 15: 0xfc}); m != 0xfffefdfc {
		t.Errorf("%#x", m)
	}
}

// TestWritten pins what is written into memory that was not empty, byte by byte.
func TestWritten(t *testing.T) {
	f := bytes.Repeat([]byte{0xee}, 64)
	n := PutARP(f, &[6]byte{1, 2, 3, 4, 5, 6}, &ARPMessage{Op: ARPReply, SenderMAC: [6]byte{7, 8, 9, 10, 11, 12}, SenderAddr: 0x0d0e0f10, TargetMAC: [6]byte{17, 18, 19, 20, 21, 22}, TargetAddr: 0x1718191a})
	if want := unhex("0102030405060708090a0b0c0806" + "0001080006040002" + "0708090a0b0c0d0e0f10" + "1112131415161718191a" + "000000000000000000000000000000000000" + "eeeeeeee"); n != 60 || !bytes.Equal(f, want) {
		t.Errorf("ARP, %d bytes:\n%x\n%x", n, f, want)
	}
	f = bytes.Repeat([]byte{0xee}, 22)
	PutIPv4(f, 0x0a000002, 0xc6336450, 17, 63, 300)
	if want := unhex("4500014000000000" + "3f11" + "4628" + "0a000002c6336450" + "eeee"); !bytes.Equal(f, want) {
		t.Errorf("IPv4:\n%x\n%x", f, want)
	}
	f = unhex("0800ffff12340001")
	if FinishICMP(f); !bytes.Equal(f, unhex("0800e5ca12340001")) {
		t.Errorf("ICMP: %x", f)
	}
	f = bytes.Repeat([]byte{0xee}, 15)
	if PutEth(f, &[6]byte{1, 2, 3, 4, 5, 6}, &[6]byte{7, 8, 9, 10, 11, 12}, 0x86dd); !bytes.Equal(f, unhex("0102030405060708090a0b0c86ddee")) {
		t.Errorf("Ethernet: %x", f)
	}
}

// TestARPIsLookedAt: each byte that says what the message is counts, and none
// is read behind its end.
func TestARPIsLookedAt(t *testing.T) {
	good := make([]byte, 60)
	want := ARPMessage{Op: ARPRequest, SenderMAC: [6]byte{7, 8, 9, 10, 11, 12}, SenderAddr: 0x0d0e0f10, TargetMAC: [6]byte{17, 18, 19, 20, 21, 22}, TargetAddr: 0x1718191a}
	PutARP(good, &[6]byte{}, &want)
	for n := range good {
		var m ARPMessage
		if got := ParseARP(good[:n:n], &m); got != (n >= 42) || got && m != want {
			t.Errorf("%d bytes: %v, %+v", n, got, m)
		}
	}
	for i := EthLen; i < EthLen+8; i++ {
		for v := range 256 {
			f := bytes.Clone(good)
			f[i] = byte(v)
			ok := f[i] == good[i] || i == EthLen+7 && (v == ARPRequest || v == ARPReply)
			if ParseARP(f, new(ARPMessage)) != ok {
				t.Errorf("byte %d is %d: accepted %v", i, v, !ok)
			}
		}
	}
}

// TestHeaderFields: each field changed alone, to what it was and to each end,
// and the checksum right.
func TestHeaderFields(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 9))
	for range 200 {
		good := build(Addr(r.Uint32()), Addr(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), nil, random(r, 10), -1)[EthLen:]
		copy(good[4:8], random(r, 4))
		good[1] = byte(r.Uint32())
		binary.BigEndian.PutUint16(good[offSum:], 0)
		binary.BigEndian.PutUint16(good[offSum:], ^slowSum(good[:MinIPv4], 0))
		if TOS(good) != good[1] {
			t.Fatal("TOS")
		}
		v := uint16(edge(r))
		for _, c := range []struct {
			what string
			set  func(ip []byte)
			want func(ip []byte)
		}{
			{"DF", SetDF, func(ip []byte) { ip[6] |= 0x40 }},
			{"ID", func(ip []byte) { SetID(ip, v) }, func(ip []byte) { ip[4], ip[5] = byte(v>>8), byte(v) }},
			{"TOS", func(ip []byte) { SetTOS(ip, byte(v)) }, func(ip []byte) { ip[1] = byte(v) }},
		} {
			got, want := bytes.Clone(good), bytes.Clone(good)
			c.set(got)
			c.want(want)
			if slowSum(got[:MinIPv4], 0) != 0xffff {
				t.Fatalf("%s: %x has a wrong checksum", c.what, got)
			}
			copy(want[offSum:], got[offSum:offSum+2])
			if !bytes.Equal(got, want) {
				t.Fatalf("%s:\n%x\n%x", c.what, got, want)
			}
		}
	}
	for _, want := range []uint16{0x1234, 0} { // an identification
		ip := build(1, 2, 3, 4, nil, nil, -1)[EthLen:]
		if SetID(ip, want); FragmentID(append(make([]byte, EthLen), ip...)) != want {
			t.Errorf("%x", ip)
		}
	}
}

// TestRFC5508_REQ3_Quotes: what an ICMP error may quote, of each length and with
// each number in it that says what it is.
func TestRFC5508_REQ3_Quotes(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 9))
	sums := func(ip []byte) []byte {
		hl := max(min(int(ip[0]&15)*4, len(ip)), MinIPv4)
		binary.BigEndian.PutUint16(ip[offSum:], 0)
		binary.BigEndian.PutUint16(ip[offSum:], ^slowSum(ip[:hl], 0))
		return ip
	}
	for _, proto := range []uint8{TCP, UDP, ICMP} {
		for _, nopts := range []int{0, 4, 40} {
			full := made(r, proto, make([]byte, nopts), 64, func(l4 []byte) {
				if proto == ICMP {
					l4[0] = []byte{EchoRequest, EchoReply}[r.IntN(2)]
				}
			})[EthLen:]
			hl := MinIPv4 + nopts
			for n := range full {
				b := bytes.Clone(full[:n])
				var p Packet
				got := ParseEmbedded(b[:n:n], &p)
				if got != (n >= hl+8) {
					t.Fatalf("protocol %d, %d bytes of options, %d quoted: %v", proto, nopts, n, got)
				}
				if !got {
					continue
				}
				l4 := full[hl:]
				want := Packet{Src: Addr(binary.BigEndian.Uint32(full[12:])), Dst: Addr(binary.BigEndian.Uint32(full[16:])), Proto: proto, L4: uint16(hl)}
				switch proto {
				case TCP:
					want.Class = ClassTCP
				case UDP:
					want.Class = ClassUDP
				case ICMP:
					want.Class = ClassICMPQuery
					want.SrcPort = binary.BigEndian.Uint16(l4[4:])
					want.DstPort = want.SrcPort
				}
				if proto != ICMP {
					want.SrcPort, want.DstPort, want.Seq = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]), binary.BigEndian.Uint32(l4[4:])
				}
				if p != want {
					t.Fatalf("%+v, want %+v", p, want)
				}
				// Translated: the header's checksum is right, the transport's where
				// it is quoted whole, and nothing else changes.
				to := Rewrite{Src: edge(r), Dst: edge(r), SrcPort: uint16(edge(r)), DstPort: uint16(edge(r))}
				RewriteEmbedded(b, &p, &to)
				exp := bytes.Clone(full[:n])
				binary.BigEndian.PutUint32(exp[offSrc:], uint32(to.Src))
				binary.BigEndian.PutUint32(exp[offDst:], uint32(to.Dst))
				off := map[uint8]int{TCP: offTCPSum, UDP: 6, ICMP: 2}[proto]
				if proto == ICMP {
					binary.BigEndian.PutUint16(exp[hl+4:], to.SrcPort)
				} else {
					binary.BigEndian.PutUint16(exp[hl:], to.SrcPort)
					binary.BigEndian.PutUint16(exp[hl+2:], to.DstPort)
				}
				if sums(exp); hl+off+2 <= n {
					whole := append(bytes.Clone(exp), full[n:]...)
					s := ^slowSum(append(bytes.Clone(whole[hl:hl+off]), whole[hl+off+2:]...), pseudoOf(to.Src, to.Dst, proto, 64))
					if proto == UDP && s == 0 {
						s = 0xffff
					}
					binary.BigEndian.PutUint16(exp[hl+off:], s)
				}
				normal(b, &p)
				normal(exp, &p)
				if !bytes.Equal(b, exp) {
					t.Fatalf("protocol %d, %d quoted:\n%x\n%x", proto, n, b, exp)
				}
			}
			for vihl := range 256 {
				b := bytes.Clone(full)
				b[0] = byte(vihl)
				if ok := ParseEmbedded(sums(b), new(Packet)); ok && (vihl>>4 != 4 || vihl&15 < 5) {
					t.Fatalf("first byte %#x: accepted", vihl)
				}
			}
			for bit := range 16 {
				b := bytes.Clone(full)
				binary.BigEndian.PutUint16(b[offFrag:], 1<<bit)
				if ok := ParseEmbedded(sums(b), new(Packet)); ok != (bit >= 13) { // the first fragment is good enough
					t.Fatalf("bit %d of the fragment field: %v", bit, ok)
				}
			}
		}
	}
	for proto := range 256 {
		b := made(r, uint8(proto), nil, 40, func(l4 []byte) { l4[0] = EchoRequest })[EthLen:]
		if ok := ParseEmbedded(b, new(Packet)); ok != (proto == TCP || proto == UDP || proto == ICMP) {
			t.Fatalf("protocol %d: %v", proto, ok)
		}
	}
	for typ := range 256 {
		b := made(r, ICMP, nil, 8, func(l4 []byte) { l4[0] = byte(typ) })[EthLen:]
		if ok := ParseEmbedded(b, new(Packet)); ok != (typ == EchoRequest || typ == EchoReply) {
			t.Fatalf("type %d: %v", typ, ok)
		}
	}
}

// TestRFC9293_Reset pins the segments that answer: what is acknowledged follows
// from each flag and from the data.
func TestRFC9293_Reset(t *testing.T) {
	for _, c := range []struct {
		flags    byte
		n        int
		seq, ack uint32
		want     byte
	}{
		{ACK, 0, 0x05060708, 0, RST}, {ACK | SYN | FIN, 9, 0x05060708, 0, RST}, {0xff, 9, 0x05060708, 0, RST},
		{0, 0, 0, 0xfffffffe, RST | ACK}, {0, 1, 0, 0xffffffff, RST | ACK}, {0, 1460, 0, 1458, RST | ACK},
		{SYN, 0, 0, 0xffffffff, RST | ACK}, {FIN, 0, 0, 0xffffffff, RST | ACK}, {SYN | FIN, 0, 0, 0, RST | ACK}, {SYN | FIN, 7, 0, 7, RST | ACK},
		{PSH | RST | URG, 0, 0, 0xfffffffe, RST | ACK},
	} {
		l4 := unhex("04d20050fffffffe0506070850001000aaaabbbb")
		l4[13] = c.flags
		m := bytes.Repeat([]byte{0xee}, 22)
		PutReset(m, l4, c.n, 0x0a000002, 0xc6336450)
		want := append(unhex("005004d2"), make([]byte, 16)...)
		binary.BigEndian.PutUint32(want[4:], c.seq)
		binary.BigEndian.PutUint32(want[8:], c.ack)
		want[12], want[13] = 0x50, c.want
		binary.BigEndian.PutUint16(want[16:], ^slowSum(want, pseudoOf(0x0a000002, 0xc6336450, TCP, 20)))
		if want = append(want, 0xee, 0xee); !bytes.Equal(m, want) {
			t.Errorf("%+v:\n%x\n%x", c, m, want)
		}
	}
}
