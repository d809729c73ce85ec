package main

import (
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
)

// TestLateBatches: a batch that takes longer than it may is counted, and reported at most once a
// minute with how many there were; gaps without packets are not.
func TestLateBatches(t *testing.T) {
	const ms = int64(1e6)
	var g gaps
	now := 1000 * ms
	g.last = now
	batch := func(d int64, found bool) {
		g.found = found
		now += d
		g.poll(now)
	}
	batch(batchLimit, true)
	batch(500*ms, false)
	if g.late.total != 0 || g.late.due(now) {
		t.Fatalf("%+v", g.late)
	}
	batch(batchLimit+1, true)
	if g.late.total != 1 || !g.late.due(now) {
		t.Fatalf("%+v", g.late)
	}
	if s, _ := g.late.report(now); !strings.Contains(s, "1 batch(es) of packets took longer than 20 ms, the longest 20 ms") {
		t.Error(s)
	}
	batch(300*ms, true)
	batch(70*ms, true)
	if g.late.due(now) || g.late.total != 3 {
		t.Errorf("reported twice within a minute: %+v", g.late)
	}
	now += tellEvery
	if !g.late.due(now) {
		t.Error("not reported after a minute")
	}
	s, r := g.late.report(now)
	if !strings.Contains(s, "2 batch(es)") || !strings.Contains(s, "the longest 300 ms") {
		t.Error(s)
	}
	if r.Kind != event.PacketsLate || r.Time != now || r.Packets != 2 || r.Duration != 300*ms {
		t.Errorf("%+v", r)
	}
	if g.late.due(now + 2*tellEvery) {
		t.Error("reported again without another")
	}
}
