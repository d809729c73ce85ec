package dot

import (
	"runtime"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestSecondConnection: a connection starts with neither a partial message nor the
// end reason of the previous one.
func TestSecondConnection(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	b.l.pipe.WritePlain([]byte{0, 9, 1, 2, 3})
	b.l.Poll(b.now)
	b.now += responseTimeout
	b.l.Tick(b.now)
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if len(b.got) != 0 || b.l.State() != Failed || len(b.lost) != 1 || !b.lost[0] {
		t.Fatalf("%d answers, state %d, lost %v", len(b.got), b.l.State(), b.lost)
	}
	// Whatever comes now is no news of it.
	b.l.Wake()
	b.l.Poll(b.now)
	b.l.pipe.toLoop.Store(true)
	b.l.Poll(b.now)
	if len(b.lost) != 1 || b.l.Counters().Failures[verdict.TLSTimeout] != 1 || b.l.State() != Failed {
		t.Fatalf("lost %v, %+v", b.lost, b.l.Counters())
	}
	b.now += longBackoff
	b.seq = 1
	b.open(make([]byte, 20))
	b.l.pipe.WritePlain([]byte{0, 1, 7})
	b.l.Poll(b.now)
	if len(b.got) != 1 || string(b.got[0]) != "\x07" {
		t.Fatalf("%d answers: %x", len(b.got), b.got)
	}
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if b.l.State() != Idle || len(b.lost) != 2 || b.lost[1] || b.l.Counters().Failures[verdict.TLSTimeout] != 1 {
		t.Fatalf("state %d, lost %v, %+v", b.l.State(), b.lost, b.l.Counters())
	}
	b.l.Wake()
	b.l.Poll(b.now)
	if len(b.lost) != 2 {
		t.Fatal("lost twice")
	}
	// One that is ended by us, and was of no use, and then one whose server ends it in
	// good order at once: the reason is not the old one.
	b.now += longBackoff
	b.seq = 1
	b.open(make([]byte, 20))
	b.now += responseTimeout
	b.l.Tick(b.now)
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	b.now += longBackoff
	b.seq = 1
	b.open(make([]byte, 20))
	b.l.pipe.Park(0, "")
	b.l.Poll(b.now)
	if b.l.State() != Idle || b.lost[len(b.lost)-1] {
		t.Fatalf("state %d, lost %v, told %q", b.l.State(), b.lost, b.failed)
	}
	if n := b.held; n != 2 { // those whose FINs are not acknowledged yet
		t.Fatalf("%d ports", n)
	}
}

// TestReasonsAreReportedOnce: a failure is reported if its class or reason differs
// from that of the previous one, or a connection has worked meanwhile.
func TestReasonsAreReportedOnce(t *testing.T) {
	b := newBench(t)
	for i, c := range []struct {
		class  Class
		reason string
		told   int
	}{
		{verdict.TLSClosed, "one", 1}, {verdict.TLSClosed, "one", 1}, {verdict.TLSClosed, "two", 2}, {verdict.TLSTimeout, "two", 3},
		{verdict.TLSTimeout, "two", 3}, {verdict.TLSClosed, "one", 4}, {verdict.TLSClosed, "eno", 5}, {verdict.TLSClosed, "", 6},
		{verdict.TLSClosed, "a long reason", 7}, {verdict.TLSClosed, "b long reason", 8}, {verdict.TLSClosed, "b lonf reason", 9},
	} {
		if b.l.fail(c.class, []byte(c.reason), b.now); len(b.failed) != c.told {
			t.Errorf("%d: told %q", i, b.failed)
		}
	}
	if b.l.backoff != longBackoff || b.l.deadline != b.now+longBackoff || b.l.Counters().Failures[verdict.TLSClosed] != 9 {
		t.Errorf("a pause of %d, %+v", b.l.backoff, b.l.Counters())
	}
	b.now += longBackoff
	b.open(make([]byte, 20))
	b.l.pipe.WritePlain([]byte{0, 1, 7})
	b.l.Poll(b.now)
	if b.l.fail(verdict.TLSClosed, nil, b.now); len(b.failed) != 10 || b.l.backoff != firstBackoff {
		t.Errorf("told %q, a pause of %d", b.failed, b.l.backoff)
	}
	for class := Class(1); class < verdict.NumTLSClasses; class++ {
		b := newBench(t)
		b.l.fail(class, []byte("why"), b.now)
		b.now += longBackoff
		b.open(make([]byte, 20))
		b.l.pipe.WritePlain([]byte{0, 1, 7})
		b.l.Poll(b.now)
		if b.l.fail(class, []byte("why"), b.now); len(b.failed) != 2 {
			t.Errorf("class %d is not told again after it has worked", class)
		}
	}
}

// TestTheGoroutineIsWoken: each order wakes the goroutine.
func TestTheGoroutineIsWoken(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	woken := func(what string) {
		t.Helper()
		if !b.l.pipe.kicked.Swap(false) {
			t.Errorf("not woken by %s", what)
		}
		select {
		case <-b.l.pipe.signal:
		default:
			t.Errorf("no signal of %s", what)
		}
	}
	woken("the beginning")
	b.l.Send(make([]byte, 20), b.now)
	woken("a query")
	b.turn()
	b.l.Poll(b.now)
	woken("room for sealed bytes")
	if n := len(b.seg.Data); n != 2*22 || b.seg.Data[1] != 20 {
		t.Errorf("%d bytes left", n)
	}
	b.server([]byte{0, 1, 5, 0, 1, 5})
	b.l.Poll(b.now)
	woken("sealed bytes")
	b.turn()
	b.l.Poll(b.now)
	b.now += idleTimeout
	b.l.Tick(b.now)
	woken("the end in good order")
	b.now += closeTimeout
	b.l.Tick(b.now)
	woken("the end at once")
	if b.l.Tick(b.now + second); b.l.pipe.kicked.Load() {
		t.Error("woken again for what is ordered already")
	}
	b = newBench(t) // not before there is a connection to say it to
	b.l.Send(make([]byte, 20), b.now)
	if b.l.pipe.kicked.Load() {
		t.Error("woken before there is a connection")
	}
	b.input(packet.Packet{Seq: 1, Ack: b.seg.Seq + 1, Window: 60000, Flags: packet.SYN | packet.ACK}, nil)
	b.l.Poll(b.now)
	woken("the connection")
	b.l.pipe.Stop()
	woken("Stop")
}

// TestUnacknowledgedEndsALink: a connection is ended if the server does not
// acknowledge bytes, before the response timeout.
func TestUnacknowledgedEndsALink(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	b.turn()
	b.l.Poll(b.now)
	begin := b.now
	for b.now < begin+4*second && b.l.State() == Open {
		b.now += second / 10
		b.s.Tick(b.now)
		b.l.Tick(b.now)
	}
	if b.l.State() != Ending || b.now-begin < 2*second || !b.l.pipe.Cancelled() {
		t.Fatalf("state %d after %d ms", b.l.State(), (b.now-begin)/1e6)
	}
	b = newBench(t)
	b.l.Send(make([]byte, 20), b.now)
	b.input(packet.Packet{Ack: b.seg.Seq + 1, Flags: packet.RST | packet.ACK}, nil)
	if b.l.State() != Failed || b.l.pipe.kicked.Load() || b.l.pipe.eof.Load() {
		t.Fatalf("state %d, woken %v", b.l.State(), b.l.pipe.kicked.Load())
	}
}

// TestWaitIsSeen: the loop sees whether the goroutine is running, has done
// something, or waits.
func TestWaitIsSeen(t *testing.T) {
	p := NewPipe()
	p.busy.Store(true)
	back := make(chan bool)
	go func() { p.Wait(); back <- p.busy.Load() && !p.kicked.Load() }()
	for end := time.Now().Add(20 * time.Second); p.working(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it does not rest")
		}
	}
	p.kick()
	if !<-back {
		t.Fatal("it does not work")
	}
	p.state.Store(handshaking)
	p.toLoop.Store(false)
	if n, err := p.ReadSealed(nil); n != 0 || err != nil {
		t.Errorf("nothing to read into: %d, %v", n, err)
	}
	p.toLoop.Store(false)
	p.sealedIn.Write([]byte("abc"))
	if n, _ := p.ReadSealed(make([]byte, 2)); n != 2 || !p.toLoop.Load() {
		t.Errorf("read %d, news %v", n, p.toLoop.Load())
	}
	p.toLoop.Store(false)
	p.state.Store(open)
	p.ReadSealed(make([]byte, 2))
	if _, err := p.ReadSealed(make([]byte, 2)); err != (noBytes{}) {
		t.Error(err)
	}
	for what, f := range map[string]func(){
		"Opened": p.Opened, "Park": func() { p.Park(0, "") }, "Answers": func() { p.WritePlain([]byte("x")) }, "WriteSealed": func() { p.WriteSealed([]byte("x")) },
	} {
		p.toLoop.Store(false)
		if f(); !p.toLoop.Load() || !p.working() {
			t.Errorf("%s is not seen", what)
		}
	}
}
