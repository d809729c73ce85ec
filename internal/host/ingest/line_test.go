package ingest

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/thurward/thurward/internal/host/ecs"
)

func TestParse(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20)
	for _, c := range []struct {
		line string
		kind Kind
		err  error
	}{
		{`{"event.action":"drop"}`, EventKind, nil},
		{`{"event":{"action":"drop"}}`, EventKind, nil},
		{`{"event.action":"drop"`, Malformed, ecs.ErrJSON},
		{`{"a":1} {"b":2}`, Malformed, ecs.ErrJSON},
		{`{"a":1}x`, Malformed, ecs.ErrJSON},
		{deep, Malformed, ecs.ErrFields},
		{"{\"a\":\"\xff\"}", Malformed, ecs.ErrUTF8},
		{`# METRIC thurward_uptime_seconds 1`, SampleKind, nil},
		{`# METRIC thurward_rule_drops_total{rule_id="c"} 1e3`, SampleKind, nil},
		{`# METRIC thurward_rule_drops_total{rule_id="c",} 18446744073709551615`, SampleKind, nil},
		{`# METRIC thurward_nat_port_pool_in_use{proto="tcp",external_ip="203.0.113.10"} 1.5e+03`, SampleKind, nil},
		{`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="+Inf"} 1`, SampleKind, nil},
		{`# METRIC thurward_dns_lookup_duration_seconds_sum 1e-07`, SampleKind, nil},
		{`# METRIC # HELP thurward_uptime_seconds what it is`, HelpKind, nil},
		{`# METRIC # TYPE thurward_uptime_seconds gauge`, TypeKind, nil},
		{`# METRIC # EOF`, EOFKind, nil},
		{`# METRIC # SNAPSHOT 2026-11-24T12:00:00Z`, SnapshotKind, nil},
		{`# BEAT 2026-11-24T12:00:00Z`, BeatKind, nil},
		{`# METRIC # any comment`, Unknown, nil},
		// Of a newer firewall: passed over, as long as it is a metric at all.
		{`# METRIC a_total 1`, Unknown, nil},
		{`# METRIC thurward_dns_lookup_duration_seconds 1`, Unknown, nil},
		{`# METRIC # HELP a what a is`, Unknown, nil},
		{`# METRIC # TYPE a counter`, Unknown, nil},
		// Not the metric's labels, not its type, or a label without end.
		{`# METRIC # TYPE thurward_uptime_seconds counter`, Malformed, errType},
		{`# METRIC # TYPE 1a counter`, Malformed, errName},
		{`# METRIC thurward_uptime_seconds{rule_id="c"} 1`, Unknown, nil},
		{`# METRIC thurward_rule_drops_total 1`, Unknown, nil},
		{`# METRIC thurward_rule_drops_total{instance="203.0.113.20"} 1`, Unknown, nil},
		{`# METRIC thurward_rule_drops_total{rule_id="c",instance="203.0.113.20"} 1`, Unknown, nil},
		{`# METRIC thurward_rule_drops_total{__name__="thurward_up"} 1`, Unknown, nil},
		{`# METRIC thurward_rule_drops_total{rule_id="` + strings.Repeat("x", MaxLabelValue+1) + `"} 1`, Malformed, errLabel},
		{`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="NaN"} 1`, Malformed, errLabel},
		{`# METRIC thurward_dns_lookup_duration_seconds_bucket{le="-Inf"} 1`, Malformed, errLabel},
		// No number, or none that a counter or a gauge of the firewall has.
		{`# METRIC thurward_uptime_seconds NaN`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds +Inf`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds -Inf`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds 1e999`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds 1e308`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds -1`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds -0`, Malformed, errValue},
		{`# METRIC thurward_uptime_seconds 1 1700000000000`, Malformed, errValue},
		{`# METRIC a NaN`, Malformed, errValue},
		{`# METRIC 1a 1`, Malformed, errName},
		{`# METRIC a`, Malformed, errName},
		{`# METRIC a `, Malformed, errValue},
		{`# METRIC a 0x10`, Malformed, errValue},
		{`# METRIC a 1_0`, Malformed, errValue},
		{`# METRIC a 1 2 3`, Malformed, errValue},
		{`# METRIC a{b="c" 1`, Malformed, errLabel},
		{`# METRIC a{b="c",b="d"} 1`, Malformed, errLabel},
		{`# METRIC a{b="c\x"} 1`, Malformed, errLabel},
		{`# METRIC a{b=c} 1`, Malformed, errLabel},
		{`# METRIC a{:b="c"} 1`, Malformed, errLabel},
		// Times that cannot be, names and lists without end.
		{`# SPAN {"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"99999999999999999999"}`, Malformed, errSpan},
		{`# SPAN {"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":-1,"endTimeUnixNano":"2"}`, Malformed, errSpan},
		{`{"` + strings.Repeat("k", 101) + `":1}`, Malformed, ecs.ErrFields},
		{`{"a":[1` + strings.Repeat(",1", 64) + `]}`, Malformed, ecs.ErrFields},
		{`# HELLO {"service.instance.id":"b","firewall.wan.address":"not an address"}`, Malformed, errHelloField},
		{`# HELLO {"service.instance.id":"b","firewall.wan.mac":"203.0.113.10"}`, Malformed, errHelloField},
		{`# HELLO {"service.instance.id":"b","service.version":"` + strings.Repeat("x", 101) + `"}`, Malformed, errHelloField},
		{`# HELLO {"service.instance.id":["b"]}`, Malformed, errHelloField},
		{`# HELLO {"service.instance.id":"203.0.113.10#2"}`, Malformed, errHello},
		{`# FROM ` + strings.Repeat("x", 500), Malformed, errFrom},
		{`# SPAN {"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, SpanKind, nil},
		{`# SPAN {"traceId":"00000000000000000000000000000000","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, Malformed, errSpan},
		{`# SPAN {"traceId":"2f32548fe553beb1","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, Malformed, errSpan},
		{`# HELLO {"service.instance.id":"ab"}`, HelloKind, nil},
		{`# HELLO {"stream.version":1}`, Malformed, errHello},
		{`# FROM ab`, FromKind, nil},
		{`# FUTURE thing`, Unknown, nil},
		{`thurward: ready version=1`, Malformed, errUnknown},
		{strings.Repeat("x", MaxLine+1), Malformed, ecs.ErrTooLong},
	} {
		it := Parse(c.line)
		if it.Kind != c.kind || c.err != nil && it.Err != c.err || (it.Kind == Malformed) != (it.Err != nil) {
			t.Errorf("%.80s: %v, %v; want %v, %v", c.line, it.Kind, it.Err, c.kind, c.err)
		}
	}
}

func TestSample(t *testing.T) {
	s := Parse(`# METRIC thurward_nat_port_pool_in_use{proto="a \"b\"\\\nc",external_ip="x"} 12`).Sample
	if s.Name != "thurward_nat_port_pool_in_use" || s.Metric.Type != Gauge || s.Label("proto") != "a \"b\"\\\nc" || s.Label("external_ip") != "x" || s.Label("none") != "" || s.Value != 12 {
		t.Errorf("%+v", s)
	}
	if got, want := s.String(), `thurward_nat_port_pool_in_use{external_ip="x",proto="a \"b\"\\\nc"} 12`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for v, want := range map[string]string{"1e19": "1e+19", "0.25": "0.25", "18446744073709551615": "1.8446744073709552e+19", "4503599627370497": "4503599627370497"} {
		m := Parse("# METRIC thurward_uptime_seconds " + v).Sample
		if got := FormatValue(m.Value); got != want {
			t.Errorf("%s became %s", v, got)
		}
	}
}

// TestTimes: times that are computed from a HELLO are within their range.
func TestTimes(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for _, h := range []string{
		`{"service.instance.id":"b","firewall.clock":"none","firewall.uptime_ns":9223372036854775807}`,
		`{"service.instance.id":"b","firewall.clock":"none","firewall.uptime_ns":-9223372036854775808}`,
		`{"service.instance.id":"b","@timestamp":"1970-01-01T00:00:00Z","firewall.uptime_ns":9223372036854775807}`,
		`{"service.instance.id":"b","@timestamp":"9999-12-31T23:59:59Z","firewall.uptime_ns":-1}`,
	} {
		hello := Parse("# HELLO " + h).Hello
		hello.Received(now)
		if !ecs.ValidTime(hello.Booted) || hello.Booted.After(now) {
			t.Errorf("%s booted at %v", h, hello.Booted)
		}
		for _, at := range []string{"2199-12-31T23:59:59Z", "1970-01-01T00:00:00Z"} {
			if w := hello.When(Parse(`{"@timestamp":"` + at + `","firewall.clock":"none"}`).Event); !w.IsZero() && !ecs.ValidTime(w) {
				t.Errorf("%s: an event is of %v", h, w)
			}
		}
	}
}

// FuzzParse: no line crashes a reader or becomes larger; samples survive being
// written and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a.b":{"c":[1,{"d":2}]}}`, `# METRIC thurward_rule_drops_total{rule_id="c\n"} 12`, `# METRIC # HELP thurward_uptime_seconds b\\c`, `# METRIC # TYPE thurward_uptime_seconds gauge`, `# METRIC # EOF`,
		`# SPAN {"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`,
		`# HELLO {"service.instance.id":"ab","firewall.clock":"none"}`, "\xff", "# "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		it := Parse(line)
		if it.Kind == 0 || it.Kind.String() == "invalid" || len(it.Raw) > MaxLine || (it.Kind == Malformed) != (it.Err != nil) {
			t.Fatalf("%+v", it)
		}
		switch it.Kind {
		case SampleKind:
			again := Parse(metricPrefix + it.Sample.String())
			if again.Kind != SampleKind || again.Sample.Key() != it.Sample.Key() || it.Sample.Metric == nil {
				t.Fatalf("%q became %+v", it.Sample.String(), again)
			}
			if v := it.Sample.Value; !(v >= 0 && v <= MaxValue) || math.Signbit(v) {
				t.Fatalf("value %v", v)
			}
		case HelloKind:
			it.Hello.Received(time.Unix(1, 0))
			if !ecs.ValidTime(it.Hello.Booted) || len(it.Hello.Name()) > maxBoot || strings.Contains(it.Hello.Name(), "#") {
				t.Fatalf("%+v", it.Hello)
			}
		case EventKind:
			if w := (&Hello{NoTime: true, Booted: time.Unix(1, 0)}).When(it.Event); !w.IsZero() && !ecs.ValidTime(w) {
				t.Fatalf("an event happened at %v", w)
			}
		}
	})
}
