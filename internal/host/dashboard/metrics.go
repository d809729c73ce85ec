package dashboard

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// staleAfter is how long the last metrics of a firewall are exposed after its last
// line: as long as Prometheus looks back.
const staleAfter = 5 * time.Minute

// An exposed is what is exposed of one firewall.
type exposed struct {
	name, label string // label is the name as a label's value, quoted
	snap        *Snapshot
	up          bool
	malformed   int64
	refused     int64
}

// exposed returns what is exposed, sorted by name. It takes the lock; the snapshots
// can be read without, since they do not change.
func (m *Model) exposed(now time.Time) []exposed {
	m.mu.Lock()
	defer m.mu.Unlock()
	ts := make([]exposed, 0, len(m.firewalls))
	for name, f := range m.firewalls {
		t := exposed{
			name: name, label: ingest.QuoteLabel(name), up: f.connected > 0,
			malformed: f.lines[ingest.Malformed], refused: f.metrics.refused,
		}
		if t.up || now.Sub(f.lastLine) <= staleAfter {
			t.snap = f.snap
		}
		ts = append(ts, t)
	}
	sort.Slice(ts, func(i, j int) bool { return ts[i].name < ts[j].name })
	return ts
}

// WriteMetrics writes the last snapshot of each firewall in Prometheus' text format.
// The label "instance" is the firewall's name: scrape with honor_labels. thurward_up is
// 1 while a firewall is connected; metrics of one without a line for staleAfter are
// left out. Names, types and help texts are those of the schema, not of the guest.
func (m *Model) WriteMetrics(to io.Writer, now time.Time) error {
	ts := m.exposed(now)
	w := bufio.NewWriterSize(to, 32<<10)
	schema := ingest.Metrics()
	for i := range schema {
		metric := &schema[i]
		head := false
		for _, t := range ts {
			ps := t.snap.of(metric.Name)
			if len(ps) > 0 && !head {
				header(w, metric.Name, metric.Help, string(metric.Type))
				head = true
			}
			for j := range ps {
				ps[j].write(w, t.label)
			}
			if err := w.Flush(); err != nil { // notices a client that does not read
				return err
			}
		}
	}
	own := func(name, typ, help string, of func(*exposed) float64) {
		if len(ts) > 0 {
			header(w, name, help, typ)
		}
		for i := range ts {
			fmt.Fprintf(w, "%s{instance=%s} %s\n", name, ts[i].label, ingest.FormatValue(of(&ts[i])))
		}
	}
	own("thurward_stream_malformed_lines_total", "counter", "Lines of the firewall that could not be read.",
		func(t *exposed) float64 { return float64(t.malformed) })
	own("thurward_stream_refused_samples_total", "counter",
		"Samples of the firewall that were not kept: more series than a firewall has.",
		func(t *exposed) float64 { return float64(t.refused) })
	own("thurward_up", "gauge", "Whether the firewall is connected to this receiver.",
		func(t *exposed) float64 { return up(t.up) })
	if m.more != nil {
		m.more(w)
	}
	return w.Flush()
}

// up is the value of thurward_up.
func up(connected bool) float64 {
	if connected {
		return 1
	}
	return 0
}

func header(w *bufio.Writer, name, help, typ string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, ingest.EscapeHelp(help), name, typ)
}

// write writes a series with a label for the instance, or without if it is "".
func (p *point) write(w *bufio.Writer, instance string) {
	switch {
	case instance == "":
		w.WriteString(p.key)
	case len(p.labels) == 0:
		w.WriteString(p.key + "{instance=" + instance + "}")
	default:
		w.WriteString(p.key[:len(p.key)-1] + ",instance=" + instance + "}")
	}
	w.WriteByte(' ')
	w.WriteString(ingest.FormatValue(p.value))
	w.WriteByte('\n')
}

// Snapshot yields the last whole snapshot of a source's metrics as lines of the
// stream, in pieces, until yield returns false.
func (m *Model) Snapshot(s *ingest.Source, yield func([]byte) bool) {
	m.mu.Lock()
	f := m.open[s]
	var snap *Snapshot
	if f != nil {
		snap = f.snap
	}
	m.mu.Unlock()
	if snap == nil {
		return
	}
	w := bufio.NewWriterSize(&pieces{yield: yield}, 32<<10)
	fmt.Fprintf(w, "# METRIC # SNAPSHOT %s\n", snap.at.UTC().Format(time.RFC3339Nano))
	schema := ingest.Metrics()
	for i := range schema {
		ps := snap.of(schema[i].Name)
		for j := range ps {
			w.WriteString("# METRIC ")
			ps[j].write(w, "")
		}
	}
	w.WriteString("# METRIC # EOF\n")
	w.Flush() //nolint:errcheck // yield has returned false
}

// pieces is a writer that calls yield.
type pieces struct{ yield func([]byte) bool }

func (p *pieces) Write(b []byte) (int, error) {
	if !p.yield(append([]byte(nil), b...)) {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}
