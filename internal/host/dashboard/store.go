package dashboard

import (
	"strings"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// Bounds of the metrics that are kept.
const (
	// maxBytes is the memory that the series of one firewall may use. Those of a
	// policy of 10,000 rules use about half of it.
	maxBytes = 24 << 20
	// maxTotal is the memory that those of all may use. Beyond it the firewall that
	// uses most loses its own.
	maxTotal = 64 << 20
	// seriesCost is the memory of a series beside its texts: itself, and its
	// entries in the map, in a list and in two snapshots.
	seriesCost = 256
)

// An id identifies a series. It does not change, and is shared by all that refer to
// the series.
type id struct {
	metric *ingest.Metric
	name   string
	labels []ingest.Label
	key    string // name and labels in the text format
}

func (d *id) label(name string) string {
	for _, l := range d.labels {
		if l.Name == name {
			return l.Value
		}
	}
	return ""
}

// A series is one metric with its labels.
type series struct {
	id
	value, last float64 // of the last whole snapshot, and of the one before
	known       bool    // value is set
	two         bool    // last is set
	next        float64 // of the incomplete snapshot
	gen         uint32  // number of the snapshot with next
	cost        int64
}

// A store keeps a firewall's metrics: the last whole snapshot, and the samples of the
// next one so far. Only whole snapshots are shown.
type store struct {
	series  map[string]*series
	by      map[*ingest.Metric][]*series
	bytes   int64
	open    bool // a snapshot is incomplete
	gen     uint32
	refused int64 // samples that were not kept
	at      time.Time
	span    time.Duration // between the last snapshot and the one before; 0 if there is none
}

func newStore() *store {
	return &store{series: map[string]*series{}, by: map[*ingest.Metric][]*series{}}
}

// begin begins a snapshot.
func (t *store) begin() {
	t.open = true
	t.gen++
}

// add adds a sample. If its series is new, room decides whether there is memory for
// it.
func (t *store) add(m *ingest.Sample, room func(cost int64) bool) {
	if !t.open {
		t.refused++ // the beginning of its snapshot was lost
		return
	}
	key := m.Key()
	s := t.series[key]
	if s == nil {
		cost := int64(seriesCost + len(key))
		for _, l := range m.Labels {
			cost += int64(48 + len(l.Value))
		}
		if t.bytes+cost > maxBytes || !room(cost) {
			t.refused++
			return
		}
		// Strings of the line would keep all of it in memory.
		s = &series{id: id{metric: m.Metric, name: m.Name, key: key}, cost: cost}
		for _, l := range m.Labels {
			s.labels = append(s.labels, ingest.Label{Name: own(m.Metric, l.Name), Value: within(key, l.Value)})
		}
		t.series[key] = s
		t.by[m.Metric] = append(t.by[m.Metric], s)
		t.bytes += cost
	}
	s.next, s.gen = m.Value, t.gen
}

// own returns the schema's own copy of a label's name.
func own(m *ingest.Metric, name string) string {
	for _, n := range m.Labels {
		if n == name {
			return n
		}
	}
	return "le"
}

// within returns s as a part of key, which has it unless it is escaped there, or else in
// memory of its own: series are many, and their labels most of their memory.
func within(key, s string) string {
	if i := strings.Index(key, s); i >= 0 {
		return key[i : i+len(s)]
	}
	return clone(s)
}

func clone(s string) string { return string(append([]byte(nil), s...)) }

// end ends a snapshot, and returns it and the bytes that are free now: series without
// a sample in it are removed. If no snapshot has begun it returns nil.
func (t *store) end(now time.Time) (snap *Snapshot, freed int64) {
	if !t.open {
		return nil, 0
	}
	t.open = false
	later := t.at.IsZero() || now.After(t.at)
	if later {
		t.span = 0
		if !t.at.IsZero() {
			t.span = now.Sub(t.at)
		}
		t.at = now
	}
	snap = &Snapshot{at: t.at, span: t.span, by: make(map[*ingest.Metric][]point, len(t.by))}
	for m, all := range t.by {
		kept, ps := all[:0], make([]point, 0, len(all))
		for _, s := range all {
			if s.gen != t.gen {
				delete(t.series, s.key)
				freed += s.cost
				continue
			}
			if later {
				s.last, s.two = s.value, s.known
			}
			s.value, s.known = s.next, true
			kept = append(kept, s)
			ps = append(ps, point{&s.id, s.value, s.last, s.two})
		}
		clear(all[len(kept):])
		if len(kept) == 0 {
			delete(t.by, m)
			continue
		}
		t.by[m], snap.by[m] = kept, ps
	}
	t.bytes -= freed
	return snap, freed
}
