package export

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

func TestEventsGolden(t *testing.T) {
	var b []byte
	c := context("Web for everyone")
	for i := range records {
		b = append(AppendNamed(b, &records[i], nameOf(&records[i]), c), '\n')
	}
	golden(t, "testdata/events.golden", b)
}

func TestSpansGolden(t *testing.T) {
	var b []byte
	c := context("Web for everyone")
	for i := range records {
		if n := len(b); len(AppendSpan(b, &records[i], nameOf(&records[i]), c)) > n {
			b = append(AppendSpan(b, &records[i], nameOf(&records[i]), c), '\n')
		}
	}
	golden(t, "testdata/spans.golden", b)
}

// sampleMetrics has a family of each form.
func sampleMetrics() *Metrics {
	m := &Metrics{}
	n := uint64(0)
	fill := func(v []uint64) {
		for i := range v {
			n++
			v[i] = n
		}
	}
	size := uint64(42)
	m.Add(Const("thurward_build_info", "The build and the policy that run.", `version="1.0",git_sha="0123456789abcdef0123456789abcdef01234567",schema_sha="",rules_sha="sha256:ab"`),
		Family{Name: "thurward_rule_accepts_total", Help: "Packets that a rule accepted.", Type: Counter, N: 2, Fill: fill,
			Labels: LabelOf("rule_id", func(i int) string { return []string{"a \"rule\"\\\nid", "default-deny"}[i] })},
		One(Gauge, "thurward_conntrack_entries", "Flows in the table.", &size),
		Family{Name: "thurward_dns_lookup_duration_seconds", Help: "Time from a query to its answer.", Type: Histogram, Scale: 1e9,
			Bounds: []uint64{1e6, 25e6, 1e9}, Fill: func(v []uint64) { copy(v, []uint64{1, 2, 0, 1, 2_500_000_000}) }})
	m.Fill()
	return m
}

func TestMetricsGolden(t *testing.T) {
	var b []byte
	c := metricCursor{m: sampleMetrics()}
	for {
		var ok bool
		if b, ok = c.next(b); !ok {
			break
		}
		b = append(b, '\n')
	}
	golden(t, "testdata/metrics.golden", b)
}

func TestHelloGolden(t *testing.T) {
	c := context("x")
	id := Identity{Version: "1.0", GitSHA: "0123456789abcdef0123456789abcdef01234567", Boot: "00112233445566778899aabbccddeeff", Rules: 3, Flows: 65536,
		LAN: InterfaceIdentity{"lan0", "52:54:00:74:68:01", "10.0.0.1/24"}, WAN: InterfaceIdentity{"wan0", "52:54:00:74:68:02", "203.0.113.10/24"}}
	b := append(appendHello(nil, &id, c, 1e9, 1, 0), '\n')
	b = append(appendHello(b, &id, c, 61e9, 2, 1234), '\n')
	b = append(appendLoss(b, &Loss{Lines: 1234, Records: 5, Since: 30e9}, c, 61e9), '\n')
	golden(t, "testdata/hello.golden", b)
}
