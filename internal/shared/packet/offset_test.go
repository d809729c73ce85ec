package packet

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestDataOffset: a TCP header of every length that its data offset can give, with every
// number of bytes behind the fixed header, on the long way and the short one. Below 5
// words, and behind the end, it is malformed, and nothing is read at what is not there.
func TestDataOffset(t *testing.T) {
	for n := range 60 {
		for off := range byte(16) {
			l4 := make([]byte, TCPLen+n)
			binary.BigEndian.PutUint16(l4, 1234)
			binary.BigEndian.PutUint16(l4[2:], 80)
			l4[12], l4[13] = off<<4|5, ACK // reserved bits beside it
			f := build(0x0a000002, 0xc6336450, TCP, 64, nil, l4, 16)
			f = f[:len(f):len(f)]
			good := off >= 5 && int(off)*4 <= len(l4)
			var p, q Packet
			ln, why := ParseIPv4(f, &p)
			if good != (why == 0) || !good && why != verdict.MalformedPacket || good && (ln != len(f) || int(p.Payload) != len(l4)-int(off)*4) {
				t.Fatalf("offset %d of %d bytes: %v, length %d, payload %d", off, len(l4), why, ln, p.Payload)
			}
			var k Tuple
			ln = FastKey(f, MAC([6]byte(f)), &k)
			if good != (ln == len(f)) || !good && ln != 0 {
				t.Fatalf("offset %d of %d bytes: the short way says %d", off, len(l4), ln)
			}
			if good {
				if ParseFast(f, &k, &q); p != q {
					t.Fatalf("offset %d of %d bytes: %+v and %+v", off, len(l4), p, q)
				}
			}
		}
	}
}

// TestShortTransport: transport headers cut at every byte.
func TestShortTransport(t *testing.T) {
	for proto, size := range map[uint8]int{TCP: TCPLen, UDP: UDPLen, ICMP: ICMPLen} {
		off := map[uint8]int{TCP: 16, UDP: 6, ICMP: 2}[proto]
		for n := range size + 2 {
			l4 := make([]byte, max(n, off+2))
			l4[1], l4[3] = 9, 9
			switch {
			case proto == TCP && n > 12:
				l4[12] = 0x50
			case proto == UDP && n > 5:
				l4[5] = byte(n)
			case proto == ICMP:
				l4[0], l4[1] = EchoRequest, 0
			}
			f := build(0x0a000002, 0xc6336450, proto, 64, nil, l4[:n], -1)
			if n >= off+2 {
				f = build(0x0a000002, 0xc6336450, proto, 64, nil, l4[:n], off)
			}
			var p Packet
			var k Tuple
			_, why := ParseIPv4(f, &p)
			ln := FastKey(f[:len(f):len(f)], MAC([6]byte(f)), &k)
			if (why == 0) != (n >= size) || n < size && ln != 0 {
				t.Errorf("protocol %d, %d bytes: %v, the short way says %d", proto, n, why, ln)
			}
		}
	}
}

// TestClampMSSOddOptions: each way in which the options of a SYN can end, be cut
// off or lie about their length. Nothing behind them is changed, and none of them
// holds up.
func TestClampMSSOddOptions(t *testing.T) {
	const limit = 1000
	for _, c := range []struct {
		o, want []byte // nil: unchanged
	}{
		{[]byte{2, 4, 5, 180}, []byte{2, 4, 3, 232}},
		{[]byte{2, 4, 3, 232}, nil},
		{[]byte{2, 4, 3, 233}, []byte{2, 4, 3, 232}},
		{[]byte{2, 4, 3, 231}, nil},
		{[]byte{2, 0, 5, 180}, nil}, // would be the same option for ever
		{[]byte{2, 1, 5, 180}, nil},
		{[]byte{2, 2, 5, 180}, nil},
		{[]byte{2, 3, 5, 180}, nil},
		{[]byte{2, 5, 5, 180}, nil},
		{[]byte{2, 5, 5, 180, 0, 0, 0, 0}, nil},
		{[]byte{1, 2, 4, 5}, nil}, // its last byte is data
		{[]byte{1, 1, 2, 4}, nil},
		{[]byte{1, 1, 1, 2}, nil},
		{[]byte{0, 2, 4, 5, 180, 0, 0, 0}, nil},
		{[]byte{8, 0, 2, 4, 5, 180, 0, 0}, nil},
		{[]byte{8, 1, 2, 4, 5, 180, 0, 0}, nil},
		{[]byte{8, 2, 2, 4, 5, 180, 0, 0}, []byte{8, 2, 2, 4, 3, 232, 0, 0}},
		{[]byte{8, 8, 2, 4, 5, 180, 0, 0}, nil},
		{[]byte{8, 9, 2, 4, 5, 180, 0, 0}, nil},
		{[]byte{8, 255, 2, 4, 5, 180, 0, 0}, nil},
		{[]byte{1, 2, 4, 5, 180, 1, 1, 1}, []byte{1, 2, 4, 3, 232, 1, 1, 1}},
		{[]byte{2, 4, 5, 180, 2, 4, 255, 255}, []byte{2, 4, 3, 232, 2, 4, 3, 232}},
	} {
		l4 := append(append(make([]byte, TCPLen), c.o...), 2, 4, 5, 180, 2, 4, 5, 180) // data that look like options
		l4[12], l4[13] = byte((TCPLen+len(c.o))/4)<<4, SYN
		binary.BigEndian.PutUint16(l4[offTCPSum:], ^Sum(l4, 0))
		want := bytes.Clone(l4)
		if c.want != nil {
			copy(want[TCPLen:], c.want)
			binary.BigEndian.PutUint16(want[offTCPSum:], 0)
			binary.BigEndian.PutUint16(want[offTCPSum:], ^Sum(want, 0))
		}
		done := make(chan bool, 1)
		go func() { done <- ClampMSS(l4, limit) }()
		select {
		case lowered := <-done:
			if lowered != (c.want != nil) || !bytes.Equal(l4, want) {
				t.Errorf("%v became %v, %v", c.o, l4[TCPLen:], lowered)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%v: does not end", c.o)
		}
	}
}
