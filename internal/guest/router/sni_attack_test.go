package router

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A talk is a connection of a client to a server whose name must be known.
type talk struct {
	*dnsLab
	ext        uint16 // external port
	good, evil []byte // first messages: of a name that may pass, and of one that may not
}

func newTalk(t testing.TB) *talk {
	l := sniLab(t)
	k := &talk{dnsLab: l, good: clientHello(t, "github.com"), evil: clientHello(t, "evil.example")}
	n := min(len(k.good), len(k.evil))
	if n < 1000 {
		t.Fatalf("a first message of %d bytes", n)
	}
	k.ext = l.handshake(host, 5000, cdn, 443)
	return k
}

// first is a segment of the client's with data that begin at place at of its
// stream.
func (k *talk) first(at int, data []byte) pkt {
	p := tcpSeg(host, 5000, cdn, 443, packet.ACK|packet.PSH, 1001+uint32(at), 5001)
	p.data = data
	return p
}

// answers has the server acknowledge n bytes of the stream and send data.
func (k *talk) answers(n int, data []byte) (across, back []*view) {
	p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001, 1001+uint32(n))
	p.data = data
	return k.put(wan, p)
}

// nothing requires that a packet of the client's does not cross with data.
func (k *talk) nothing(p pkt) {
	k.t.Helper()
	across, _ := k.put(lan, p)
	for _, v := range across {
		if v.Payload > 0 {
			k.t.Fatalf("%d bytes of %v crossed", v.Payload, v)
		}
	}
}

// refused requires that a packet of the server's ends the connection: of it nothing
// but a RST reaches the client.
func (k *talk) refused(p pkt) {
	k.t.Helper()
	before := k.e.c.DropReasons[verdict.SNIRefused]
	across, _ := k.put(wan, p)
	if len(across) != 1 || across[0].Flags&packet.RST == 0 || across[0].Payload != 0 || k.e.c.DropReasons[verdict.SNIRefused] != before+1 {
		k.t.Fatalf("%v; drops %s", across, k.drops())
	}
}

// ended requires that the connection has been refused: whatever the client says
// now is dropped.
func (k *talk) ended(what string) {
	k.t.Helper()
	if k.e.flows.Len() != 0 {
		k.t.Fatalf("%s: the connection goes on", what)
	}
	k.invariants()
}

// TestSNISYNWithData: data in a segment with SYN or RST is not read in the place where it
// stands.
func TestSNISYNWithData(t *testing.T) {
	t.Run("after the handshake", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(-1, k.good)
		p.flags = packet.SYN
		k.dropped(lan, p, verdict.SNIRefused)
		p.flags = packet.SYN | packet.ACK
		k.dropped(lan, p, verdict.SNIRefused)
		k.nothing(k.first(0, k.evil))
		k.ended("another name follows")
	})
	t.Run("at the stream's beginning", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good)
		p.flags = packet.SYN
		k.dropped(lan, p, verdict.SNIRefused)
		k.nothing(k.first(0, k.evil))
		k.ended("another name follows")
	})
	t.Run("the first SYN again", func(t *testing.T) {
		l := sniLab(t)
		v := l.one(lan, tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0))
		p := tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0)
		p.data = clientHello(t, "github.com")
		l.dropped(lan, p, verdict.SNIRefused)
		// Without data it may be retransmitted, and the connection is established.
		l.one(lan, tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0))
		l.one(wan, tcpSeg(cdn, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001))
		l.dropped(lan, p, verdict.SNIRefused)
		l.one(lan, tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001))
		across, _ := l.says(5000, 1001, p.data)
		if len(across) != 1 || int(across[0].Payload) != len(p.data) {
			t.Fatalf("%v; drops %s", across, l.drops())
		}
	})
	t.Run("RST", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good)
		p.flags = packet.RST | packet.ACK
		k.dropped(lan, p, verdict.SNIRefused)
		p.data = nil
		k.one(lan, p) // without data it ends the connection
	})
	t.Run("the server's SYN", func(t *testing.T) {
		l := sniLab(t)
		v := l.one(lan, tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0))
		p := tcpSeg(cdn, 443, ours, v.SrcPort, packet.SYN|packet.ACK, 5000, 1001)
		p.data = []byte("early")
		l.dropped(wan, p, verdict.SNIRefused)
		p.data = nil
		l.one(wan, p)
	})
	t.Run("fast open", func(t *testing.T) {
		// Neither does a client get a cookie for it, nor is one passed on.
		l := sniLab(t)
		p := tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0)
		p.opts = []byte{2, 4, 5, 0xb4, 34, 2, 1, 1}
		v := l.one(lan, p)
		if got := v.frame[v.L4+packet.TCPLen:]; !bytes.Equal(got, []byte{2, 4, 5, 0xb4, 1, 1, 1, 1}) {
			t.Fatalf("options %v", got)
		}
		// Where no name is asked for it is.
		v = newLab(t, "accept egress", established).one(lan, p)
		if got := v.frame[v.L4+packet.TCPLen:]; !bytes.Equal(got, p.opts) {
			t.Fatalf("options %v", got)
		}
	})
}

// TestSNIFirstMessageDies: the message that is read here is the one that the
// server reads.
func TestSNIFirstMessageDies(t *testing.T) {
	t.Run("TTL", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good)
		p.ttl = 2
		if v := k.one(lan, p); v.TTL < 64 {
			t.Fatalf("it left with TTL %d", v.TTL)
		}
		k.nothing(k.first(0, k.evil))
		k.ended("another name at the same place")
	})
	t.Run("an honest TTL stays", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good)
		p.ttl = 128
		if v := k.one(lan, p); v.TTL != 127 {
			t.Fatalf("it left with TTL %d", v.TTL)
		}
	})
	t.Run("one byte", func(t *testing.T) {
		for _, at := range []int{0, 1, 600, -1} {
			k := newTalk(t)
			k.one(lan, k.first(0, k.good))
			b := bytes.Clone(k.good)
			if at < 0 {
				at = len(b) - 1
			}
			b[at] ^= 1
			k.nothing(k.first(at, b[at:at+1]))
			k.ended("another byte")
		}
	})
	t.Run("the same again", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.one(lan, k.first(0, k.good))
		k.one(lan, k.first(0, k.good[:300]))
		k.one(lan, k.first(300, k.good[300:]))
		p := k.first(len(k.good)-1, k.good[len(k.good)-1:])
		p.ttl = 2
		if v := k.one(lan, p); v.TTL < 64 {
			t.Fatalf("a repetition left with TTL %d", v.TTL)
		}
		k.invariants()
	})
	t.Run("not before the beginning", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.nothing(k.first(-1, k.evil))
		k.nothing(k.first(-1, []byte{0})) // a keepalive, which is not needed here
		k.nothing(k.first(-len(k.evil), k.evil))
		if k.e.flows.Len() != 1 {
			t.Fatal("a keepalive has ended the connection")
		}
	})
	t.Run("across the end", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.evil[0] = ^k.good[len(k.good)-1] // one in 256 would be the same byte
		k.nothing(k.first(len(k.good)-1, k.evil))
		k.ended("other bytes across the end")
	})
	t.Run("acknowledged in part", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.answers(len(k.good)-1, nil)
		k.answers(len(k.good)-1, serverHello)
		k.nothing(k.first(0, k.evil))
		k.ended("all but one byte")
	})
	t.Run("acknowledged, not answered", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.answers(len(k.good), nil)
		k.nothing(k.first(0, k.evil))
		k.ended("no answer")
	})
	t.Run("acknowledged, and something else follows", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.nothing(k.first(len(k.good), []byte("anything")))
		k.answers(len(k.good), nil)
		k.nothing(k.first(len(k.good), k.evil))
		k.nothing(k.first(len(k.good), []byte("\x14\x03\x03\x00\x01\x01")))
		k.one(lan, k.first(len(k.good), []byte("anything")))
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001, 1001+uint32(len(k.good)))
		p.data = helloRetry
		k.refused(p)
		k.ended("who then asks for another hello")
	})
	t.Run("acknowledged and answered", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.answers(len(k.good), serverHello)
		if k.e.sni.Any() {
			t.Fatal("it still has its place")
		}
		k.one(lan, k.first(len(k.good), k.evil)) // no inspection from here on
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK, 5001+uint32(len(serverHello)), 1001+uint32(len(k.good)))
		p.data = []byte("data")
		k.one(wan, p)
		k.one(wan, p)
		for r := range 2 {
			if k.e.flows.Dir(0).Verdict != k.e.flows.Dir(1).Verdict {
				t.Fatalf("direction %d", r)
			}
		}
	})
	t.Run("never answered", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.pass(29)
		k.one(lan, k.first(0, k.good))
		k.pass(2)
		if out := k.taken(wan); len(out) != 2 || out[0].Flags != packet.RST || out[0].Seq != 1001 || out[1].Seq != 1001+uint32(len(k.good)) {
			t.Fatalf("to the server: %v", out)
		}
		if out := k.taken(lan); len(out) != 1 || out[0].Flags&packet.RST == 0 || out[0].Seq != 5001 {
			t.Fatalf("to the client: %v", out)
		}
		k.ended("in time")
	})
	t.Run("the server closes", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		p := tcpSeg(cdn, 443, ours, k.ext, packet.ACK|packet.FIN, 5001, 1001+uint32(len(k.good)))
		k.one(wan, p)
		if k.e.sni.Any() {
			t.Fatal("it still has its place")
		}
	})
	t.Run("the server resets", func(t *testing.T) {
		k := newTalk(t)
		k.one(lan, k.first(0, k.good))
		k.one(wan, tcpSeg(cdn, 443, ours, k.ext, packet.RST, 5001, 0))
		k.pass(31)
		if len(k.taken(wan))+len(k.taken(lan)) != 0 {
			t.Fatal("somebody was told of what is over")
		}
		k.ended("it was over")
	})
}

// TestSNISegmentsThatServersDrop: what a server would not take does not go on, or
// goes on so that it is taken.
func TestSNISegmentsThatServersDrop(t *testing.T) {
	t.Run("urgent data", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good)
		p.flags |= packet.URG
		k.dropped(lan, p, verdict.SNIRefused)
		p.data = nil // the place of the urgent byte lies ahead
		k.dropped(lan, p, verdict.SNIRefused)
		k.one(lan, k.first(0, k.good))
		k.dropped(lan, p, verdict.SNIRefused)
		k.answers(len(k.good), serverHello)
		p = k.first(len(k.good), []byte("x"))
		p.flags |= packet.URG
		k.one(lan, p) // afterwards it is the ends' business
	})
	t.Run("urgent in the SYN", func(t *testing.T) {
		l := sniLab(t)
		l.dropped(lan, tcpSeg(host, 5000, cdn, 443, packet.SYN|packet.URG, 1000, 0), verdict.SNIRefused)
		l.one(lan, tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0))
	})
	t.Run("IP options", func(t *testing.T) {
		k := newTalk(t)
		f := k.first(0, k.good).frame(lanMAC)
		o := append(bytes.Clone(f[:packet.EthLen+20]), append([]byte{148, 4, 0, 0}, f[packet.EthLen+20:]...)...)
		h := o[packet.EthLen:]
		h[0] = 0x46
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)))
		resum(h)
		k.droppedRaw(lan, o, verdict.SNIRefused)
		k.one(lan, k.first(0, k.good))
	})
	t.Run("a signature", func(t *testing.T) {
		k := newTalk(t)
		p := k.first(0, k.good[:600])
		p.opts = append([]byte{1, 1, 19, 18}, make([]byte, 16)...)
		k.nothing(p)
		across, _ := k.put(lan, k.first(600, k.good[600:]))
		if len(across) != 2 || !bytes.Equal(across[0].frame[across[0].L4+20:across[0].L4+40], bytes.Repeat([]byte{1}, 20)) {
			t.Fatalf("%v", across)
		}
	})
	t.Run("several paths", func(t *testing.T) {
		l := sniLab(t)
		p := tcpSeg(host, 5000, cdn, 443, packet.SYN, 1000, 0)
		p.opts = []byte{30, 4, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1}
		if v := l.one(lan, p); !bytes.Equal(v.frame[v.L4+20:v.L4+24], []byte{1, 1, 1, 1}) || v.frame[v.L4+24] != 8 {
			t.Fatalf("options %v", v.frame[v.L4+20:])
		}
	})
	t.Run("old timestamps", func(t *testing.T) {
		stamp := func(p pkt, v uint32) pkt {
			p.opts = append(binary.BigEndian.AppendUint32([]byte{1, 1, 8, 10}, v), 0, 0, 0, 9)
			return p
		}
		of := func(v *view) uint32 { return binary.BigEndian.Uint32(v.frame[v.L4+24:]) }
		k := newTalk(t)
		k.nothing(stamp(k.first(0, k.good[:600]), 100))
		if v := k.one(lan, stamp(tcpSeg(host, 5000, cdn, 443, packet.ACK, 1001, 5001), 200)); of(v) != 200 {
			t.Fatalf("timestamp %d", of(v))
		}
		across, _ := k.put(lan, stamp(k.first(600, k.good[600:]), 150))
		if len(across) != 2 || of(across[0]) != 200 || of(across[1]) != 200 {
			t.Fatalf("%v; drops %s", across, k.drops())
		}
		if v := k.one(lan, stamp(k.first(0, k.good), 90)); of(v) != 200 {
			t.Fatalf("timestamp %d", of(v))
		}
		if v := k.one(lan, stamp(k.first(0, k.good), 210)); of(v) != 210 {
			t.Fatalf("timestamp %d", of(v))
		}
	})
}
