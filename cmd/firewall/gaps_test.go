package main

import "testing"

// TestPacketLoopGaps: a gap is counted once, where it belongs, and the longest
// are forgotten with each snapshot; sleep is no gap, waking late is.
func TestPacketLoopGaps(t *testing.T) {
	g := &gaps{last: 1000e6}
	g.poll(1000e6 + 500) // short
	g.poll(1003e6 + 500) // 3 ms
	g.doing = yielding
	g.poll(1063e6 + 500) // 60 ms
	g.woke(5000e6, 6000e6)
	g.poll(5000e6 + 100) // an interrupt woke it in time
	g.woke(7100e6, 7000e6)
	g.poll(7101e6)        // 101 ms late
	g.poll(10e6)          // a clock that goes back
	g.poll(10e6 + 2000e6) // 2 s
	fs := g.metrics()
	h := make([]uint64, len(gapBounds)+2)
	fs[1].Fill(h)
	want := map[int]uint64{0: 3, 2: 1, 6: 1, 7: 1, 10: 1}
	for i, n := range h[:len(gapBounds)+1] {
		if n != want[i] {
			t.Errorf("bucket %d: %d, want %d", i, n, want[i])
		}
	}
	if sum := h[len(gapBounds)+1]; sum != 500+3e6+60e6+100+101e6+2000e6 {
		t.Errorf("sum %d", sum)
	}
	v := make([]uint64, occupations)
	fs[2].Fill(v)
	if v[polling] != 2000e6 || v[yielding] != 60e6 || v[sleeping] != 101e6 {
		t.Errorf("longest: %v", v)
	}
	fs[2].Fill(v)
	if v[polling]+v[yielding]+v[sleeping] != 0 {
		t.Errorf("not forgotten: %v", v)
	}
}

// TestPacketLoopBusy: polls that found packets and turns of others count as
// busy, looking for packets and sleep do not.
func TestPacketLoopBusy(t *testing.T) {
	g := &gaps{last: 1000}
	g.poll(1100) // nothing
	g.found = true
	g.poll(1400) // a batch of 300 ns
	g.poll(1500) // nothing
	g.doing = yielding
	g.poll(3500) // 2 µs of telemetry
	g.woke(9000, 10000)
	g.poll(9500)
	v := make([]uint64, 1)
	g.metrics()[0].Fill(v)
	if v[0] != 2300 {
		t.Errorf("busy for %d ns, want 2300", v[0])
	}
}
