package router

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/guest/sni"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// helloRetry is a server's answer that asks for another hello.
var helloRetry = append([]byte{22, 3, 3, 0, 88, 2, 0, 0, 84, 3, 3,
	0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91, 0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C},
	make([]byte, 50)...)

// TestSNISecondMessage: a server may ask for the first message again, and takes
// the name from that (RFC 8446 section 4.1.2; OpenSSL does).
func TestSNISecondMessage(t *testing.T) {
	retry := helloRetry
	ccs := []byte("\x14\x03\x03\x00\x01\x01")
	asked := func(t *testing.T) *talk {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		if across, back := k.answers(len(k.good), retry); len(across) != 1 || len(back) != 0 {
			t.Fatalf("%v, %v", across, back)
		}
		return k
	}
	final := func(k *talk, n int) (across, back []*view) {
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001+uint32(len(retry)), 1001+uint32(n))
		p.data = serverHello
		return k.put(wan, p)
	}
	t.Run("another name", func(t *testing.T) {
		k := asked(t)
		k.nothing(k.first(len(k.good), k.evil))
		k.ended("another name")
	})
	t.Run("another name that may pass", func(t *testing.T) {
		k := asked(t)
		k.nothing(k.first(len(k.good), clientHello(t, "raw.githubusercontent.com")))
		k.ended("another name")
	})
	t.Run("something else", func(t *testing.T) {
		k := asked(t)
		k.nothing(k.first(len(k.good), []byte{23, 3, 3, 0, 5}))
		k.ended("data")
	})
	t.Run("the same name", func(t *testing.T) {
		for _, before := range [][]byte{nil, ccs} {
			k := asked(t)
			second := append(bytes.Clone(before), clientHello(t, "github.com")...)
			k.nothing(k.first(len(k.good), second[:500]))
			across, _ := k.put(lan, k.first(len(k.good)+500, second[500:]))
			if len(across) != 2 {
				t.Fatalf("%v; drops %s", across, k.drops())
			}
			k.nothing(k.first(len(k.good)+len(second), []byte("early")))
			final(k, len(k.good)+len(second))
			k.one(lan, k.first(len(k.good)+len(second), []byte("finished")))
			if k.e.c.ServerNamesAccepted != 1 || k.e.sni.Any() {
				t.Fatalf("%d accepted", k.e.c.ServerNamesAccepted)
			}
		}
	})
	t.Run("the second one dies", func(t *testing.T) {
		k := asked(t)
		k.one(lan, k.first(len(k.good), clientHello(t, "github.com")))
		k.nothing(k.first(len(k.good), k.evil))
		k.ended("other bytes at the same place")
	})
	t.Run("asked twice", func(t *testing.T) {
		k := asked(t)
		second := clientHello(t, "github.com")
		k.one(lan, k.first(len(k.good), second))
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001+uint32(len(retry)), 1001+uint32(len(k.good)+len(second)))
		p.data = retry
		k.refused(p)
		k.ended("no server asks twice")
	})
	t.Run("in small segments", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		for i, b := range retry[:60] {
			p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001+uint32(i), 1001+uint32(len(k.good)))
			p.data = []byte{b}
			k.one(wan, p)
			k.one(wan, p)
		}
		k.nothing(k.first(len(k.good), k.evil))
		k.ended("another name")
	})
	t.Run("after early data", func(t *testing.T) {
		k := newTalk(t)
		m := withEarlyData(k.good)
		k.one(lan, k.first(0, m))
		k.one(lan, k.first(len(m), append(bytes.Clone(ccs), 23, 3, 3, 0, 1, 0)))
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001, 1001+uint32(len(m)))
		p.data = retry
		k.refused(p)
		k.ended("what follows early data is not looked at")
	})
}

// withEarlyData adds the early_data extension to a hello in one record.
func withEarlyData(m []byte) []byte {
	m = append(bytes.Clone(m), 0, 42, 0, 0)
	at := 5 + 4 + 2 + 32
	at += 1 + int(m[at])
	at += 2 + int(binary.BigEndian.Uint16(m[at:]))
	at += 1 + int(m[at])
	binary.BigEndian.PutUint16(m[at:], binary.BigEndian.Uint16(m[at:])+4)
	binary.BigEndian.PutUint16(m[3:], binary.BigEndian.Uint16(m[3:])+4)
	binary.BigEndian.PutUint16(m[7:], binary.BigEndian.Uint16(m[7:])+4)
	return m
}

// TestSNIWhatFollows: what may stand behind the message before the server has
// answered.
func TestSNIWhatFollows(t *testing.T) {
	k := newTalk(t)
	k.nothing(k.first(0, append(bytes.Clone(k.good), k.evil[:100]...)))
	k.ended("a second hello in the same segment")

	k = newTalk(t)
	k.one(lan, k.first(0, k.good))
	k.nothing(k.first(len(k.good), k.evil))
	k.nothing(k.first(len(k.good)+10, k.evil))
	k.nothing(k.first(len(k.good)-100, append(bytes.Clone(k.good[len(k.good)-100:]), k.evil...)))
	if k.e.flows.Len() != 1 {
		t.Fatal("what comes too early has ended the connection")
	}

	// With early data.
	early := []byte{20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 100}
	k = newTalk(t)
	m := withEarlyData(k.good)
	k.one(lan, k.first(0, append(bytes.Clone(m), early...)))
	k.one(lan, k.first(len(m)+len(early), make([]byte, 1000)))
	k.one(lan, k.first(len(m)-10, append(append(bytes.Clone(m[len(m)-10:]), early...), 0, 0)))
	k.nothing(k.first(len(m), k.evil))
	k.ended("another hello in its place")
	k = newTalk(t)
	m = withEarlyData(k.good)
	k.nothing(k.first(0, append(bytes.Clone(m), k.evil[:100]...)))
	k.ended("another hello in place of early data")
}

// TestSNIOrder: segments of the message may come in any order, again, and
// overlapping, as long as they agree.
func TestSNIOrder(t *testing.T) {
	k := newTalk(t)
	k.nothing(k.first(900, k.good[900:]))
	k.nothing(k.first(300, k.good[300:700]))
	k.nothing(k.first(600, k.good[600:900]))
	k.nothing(k.first(300, k.good[300:900]))
	if k.e.c.ServerNameRepeats != 1 || k.e.c.DropReasons[verdict.SNIRepeated] != 1 {
		t.Fatalf("%d repeated", k.e.c.ServerNameRepeats)
	}
	across, _ := k.put(lan, k.first(0, k.good[:310]))
	var got []byte
	next := uint32(1001)
	for _, v := range across {
		if int32(v.Seq-next) > 0 {
			t.Fatalf("out of order: %v", across)
		}
		got = append(got, v.frame[len(v.frame)-int(v.Payload)+int(next-v.Seq):]...)
		next = v.Seq + uint32(v.Payload)
	}
	if !bytes.Equal(got, k.good) {
		t.Fatalf("%d bytes in %d segments; drops %s", len(got), len(across), k.drops())
	}
	k.invariants()

	// An overlap with other bytes.
	k = newTalk(t)
	k.nothing(k.first(300, k.good[300:700]))
	k.nothing(k.first(200, k.evil[200:400]))
	k.ended("an overlap with other bytes")

	// One byte at a time it would take too many segments.
	k = newTalk(t)
	for i := range sni.MaxSegments + 1 {
		k.nothing(k.first(i, k.good[i:i+1]))
	}
	k.ended("one byte at a time")

	// What lies too far ahead waits for what lies before.
	k = newTalk(t)
	k.nothing(k.first(6000, make([]byte, 400)))
	k.nothing(k.first(60000, make([]byte, 400)))
	k.one(lan, k.first(0, k.good))

	// What lies behind a gap does not go on.
	k = newTalk(t)
	k.nothing(k.first(len(k.good)+10, k.evil))
	if across, _ := k.put(lan, k.first(0, k.good)); len(across) != 1 || int(across[0].Payload) != len(k.good) {
		t.Fatalf("%v", across)
	}
	k.invariants()

	// Two segments in one batch, and three clients' between them.
	k = newTalk(t)
	k.resolve("10.0.0.3", "raw.githubusercontent.com", "@ 300 IN A "+cdn)
	for i := range uint16(3) {
		k.handshake("10.0.0.3", 6000+i, cdn, 443)
	}
	put := func(p pkt) { k.lab.port[lan].in = append(k.lab.port[lan].in, p.frame(lanMAC)) }
	put(k.first(0, k.good[:500]))
	for i := range uint16(3) {
		p := tcpSeg("10.0.0.3", 6000+i, cdn, 443, packet.ACK, 1001, 5001)
		p.data = k.good
		put(p)
	}
	put(k.first(500, k.good[500:]))
	put(k.first(500, k.good[500:]))
	k.run()
	n := 0
	for _, v := range k.taken(wan) {
		if v.SrcPort == k.ext {
			n++
		} else if v.Payload > 0 {
			t.Fatalf("of a client that has not resolved the name: %v", v)
		}
	}
	if n != 3 {
		t.Fatalf("%d segments crossed; drops %s", n, k.drops())
	}
}
