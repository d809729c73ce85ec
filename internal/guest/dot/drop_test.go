package dot

import (
	"testing"

	"github.com/thurward/thurward/internal/guest/tcp"
	"github.com/thurward/thurward/internal/shared/packet"
)

// TestDrop: a dropped connection is reset, nothing that its keys seal later is sent, and
// its queries are free for another; one whose keys are still to come stays.
func TestDrop(t *testing.T) {
	for _, useful := range []bool{false, true} {
		b := newBench(t)
		b.open(make([]byte, 20))
		p := b.l.pipe
		if useful {
			p.WritePlain([]byte{0, 1, 7})
			b.l.Poll(b.now)
		}
		b.l.Drop()
		if !b.l.Working() {
			t.Fatal("the packet loop may sleep")
		}
		b.l.Poll(b.now)
		if b.l.State() != Ending || !p.Cancelled() || b.seg.Flags&packet.RST == 0 || b.held != 0 {
			t.Fatalf("state %d, cancelled %v, flags %#x, %d ports", b.l.State(), p.Cancelled(), b.seg.Flags, b.held)
		}
		b.seg = tcp.Segment{}
		p.WriteSealed(make([]byte, 100))
		p.toLoop.Store(true)
		b.l.Poll(b.now)
		if b.seg.Flags != 0 || len(b.seg.Data) != 0 {
			t.Fatalf("sent %+v", b.seg)
		}
		p.Park(0, "")
		b.l.Poll(b.now)
		if b.l.State() != Idle || len(b.lost) != 1 || b.lost[0] || len(b.failed) != 0 {
			t.Fatalf("state %d, lost %v, failed %v", b.l.State(), b.lost, b.failed)
		}
		b.l.Drop() // without a connection
		b.l.Poll(b.now)
		b.seq = 1
		b.open(make([]byte, 20))
	}
	b := newBench(t)
	b.l.Send(make([]byte, 20), b.now)
	b.l.Drop()
	b.l.Poll(b.now)
	if b.l.State() != Connecting || b.held != 1 {
		t.Fatalf("state %d, %d ports", b.l.State(), b.held)
	}
}
