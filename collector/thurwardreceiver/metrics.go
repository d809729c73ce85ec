package thurwardreceiver

import (
	"math"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
)

// metrics converts a snapshot. Counters and histograms are cumulative since the
// firewall booted. Invalid histograms, and samples that take refuses, are left out and
// counted in bad.
func (c *Config) metrics(h *ingest.Hello, s *dashboard.Snapshot, take func(*ingest.Sample) bool) (md pmetric.Metrics, bad int) {
	md = pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	c.fill(rm.Resource(), h)
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName(scopeName)
	start, now := pcommon.Timestamp(0), pcommon.NewTimestampFromTime(s.At())
	if !h.Booted.IsZero() && h.Booted.Before(s.At()) {
		start = pcommon.NewTimestampFromTime(h.Booted)
	}
	schema := ingest.Metrics()
	for i := range schema {
		f := &family{name: schema[i].Name}
		for m := range s.Samples(f.name) {
			if take(&m) {
				f.samples = append(f.samples, m)
			} else {
				bad++
			}
		}
		if len(f.samples) == 0 {
			continue
		}
		m := sm.Metrics().AppendEmpty()
		m.SetName(f.name)
		m.SetDescription(schema[i].Help)
		m.SetUnit(unit(f.name))
		switch schema[i].Type {
		case ingest.Counter:
			d := m.SetEmptySum()
			d.SetIsMonotonic(true)
			d.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			f.numbers(d.DataPoints(), start, now)
		case ingest.Histogram:
			d := m.SetEmptyHistogram()
			d.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
			bad += f.histograms(d.DataPoints(), start, now)
		default:
			f.numbers(m.SetEmptyGauge().DataPoints(), 0, now)
		}
	}
	return md, bad
}

// A family is a metric with all its samples.
type family struct {
	name    string
	samples []ingest.Sample
}

// unit returns the unit in a metric's name, in UCUM.
func unit(name string) string {
	name = strings.TrimSuffix(name, "_total")
	switch {
	case strings.HasSuffix(name, "_seconds"):
		return "s"
	case strings.HasSuffix(name, "_bytes"):
		return "By"
	}
	return ""
}

func (f *family) numbers(ds pmetric.NumberDataPointSlice, start, now pcommon.Timestamp) {
	ds.EnsureCapacity(len(f.samples))
	for i := range f.samples {
		d := ds.AppendEmpty()
		d.SetStartTimestamp(start)
		d.SetTimestamp(now)
		d.SetDoubleValue(f.samples[i].Value)
		labels(d.Attributes(), f.samples[i].Labels, "")
	}
}

func labels(a pcommon.Map, ls []ingest.Label, without string) {
	for _, l := range ls {
		if l.Name != without {
			a.PutStr(l.Name, l.Value)
		}
	}
}

// A point is one series of a histogram.
type point struct {
	labels   []ingest.Label
	le, n    []float64
	sum, all float64
	counted  bool // the count was there
}

// histograms combines the series of histograms. It returns how many samples it could not
// use.
func (f *family) histograms(ds pmetric.HistogramDataPointSlice, start, now pcommon.Timestamp) (bad int) {
	points := map[string]*point{}
	var order []string
	for i := range f.samples {
		s := &f.samples[i]
		key := ingest.Sample{}
		for _, l := range s.Labels {
			if l.Name != "le" {
				key.Labels = append(key.Labels, l)
			}
		}
		k := key.Key()
		p := points[k]
		if p == nil {
			p = &point{labels: s.Labels}
			points[k] = p
			order = append(order, k)
		}
		switch s.Name[len(f.name):] {
		case "_sum":
			p.sum = s.Value
		case "_count":
			p.all, p.counted = s.Value, true
		case "_bucket":
			le, err := strconv.ParseFloat(s.Label("le"), 64)
			if err != nil || math.IsNaN(le) {
				bad++
				continue
			}
			p.le, p.n = append(p.le, le), append(p.n, s.Value)
		default:
			bad++
		}
	}
	for _, k := range order {
		p := points[k]
		if !p.fill(ds, start, now) {
			bad++
		}
	}
	return bad
}

// Len, Less and Swap sort the buckets by their bounds.
func (p *point) Len() int           { return len(p.le) }
func (p *point) Less(i, j int) bool { return p.le[i] < p.le[j] }
func (p *point) Swap(i, j int)      { p.le[i], p.le[j], p.n[i], p.n[j] = p.le[j], p.le[i], p.n[j], p.n[i] }

// fill writes a data point. It reports whether the buckets are valid: each count is at
// least that of the bucket below, and the last has no bound and the total count.
func (p *point) fill(ds pmetric.HistogramDataPointSlice, start, now pcommon.Timestamp) bool {
	sort.Sort(p)
	n := len(p.le)
	if n == 0 || !math.IsInf(p.le[n-1], 1) || !p.counted || p.n[n-1] != p.all {
		return false
	}
	below := 0.0
	counts := make([]uint64, n)
	for i, v := range p.n {
		if !(v >= below) || v > 1<<53 || i > 0 && p.le[i] == p.le[i-1] {
			return false
		}
		counts[i], below = uint64(v-below), v
	}
	d := ds.AppendEmpty()
	d.SetStartTimestamp(start)
	d.SetTimestamp(now)
	d.SetCount(uint64(p.all))
	d.SetSum(p.sum)
	d.ExplicitBounds().FromRaw(p.le[:n-1])
	d.BucketCounts().FromRaw(counts)
	labels(d.Attributes(), p.labels, "le")
	return true
}

// up makes the metric that is 1 while a firewall is connected, and the number of its
// malformed lines.
func (c *Config) up(h *ingest.Hello, connected bool, malformed int64, since, now time.Time) pmetric.Metrics {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	c.fill(rm.Resource(), h)
	sm := rm.ScopeMetrics().AppendEmpty()
	sm.Scope().SetName(scopeName)
	m := sm.Metrics().AppendEmpty()
	m.SetName("thurward_up")
	m.SetDescription("Whether the firewall is connected to this receiver.")
	d := m.SetEmptyGauge().DataPoints().AppendEmpty()
	d.SetTimestamp(pcommon.NewTimestampFromTime(now))
	d.SetDoubleValue(0)
	if connected {
		d.SetDoubleValue(1)
	}
	m = sm.Metrics().AppendEmpty()
	m.SetName("thurward_stream_malformed_lines_total")
	m.SetDescription("Lines of the firewall that could not be read.")
	sum := m.SetEmptySum()
	sum.SetIsMonotonic(true)
	sum.SetAggregationTemporality(pmetric.AggregationTemporalityCumulative)
	d = sum.DataPoints().AppendEmpty()
	d.SetStartTimestamp(pcommon.NewTimestampFromTime(since))
	d.SetTimestamp(pcommon.NewTimestampFromTime(now))
	d.SetDoubleValue(float64(malformed))
	return md
}
