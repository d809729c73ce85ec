package export

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// TestStreamOrder: a connection begins with a hello, then a whole snapshot of
// metrics, then events; every ten seconds there is another snapshot.
func TestStreamOrder(t *testing.T) {
	l := newStreamLab(t, nil)
	l.accept(1)
	l.accept(2)
	l.settle()
	all := l.link.lines("")
	if len(all) < 10 || !strings.HasPrefix(all[0], "# HELLO {") || !strings.HasPrefix(all[1], "# METRIC # SNAPSHOT 2026-") {
		t.Fatalf("begins with %q", all[:min(3, len(all))])
	}
	last := len(all) - 1
	if all[last-2] != "# METRIC # EOF" || num(t, all[last-1], "event.sequence") != 1 || num(t, all[last], "event.sequence") != 2 {
		t.Fatalf("ends with %q", all[last-2:])
	}
	for _, s := range all[1 : last-1] {
		if !strings.HasPrefix(s, "# METRIC ") {
			t.Errorf("within the snapshot: %q", s)
		}
	}
	l.until(l.now + 35e9)
	if n := len(l.link.lines("# METRIC # EOF")); n != 4 {
		t.Errorf("%d snapshots in 35 seconds, want 4", n)
	}
}

// TestMoved: a stream of a machine that was saved or restored goes on as another instance, over
// another connection, with other trace ids, and loses nothing.
func TestMoved(t *testing.T) {
	l := newStreamLab(t, func(c *StreamConfig) {
		c.Identity.Boot = "first"
		c.Context.Tracer = NewTracer([16]byte{1}, math.MaxUint32, math.MaxUint32)
	})
	l.accept(1)
	l.settle()
	before := l.link.lines("{")
	if hello := l.link.lines("# HELLO "); len(hello) != 1 || !strings.Contains(hello[0], `"service.instance.id":"first"`) || len(before) != 1 {
		t.Fatalf("%q, %q", hello, before)
	}
	l.s.Moved("second", NewTracer([16]byte{2}, math.MaxUint32, math.MaxUint32))
	l.accept(1)
	l.settle()
	l.until(l.now + 1e9)
	after := l.link.lines("{")
	if hello := l.link.lines("# HELLO "); l.link.connects != 2 || len(hello) != 1 || !strings.Contains(hello[0], `"service.instance.id":"second"`) || len(after) != 1 {
		t.Fatalf("%d connections, %q, %q", l.link.connects, hello, after)
	}
	if a, b := field(t, before[0], "trace.id"), field(t, after[0], "trace.id"); a == nil || a == b {
		t.Errorf("trace ids %v and %v", a, b)
	}
	l.until(l.now + 20e9)
	if l.link.connects != 2 || len(l.link.lines("# HELLO ")) != 1 {
		t.Errorf("%d connections", l.link.connects)
	}
}

// TestS39_OneLineForEachVerdict: each record of a verdict is one line, in order,
// with numbers that have no gap.
func TestS39_OneLineForEachVerdict(t *testing.T) {
	l := newStreamLab(t, nil)
	for i := range 5000 {
		l.accept(uint64(i + 1))
		l.now += 1000
		if i%300 == 0 {
			l.settle()
		}
	}
	l.settle()
	ev := l.link.lines("{")
	if len(ev) != 5000 {
		t.Fatalf("%d lines for 5000 verdicts", len(ev))
	}
	for i, s := range ev {
		if num(t, s, "event.sequence") != i+1 || num(t, s, "firewall.flow_id") != i+1 {
			t.Fatalf("line %d: %s", i, s)
		}
	}
}

// TestAggregation: identical drops within one second are one line; a different or later one
// is another; the counts add up.
func TestAggregation(t *testing.T) {
	l := newStreamLab(t, nil)
	l.settle()
	for i := range 1000 {
		l.drop(22, uint16(i)) // the source port does not matter
		l.now += 900_000
		l.settle()
	}
	if n := len(l.link.lines("{")); n != 0 {
		t.Fatalf("%d lines before the second was over", n)
	}
	l.drop(23, 1)
	l.until(l.now + 2e9)
	l.drop(22, 7)
	l.until(l.now + 2e9)
	ev := l.link.lines("{")
	if len(ev) != 3 || num(t, ev[0], "firewall.count") != 1000 || num(t, ev[0], "destination.port") != 22 || num(t, ev[0], "source.port") != 0 ||
		field(t, ev[1], "firewall.count") != nil || num(t, ev[1], "destination.port") != 23 || field(t, ev[2], "firewall.count") != nil {
		t.Fatalf("lines:\n%s", strings.Join(ev, "\n"))
	}
	if start, end := field(t, ev[0], "event.start"), field(t, ev[0], "event.end"); start != "2026-11-24T12:00:01.000000Z" || end != "2026-11-24T12:00:01.899100Z" {
		t.Errorf("from %v to %v", start, end)
	}
	// More different ones than places: they are written sooner, but all are counted.
	total := 0
	for range 3 {
		for port := range 3000 {
			l.drop(uint16(port), 1)
			if port%100 == 0 {
				l.settle()
			}
		}
	}
	l.until(l.now + 3e9)
	for _, s := range l.link.lines("{")[3:] {
		total += max(1, num(t, s, "firewall.count"))
	}
	if total != 9000 {
		t.Errorf("lines stand for %d drops of 9000", total)
	}
}

// TestS42_OldestLinesAreDropped: without a reader the queue keeps the newest lines and
// counts the others; then it continues, and reports what was lost.
func TestS42_OldestLinesAreDropped(t *testing.T) {
	for _, gone := range []bool{false, true} { // the reader stands still; or is not there
		l := newStreamLab(t, func(c *StreamConfig) { c.Queue = 100 * event.RecordSize })
		l.settle()
		if l.link.room = 0; gone {
			l.link.state, l.link.refuse = LinkClosed, true
		}
		const n = 50_000
		for i := range n {
			l.accept(uint64(i + 1))
			l.now += 1e6
			if i%64 == 0 {
				l.settle()
			}
		}
		l.settle()
		dropped := l.s.Dropped()
		if dropped < n-200 || dropped > n-90 {
			t.Fatalf("%d lines dropped of %d", dropped, n)
		}
		if l.link.room, l.link.refuse = -1, false; gone {
			l.link.got = nil
		}
		l.until(l.now + 10e9)
		ev := l.link.lines("{")
		lost, seen, next := 0, 0, 0
		for _, s := range ev {
			if field(t, s, "event.action") == "lines-lost" {
				lost += num(t, s, "firewall.lost_lines")
				continue
			}
			seq := num(t, s, "event.sequence")
			if seq <= next {
				t.Fatalf("line %d after %d", seq, next)
			}
			next = seq
			seen++
		}
		if next != n || uint64(lost) != l.s.Dropped() || seen+lost != n {
			t.Errorf("gone=%v: %d lines arrived, the last is %d; %d reported lost, %d counted", gone, seen, next, lost, l.s.Dropped())
		}
		found := false
		for _, s := range l.link.lines("# METRIC thurward_vsock_dropped_lines_total") {
			found = strings.HasSuffix(s, fmt.Sprint(" ", l.s.Dropped()))
		}
		if !found {
			t.Errorf("the metric says %q, %d were dropped", l.link.lines("# METRIC thurward_vsock_dropped"), l.s.Dropped())
		}
		if gone != (len(l.link.lines("# HELLO")) == 1 && l.s.conn == 2) {
			t.Errorf("gone=%v: %d connections", gone, l.s.conn)
		}
	}
}

// TestReconnectBacksOff: attempts become rarer, up to one in five seconds, and
// frequent again after a connection that held.
func TestReconnectBacksOff(t *testing.T) {
	l := newStreamLab(t, nil)
	l.link.refuse = true
	l.until(l.now + 60e9)
	a := l.link.attempts
	if len(a) < 15 || len(a) > 20 || a[1]-a[0] != firstRetry || a[len(a)-1]-a[len(a)-2] != lastRetry {
		t.Fatalf("attempts at %v", a)
	}
	l.link.refuse = false
	l.until(l.now + 20e9)
	l.link.state = LinkClosed
	n := len(l.link.attempts)
	end := l.now
	l.until(l.now + 1e9)
	if len(l.link.attempts) != n+1 || l.link.attempts[n] != end+firstRetry || l.link.connects != 2 {
		t.Errorf("after a good connection: attempts at %v, the end was at %d", l.link.attempts[n:], end)
	}
}

// TestConnectTimesOut: a host that does not answer is tried again.
func TestConnectTimesOut(t *testing.T) {
	l := newStreamLab(t, nil)
	silent := &silentLink{fakeLink: l.link}
	l.s.c.Link = silent
	l.until(l.now + 30e9)
	if n := len(l.link.attempts); n < 5 || silent.closes != n && silent.closes != n-1 {
		t.Errorf("%d attempts, %d given up", n, silent.closes)
	}
}

type silentLink struct {
	*fakeLink
	closes int
}

func (l *silentLink) Connect() {
	l.attempts = append(l.attempts, *l.now)
	l.state = LinkConnecting
}
func (l *silentLink) Close() { l.closes++; l.fakeLink.Close() }

// TestFlowEndsOff: without events of flows' ends there are still their spans.
func TestFlowEndsOff(t *testing.T) {
	l := newStreamLab(t, func(c *StreamConfig) {
		c.NoFlowEnd, c.Context.Tracer = true, NewTracer([16]byte{1}, 1<<32-1, 0)
	})
	l.settle()
	l.accept(5)
	l.ring.Put(&event.Record{Time: l.now, Kind: event.FlowEnd, Action: verdict.Accept, Reason: verdict.RuleAccept, Direction: verdict.Egress, FlowID: 5, Proto: 6, Src: v4(10, 0, 0, 2), Dst: v4(1, 1, 1, 1)})
	l.settle()
	ev, sp := l.link.lines("{"), l.link.lines("# SPAN ")
	if len(ev) != 1 || len(sp) != 1 || !strings.Contains(sp[0], field(t, ev[0], "trace.id").(string)) {
		t.Errorf("events %q, spans %q", ev, sp)
	}
}

// TestS41_SpansFollowTheShares: flows and drops are sampled at the policy's rates, and
// always the same ones.
func TestS41_SpansFollowTheShares(t *testing.T) {
	for _, share := range []float64{0, 0.01, 0.5, 1} {
		tr := NewTracer([16]byte{9, 8, 7}, uint32(share*(1<<32-1)), uint32(share*(1<<32-1)))
		n, d := 0, 0
		for i := range 20000 {
			flow := event.Record{Kind: event.Verdict, Action: verdict.Accept, FlowID: uint64(i + 1), Time: int64(i)}
			end := event.Record{Kind: event.FlowEnd, Action: verdict.Accept, FlowID: uint64(i + 1), Time: int64(2 * i)}
			a, b := tr.Span(&flow), tr.Span(&end)
			if a != b {
				t.Fatalf("flow %d: %v, then %v", i, a, b)
			}
			if a.ok {
				n++
			}
			if tr.Span(&event.Record{Kind: event.Verdict, Action: verdict.Drop, Src: v4(10, 0, byte(i>>8), byte(i)), Dst: v4(1, 1, 1, 1)}).ok {
				d++
			}
		}
		for _, got := range []int{n, d} {
			if sd := math.Sqrt(20000 * share * (1 - share)); math.Abs(float64(got)-20000*share) > 5*sd {
				t.Errorf("share %v: %d of 20000", share, got)
			}
		}
	}
}

// TestStreamOfADay: a day of virtual time, with a receiver that comes and goes
// and floods now and then, leaves the stream as large as it was after an hour.
func TestStreamOfADay(t *testing.T) {
	l := newStreamLab(t, func(c *StreamConfig) { c.Queue, c.Context.Tracer = 64<<10, NewTracer([16]byte{1}, 1<<30, 1<<32-1) })
	l.link.count = true
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	var early int64
	start := l.now
	for sec := range 24 * 3600 {
		for i := range 4 {
			l.accept(uint64(sec*4 + i + 1))
			l.drop(uint16(i*sec), uint16(sec))
		}
		if sec%3600 < 5 { // a flood, of different ones
			for i := range 3000 {
				l.drop(uint16(i), 1)
				if i%500 == 0 {
					l.settle()
				}
			}
		}
		switch sec % 600 {
		case 100:
			l.link.room = 0 // stands still for a minute
		case 160:
			l.link.room = -1
		case 300:
			l.link.state, l.link.refuse = LinkClosed, true
		case 330:
			l.link.refuse = false
		}
		l.link.attempts = l.link.attempts[:0]
		l.until(start + int64(sec+1)*1e9)
		if sec == 3600 {
			early = heap()
		}
	}
	late := heap()
	t.Logf("%d MB sent over %d connections, %d lines lost; heap %d bytes after an hour, %d after a day", l.link.bytes>>20, l.link.connects, l.s.Dropped(), early, late)
	if late > early+64<<10 {
		t.Errorf("the heap grew from %d to %d bytes", early, late)
	}
	if l.link.connects < 140 || l.link.bytes < 100<<20 {
		t.Errorf("%d connections, %d bytes", l.link.connects, l.link.bytes)
	}
}

// TestStreamAllocatesNothing: a running stream does not allocate.
func TestStreamAllocatesNothing(t *testing.T) {
	l := newStreamLab(t, func(c *StreamConfig) { c.Context.Tracer = NewTracer([16]byte{1}, 1<<32-1, 1<<32-1) })
	l.link.count = true
	l.settle()
	flow := uint64(0)
	if n := testing.AllocsPerRun(2000, func() {
		flow++
		l.accept(flow)
		l.drop(uint16(flow), 1)
		l.now += 10e6
		l.settle()
	}); n > 0.01 {
		t.Errorf("%v allocations for two events", n)
	}
}

// TestStreamBytes: StreamBytes is what a stream allocates.
func TestStreamBytes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := NewStream(StreamConfig{Rings: event.Rings{event.NewRing(1)}, Context: &Context{Policy: &ruleset.Policy{}}, Link: &fakeLink{}})
	runtime.ReadMemStats(&after)
	got := int(after.HeapAlloc - before.HeapAlloc)
	if got > StreamBytes*11/10 || got < StreamBytes*9/10 {
		t.Errorf("a stream takes %d bytes, counted are %d", got, StreamBytes)
	}
	runtime.KeepAlive(s)
}

// TestStreamBesideThePacketLoop runs both sides at once, for the race detector.
func TestStreamBesideThePacketLoop(t *testing.T) {
	l := newStreamLab(t, nil)
	const n = 20000
	done := make(chan uint64)
	go func() {
		lost := uint64(0)
		for i := range n {
			r := event.Record{Time: int64(i), Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Direction: verdict.Egress, FlowID: uint64(i + 1), Proto: 6}
			if !l.ring.PutNamed(&r, strings.Repeat("x", i%80)+".example") {
				lost++
				runtime.Gosched()
			}
			if l.s.Wanted() {
				l.s.Snapshot()
			}
		}
		done <- lost
	}()
	lost, over := uint64(0), false
	for more := true; more || !over; {
		select {
		case lost = <-done:
			over = true
		default:
		}
		if over && l.s.Wanted() {
			l.s.Snapshot()
		}
		l.now += 1000
		more = l.s.Step(l.now, true)
	}
	l.until(l.now + 2e9)
	ev := 0
	for _, s := range l.link.lines("{") {
		if field(t, s, "event.action") == "lines-lost" {
			continue
		}
		ev++
		i := num(t, s, "firewall.flow_id") - 1
		if want := strings.Repeat("x", i%80) + ".example"; field(t, s, "destination.domain") != want {
			t.Fatalf("flow %d has the name %v, want %s", i, field(t, s, "destination.domain"), want)
		}
	}
	if uint64(ev)+lost+l.s.Dropped() != n || l.ring.Lost() != lost {
		t.Errorf("%d lines, %d lost by the ring (it says %d), %d dropped; %d records", ev, lost, l.ring.Lost(), l.s.Dropped(), n)
	}
}

// BenchmarkStream is the whole cost of an event beside the packet path: taken,
// queued, rendered, copied to the link.
func BenchmarkStream(b *testing.B) {
	l := newStreamLab(b, nil)
	l.link.count = true
	l.settle()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.accept(uint64(i + 1))
		if i%64 == 63 {
			l.s.Step(l.now, true)
		}
	}
	b.ReportMetric(float64(l.link.bytes)/float64(b.N), "B/line")
}

// BenchmarkFloodOfIdentical is the cost of a drop that becomes part of another's
// line.
func BenchmarkFloodOfIdentical(b *testing.B) {
	l := newStreamLab(b, nil)
	l.link.count = true
	l.settle()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.drop(22, uint16(i))
		if i%64 == 63 {
			l.now += 5000
			l.s.Step(l.now, true)
		}
	}
}

// TestBeat: a beat is sent every second while the packet loop runs, and none once it stands still,
// however often the stream's own goroutine runs.
func TestBeat(t *testing.T) {
	l := newStreamLab(t, nil)
	l.settle()
	before := len(l.link.lines(beatPrefix))
	l.until(l.now + 30e9)
	if n := len(l.link.lines(beatPrefix)) - before; n < 29 || n > 31 {
		t.Errorf("%d beats in 30 seconds, want 30", n)
	}
	l.now += 2e9
	l.s.Step(l.now, true) // what the loop's last turn has earned
	before = len(l.link.lines(beatPrefix))
	for range 100 {
		l.now += 1e9
		l.s.Step(l.now, true)
	}
	if n := len(l.link.lines(beatPrefix)) - before; n != 0 {
		t.Errorf("%d beats although the packet loop stands still", n)
	}
	got := len(l.link.got)
	for range 100 {
		l.now += 1e9
		l.s.Step(l.now, true)
	}
	if n := len(l.link.got) - got; n != 0 {
		t.Errorf("%d bytes although the packet loop stands still: %q", n, l.link.got[got:])
	}
}

// TestBeatWaits: a receiver that does not read is not a reason to run: no step is due for a beat
// that cannot be sent.
func TestBeatWaits(t *testing.T) {
	l := newStreamLab(t, nil)
	l.until(l.now + 1)
	l.link.room = 0
	l.until(l.now + 5e9)
	if n := l.s.Next(); n <= l.now {
		t.Errorf("a step is due at %d, and it is %d", n, l.now)
	}
}
