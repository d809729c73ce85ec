package thurwardreceiver

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
)

const testdata = "../../internal/guest/export/testdata"

// golden reads what the firewall's own tests say that it sends.
func golden(t *testing.T, name string) (items []ingest.Item, hello ingest.Hello) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testdata, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		it := ingest.Parse(l)
		if it.Kind == ingest.HelloKind {
			hello = it.Hello
		}
		items = append(items, it)
	}
	return items, hello
}

func attr(t *testing.T, lr plog.LogRecord, name string) string {
	t.Helper()
	v, ok := lr.Attributes().Get(name)
	if !ok {
		return "(none)"
	}
	return v.AsString()
}

func TestLogs(t *testing.T) {
	items, _ := golden(t, "events.golden")
	_, h := golden(t, "hello.golden")
	now := time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
	var rs []record
	for _, it := range items {
		rs = append(rs, record{it, now})
	}
	c := defaultConfig()
	c.IncludeOriginal = true
	ld := c.logs(&h, rs)
	res := ld.ResourceLogs().At(0).Resource().Attributes()
	for name, want := range map[string]string{"service.name": "thurward", "service.version": "1.0", "service.instance.id": "203.0.113.10", "host.id": "52:54:00:74:68:02",
		"host.mac": `["52-54-00-74-68-01","52-54-00-74-68-02"]`, "host.ip": `["10.0.0.1","203.0.113.10"]`, "vcs.ref.head.revision": "0123456789abcdef0123456789abcdef01234567",
		"firewall.boot": "00112233445566778899aabbccddeeff", "firewall.clock": "kvmclock"} {
		v, _ := res.Get(name)
		if v.AsString() != want {
			t.Errorf("resource %s is %s, want %s", name, v.AsString(), want)
		}
	}
	rl := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords()
	if rl.Len() != len(items) {
		t.Fatalf("%d records of %d lines", rl.Len(), len(items))
	}
	seen := map[string]bool{}
	for i := range rl.Len() {
		lr, e := rl.At(i), items[i].Event
		seen[lr.EventName()] = true
		if lr.Timestamp().AsTime() != e.Time().UTC() || lr.ObservedTimestamp().AsTime() != now || lr.Body().Str() == "" || attr(t, lr, "log.record.original") != items[i].Raw {
			t.Errorf("%s: %v %q", items[i].Raw, lr.Timestamp().AsTime(), lr.Body().Str())
		}
		if e.Str("trace.id") != lr.TraceID().String() || e.Str("span.id") != lr.SpanID().String() {
			t.Errorf("trace %s, span %s of %s", lr.TraceID(), lr.SpanID(), items[i].Raw)
		}
		if want := e.Str("source.ip"); want != "" && attr(t, lr, "source.address") != want || attr(t, lr, "source.ip") != "(none)" || attr(t, lr, "@timestamp") != "(none)" {
			t.Errorf("addresses of %s: %v", items[i].Raw, lr.Attributes().AsRaw())
		}
		if want := map[bool]plog.SeverityNumber{true: plog.SeverityNumberWarn, false: plog.SeverityNumberInfo}[e.Str("event.action") == "drop"]; lr.SeverityNumber() != want {
			t.Errorf("severity %v of %s", lr.SeverityNumber(), items[i].Raw)
		}
		// No field is lost on the way.
		for k := range e {
			n := k
			if names[k] != "" {
				n = names[k]
			}
			if !elsewhere[k] && attr(t, lr, n) == "(none)" {
				t.Errorf("%s is missing", k)
			}
		}
	}
	for _, want := range []string{"thurward.accept", "thurward.drop", "thurward.flow-end", "thurward.dns-query", "thurward.would-drop"} {
		if !seen[want] {
			t.Errorf("no %s among %v", want, seen)
		}
	}
}

func TestLogsWithoutClock(t *testing.T) {
	h := ingest.Parse(`# HELLO {"service.instance.id":"b","firewall.clock":"none","firewall.uptime_ns":5000000000,"@timestamp":"1970-01-01T00:00:05Z"}`).Hello
	now := time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
	h.Received(now)
	ld := defaultConfig().logs(&h, []record{{ingest.Parse(`{"@timestamp":"1970-01-01T00:00:06Z","event.action":"drop","firewall.clock":"none"}`), now}})
	if got := ld.ResourceLogs().At(0).ScopeLogs().At(0).LogRecords().At(0).Timestamp().AsTime(); got != now.Add(time.Second) {
		t.Errorf("%v, want %v", got, now.Add(time.Second))
	}
	td, bad := defaultConfig().traces(&h, []ingest.Span{{JSON: `{"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"4000000000","endTimeUnixNano":"6000000000"}`}})
	s := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans().At(0)
	if bad != 0 || s.StartTimestamp().AsTime() != now.Add(-time.Second) || s.EndTimestamp().AsTime() != now.Add(time.Second) {
		t.Errorf("%v to %v", s.StartTimestamp().AsTime(), s.EndTimestamp().AsTime())
	}
}

// whole makes a snapshot of lines.
func whole(at time.Time, items []ingest.Item) *dashboard.Snapshot {
	m, s := dashboard.NewModel(), &ingest.Source{}
	m.Add(s, ingest.Parse("# METRIC # SNAPSHOT x"), at)
	for _, it := range items {
		if it.Kind == ingest.SampleKind {
			m.Add(s, it, at)
		}
	}
	return m.Add(s, ingest.Parse("# METRIC # EOF"), at)
}

func all(*ingest.Sample) bool { return true }

func TestMetrics(t *testing.T) {
	items, _ := golden(t, "metrics.golden")
	_, h := golden(t, "hello.golden")
	md, bad := defaultConfig().metrics(&h, whole(h.Booted.Add(time.Minute), items), all)
	if bad != 0 {
		t.Errorf("%d samples of no use", bad)
	}
	ms := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics()
	got := map[string]pmetric.Metric{}
	for i := range ms.Len() {
		got[ms.At(i).Name()] = ms.At(i)
	}
	a := got["thurward_rule_accepts_total"]
	if a.Type() != pmetric.MetricTypeSum || !a.Sum().IsMonotonic() || a.Sum().AggregationTemporality() != pmetric.AggregationTemporalityCumulative || a.Description() == "" ||
		a.Sum().DataPoints().Len() != 2 || a.Sum().DataPoints().At(1).DoubleValue() != 2 || a.Sum().DataPoints().At(1).StartTimestamp().AsTime() != h.Booted.UTC() {
		t.Errorf("%+v", a)
	}
	if g := got["thurward_conntrack_entries"]; g.Type() != pmetric.MetricTypeGauge || g.Gauge().DataPoints().At(0).DoubleValue() != 42 {
		t.Errorf("%+v", g)
	}
	d := got["thurward_dns_lookup_duration_seconds"]
	p := d.Histogram().DataPoints().At(0)
	if d.Unit() != "s" || p.Count() != 4 || p.Sum() != 2.5 || fmt.Sprint(p.ExplicitBounds().AsRaw()) != "[0.001 0.025 1]" || fmt.Sprint(p.BucketCounts().AsRaw()) != "[1 2 0 1]" {
		t.Errorf("%v %v %v", d.Unit(), p.ExplicitBounds().AsRaw(), p.BucketCounts().AsRaw())
	}
}

// TestMetricsBad: what is no histogram is counted and left out; nothing
// crashes.
func TestMetricsBad(t *testing.T) {
	for _, lines := range []string{
		`h_bucket{le="1"} 3;h_bucket{le="+Inf"} 2;h_count 2`,
		`h_bucket{le="1"} 3;h_count 3`,
		`h_bucket{le="+Inf"} 3`,
		`h_bucket{le="1"} 1;h_bucket{le="1.0"} 1;h_bucket{le="+Inf"} 1;h_count 1`,
		`h_bucket{le="+Inf"} 18446744073709551615;h_count 18446744073709551615`,
		`h_sum 1`,
	} {
		var items []ingest.Item
		for _, l := range strings.Split(lines, ";") {
			it := ingest.Parse("# METRIC " + strings.Replace(l, "h", "thurward_dns_lookup_duration_seconds", 1))
			if it.Kind != ingest.SampleKind {
				t.Fatal(l, it.Kind, it.Err)
			}
			items = append(items, it)
		}
		md, bad := defaultConfig().metrics(&ingest.Hello{}, whole(time.Now(), items), all)
		if bad == 0 || md.DataPointCount() != 0 {
			t.Errorf("%s: %d bad, %d points", lines, bad, md.DataPointCount())
		}
	}
}

// TestLedger: a firewall that invents series all the time does not take the
// room of others, and gets its own again when they have been forgotten.
func TestLedger(t *testing.T) {
	l, at := newLedger(1000), time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	give := func(firewall string, from, n int, at time.Time) (passed int) {
		take := l.of(firewall, at)
		for i := range n {
			if take(&ingest.Sample{Name: firewall + fmt.Sprint(from+i)}) {
				passed++
			}
		}
		return passed
	}
	if n := give("good", 0, 300, at); n != 300 {
		t.Errorf("%d of 300", n)
	}
	for i := range 50 {
		give("bad", 1000*i, 1000, at.Add(time.Duration(i)*time.Second))
	}
	if l.total != 1000 {
		t.Errorf("%d series", l.total)
	}
	later := at.Add(time.Minute)
	if n := give("good", 0, 300, later); n != 300 {
		t.Errorf("%d of 300 that it had", n)
	}
	if n := give("new", 0, 300, later); n != 300 {
		t.Errorf("%d of 300 of another", n)
	}
	if n := give("bad", 1e6, 1000, later); n != 0 {
		t.Errorf("%d new ones of the bad one", n)
	}
	give("good", 0, 300, later.Add(keeps))
	give("good", 0, 300, later.Add(2*keeps))
	if l.total != 300 || len(l.all) != 1 {
		t.Errorf("%d series of %d firewalls are remembered", l.total, len(l.all))
	}
}

func TestTraces(t *testing.T) {
	items, _ := golden(t, "spans.golden")
	_, h := golden(t, "hello.golden")
	var spans []ingest.Span
	for _, it := range items {
		spans = append(spans, it.Span)
	}
	td, bad := defaultConfig().traces(&h, append(spans, ingest.Span{JSON: `{"traceId":5}`}))
	ss := td.ResourceSpans().At(0).ScopeSpans().At(0).Spans()
	if bad != 1 || ss.Len() != len(items) {
		t.Fatalf("%d spans of %d lines, %d bad", ss.Len(), len(items), bad)
	}
	links := 0
	for i := range ss.Len() {
		s := ss.At(i)
		links += s.Links().Len()
		if s.TraceID().String() != items[i].Span.TraceID || s.SpanID().String() != items[i].Span.SpanID || s.Name() != items[i].Span.Name || s.Attributes().Len() < 5 || s.EndTimestamp() < s.StartTimestamp() {
			t.Errorf("%s", items[i].Raw)
		}
	}
	if links == 0 {
		t.Error("no span has a link to its DNS query")
	}
}

// FuzzConvert: no line that a guest can send makes a conversion crash.
func FuzzConvert(f *testing.F) {
	for _, n := range []string{"events.golden", "metrics.golden", "spans.golden", "hello.golden"} {
		b, err := os.ReadFile(filepath.Join(testdata, n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("# METRIC thurward_dns_lookup_duration_seconds_bucket{le=\"1e5\"} 1\n# METRIC thurward_dns_lookup_duration_seconds_count 1\n{\"trace.id\":\"zz\",\"a\":[1,{}],\"b\":1e999}")
	f.Fuzz(func(t *testing.T, text string) {
		c := defaultConfig()
		h := ingest.Hello{}
		var items []ingest.Item
		var rs []record
		var spans []ingest.Span
		for _, l := range strings.Split(text, "\n") {
			it := ingest.Parse(l)
			switch it.Kind {
			case ingest.HelloKind:
				h = it.Hello
				h.Received(time.Unix(2, 0))
			case ingest.SpanKind:
				spans = append(spans, it.Span)
			case ingest.SampleKind, ingest.HelpKind, ingest.TypeKind:
				items = append(items, it)
			default:
				rs = append(rs, c.newRecord(it, time.Unix(3, 0)))
				if rs[len(rs)-1].weight() <= 0 {
					t.Fatal(it.Raw)
				}
			}
		}
		c.logs(&h, rs)
		md, _ := c.metrics(&h, whole(time.Unix(1, 0), items), all)
		for i := range md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().Len() {
			m := md.ResourceMetrics().At(0).ScopeMetrics().At(0).Metrics().At(i)
			if m.Type() == pmetric.MetricTypeHistogram {
				for j := range m.Histogram().DataPoints().Len() {
					if p := m.Histogram().DataPoints().At(j); p.BucketCounts().Len() != p.ExplicitBounds().Len()+1 || math.IsNaN(float64(p.Count())) {
						t.Fatalf("%+v", p)
					}
				}
			}
		}
		c.traces(&h, spans)
	})
}
