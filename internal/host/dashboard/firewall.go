package dashboard

import (
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

// Bounds of what is remembered of one firewall beside its metrics.
const (
	recentMax  = 100 // last verdicts
	historyMax = 720 // points of each plot: two hours, one each 10 seconds
	window     = 10  // seconds over which events are counted for their rate
	maxAction  = 32  // bytes of a verdict's action, text and command
	maxVerdict = 1000
	maxCommand = 600
)

// A firewall is what one has told.
type firewall struct {
	name      string
	hello     ingest.Hello
	connected int // connections that are open
	lastLine  time.Time
	metrics   *store
	snap      *Snapshot // the last whole one; nil before it
	sum       *summary  // of snap
	sumAt     time.Time
	lines     [ingest.Malformed + 1]int64
	events    [window]int64 // by second
	eventsAt  int64         // the second that events[eventsAt%window] is
	names     tally         // denied names
	sources   tally         // denied sources
	lost      int64         // lines that were lost, by lines-lost
	recent    []Verdict     // a ring
	next      int
	history   []Point // never changed, only replaced
}

func newFirewall(name string) *firewall {
	return &firewall{name: name, metrics: newStore(), names: tally{}, sources: tally{}}
}

// reset begins anew with the metrics: of another boot, perhaps of another
// policy.
func (f *firewall) reset() { f.metrics, f.snap, f.sum = newStore(), nil, nil }

// verdict makes the text of an event that is shown; it needs no lock.
func verdict(h *ingest.Hello, e ecs.Event, now time.Time) (v Verdict, ok bool) {
	a := e.Str(ecs.EventAction)
	if a == ecs.DNSQuery || a == ecs.FlowEnd {
		return Verdict{}, false
	}
	at := h.When(e)
	if at.IsZero() {
		at = now
	}
	return Verdict{at.UTC(), clone(cutBytes(a, maxAction)), clone(cutBytes(ecs.Style{}.Verdict(e), maxVerdict)), clone(cutBytes(ecs.Explain(e), maxCommand))}, true
}

// cutBytes cuts text to n bytes, between two characters.
func cutBytes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

func (f *firewall) event(e ecs.Event, v *Verdict, shown bool, now time.Time) {
	f.tick(now)
	f.events[f.eventsAt%window] = add(f.events[f.eventsAt%window], e.Count())
	switch e.Str(ecs.EventAction) {
	case ecs.Drop:
		if n := e.Str(ecs.DestinationDomain); n != "" {
			f.names.add(n, e.Count())
		}
		if s := e.Str(ecs.SourceIP); s != "" {
			f.sources.add(s, e.Count())
		}
	case ecs.DNSQuery:
		if e.Str(ecs.EventReason) == "blocked" {
			f.names.add(e.Str(ecs.DNSQuestionName), 1)
		}
	case ecs.LinesLost:
		f.lost = add(f.lost, e.Amount(ecs.LostLines))
		f.lost = add(f.lost, e.Amount(ecs.LostRecords))
	}
	if !shown {
		return
	}
	if len(f.recent) < recentMax {
		f.recent = append(f.recent, *v)
		return
	}
	f.recent[f.next] = *v
	f.next = (f.next + 1) % recentMax
}

// maxSum is where sums of what a firewall says end: it is exact in JSON.
const maxSum = 1 << 53

// add adds without end.
func add(a, b int64) int64 { return min(a+b, maxSum) }

// tick forgets seconds that have passed.
func (f *firewall) tick(now time.Time) {
	s := now.Unix()
	if s-f.eventsAt >= window || s < f.eventsAt {
		f.events = [window]int64{}
		f.eventsAt = s
	}
	for f.eventsAt < s {
		f.eventsAt++
		f.events[f.eventsAt%window] = 0
	}
}

// took shows a snapshot with its summary.
func (f *firewall) took(s *Snapshot, u *summary) {
	f.snap, f.sum = s, u
	// The first snapshot of a boot has no rates; and a guest may send many.
	if s.span > 0 && s.at.Sub(f.sumAt) >= time.Second {
		h := f.history
		if len(h) >= historyMax {
			h = h[len(h)-historyMax+1:]
		}
		f.history = append(h[:len(h):len(h)], u.point)
	}
	f.sumAt = s.at
}
