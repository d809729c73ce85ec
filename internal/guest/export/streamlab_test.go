package export

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// A fakeLink is a receiver with as much room as a test gives it.
type fakeLink struct {
	state    LinkState
	refuse   bool   // connections
	got      []byte // since the last connection
	room     int    // bytes that it takes; negative: any
	buf      [512]byte
	connects int
	attempts []int64
	now      *int64
	count    bool // only count what comes
	bytes    uint64
}

func (l *fakeLink) Poll() {}
func (l *fakeLink) Connect() {
	l.attempts = append(l.attempts, *l.now)
	if l.refuse {
		return
	}
	l.state = LinkOpen
	l.connects++
	l.got = l.got[:0]
}
func (l *fakeLink) Close()           { l.state = LinkClosed }
func (l *fakeLink) State() LinkState { return l.state }
func (l *fakeLink) Flush()           {}
func (l *fakeLink) Buffer() []byte {
	if l.room == 0 || l.state != LinkOpen {
		return nil
	}
	if l.room < 0 {
		return l.buf[:]
	}
	return l.buf[:min(l.room, len(l.buf))]
}
func (l *fakeLink) Send(n int) {
	l.bytes += uint64(n)
	if !l.count {
		l.got = append(l.got, l.buf[:n]...)
	}
	if l.room > 0 {
		l.room -= n
	}
}

// lines returns the received complete lines, by kind.
func (l *fakeLink) lines(prefix string) (found []string) {
	whole := l.got[:bytes.LastIndexByte(l.got, '\n')+1]
	for _, s := range strings.Split(strings.TrimSuffix(string(whole), "\n"), "\n") {
		if strings.HasPrefix(s, prefix) {
			found = append(found, s)
		}
	}
	return found
}

// A streamLab is a stream whose packet loop and clock are the test.
type streamLab struct {
	t    testing.TB
	ring *event.Ring
	link *fakeLink
	s    *Stream
	now  int64
}

func newStreamLab(t testing.TB, edit func(c *StreamConfig)) *streamLab {
	l := &streamLab{t: t, ring: event.NewRing(1024), now: 1e9}
	l.link = &fakeLink{room: -1, now: &l.now}
	c := StreamConfig{Rings: event.Rings{l.ring}, Context: context("Web"), Link: l.link, Metrics: sampleMetrics(), Identity: Identity{Version: "1.0", Boot: "00"}}
	c.Context.Tracer = nil
	if edit != nil {
		edit(&c)
	}
	l.s = NewStream(c)
	return l
}

// settle steps until there is nothing more to do at this time.
func (l *streamLab) settle() {
	for i := 0; ; i++ {
		l.s.Alive()
		if l.s.Wanted() {
			l.s.Snapshot()
		}
		if !l.s.Step(l.now, true) && !l.s.Wanted() && l.s.connected == (l.link.state == LinkOpen) {
			return
		}
		if i > 1_000_000 {
			l.t.Fatal("the stream is never done")
		}
	}
}

// until lets time pass up to t, stepping whenever the stream wants it.
func (l *streamLab) until(t int64) {
	l.settle()
	for n := l.s.Next(); n <= t; n = l.s.Next() {
		if n < l.now {
			l.t.Fatalf("the next step is due at %d, and it is %d", n, l.now)
		}
		if l.now = n; n == l.now {
			l.settle()
			if l.s.Next() == n {
				l.t.Fatalf("a step at %d did not move what was due then", n)
			}
		}
	}
	l.now = t
	l.settle()
}

func (l *streamLab) accept(flow uint64) {
	l.ring.Put(&event.Record{Time: l.now, Kind: event.Verdict, Action: verdict.Accept, Reason: verdict.RuleAccept, Direction: verdict.Egress, FlowID: flow, Proto: 6,
		Src: v4(10, 0, 0, 2), Dst: v4(1, 1, 1, 1), SrcPort: 1000, DstPort: 443})
}

func (l *streamLab) drop(port, srcPort uint16) {
	l.ring.Put(&event.Record{Time: l.now, Kind: event.Verdict, Action: verdict.Drop, Reason: verdict.NoMatchingAllowRule, Rule: 1, Direction: verdict.Ingress, Proto: 6,
		Src: v4(192, 0, 2, 1), Dst: v4(203, 0, 113, 10), SrcPort: srcPort, DstPort: port})
}

// field returns a field of a line of JSON.
func field(t testing.TB, line, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return m[name]
}

func num(t testing.TB, line, name string) int {
	t.Helper()
	f, _ := field(t, line, name).(float64)
	return int(f)
}
