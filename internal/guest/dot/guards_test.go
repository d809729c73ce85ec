package dot

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

func (b *bench) wantDue(want int64) {
	b.t.Helper()
	if at, any := b.l.Due(); any != (want != 0) || at != want && any {
		b.t.Fatalf("due at %d (%v), want %d", at, any, want)
	}
}

// syn answers the link's SYN.
func (b *bench) syn() {
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + 1, Window: 60000, Flags: packet.SYN | packet.ACK}, nil)
	b.seq++
	b.l.Poll(b.now)
}

// tickAt lets Tick run just before a time, when nothing may change, and at it.
func (b *bench) tickAt(at int64) {
	b.t.Helper()
	state, order := b.l.State(), b.l.pipe.order.Load()
	b.now = at - 1
	b.s.Tick(b.now)
	if b.l.Tick(b.now); b.l.State() != state || b.l.pipe.order.Load() != order {
		b.t.Fatalf("too early: state %d, order %d", b.l.State(), b.l.pipe.order.Load())
	}
	b.now = at
	b.l.Tick(b.now)
}

// TestLinkDeadlines: the timer of each state, and what Tick does when it is due and
// before.
func TestLinkDeadlines(t *testing.T) {
	query := make([]byte, 20)
	b := newBench(t)
	b.wantDue(0)
	b.l.Tick(1000 * second)
	if b.l.State() != Idle || b.l.Working() {
		t.Fatal("an idle link does something")
	}
	// Connecting.
	b.l.Send(query, b.now)
	begin := b.now
	if b.l.State() != Connecting || b.held != 1 || b.seg.Flags != packet.SYN || b.seg.RemotePort != 853 || b.seg.Local != 2 || b.seg.Remote != 1 || b.seg.LocalPort != b.port {
		t.Fatalf("state %d, %+v", b.l.State(), b.seg)
	}
	b.wantDue(begin + setupTimeout)
	b.now = begin + setupTimeout - 1
	if b.l.Tick(b.now); b.l.State() != Connecting {
		t.Fatal("too early")
	}
	b.now++
	if b.l.Tick(b.now); b.l.State() != Failed || b.held != 0 || len(b.lost) != 1 || !b.lost[0] || b.failed[0] != "timeout: no answer to the TCP SYN" || b.l.Counters().Failures[verdict.TLSTimeout] != 1 {
		t.Fatalf("state %d, lost %v, told %q", b.l.State(), b.lost, b.failed)
	}
	b.wantDue(0) // the next query looks whether the pause is over
	// Handshaking: the time is that of TCP's and TLS's together.
	b = newBench(t)
	b.l.Send(query, b.now)
	begin = b.now
	b.now += second
	b.syn()
	if b.l.State() != Handshaking || b.l.pipe.state.Load() != handshaking {
		t.Fatalf("state %d", b.l.State())
	}
	b.wantDue(begin + setupTimeout)
	b.tickAt(begin + setupTimeout)
	if b.l.State() != Ending || !b.l.pipe.Cancelled() || b.l.pipe.ShouldClose() || b.l.Counters().Connections != 0 {
		t.Fatalf("state %d", b.l.State())
	}
	b.wantDue(0) // the goroutine parks soon
	b.l.pipe.Park(verdict.TLSClosed, "whatever")
	b.l.Poll(b.now)
	if b.l.State() != Failed || b.failed[0] != "timeout: no answer in time" || b.held != 0 || b.seg.Flags&packet.RST == 0 {
		t.Fatalf("state %d, told %q, %+v", b.l.State(), b.failed, b.seg)
	}
	// Open, with a query: the time runs from the first without a response.
	b = newBench(t)
	b.open(query)
	begin = b.now
	if b.l.Counters().Connections != 1 {
		t.Fatalf("%+v", b.l.Counters())
	}
	b.wantDue(begin + responseTimeout)
	b.now += second
	b.l.Send(query, b.now)
	b.wantDue(begin + responseTimeout)
	b.server([]byte{0, 1, 5})
	b.l.Poll(b.now)
	b.turn()
	b.l.Poll(b.now)
	if b.l.waitingSince != 0 || len(b.got) != 1 {
		t.Fatalf("%d answers", len(b.got))
	}
	b.wantDue(b.now + idleTimeout) // from the last query on
	asked := b.now
	b.now += 5 * second
	b.wantDue(asked + idleTimeout)
	b.l.Send(query, b.now)
	b.wantDue(b.now + responseTimeout)
	b.tickAt(b.now + responseTimeout)
	if b.l.State() != Ending || !b.l.pipe.Cancelled() {
		t.Fatalf("state %d", b.l.State())
	}
	// Open and idle, then closing for at most closeTimeout.
	b = newBench(t)
	b.open(query)
	b.turn()
	b.server([]byte{0, 1, 5})
	b.l.Poll(b.now)
	b.turn()
	b.l.Poll(b.now)
	b.tickAt(b.now + idleTimeout)
	if b.l.State() != Ending || !b.l.pipe.ShouldClose() || b.l.pipe.Cancelled() {
		t.Fatalf("state %d", b.l.State())
	}
	b.wantDue(b.now + closeTimeout)
	b.tickAt(b.now + closeTimeout)
	if !b.l.pipe.Cancelled() {
		t.Fatal("not cancelled")
	}
	b.wantDue(0)
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if b.l.State() != Idle || len(b.lost) != 1 || b.lost[0] || len(b.failed) != 0 || b.seg.Flags&packet.FIN == 0 || b.seg.Flags&packet.RST != 0 {
		t.Fatalf("state %d, lost %v, told %q, %+v", b.l.State(), b.lost, b.failed, b.seg)
	}
	b.wantDue(0)
}

// TestConnectFails: each reason for which a connection cannot be opened is counted
// and reported once, and no port stays allocated.
func TestConnectFails(t *testing.T) {
	query := make([]byte, 20)
	b := newBench(t)
	b.l.cfg.ClockSet = false
	if b.l.Send(query, b.now) || b.held != 0 || b.l.Counters().Failures[verdict.TLSClockNotSet] != 1 || !strings.HasPrefix(b.failed[0], "clock_not_set: ") || b.l.State() != Failed || len(b.lost) != 0 {
		t.Errorf("without a clock: %+v, told %q", b.l.Counters(), b.failed)
	}
	b = newBench(t)
	b.l.cfg.User = portless{b}
	if b.l.Send(query, b.now) || b.held != 0 || b.l.Counters().Failures[verdict.TLSTimeout] != 1 || b.failed[0] != "timeout: no free port on the WAN address" || len(b.lost) != 0 {
		t.Errorf("without a port: %+v, told %q", b.l.Counters(), b.failed)
	}
	b = newBench(t)
	for i := range uint16(2) { // the places of streams
		tu := *b.tuple()
		tu.Local, tu.Remote, tu.LocalPort, tu.RemotePort = 2, 1, 60000+i, 853
		if _, ok := b.s.ConnectStream(&tu, 0, b.now); !ok {
			t.Fatal("no stream")
		}
	}
	if b.l.Send(query, b.now) || b.held != 0 || b.port != 1 || b.failed[0] != "timeout: too many TCP connections" || b.l.Counters().Failures[verdict.TLSTimeout] != 1 {
		t.Errorf("without a place: %+v, told %q, %d ports", b.l.Counters(), b.failed, b.held)
	}
	// The pause is kept to the nanosecond, and the same reason is not told again.
	if b.l.Send(query, b.now+firstBackoff-1) || b.port != 1 {
		t.Error("asked within the pause")
	}
	if b.l.Send(query, b.now+firstBackoff) || b.port != 2 || len(b.failed) != 1 || b.l.Counters().Failures[verdict.TLSTimeout] != 2 {
		t.Errorf("after the pause: told %q, %d ports", b.failed, b.port)
	}
	b.l.cfg.ClockSet = false // another reason is reported
	if b.l.Send(query, b.now+100*second) || len(b.failed) != 2 {
		t.Errorf("another reason: told %q", b.failed)
	}
}

type portless struct{ *bench }

func (portless) AllocPort() (packet.Addr, uint16, bool) { return 0, 0, false }

// TestLinkRoom: a query is written whole or not at all.
func TestLinkRoom(t *testing.T) {
	for _, over := range []int{0, 1} {
		b := newBench(t)
		b.l.Send(make([]byte, plainOutSize/2-2), b.now)
		b.l.Send(make([]byte, plainOutSize/2-2+over), b.now)
		if n := b.l.pipe.plainOut.Len(); n != plainOutSize-over*plainOutSize/2 || b.l.Counters().Unsent != uint64(over) {
			t.Errorf("%d more: %d bytes wait, %+v", over, n, b.l.Counters())
		}
	}
	b := newBench(t)
	b.l.Send([]byte("query"), b.now)
	if got := b.l.pipe.plainOut.Peek(); string(got) != "\x00\x05query" {
		t.Errorf("%q", got)
	}
	b.l.Send(message(0x1234), b.now)
	if got := b.l.pipe.plainOut.Peek()[7:9]; string(got) != "\x12\x34" {
		t.Errorf("a length of %x", got)
	}
}

func message(n int) []byte {
	m := make([]byte, n)
	for i := range m {
		m[i] = byte(i*5) ^ byte(i>>8)
	}
	return m
}

// TestLinkMovesAll: sealed bytes pass in both directions, also across the ends of
// the rings and through a window that is smaller than the data. The goroutine is
// woken if it has something to do, and only then.
func TestLinkMovesAll(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	p := b.l.pipe
	r := rand.New(rand.NewPCG(1, 1))
	sent := message(200000)
	var got []byte
	for at := 0; at < len(sent) || len(got) < len(sent); {
		k := min(1+r.IntN(1200), len(sent)-at, sealedSize-p.sealedIn.Len())
		if st, _ := b.s.Stream(b.l.conn); k > 0 && st.Unread+k <= 16<<10 {
			b.server(sent[at : at+k])
			at += k
		}
		p.kicked.Store(false)
		before := p.sealedIn.Len()
		if b.l.Poll(b.now); (p.sealedIn.Len() > before) != p.kicked.Load() {
			t.Fatalf("moved %d bytes, woken %v", p.sealedIn.Len()-before, p.kicked.Load())
		}
		buf := make([]byte, r.IntN(3000))
		n, err := p.ReadSealed(buf)
		if got = append(got, buf[:n]...); err != nil && !errors.Is(err, error(noBytes{})) {
			t.Fatal(err)
		}
		b.l.Wake()
	}
	if !bytes.Equal(got, sent) {
		t.Fatal("other bytes than were sent")
	}
	// Bytes for a removed connection are discarded, and the server's end is reported.
	p.WriteSealed(make([]byte, 100))
	b.l.conn = 0
	if b.l.sendSealed(b.now); p.sealedOut.Len() != 0 {
		t.Fatalf("%d bytes are left", p.sealedOut.Len())
	}
}

// TestServerCloses: the goroutine sees the end of the server's bytes once, after the
// last byte.
func TestServerCloses(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	p := b.l.pipe
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + uint32(len(b.seg.Data)), Window: 60000, Flags: packet.ACK | packet.FIN}, []byte("last"))
	b.l.Poll(b.now)
	buf := make([]byte, 10)
	if n, err := p.ReadSealed(buf); string(buf[:n]) != "last" || err != nil {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	if n, err := p.ReadSealed(buf); n != 0 || err != io.EOF {
		t.Fatalf("%d, %v", n, err)
	}
	p.kicked.Store(false)
	b.l.Wake()
	if b.l.Poll(b.now); p.kicked.Load() {
		t.Error("woken twice for one end")
	}
	// Nor before the last byte, if there was no room for it.
	b = newBench(t)
	b.open(make([]byte, 20))
	p = b.l.pipe
	for range sealedSize / 1024 {
		b.server(make([]byte, 1024))
	}
	b.l.Poll(b.now)
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + uint32(len(b.seg.Data)), Window: 60000, Flags: packet.ACK | packet.FIN}, []byte("last"))
	if b.l.Poll(b.now); p.eof.Load() || p.sealedIn.Room() != 0 {
		t.Fatalf("the end before the last bytes; room for %d", p.sealedIn.Room())
	}
	p.ReadSealed(make([]byte, sealedSize))
	b.l.Poll(b.now)
	if p.ReadSealed(buf); !p.eof.Load() || string(buf[:4]) != "last" {
		t.Fatalf("%q, the end: %v", buf[:4], p.eof.Load())
	}
	// An end without bytes wakes the goroutine.
	b = newBench(t)
	b.open(make([]byte, 20))
	b.l.pipe.kicked.Store(false)
	b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + uint32(len(b.seg.Data)), Window: 60000, Flags: packet.ACK | packet.FIN}, nil)
	if b.l.Poll(b.now); !b.l.pipe.eof.Load() || !b.l.pipe.kicked.Load() {
		t.Error("not woken for the end")
	}
	// Another's stream, or an old one, is no end.
	b = newBench(t)
	b.open(make([]byte, 20))
	b.l.pipe.kicked.Store(false)
	b.l.Closed(b.l.conn+1, b.now)
	if b.l.conn == 0 || b.l.pipe.eof.Load() || b.l.pipe.kicked.Load() {
		t.Error("another's end was taken")
	}
	if b.l.Closed(b.l.conn, b.now); b.l.conn != 0 || !b.l.pipe.eof.Load() || !b.l.pipe.kicked.Load() || !b.l.pollDue {
		t.Error("its own was not")
	}
	if n, err := b.l.pipe.ReadSealed(buf); n != 0 || err != io.EOF {
		t.Errorf("%d, %v", n, err)
	}
	// A failure after a response is none: the next query makes a new connection.
	b.l.pipe.WritePlain([]byte{0, 1, 7})
	b.l.Poll(b.now)
	b.l.pipe.Park(verdict.TLSClosed, "reset")
	b.l.Poll(b.now)
	if b.l.State() != Idle || len(b.lost) != 1 || b.lost[0] || b.l.Counters().Failures != [verdict.NumTLSClasses]uint64{} {
		t.Errorf("state %d, lost %v, %+v", b.l.State(), b.lost, b.l.Counters())
	}
}

// TestLinkParked: how a connection ends, by the state of the link and the class that
// the goroutine reports.
func TestLinkParked(t *testing.T) {
	for _, c := range []struct {
		opened bool
		class  Class
		state  State
		told   string
	}{
		{false, verdict.TLSVerify, Failed, "verify: why"}, {false, 0, Failed, "closed: why"},
		{true, verdict.TLSClosed, Failed, "closed: why"}, {true, 0, Idle, ""},
	} {
		b := newBench(t)
		if c.opened {
			b.open(make([]byte, 20))
		} else {
			b.l.Send(make([]byte, 20), b.now)
			b.syn()
		}
		b.l.pipe.Park(c.class, "why")
		b.l.Poll(b.now)
		if b.l.State() != c.state || strings.Join(b.failed, "|") != c.told || len(b.lost) != 1 || b.lost[0] != (c.state == Failed) || b.l.conn != 0 {
			t.Errorf("%+v: state %d, told %q, lost %v", c, b.l.State(), b.failed, b.lost)
		}
	}
	// The reason is made printable, and cut.
	p := NewPipe()
	room := cap(p.reason)
	p.Park(verdict.TLSClosed, "a\x1b[2J\n"+strings.Repeat("x", 1000))
	if len(p.reason) > MaxReason || bytes.ContainsAny(p.reason, "\x1b\n") || p.class != verdict.TLSClosed || !p.toLoop.Load() || cap(p.reason) != room || len(p.reason) < MaxReason-10 {
		t.Errorf("%q", p.reason)
	}
	for n, want := range map[int]int{0: 0, MaxReason - 1: MaxReason - 1, MaxReason: MaxReason} {
		if p.Park(0, strings.Repeat("y", n)); len(p.reason) != want {
			t.Errorf("%d of %d bytes", len(p.reason), n)
		}
	}
}

// TestManyResponsesAtOnce: one Poll reads a bounded number of messages, the next one
// continues. Empty messages are messages.
func TestManyResponsesAtOnce(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	b.l.pipe.WritePlain(bytes.Repeat([]byte{0, 1, 7}, 3*messagesPerPoll))
	polls := 0
	for n := 0; b.l.Working() && polls < 20; polls++ {
		b.l.pipe.kicked.Store(false)
		b.l.pipe.busy.Store(false)
		b.l.Poll(b.now)
		if k := b.n - n; k > messagesPerPoll {
			t.Fatalf("%d messages in a poll", k)
		}
		n = b.n
	}
	if b.n != 3*messagesPerPoll || polls < 3 {
		t.Fatalf("%d messages in %d polls", b.n, polls)
	}
	// A full ring is emptied, and the goroutine told that there is room.
	b.l.pipe.WritePlain(make([]byte, plainInSize))
	b.l.pipe.kicked.Store(false)
	if b.l.Poll(b.now); !b.l.pipe.kicked.Load() || b.n == 3*messagesPerPoll || len(b.got[len(b.got)-1]) != 0 {
		t.Fatalf("woken %v, %d messages", b.l.pipe.kicked.Load(), b.n)
	}
	// Not told when there was room.
	b = newBench(t)
	b.open(make([]byte, 20))
	b.l.pipe.WritePlain([]byte{0, 1, 7})
	b.l.pipe.kicked.Store(false)
	if b.l.Poll(b.now); b.l.pipe.kicked.Load() || b.n != 1 {
		t.Fatalf("woken %v, %d messages", b.l.pipe.kicked.Load(), b.n)
	}
}

// TestPipe: the methods for the goroutine, and when they block.
func TestPipe(t *testing.T) {
	p := NewPipe()
	if p.working() || p.ShouldClose() || p.Cancelled() || p.SealedRoom() != sealedSize || p.PlainRoom() != plainInSize {
		t.Fatal("a new pipe has something to do")
	}
	p.plainIn.Write([]byte("x"))
	p.sealedIn.Write([]byte("x"))
	p.sealedOut.Write([]byte("x"))
	p.plainOut.Write([]byte("queries that wait"))
	p.eof.Store(true)
	p.order.Store(orderCancel)
	p.class, p.reason = verdict.TLSClosed, append(p.reason, 'x')
	p.start()
	if p.plainIn.Len()+p.sealedIn.Len()+p.sealedOut.Len() != 0 || p.plainOut.Len() != 17 || p.eof.Load() || p.Cancelled() || p.ShouldClose() || p.class != 0 || len(p.reason) != 0 || p.state.Load() != handshaking || !p.working() {
		t.Fatal("a new connection has what an old one has left")
	}
	buf := make([]byte, 30)
	if n := p.ReadPlain(buf); string(buf[:n]) != "queries that wait" || !p.toLoop.Load() {
		t.Fatalf("%q", buf[:n])
	}
	p.toLoop.Store(false)
	if p.ReadPlain(buf) != 0 || p.toLoop.Load() {
		t.Fatal("there were no more")
	}
	// Reading during the handshake waits for bytes, later it does not.
	within := func(what string, f func()) {
		t.Helper()
		done := make(chan bool)
		go func() { f(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for ever", what)
		}
	}
	go func(p *Pipe) {
		for p.kicked.Load() || p.busy.Load() { // until it waits
			runtime.Gosched()
		}
		p.sealedIn.Write([]byte("hello"))
		p.kick()
	}(p)
	within("reading", func() {
		if n, err := p.ReadSealed(buf); string(buf[:n]) != "hello" || err != nil {
			t.Errorf("%q, %v", buf[:n], err)
		}
	})
	p.Opened()
	if n, err := p.ReadSealed(buf); n != 0 || err != (noBytes{}) || err.Error() == "" || !err.(noBytes).Timeout() || !err.(noBytes).Temporary() {
		t.Fatalf("%d, %v", n, err)
	}
	// Writing waits for room.
	within("writing", func() {
		go func(p *Pipe) { // not the next one, which p is later
			for n := 0; n < 2*sealedSize+5; {
				k := p.sealedOut.Len()
				p.sealedOut.Discard(k)
				if n += k; k > 0 {
					p.kick()
				}
				runtime.Gosched()
			}
		}(p)
		if n, err := p.WriteSealed(make([]byte, 2*sealedSize+5)); n != 2*sealedSize+5 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	// Nothing waits any more after Stop.
	p.Stop()
	if n, err := p.ReadSealed(buf); n != 0 || err != errCancelled {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := p.WriteSealed(buf); n != 0 || err != errCancelled {
		t.Errorf("%d, %v", n, err)
	}
	p.state.Store(parked)
	within("the next connection", func() {
		if p.Next() {
			t.Error("another connection after the end")
		}
	})
	p = NewPipe()
	go p.start()
	within("the next connection", func() {
		if !p.Next() || !p.busy.Load() {
			t.Error("no connection")
		}
	})
}
