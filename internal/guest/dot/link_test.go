package dot

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// A bench is a link with a simulated network and goroutine. Nothing is encrypted.
type bench struct {
	t      testing.TB
	s      *tcp.Stack
	l      *Link
	now    int64
	seg    tcp.Segment // the last that left
	seq    uint32      // of the server
	keep   bool        // answers
	got    [][]byte
	n      int // answers
	lost   []bool
	failed []string
	held   int // ports
	port   uint16
	buf    [4096]byte
}

func newBench(t testing.TB) *bench {
	b := &bench{t: t, now: second, seq: 1, keep: true}
	b.s = tcp.New(b, 1500, 1500, 1)
	b.l = New(Config{Up: 3, Addr: 1, Port: 853, User: b, TCP: b.s, ClockSet: true}, NewPipe())
	return b
}

func (b *bench) Emit(s *tcp.Segment)                       { b.seg = *s }
func (b *bench) Message(uint32, []byte)                    {}
func (b *bench) StreamReady(uint32, uint32)                { b.l.Wake() }
func (b *bench) Closed(id, _ uint32, _ *tcp.Tuple, _ bool) { b.held--; b.l.Closed(id, b.now) }
func (b *bench) Random() uint64                            { return 99 }
func (b *bench) AllocPort() (packet.Addr, uint16, bool) {
	b.held++
	b.port++
	return 2, b.port, true
}
func (b *bench) FreePort(uint16)         { b.held-- }
func (b *bench) Lost(_ int, failed bool) { b.lost = append(b.lost, failed) }
func (b *bench) Failed(_ int, c Class, reason []byte) {
	b.failed = append(b.failed, c.String()+": "+string(reason))
}
func (b *bench) tuple() *tcp.Tuple { return &b.seg.Tuple }
func (b *bench) input(p packet.Packet, data []byte) {
	t := *b.tuple()
	b.s.Input(&t, &p, nil, data, b.now)
}
func (b *bench) Response(_ int, msg []byte) {
	b.n++
	if b.keep {
		b.got = append(b.got, bytes.Clone(msg))
	}
}

// open has the link ask, and the connection open.
func (b *bench) open(query []byte) {
	if !b.l.Send(query, b.now) {
		b.t.Fatal("not asked")
	}
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + 1, Window: 60000, Flags: packet.SYN | packet.ACK}, nil)
	b.seq++
	b.l.Poll(b.now)
	p := b.l.pipe
	if p.state.Load() != handshaking || p.plainOut.Len() != 2+len(query) {
		b.t.Fatalf("state %d, %d bytes wait", p.state.Load(), p.plainOut.Len())
	}
	p.Opened()
	b.l.Poll(b.now)
	if b.l.State() != Open {
		b.t.Fatalf("state %d", b.l.State())
	}
}

// turn is one of the goroutine: it seals nothing.
func (b *bench) turn() {
	p := b.l.pipe
	p.kicked.Store(false)
	if n := p.ReadPlain(b.buf[:min(len(b.buf), p.SealedRoom())]); n > 0 {
		p.WriteSealed(b.buf[:n])
	}
	if room := p.PlainRoom(); room > 0 {
		n, _ := p.ReadSealed(b.buf[:min(len(b.buf), room)])
		p.WritePlain(b.buf[:n])
	}
}

// server sends bytes.
func (b *bench) server(data []byte) {
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + uint32(len(b.seg.Data)), Window: 60000, Flags: packet.ACK}, data)
	b.seq += uint32(len(data))
}

// TestLinkAllocations: the half in the packet loop does not allocate.
func TestLinkAllocations(t *testing.T) {
	b := newBench(t)
	query, answer := make([]byte, 128), append([]byte{0, 200}, make([]byte, 200)...)
	b.open(query)
	b.turn()
	b.l.Poll(b.now)
	b.keep = false
	if n := testing.AllocsPerRun(200, func() {
		if !b.l.Send(query, b.now) {
			t.Fatal("not asked")
		}
		b.turn()
		b.l.Poll(b.now)
		b.server(answer)
		b.l.Poll(b.now)
		b.turn()
		b.l.Poll(b.now)
		b.l.Tick(b.now)
		b.l.Due()
	}); n != 0 || b.n != 201 {
		t.Fatalf("%v allocations, %d answers", n, b.n)
	}
	// Nor do connections that come to nothing.
	b = newBench(t)
	b.failed = make([]string, 0, 10)
	if n := testing.AllocsPerRun(50, func() {
		b.lost = b.lost[:0]
		b.now += longBackoff
		b.l.reported.class, b.l.reported.sum = 0, 0
		b.l.Send(query, b.now)
		b.input(packet.Packet{Ack: b.seg.Seq + 1, Flags: packet.RST | packet.ACK}, nil)
		if len(b.lost) != 1 || !b.lost[0] || b.held != 0 || b.l.Send(query, b.now) {
			t.Fatalf("%+v, %d ports", b.lost, b.held)
		}
		b.failed = b.failed[:0]
	}); n > 2 { // the test's own
		t.Fatalf("%v allocations", n)
	}
}

// TestLinkFull: a query without room is counted, and no part of it is sent.
func TestLinkFull(t *testing.T) {
	b := newBench(t)
	query := make([]byte, 998)
	for range 100 {
		if !b.l.Send(query, b.now) {
			t.Fatal("refused")
		}
	}
	if n := b.l.pipe.plainOut.Len(); n != 65*1000 || b.l.Counters().Unsent != 35 {
		t.Fatalf("%d bytes wait, %+v", n, b.l.Counters())
	}
}

// TestLinkBackoff: the backoff doubles with each failed connection, and ends with
// one that works.
func TestLinkBackoff(t *testing.T) {
	b := newBench(t)
	want := firstBackoff
	for range 8 {
		b.l.Send(make([]byte, 20), b.now)
		b.input(packet.Packet{Ack: b.seg.Seq + 1, Flags: packet.RST | packet.ACK}, nil)
		if b.l.Send(make([]byte, 20), b.now+want-1) {
			t.Fatalf("asked before %d s", want/second)
		}
		b.now += want
		want = min(2*want, longBackoff)
	}
	if len(b.failed) != 1 || b.failed[0] != "closed: the server or the network refused the connection" {
		t.Fatalf("told %q", b.failed)
	}
	b.open(make([]byte, 20))
	b.server([]byte{0, 1, 5})
	b.l.Poll(b.now)
	b.turn()
	b.l.Poll(b.now)
	if len(b.got) != 1 || b.l.backoff != 0 {
		t.Fatalf("%d answers, a pause of %d", len(b.got), b.l.backoff)
	}
}

// TestSendWhileEnding: a query that is sent while the connection is being closed is
// Lost, so that it can be sent again; after a failure it is refused.
func TestSendWhileEnding(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	b.server([]byte{0, 1, 5})
	b.l.Poll(b.now)
	b.turn()
	b.l.Poll(b.now)
	b.now += idleTimeout
	b.l.Tick(b.now)
	if b.l.State() != Ending || !b.l.pipe.ShouldClose() || !b.l.Send(make([]byte, 20), b.now) || len(b.lost) != 0 {
		t.Fatalf("state %d, lost %v", b.l.State(), b.lost)
	}
	// A goroutine that does not come to an end is cancelled.
	b.now += closeTimeout
	b.l.Tick(b.now)
	if !b.l.pipe.Cancelled() {
		t.Fatal("waited for without end")
	}
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if len(b.lost) != 1 || b.lost[0] || b.l.State() != Idle || len(b.failed) != 0 {
		t.Fatalf("state %d, lost %v, told %q", b.l.State(), b.lost, b.failed)
	}
	b.open(make([]byte, 20))
	b.now += responseTimeout
	b.l.Tick(b.now)
	if b.l.State() != Ending || b.l.Send(make([]byte, 20), b.now) {
		t.Fatalf("state %d", b.l.State())
	}
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if len(b.lost) != 2 || !b.lost[1] || b.l.State() != Failed || len(b.failed) != 1 || b.failed[0] != "timeout: no answer in time" {
		t.Fatalf("state %d, lost %v, told %q", b.l.State(), b.lost, b.failed)
	}
}

// FuzzFraming: messages arrive unchanged, however the bytes are divided and whatever
// the lengths are.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("\x00\x03abc\x00\x00\x00\x01x\xff\xffabc"), []byte{1, 2, 3, 200})
	f.Fuzz(func(t *testing.T, in, cuts []byte) {
		b := newBench(t)
		b.open(make([]byte, 20))
		var want [][]byte
		for r := in; len(r) >= 2; {
			n := int(binary.BigEndian.Uint16(r))
			if len(r) < 2+n {
				break
			}
			want = append(want, r[2:2+n])
			r = r[2+n:]
		}
		for rest, i := in, 0; len(rest) > 0; i++ {
			n := len(rest)
			if len(cuts) > 0 {
				n = min(n, 1+int(cuts[i%len(cuts)])*5, b.l.pipe.PlainRoom())
			}
			n = min(n, b.l.pipe.PlainRoom())
			b.l.pipe.WritePlain(rest[:n])
			rest = rest[n:]
			b.l.Poll(b.now)
		}
		for b.l.pollDue {
			b.l.Poll(b.now)
		}
		if len(b.got) != len(want) {
			t.Fatalf("%d messages, want %d", len(b.got), len(want))
		}
		for i := range want {
			if !bytes.Equal(b.got[i], want[i]) {
				t.Fatalf("message %d is %x, want %x", i, b.got[i], want[i])
			}
		}
	})
}
