package export

import (
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestStepsWithoutLines: while there are packets, steps may send nothing, and the packet loop may
// have taken the snapshot before such a step. When the packets end, steps are made only when they
// are due, as the stream says: what was taken is sent at once all the same, and beats go on. A
// host takes a firewall without beats for one that hangs.
func TestStepsWithoutLines(t *testing.T) {
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 5))
		l := newStreamLab(t, func(c *StreamConfig) {
			if seed%2 == 0 { // a snapshot that takes several steps
				many := Family{Name: "many_total", Type: Counter, N: 3 * stepLines, Labels: LabelOf("n", strconv.Itoa), Fill: func([]uint64) {}}
				c.Local = &Metrics{}
				c.Local.Add(many)
				c.Metrics.Add(many)
			}
		})
		more, flows, connects := true, 0, 0
		turn := func(lines bool) { // of the packet loop, and of the stream after it
			l.s.Alive()
			if l.s.Wanted() && (lines || r.IntN(2) == 0) {
				l.s.Snapshot()
			}
			before := l.link.bytes
			if more = l.s.Step(l.now, lines); !lines && l.link.bytes > before && l.link.connects == connects {
				t.Fatalf("seed %d: a step without lines sent %d bytes", seed, l.link.bytes-before)
			}
			connects = l.link.connects
		}
		for range 1 + r.IntN(20) { // packets
			if r.IntN(3) == 0 {
				flows++
				l.accept(uint64(flows))
			}
			turn(r.IntN(3) == 0)
			l.now += int64(r.IntN(2)) * 1e8
		}
		idle := func() { // until nothing is due
			for n := 0; more || l.s.Wanted() || l.ring.Len() > 0 || l.now >= l.s.Next(); n++ {
				if turn(true); n > 1000 {
					t.Fatalf("seed %d: steps are due for ever", seed)
				}
			}
		}
		idle()
		if l.s.Step(l.now, false) {
			t.Fatalf("seed %d: there is more to do when all has been sent", seed)
		}
		if n := len(l.link.lines("{")); n != flows {
			t.Fatalf("seed %d: %d of %d events were sent when the packets ended", seed, n, flows)
		}
		before := len(l.link.lines(beatPrefix))
		for end := l.now + 10e9; l.now < end; l.now += 1e8 {
			idle()
		}
		if n := len(l.link.lines(beatPrefix)) - before; n < 9 {
			t.Fatalf("seed %d: %d beats in 10 seconds", seed, n)
		}
	}
}
