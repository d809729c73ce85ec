package dot

import (
	"sync/atomic"
	"testing"

	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestPollWhileConnecting: until the stream is established Poll starts nothing, and
// ends nothing.
func TestPollWhileConnecting(t *testing.T) {
	b := newBench(t)
	b.l.Send(make([]byte, 20), b.now)
	for range 3 {
		b.l.Wake()
		b.l.Poll(b.now)
	}
	if b.l.State() != Connecting || b.l.pipe.state.Load() != parked || b.l.pipe.working() || len(b.lost) != 0 || len(b.failed) != 0 || b.l.conn == 0 {
		t.Fatalf("state %d, lost %v, %q", b.l.State(), b.lost, b.failed)
	}
}

// TestPollWithoutNews: Poll looks at the rings only after Wake, or when the goroutine
// has reported something, and then once.
func TestPollWithoutNews(t *testing.T) {
	b := newBench(t)
	b.open(make([]byte, 20))
	b.turn()
	b.l.Poll(b.now)
	b.turn()
	b.l.Poll(b.now)
	if b.l.pipe.busy.Store(false); b.l.Working() {
		t.Fatal("something is left to do")
	}
	b.l.pipe.sealedOut.Write([]byte("x"))
	if b.l.Poll(b.now); b.l.pipe.sealedOut.Len() != 1 {
		t.Fatal("looked without news")
	}
	if b.l.Wake(); !b.l.Working() {
		t.Fatal("no work after Wake")
	}
	if b.l.Poll(b.now); b.l.pipe.sealedOut.Len() != 0 {
		t.Fatal("not looked after Wake")
	}
	b.l.pipe.WriteSealed([]byte("y"))
	if b.l.Poll(b.now); b.l.pipe.sealedOut.Len() != 0 {
		t.Fatal("not looked when the goroutine has written")
	}
}

// TestWorking: the loop may not sleep while the goroutine has something to do, does
// it, or has done it.
func TestWorking(t *testing.T) {
	for i := range 4 {
		b := newBench(t)
		p := b.l.pipe
		for k, flag := range []*atomic.Bool{&p.kicked, &p.busy, &p.toLoop} {
			flag.Store(k == i)
		}
		if b.l.Working() != (i < 3) || p.working() != (i < 3) {
			t.Errorf("flag %d: %v", i, b.l.Working())
		}
	}
}

// TestHandshakeCompletesOnce: a connection is counted once, the time for responses
// begins with the end of its handshake, and the idle time too; later polls, and those
// while it ends, change nothing of that.
func TestHandshakeCompletesOnce(t *testing.T) {
	b := newBench(t)
	b.l.Send(make([]byte, 20), b.now)
	b.syn()
	b.now += 2 * second
	b.l.pipe.Opened()
	b.l.Poll(b.now)
	b.wantDue(b.now + responseTimeout)
	opened := b.now
	for range 3 {
		b.now += second
		b.l.Wake()
		b.l.Poll(b.now)
	}
	if b.l.Counters().Connections != 1 {
		t.Fatalf("%d connections", b.l.Counters().Connections)
	}
	b.wantDue(opened + responseTimeout)
	b.l.pipe.WritePlain([]byte{0, 1, 7})
	b.l.Poll(b.now)
	b.wantDue(opened + idleTimeout)
	b.now = opened + idleTimeout
	b.l.Tick(b.now)
	for range 2 { // the goroutine has not ended yet
		b.l.Wake()
		b.l.Poll(b.now)
	}
	if b.l.State() != Ending || b.l.Counters().Connections != 1 {
		t.Fatalf("state %d, %d connections", b.l.State(), b.l.Counters().Connections)
	}
}

// TestUnsentQueryWaitsForNothing: a query that never fits opens a connection, which is
// then idle.
func TestUnsentQueryWaitsForNothing(t *testing.T) {
	for round := range 2 { // the second time after a connection with queries
		b := newBench(t)
		if round == 1 {
			b.open(make([]byte, 20))
			b.l.pipe.WritePlain([]byte{0, 1, 7})
			b.l.Poll(b.now)
			b.l.pipe.Park(0, "")
			b.l.Poll(b.now)
			b.seq = 1
		}
		if !b.l.Send(make([]byte, maxMessage), b.now) || b.l.Counters().Unsent != 1 || b.l.State() != Connecting {
			t.Fatalf("state %d, %+v", b.l.State(), b.l.Counters())
		}
		b.input(packet.Packet{Seq: b.seq, Ack: b.seg.Seq + 1, Window: 60000, Flags: packet.SYN | packet.ACK}, nil)
		b.l.Poll(b.now)
		b.l.pipe.Opened()
		b.l.Poll(b.now)
		b.wantDue(b.now + idleTimeout)
		b.now += idleTimeout
		b.l.Tick(b.now)
		if b.l.pipe.Park(0, ""); !b.l.pipe.ShouldClose() {
			t.Fatal("not closed")
		}
		b.l.Poll(b.now)
		if b.l.State() != Idle || len(b.failed) != 0 || b.lost[len(b.lost)-1] || len(b.lost) != 1+round {
			t.Errorf("state %d, %q, lost %v", b.l.State(), b.failed, b.lost)
		}
	}
}

// TestLastBytesAreSent: what the goroutine has written before it parks is sent, before
// the stream is closed; a received byte then belongs to no message any more.
func TestLastBytesAreSent(t *testing.T) {
	for _, class := range []Class{0, verdict.TLSProtocol} {
		b := newBench(t)
		b.open(make([]byte, 20))
		b.l.pipe.WriteSealed([]byte("close_notify"))
		b.l.pipe.Park(class, "")
		before := b.seg.Seq
		b.l.Poll(b.now)
		if fin := b.seg; fin.Flags&packet.FIN == 0 || fin.Seq+uint32(len(fin.Data)) != before+12 && fin.Seq != before+12 {
			t.Errorf("class %d: %+v behind %d", class, fin, before)
		}
	}
}

// TestStreamHasNoTag: the stream of a link is not taken for a query of the proxy.
func TestStreamHasNoTag(t *testing.T) {
	b := newBench(t)
	b.l.Send(make([]byte, 20), b.now)
	if _, tag, passive := b.s.Conn(b.l.conn); tag != 0 || passive {
		t.Fatalf("tag %d", tag)
	}
}

// TestFullRingIsNoNews: the goroutine does not report what it could not write.
func TestFullRingIsNoNews(t *testing.T) {
	p := NewPipe()
	p.start()
	p.Opened()
	if p.ShouldClose() || p.Cancelled() {
		t.Fatal("started with an order to end")
	}
	p.WriteSealed(make([]byte, sealedSize))
	if p.toLoop.Store(false); p.SealedRoom() != 0 {
		t.Fatalf("room for %d bytes", p.SealedRoom())
	}
	done := make(chan bool)
	go func() {
		p.WriteSealed([]byte("x"))
		close(done)
	}()
	for p.kicked.Load() || p.busy.Load() { // until it waits: the first look has been in vain
	}
	if p.toLoop.Load() {
		t.Error("reported, with nothing written")
	}
	p.sealedOut.Discard(1)
	p.kick()
	<-done
	if !p.toLoop.Load() || p.SealedRoom() != 0 {
		t.Error("written, and not reported")
	}
}
