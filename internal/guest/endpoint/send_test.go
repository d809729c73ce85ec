package endpoint

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/thurward/thurward/internal/guest/framebuf"
	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
)

// TestUDPSum compares with a sum word by word (RFC 768), at all lengths, and finds
// messages whose sum would be zero, which stands for none.
func TestUDPSum(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	zeros := 0
	for i := range 20_000 {
		msg := make([]byte, i%40)
		for j := range msg {
			msg[j] = byte(r.Uint32())
		}
		src, dst, sport, dport := packet.Addr(r.Uint32()), packet.Addr(r.Uint32()), uint16(r.Uint32()), uint16(r.Uint32())
		b := binary.BigEndian.AppendUint32(nil, uint32(src))
		b = binary.BigEndian.AppendUint32(b, uint32(dst))
		n := uint16(8 + len(msg))
		for _, w := range []uint16{17, n, sport, dport, n, 0} {
			b = binary.BigEndian.AppendUint16(b, w)
		}
		sum := uint64(0)
		for b = append(append(b, msg...), 0); len(b) >= 2; b = b[2:] {
			sum += uint64(b[0])<<8 | uint64(b[1])
		}
		sum %= 0xffff
		want := uint16(0xffff - sum)
		if sum == 0 {
			want = 0xffff // 0 as one's complement has it twice
			zeros++
		}
		if got := udpSum(src, sport, dst, dport, msg); got != want {
			t.Fatalf("%x: sum %04x, want %04x", msg, got, want)
		}
		// The same with its last word such that the sum is zero.
		if len(msg) >= 2 && len(msg)%2 == 0 {
			binary.BigEndian.PutUint16(msg[len(msg)-2:], 0)
			binary.BigEndian.PutUint16(msg[len(msg)-2:], udpSum(src, sport, dst, dport, msg))
			if got := udpSum(src, sport, dst, dport, msg); got != 0xffff {
				t.Fatalf("%x: sum %04x, want ffff", msg, got)
			}
			zeros++
		}
	}
	if zeros < 1000 {
		t.Errorf("%d sums of zero", zeros)
	}
}

// TestDatagramsFit: a message that fits a buffer is sent, and no longer one; without a
// buffer none is.
func TestDatagramsFit(t *testing.T) {
	l := newLab(t, nil)
	room := len(l.pool.Buffer(0)) - headroom - packet.EthLen - packet.MinIPv4 - packet.UDPLen
	for _, n := range []int{0, 1, room, room + 1} {
		l.sendUDP(LAN, ip(lanAddr), 53, ip(client), 4000, make([]byte, n))
		if s := l.taken(); n <= room && (len(s) != 1 || int(s[0].Total) != 28+n || s[0].to != LAN || !s[0].DF || s[0].SrcPort != 53) || n > room && len(s) != 0 {
			t.Errorf("a message of %d bytes of %d: %v", n, room, s)
		}
	}
	for {
		if _, ok := l.pool.Get(); !ok {
			break
		}
	}
	l.sendUDP(LAN, ip(lanAddr), 53, ip(client), 4000, []byte("x"))
	if l.SendSegment(LAN, &tcp.Segment{Tuple: tcp.Tuple{Local: ip(lanAddr), Remote: ip(client)}}) || len(l.taken()) != 0 {
		t.Error("something was sent without a buffer")
	}
}

// TestSegments: a SYN has its MSS and no other segment has one; lengths and numbers
// are in their places.
func TestSegments(t *testing.T) {
	l := newLab(t, nil)
	s := tcp.Segment{Tuple: tcp.Tuple{Local: ip(wanAddr), Remote: ip(upstream), LocalPort: 4001, RemotePort: 853}, Seq: 0x01020304, Ack: 0x05060708, Flags: packet.SYN, Window: 0x090a}
	for _, mss := range []uint16{0, 1, 1460} {
		for _, data := range []string{"", "x", "some data"} {
			s.MSS, s.Data = mss, []byte(data)
			if !l.SendSegment(WAN, &s) {
				t.Fatal("not sent")
			}
			v := l.taken()[0]
			h := v.frame[v.L4:]
			head := 20
			if mss != 0 {
				head = 24
				if got := [4]byte(h[20:]); got != [4]byte{2, 4, byte(mss >> 8), byte(mss)} {
					t.Errorf("options %x", got)
				}
			}
			if int(h[12]>>4)*4 != head || h[12]&15 != 0 || string(h[head:]) != data || v.Seq != s.Seq || v.Ack != s.Ack || v.Flags != s.Flags || v.Window != s.Window || !v.DF || v.TTL != 64 ||
				v.SrcPort != 4001 || v.DstPort != 853 || v.Src != ip(wanAddr) || v.to != WAN || binary.BigEndian.Uint16(h[18:]) != 0 {
				t.Errorf("%+v became %x", s, h)
			}
		}
	}
}

// TestReply: an echo reply has the data, identifier and TOS of its request, no options, and
// is sent from the request's destination.
func TestReply(t *testing.T) {
	l := newLab(t, nil)
	for _, options := range []int{0, 4, 40} {
		for _, n := range []int{0, 1, 56, 1400} {
			f := make([]byte, packet.EthLen+packet.MinIPv4+options+packet.ICMPLen+n)
			buf, _ := l.pool.Get()
			h := f[packet.EthLen:]
			m := h[packet.MinIPv4+options:]
			m[0] = packet.EchoRequest
			binary.BigEndian.PutUint16(m[4:], 0x1234)
			for i := range m[8:] {
				m[8+i] = byte(i)
			}
			packet.FinishICMP(m)
			packet.PutIPv4(h, ip(client), ip(lanAddr), packet.ICMP, 7, options+len(m))
			for i := range options {
				h[packet.MinIPv4+i] = 1 // no operation
			}
			h[0] = 4<<4 | byte(5+options/4)
			packet.SetTOS(h, 0x28)
			binary.BigEndian.PutUint16(h[10:], 0)
			binary.BigEndian.PutUint16(h[10:], ^packet.Sum(h[:packet.MinIPv4+options], 0))
			packet.SetType(f, packet.TypeIPv4)
			fr := framebuf.Frame{Buf: buf, Len: uint32(copy(l.pool.Buffer(buf)[headroom:], f))}
			var p packet.Packet
			if _, why := packet.ParseIPv4(f, &p); why != 0 || l.ServiceOf(&p, LAN) != Echo {
				t.Fatalf("%d options, %d bytes: %v", options, n, why)
			}
			l.Reply(&p, fr, LAN)
			v := l.taken()[0]
			r := v.frame[v.L4:]
			if v.ICMPType != packet.EchoReply || v.Src != ip(lanAddr) || v.Dst != ip(client) || v.to != LAN || v.TTL != 64 || int(v.L4) != packet.EthLen+packet.MinIPv4 ||
				v.frame[packet.EthLen+1] != 0x28 || string(r[4:]) != string(m[4:]) || binary.BigEndian.Uint16(v.frame[packet.EthLen+4:]) != l.ids {
				t.Errorf("%d options, %d bytes: %+v", options, n, v)
			}
		}
	}
}

// TestServices: what the firewall offers, by side, protocol and port, with upstreams and
// without.
func TestServices(t *testing.T) {
	for _, dns := range []bool{true, false} {
		l := newLab(t, func(p *ruleset.Policy) {
			if !dns {
				p.Upstreams = nil
			}
		})
		for _, x := range []struct {
			p    packet.Packet
			from Side
			want Service
		}{
			{packet.Packet{Class: packet.ClassICMPQuery, ICMPType: packet.EchoRequest}, LAN, Echo}, {packet.Packet{Class: packet.ClassICMPQuery, ICMPType: packet.EchoRequest}, WAN, Echo},
			{packet.Packet{Class: packet.ClassICMPQuery, ICMPType: packet.EchoReply}, LAN, NoService}, {packet.Packet{Class: packet.ClassICMPQuery, ICMPType: packet.EchoRequest, ICMPCode: 1}, LAN, NoService},
			{packet.Packet{Class: packet.ClassICMPError, ICMPType: packet.EchoRequest}, LAN, NoService},
			{packet.Packet{Class: packet.ClassUDP, DstPort: 53}, LAN, DNSOverUDP}, {packet.Packet{Class: packet.ClassTCP, DstPort: 53}, LAN, DNSOverTCP},
			{packet.Packet{Class: packet.ClassUDP, DstPort: 53}, WAN, NoService}, {packet.Packet{Class: packet.ClassTCP, DstPort: 53}, WAN, NoService},
			{packet.Packet{Class: packet.ClassUDP, DstPort: 54}, LAN, NoService}, {packet.Packet{Class: packet.ClassTCP, DstPort: 54}, LAN, NoService},
			{packet.Packet{Class: packet.ClassOther, DstPort: 53}, LAN, NoService},
		} {
			want := x.want
			if !dns && want > Echo {
				want = NoService
			}
			if got := l.ServiceOf(&x.p, x.from); got != want {
				t.Errorf("%+v from %d, upstreams %v: %d, want %d", x.p, x.from, dns, got, want)
			}
		}
	}
}
