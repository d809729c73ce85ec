package live

import (
	"math"
	"sort"
	"strconv"
	"time"

	"github.com/thurward/thurward/internal/stream"
)

// Bounds of what is remembered of one firewall.
const (
	maxSeries  = 50000 // of all metrics: 10,000 rules have 30,000
	recentMax  = 100   // last verdicts
	historyMax = 720   // points of each plot: two hours, one each 10 seconds
	window     = 10    // seconds over which events are counted for their rate
)

// A series is one metric with its labels: its last two values.
type series struct {
	stream.Sample
	at, before time.Time // when the values were told
	last       float64   // the value before
}

// rate returns how much a counter has grown in a second. After a restart of
// the counter it counts from zero.
func (s *series) rate() float64 {
	d := s.at.Sub(s.before).Seconds()
	if s.before.IsZero() || d <= 0 {
		return 0
	}
	grown := s.Value - s.last
	if grown < 0 {
		grown = s.Value
	}
	return grown / d
}

// A firewall is what one has told.
type firewall struct {
	hello     stream.Hello
	connected int // connections that are open
	lastLine  time.Time
	series    map[string]*series
	byName    map[string][]*series
	snapshot  time.Time // when the last whole snapshot of metrics had come
	rates     bool      // this boot has told a snapshot before
	refused   int64     // samples of more series than fit
	lines     map[string]int64
	events    [window]int64 // by second
	eventsAt  int64         // the second that events[eventsAt%window] is
	names     tally         // denied names
	sources   tally         // denied sources
	lost      int64         // lines that were lost, by lines-lost
	recent    []Verdict     // a ring
	next      int
	history   []Point
}

func newFirewall() *firewall {
	return &firewall{series: map[string]*series{}, byName: map[string][]*series{}, lines: map[string]int64{}, names: tally{}, sources: tally{}}
}

// add takes one line.
func (f *firewall) add(it *stream.Item, now time.Time) {
	f.lastLine = now
	f.lines[it.Kind.String()]++
	switch it.Kind {
	case stream.HelloKind:
		if it.Hello.Boot != f.hello.Boot && f.hello.Fields != nil {
			f.series, f.byName, f.rates = map[string]*series{}, map[string][]*series{}, false // another boot, perhaps another policy
		}
		f.hello = it.Hello
	case stream.SampleKind:
		f.sample(it.Sample, now)
	case stream.EOFKind:
		if now.Sub(f.snapshot) >= time.Second { // the sums cost something, and a guest may say anything
			if f.rates { // the first snapshot of a boot has none
				f.point(now)
			}
			f.snapshot, f.rates = now, true
		}
	case stream.EventKind:
		f.event(it.Event, now)
	}
}

func (f *firewall) sample(m stream.Sample, now time.Time) {
	key := m.Key()
	s := f.series[key]
	if s == nil {
		if len(f.series) >= maxSeries {
			f.refused++
			return
		}
		s = &series{Sample: m, at: now}
		f.series[key] = s
		f.byName[m.Name] = append(f.byName[m.Name], s)
		return
	}
	if now.After(s.at) { // within one snapshot a value may be told twice
		s.before, s.last = s.at, s.Value
	}
	s.Value, s.at = m.Value, now
}

func (f *firewall) event(e stream.Event, now time.Time) {
	f.tick(now)
	f.events[f.eventsAt%window] += e.Count()
	switch e.Str("event.action") {
	case "drop", "reject":
		if n := e.Str("destination.domain"); n != "" {
			f.names.add(n, e.Count())
		}
		if s := e.Str("source.ip"); s != "" {
			f.sources.add(s, e.Count())
		}
	case "dns-query":
		if e.Str("event.reason") == "blocked" {
			f.names.add(e.Str("dns.question.name"), 1)
		}
		return
	case "lines-lost":
		f.lost += e.Int("firewall.lost_lines") + e.Int("firewall.lost_records")
	case "flow-end":
		return
	}
	at := f.hello.When(e)
	if at.IsZero() {
		at = now
	}
	v := Verdict{at.UTC(), e.Str("event.action"), (stream.Style{}).Verdict(e), stream.Explain(&f.hello, e)}
	if len(f.recent) < recentMax {
		f.recent = append(f.recent, v)
		return
	}
	f.recent[f.next] = v
	f.next = (f.next + 1) % recentMax
}

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

// sum adds up the values of a metric, or their rates.
func (f *firewall) sum(name string, of func(*series) float64, match ...string) float64 {
	t := 0.0
next:
	for _, s := range f.byName[name] {
		for i := 0; i+1 < len(match); i += 2 {
			if s.Label(match[i]) != match[i+1] {
				continue next
			}
		}
		if v := of(s); !math.IsNaN(v) && !math.IsInf(v, 0) {
			t += v
		}
	}
	return t
}

func value(s *series) float64 { return s.Value }
func rate(s *series) float64  { return s.rate() }

// quantile estimates a quantile of a histogram, by the observations between
// the last two snapshots, or by all if there were none; 0 without any.
func (f *firewall) quantile(name string, q float64) float64 {
	type bucket struct{ le, n, all float64 }
	var b []bucket
	for _, s := range f.byName[name+"_bucket"] {
		le, err := strconv.ParseFloat(s.Label("le"), 64)
		if err != nil {
			continue
		}
		n := s.Value
		if !s.before.IsZero() && s.Value >= s.last {
			n -= s.last
		}
		b = append(b, bucket{le, n, s.Value})
	}
	sort.Slice(b, func(i, j int) bool { return b[i].le < b[j].le })
	if len(b) == 0 {
		return 0
	}
	if b[len(b)-1].n == 0 {
		for i := range b {
			b[i].n = b[i].all
		}
	}
	want := q * b[len(b)-1].n
	if want <= 0 {
		return 0
	}
	low, below := 0.0, 0.0
	for _, x := range b {
		if x.n >= want {
			if math.IsInf(x.le, 1) {
				return low
			}
			return low + (x.le-low)*(want-below)/max(x.n-below, 1e-9)
		}
		low, below = x.le, x.n
	}
	return low
}

// point notes the present for the plots.
func (f *firewall) point(now time.Time) {
	p := Point{
		At:      now.UTC(),
		Accepts: f.sum("thurward_rule_accepts_total", rate), Drops: f.sum("thurward_drops_total", rate),
		LANBits: 8 * f.sum("thurward_interface_receive_bytes_total", rate, "interface", "lan"),
		WANBits: 8 * f.sum("thurward_interface_receive_bytes_total", rate, "interface", "wan"),
		Flows:   f.sum("thurward_conntrack_entries", value),
		Queries: f.sum("thurward_dns_queries_total", rate),
		Ports:   f.sum("thurward_nat_port_pool_in_use", value),
		Queue:   f.sum("thurward_vsock_send_queue_depth", value),
	}
	if f.history = append(f.history, p); len(f.history) > historyMax {
		f.history = append(f.history[:0], f.history[len(f.history)-historyMax:]...)
	}
}
