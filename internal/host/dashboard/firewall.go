package dashboard

import (
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
	"github.com/thurward/thurward/internal/host/ingest"
)

// Bounds of the state of one firewall beside its metrics.
const (
	recentMax  = 200 // last verdicts
	historyMax = 720 // points of each plot: two hours, one each 10 seconds
	window     = 10  // seconds for the rate of events
	maxAction  = 32  // bytes of a verdict's action, text and command
	maxVerdict = 1000
	maxCommand = 600
)

// A firewall is the state of one firewall.
type firewall struct {
	name      string
	hello     ingest.Hello
	connected int // connections that are open
	lastLine  time.Time
	metrics   *store
	snap      *Snapshot // the last whole one; nil before the first
	sum       *summary  // of snap
	sumAt     time.Time
	lines     [ingest.Malformed + 1]int64
	events    [window]int64 // by second
	eventsAt  int64         // the second of events[eventsAt%window], since 1970
	names     tally[string] // denied names
	sources   tally[string] // denied sources
	talks     tally[talk]
	hits      map[string]*hits     // of rules
	lastHit   map[string]time.Time // of rules
	lost      int64                // lines and events, as lines-lost reports
	recent    []Verdict            // a ring
	next      int
	history   []Point // read without the lock: replaced, never changed
}

func newFirewall(name string) *firewall {
	return &firewall{name: name, metrics: newStore(), hits: map[string]*hits{}, lastHit: map[string]time.Time{}}
}

// policy returns the digest of the policy that a firewall says it runs.
func (f *firewall) policy() string { return f.hello.Fields.Str(ecs.Policy) }

// reset forgets the metrics, at another boot.
func (f *firewall) reset() { f.metrics, f.snap, f.sum = newStore(), nil, nil }

// verdict returns an event as it is shown; ok is false for one that is not shown. It
// needs no lock.
func verdict(h *ingest.Hello, e ecs.Event, now time.Time) (v Verdict, ok bool) {
	a := e.Str(ecs.EventAction)
	if a == ecs.FlowEnd {
		return Verdict{}, false
	}
	if v.talk = talkOf(e); a == ecs.DNSQuery {
		return v, false
	}
	at := h.When(e)
	if at.IsZero() {
		at = now
	}
	v.At = at.UTC()
	v.Action = v.talk.action
	v.Text = clone(cutBytes(ecs.Style{}.Verdict(e), maxVerdict))
	v.Explain = clone(cutBytes(ecs.Explain(e), maxCommand))
	v.Rule, v.Source, v.Destination, v.Name = v.talk.rule, v.talk.source, v.talk.destination, v.talk.name
	return v, true
}

// cutBytes cuts text to at most n bytes, between two characters.
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
			addKey(&f.names, n, e.Count())
		}
		if s := e.Str(ecs.SourceIP); s != "" {
			addKey(&f.sources, s, e.Count())
		}
	case ecs.DNSQuery:
		if e.Str(ecs.EventReason) == "blocked" {
			addKey(&f.names, e.Str(ecs.DNSQuestionName), 1)
		}
	case ecs.LinesLost:
		f.lost = add(f.lost, e.Amount(ecs.LostLines))
		f.lost = add(f.lost, e.Amount(ecs.LostRecords))
	}
	if v.talk != (talk{action: v.talk.action}) {
		f.talks.add(v.talk, e.Count(), topTalks, talk.compare)
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

// maxSum is the largest sum of a firewall's amounts, exact in JSON's numbers.
const maxSum = 1 << 53

// add adds, up to maxSum.
func add(a, b int64) int64 { return min(a+b, maxSum) }

// tick removes the counts of seconds before the window.
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

// took takes over a snapshot with its summary.
func (f *firewall) took(s *Snapshot, u *summary) {
	f.snap, f.sum = s, u
	// The first snapshot of a boot has no rates; and a guest may send many.
	if s.span > 0 && s.at.Sub(f.sumAt) >= time.Second {
		f.count(u.all, s.at.UTC())
		h := f.history
		if len(h) >= historyMax {
			h = h[len(h)-historyMax+1:]
		}
		f.history = append(h[:len(h):len(h)], u.point)
	}
	f.sumAt = s.at
}
