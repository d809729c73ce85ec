package live

import (
	"sort"
	"sync"
	"time"

	"github.com/thurward/thurward/internal/stream"
)

// maxFirewalls bounds the firewalls that a model holds; the one that has been
// silent for longest makes room.
const maxFirewalls = 64

// A Model is the picture of all firewalls of a stream. It is safe for
// concurrent use.
type Model struct {
	mu        sync.Mutex
	firewalls map[string]*firewall // by name
	open      map[*stream.Source]string
	snaps     map[string]*exposition // the last metrics, by name
}

// NewModel makes an empty model.
func NewModel() *Model {
	return &Model{firewalls: map[string]*firewall{}, open: map[*stream.Source]string{}, snaps: map[string]*exposition{}}
}

// Add takes a line of a source, received at now. A firewall that starts again
// continues its own picture; its counters begin anew.
func (m *Model) Add(s *stream.Source, it stream.Item, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name := s.Hello.Name()
	f := m.firewalls[name]
	if f == nil {
		if len(m.firewalls) >= maxFirewalls {
			m.forgetOne()
		}
		f = newFirewall()
		m.firewalls[name], m.snaps[name] = f, &exposition{}
	}
	if m.open[s] != name {
		m.close(s)
		m.open[s] = name
		f.connected++
	}
	f.add(&it, now)
	m.snaps[name].add(&it)
}

// Gone says that a source's connection has ended.
func (m *Model) Gone(s *stream.Source) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.close(s)
}

func (m *Model) close(s *stream.Source) {
	if f := m.firewalls[m.open[s]]; f != nil {
		f.connected--
	}
	delete(m.open, s)
}

func (m *Model) forgetOne() {
	oldest := ""
	for n, f := range m.firewalls {
		if o := m.firewalls[oldest]; o == nil || f.lastLine.Before(o.lastLine) {
			oldest = n
		}
	}
	delete(m.firewalls, oldest)
	delete(m.snaps, oldest)
}

// Views returns the pictures, by name.
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
