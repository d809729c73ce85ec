package dashboard

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"time"

	"github.com/thurward/thurward/internal/host/ingest"
)

// staleAfter is how long the last metrics of a firewall that has gone are still
// given: as long as Prometheus looks back.
const staleAfter = 5 * time.Minute

// told is what the exposition says of one firewall.
type told struct {
	name, label string // label is the name as it stands in a label
	snap        *Snapshot
	up          bool
	malformed   int64
	refused     int64
}

// told returns what there is to say, by name. It is the part that needs the
// lock: the snapshots themselves do not change.
func (m *Model) told(now time.Time) []told {
	m.mu.Lock()
	defer m.mu.Unlock()
	ts := make([]told, 0, len(m.firewalls))
	for name, f := range m.firewalls {
		t := told{name: name, label: ingest.QuoteLabel(name), up: f.connected > 0, malformed: f.lines[ingest.Malformed], refused: f.metrics.refused}
		if t.up || now.Sub(f.lastLine) <= staleAfter {
			t.snap = f.snap
		}
		ts = append(ts, t)
	}
	sort.Slice(ts, func(i, j int) bool { return ts[i].name < ts[j].name })
	return ts
}

// WriteMetrics writes the last snapshot of each firewall in Prometheus' text
// format. The label "instance" says which firewall it is of: scrape with
// honor_labels. thurward_up says whether a firewall is connected, so that its
// silence is seen; what one told that has been gone for staleAfter is left out.
// Names, types and help are the schema's and not the guest's.
func (m *Model) WriteMetrics(to io.Writer, now time.Time) error {
	ts := m.told(now)
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
			if err := w.Flush(); err != nil { // who does not read is noticed
				return err
			}
		}
	}
	own := func(name, typ, help string, of func(*told) float64) {
		if len(ts) > 0 {
			header(w, name, help, typ)
		}
		for i := range ts {
			fmt.Fprintf(w, "%s{instance=%s} %s\n", name, ts[i].label, ingest.FormatValue(of(&ts[i])))
		}
	}
	own("thurward_stream_malformed_lines_total", "counter", "Lines of the firewall that could not be read.", func(t *told) float64 { return float64(t.malformed) })
	own("thurward_stream_refused_samples_total", "counter", "Samples of the firewall that were not kept: more series than a firewall has.", func(t *told) float64 { return float64(t.refused) })
	own("thurward_up", "gauge", "Whether the firewall is connected to this receiver.", func(t *told) float64 { return float64(btoi(t.up)) })
	return w.Flush()
}

func header(w *bufio.Writer, name, help, typ string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", name, ingest.EscapeHelp(help), name, typ)
}

// write writes a series with the firewall's name, or without if there is none.
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

// Snapshot gives the last whole snapshot of a source's metrics as lines of the
// stream, a piece at a time until yield returns false.
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
	w.Flush() //nolint:errcheck // nobody wants the rest
}

// pieces gives what is written to yield.
type pieces struct{ yield func([]byte) bool }

func (p *pieces) Write(b []byte) (int, error) {
	if !p.yield(append([]byte(nil), b...)) {
		return 0, io.ErrClosedPipe
	}
	return len(b), nil
}
