package stream

import (
	"strings"
	"testing"
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
		{`{"event.action":"drop"`, Malformed, errJSON},
		{`{"a":1} {"b":2}`, Malformed, errJSON},
		{`{"a":1}x`, Malformed, errJSON},
		{deep, Malformed, errFields},
		{"{\"a\":\"\xff\"}", Malformed, errUTF8},
		{`# METRIC a_total 1`, SampleKind, nil},
		{`# METRIC a{b="c"} 1e3 1700000000000`, SampleKind, nil},
		{`# METRIC a{b="c",} +Inf`, SampleKind, nil},
		{`# METRIC # HELP a what a is`, HelpKind, nil},
		{`# METRIC # TYPE a counter`, TypeKind, nil},
		{`# METRIC # EOF`, EOFKind, nil},
		{`# METRIC # SNAPSHOT 2026-11-24T12:00:00Z`, SnapshotKind, nil},
		{`# METRIC # any comment`, Unknown, nil},
		{`# METRIC # TYPE a number`, Malformed, nil},
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
		{`# SPAN {"traceId":"2f32548fe553beb13f682a142ade2de8","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, SpanKind, nil},
		{`# SPAN {"traceId":"00000000000000000000000000000000","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, Malformed, errSpan},
		{`# SPAN {"traceId":"2f32548fe553beb1","spanId":"6bf75c14af3344b3","name":"drop","startTimeUnixNano":"1","endTimeUnixNano":"2"}`, Malformed, errSpan},
		{`# HELLO {"service.instance.id":"ab"}`, HelloKind, nil},
		{`# HELLO {"stream.version":1}`, Malformed, errHello},
		{`# FROM ab`, FromKind, nil},
		{`# FUTURE thing`, Unknown, nil},
		{`thurward: ready version=1`, Malformed, errUnknown},
		{strings.Repeat("x", MaxLine+1), Malformed, ErrTooLong},
	} {
		it := Parse(c.line)
		if it.Kind != c.kind || c.err != nil && it.Err != c.err || (it.Kind == Malformed) != (it.Err != nil) {
			t.Errorf("%.80s: %v, %v; want %v, %v", c.line, it.Kind, it.Err, c.kind, c.err)
		}
	}
}

func TestSample(t *testing.T) {
	s := Parse(`# METRIC m_total{rule_id="a \"b\"\\\nc",an="x"} 12 99`).Sample
	if s.Name != "m_total" || s.Label("rule_id") != "a \"b\"\\\nc" || s.Label("an") != "x" || s.Label("none") != "" || s.Value != 12 || s.Time != 99 {
		t.Errorf("%+v", s)
	}
	if got, want := s.String(), `m_total{an="x",rule_id="a \"b\"\\\nc"} 12`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for v, want := range map[string]string{"1e20": "1e+20", "0.25": "0.25", "NaN": "NaN", "-Inf": "-Inf", "18446744073709551615": "1.8446744073709552e+19", "4503599627370497": "4503599627370497"} {
		m := Parse("# METRIC a " + v).Sample
		if got := FormatValue(m.Value); got != want {
			t.Errorf("%s became %s", v, got)
		}
	}
}

func TestEventFields(t *testing.T) {
	e := Parse(`{"@timestamp":"2026-11-24T12:00:01.234567Z","event":{"category":["network","x"]},"firewall.flow_id":18446744073709551615,"n":7,"b":true,"o":[{"x":1}],"z":null}`).Event
	for name, want := range map[string]string{"event.category": "network,x", "firewall.flow_id": "18446744073709551615", "b": "true", "o": `{"x":1}`, "z": "", "none": ""} {
		if got := e.Str(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if e.Int("n") != 7 || e.Int("b") != 0 || e.Count() != 1 || e.Time().UnixMicro() != 1795521601234567 {
		t.Errorf("%d %d %d %v", e.Int("n"), e.Int("b"), e.Count(), e.Time())
	}
}

// FuzzParse: no line crashes a reader or becomes larger; samples survive being
// written and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a.b":{"c":[1,{"d":2}]}}`, `# METRIC a{b="c\n"} 1 2`, `# METRIC # HELP a b\\c`, `# METRIC # TYPE a gauge`, `# METRIC # EOF`,
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
			if again.Kind != SampleKind && len(it.Sample.String()) < MaxLine-20 || again.Err == nil && again.Sample.Key() != it.Sample.Key() {
				t.Fatalf("%q became %+v", it.Sample.String(), again)
			}
		case EventKind:
			s := Style{}.Text(&Hello{}, it.Event)
			for _, r := range s {
				if r < 0x20 || r == 0x7f {
					t.Fatalf("control character in %q", s)
				}
			}
			Explain(&Hello{}, it.Event)
		}
	})
}

func BenchmarkParseEvent(b *testing.B) {
	const line = `{"@timestamp":"2026-11-24T12:00:02.000000Z","event.kind":"event","event.category":["network"],"event.type":["connection","denied"],"event.action":"drop","event.outcome":"failure","event.reason":"no_matching_allow_rule","firewall.drop_reason":"no_matching_allow_rule","rule.id":"default-deny","source.ip":"192.0.2.1","source.port":53,"destination.ip":"203.0.113.10","destination.port":5353,"network.transport":"udp","network.iana_number":"17","network.type":"ipv4","network.direction":"ingress","trace.id":"2f32548fe553beb13f682a142ade2de8","span.id":"6bf75c14af3344b3","firewall.clock":"kvmclock","firewall.policy":"sha256:ab00000000000000000000000000000000000000000000000000000000000000"}`
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		if Parse(line).Kind != EventKind {
			b.Fatal("not an event")
		}
	}
}
