package live

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"time"

	"github.com/thurward/thurward/internal/stream"
)

// maxFamilies bounds the metrics of one firewall by name.
const maxFamilies = 512

// staleAfter is how long the last metrics of a firewall that has gone are still
// given: as long as Prometheus looks back.
const staleAfter = 5 * time.Minute

// An exposition is the last whole snapshot of a firewall's metrics.
type exposition struct {
	now, next map[string]*family
	series    int
}

type family struct {
	help, typ string
	lines     []stream.Sample
	at        map[string]int // place of a series in lines
}

// add takes one line; the snapshot is taken over when it is whole.
func (x *exposition) add(it *stream.Item) {
	get := func(name string) *family {
		if x.next == nil {
			x.next = map[string]*family{}
		}
		if x.next[name] == nil {
			if len(x.next) >= maxFamilies {
				return &family{}
			}
			x.next[name] = &family{typ: "untyped"}
		}
		return x.next[name]
	}
	switch it.Kind {
	case stream.HelpKind:
		get(it.Meta.Name).help = it.Meta.Text
	case stream.TypeKind:
		get(it.Meta.Name).typ = it.Meta.Text
	case stream.SampleKind:
		if x.series++; x.series > maxSeries {
			return
		}
		f := get(FamilyOf(it.Sample.Name, func(n string) bool { f := x.next[n]; return f != nil && f.typ == "histogram" }))
		k := it.Sample.Key()
		if i, again := f.at[k]; again {
			f.lines[i] = it.Sample
			return
		}
		if f.at == nil {
			f.at = map[string]int{}
		}
		f.at[k] = len(f.lines)
		f.lines = append(f.lines, it.Sample)
	case stream.EOFKind:
		x.now, x.next, x.series = x.next, nil, 0
	case stream.HelloKind, stream.SnapshotKind:
		x.next, x.series = nil, 0
	}
}

// FamilyOf returns the metric to which a sample's name belongs: a histogram's
// samples have names of their own.
func FamilyOf(name string, isHistogram func(string) bool) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if n := len(name) - len(suffix); n > 0 && name[n:] == suffix && isHistogram(name[:n]) {
			return name[:n]
		}
	}
	return name
}

// WriteMetrics writes the last snapshot of each firewall in Prometheus' text
// format. The label "instance" says which firewall it is of: scrape with
// honor_labels. thurward_up says whether a firewall is connected, so that its
// silence is seen; what one told that has been gone for staleAfter is left out.
func (m *Model) WriteMetrics(w io.Writer, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	firewalls := sortedKeys(m.firewalls)
	families := map[string]*family{}
	for _, name := range firewalls {
		if f := m.firewalls[name]; f.connected == 0 && now.Sub(f.lastLine) > staleAfter {
			continue
		}
		for n, f := range m.snaps[name].now {
			if families[n] == nil {
				families[n] = &family{help: f.help, typ: f.typ}
			}
			for _, s := range f.lines {
				families[n].lines = append(families[n].lines, labelled(s, name))
			}
		}
	}
	up := &family{help: "Whether the firewall is connected to this receiver.", typ: "gauge"}
	bad := &family{help: "Lines of the firewall that could not be read.", typ: "counter"}
	for _, name := range firewalls {
		f := m.firewalls[name]
		u := 0.0
		if f.connected > 0 {
			u = 1
		}
		label := []stream.Label{{Name: "instance", Value: name}}
		up.lines = append(up.lines, stream.Sample{Name: "thurward_up", Labels: label, Value: u})
		bad.lines = append(bad.lines, stream.Sample{Name: "thurward_stream_malformed_lines_total", Labels: label, Value: float64(f.lines["malformed"])})
	}
	families["thurward_up"], families["thurward_stream_malformed_lines_total"] = up, bad
	for _, n := range sortedKeys(families) {
		f := families[n]
		if len(f.lines) == 0 {
			continue
		}
		if f.help != "" {
			if _, err := fmt.Fprintf(w, "# HELP %s %s\n", n, stream.EscapeHelp(f.help)); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "# TYPE %s %s\n", n, f.typ); err != nil {
			return err
		}
		for _, s := range f.lines {
			if _, err := fmt.Fprintln(w, s.String()); err != nil {
				return err
			}
		}
	}
	return nil
}

// labelled adds the firewall's name.
func labelled(s stream.Sample, name string) stream.Sample {
	if s.Label("instance") == "" {
		s.Labels = append(slices.Clone(s.Labels), stream.Label{Name: "instance", Value: name})
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	k := make([]string, 0, len(m))
	for n := range m {
		k = append(k, n)
	}
	sort.Strings(k)
	return k
}
