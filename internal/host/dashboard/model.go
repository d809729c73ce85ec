package dashboard

import (
	"io"
	"sort"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// maxFirewalls is how many firewalls a model keeps. Beyond it the one without a line
// for longest is removed.
const maxFirewalls = ingest.MaxConns

// A Model is the state of all firewalls of a stream. It is safe for concurrent use.
// Its lock is held only while a line is added or views are copied, not while text is
// rendered or written.
type Model struct {
	mu        sync.Mutex
	firewalls map[string]*firewall // by name
	open      map[*ingest.Source]*firewall
	bytes     int64 // memory of the metrics of all
	most      int64 // limit of bytes
	more      func(io.Writer)
	policies  *Policies // may be nil
}

// NewModel makes an empty model.
func NewModel() *Model {
	return &Model{firewalls: map[string]*firewall{}, open: map[*ingest.Source]*firewall{}, most: maxTotal}
}

// Know has the page show policies. It is called before anything is served.
func (m *Model) Know(p *Policies) { m.policies = p }

// Add adds a line of a source, received at now. A firewall keeps its state when it
// boots again, except for its metrics. If the line ends a snapshot of metrics Add
// returns the snapshot, otherwise nil.
func (m *Model) Add(s *ingest.Source, it ingest.Item, now time.Time) *Snapshot {
	var v Verdict
	shown := false
	if it.Kind == ingest.EventKind {
		v, shown = verdict(&s.Hello, it.Event, now)
	}
	f, snap := m.add(s, &it, &v, shown, now)
	if snap == nil {
		return nil
	}
	u := snap.summary()
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.metrics.at.Equal(snap.at) { // there was no other boot meanwhile
		f.took(snap, u)
	}
	return snap
}

// add adds a line, and returns the snapshot that it ends.
func (m *Model) add(s *ingest.Source, it *ingest.Item, v *Verdict, shown bool, now time.Time) (*firewall, *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.open[s]
	if f == nil || it.Kind == ingest.HelloKind {
		f = m.join(s)
	}
	f.lastLine = now
	f.lines[it.Kind]++
	switch it.Kind {
	case ingest.HelloKind:
		if it.Hello.Boot != f.hello.Boot && f.hello.Fields != nil {
			m.bytes -= f.metrics.bytes
			f.reset()
		}
		f.hello = s.Hello
		f.metrics.begin()
	case ingest.SnapshotKind:
		f.metrics.begin()
	case ingest.SampleKind:
		f.metrics.add(&it.Sample, func(cost int64) bool { return m.room(f, cost) })
	case ingest.EOFKind:
		snap, freed := f.metrics.end(now)
		m.bytes -= freed
		return f, snap
	case ingest.EventKind:
		f.event(it.Event, v, shown, now)
	}
	return f, nil
}

// join returns the firewall of a source, and makes it if there is none.
func (m *Model) join(s *ingest.Source) *firewall {
	name := s.Hello.Name()
	f := m.firewalls[name]
	if f == nil {
		if len(m.firewalls) >= maxFirewalls {
			m.forgetOne()
		}
		f = newFirewall(name)
		m.firewalls[name] = f
	}
	if m.open[s] != f {
		m.close(s)
		m.open[s] = f
		f.connected++
	}
	return f
}

// room reports whether a series of a firewall may use cost bytes, and counts them. If
// all firewalls together use too much, the one that uses most loses its metrics until
// its next snapshot.
func (m *Model) room(f *firewall, cost int64) bool {
	for m.bytes+cost > m.most {
		most := f
		for _, g := range m.firewalls {
			if g.metrics.bytes > most.metrics.bytes {
				most = g
			}
		}
		if most == f {
			return false
		}
		m.bytes -= most.metrics.bytes
		refused := most.metrics.refused + int64(len(most.metrics.series))
		most.reset()
		most.metrics.refused = refused
	}
	m.bytes += cost
	return true
}

// Gone removes a source whose connection has ended. Its firewall stays.
func (m *Model) Gone(s *ingest.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.close(s)
}

func (m *Model) close(s *ingest.Source) {
	if f := m.open[s]; f != nil {
		f.connected--
	}
	delete(m.open, s)
}

// forgetOne removes one firewall: of those that are not connected, or of all if all
// are, the one without a line for longest.
func (m *Model) forgetOne() {
	var oldest *firewall
	for _, f := range m.firewalls {
		switch {
		case oldest == nil,
			f.connected == 0 && oldest.connected > 0,
			(f.connected > 0) == (oldest.connected > 0) && f.lastLine.Before(oldest.lastLine):
			oldest = f
		}
	}
	if oldest == nil {
		return
	}
	m.bytes -= oldest.metrics.bytes
	delete(m.firewalls, oldest.name)
	for s, f := range m.open {
		if f == oldest {
			delete(m.open, s)
		}
	}
}

// Views returns what is shown of each firewall, sorted by name.
func (m *Model) Views(now time.Time) []View {
	m.mu.Lock()
	defer m.mu.Unlock()
	vs := make([]View, 0, len(m.firewalls))
	for _, f := range m.firewalls {
		vs = append(vs, f.view(now))
	}
	sort.Slice(vs, func(i, j int) bool { return vs[i].Name < vs[j].Name })
	return vs
}
