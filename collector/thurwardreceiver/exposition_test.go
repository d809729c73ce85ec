package thurwardreceiver

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/thurward/thurward/internal/host/dashboard"
	"github.com/thurward/thurward/internal/host/ingest"
)

// exposed is what the page exposes after an honest firewall has told its
// metrics and another one these lines.
func exposed(t testing.TB, lines string) string {
	t.Helper()
	m, now := dashboard.NewModel(), time.Unix(1e9, 0)
	good := &ingest.Source{Hello: ingest.Parse(`# HELLO {"service.instance.id":"aa","firewall.wan.address":"203.0.113.10/24"}`).Hello}
	for _, l := range []string{"# METRIC # SNAPSHOT x", "# METRIC thurward_conntrack_capacity 65536", "# METRIC # EOF"} {
		m.Add(good, ingest.Parse(l), now)
	}
	bad := &ingest.Source{Hello: ingest.Parse(`# HELLO {"service.instance.id":"bb","firewall.wan.address":"198.51.100.1/24"}`).Hello}
	m.Add(bad, ingest.Parse("# METRIC # SNAPSHOT x"), now)
	for _, l := range strings.Split(lines, "\n") {
		it := ingest.Parse(l)
		if it.Kind != ingest.HelloKind && it.Kind != ingest.FromKind { // the reader's business
			m.Add(bad, it, now)
		}
	}
	m.Add(bad, ingest.Parse("# METRIC # EOF"), now)
	var b bytes.Buffer
	if err := m.WriteMetrics(&b, now); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// accepted checks with Prometheus' own parser what is exposed: it is the text
// format, each series is of one of the two firewalls, and the honest one's are
// its own.
func accepted(t testing.TB, text string) {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	fs, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	good := 0
	for name, f := range fs {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				switch {
				case l.GetName() == "__name__" || l.GetName() == "job":
					t.Errorf("%s has a label %s", name, l.GetName())
				case l.GetName() != "instance":
				case l.GetValue() == "203.0.113.10":
					if good++; name == "thurward_conntrack_capacity" && m.GetGauge().GetValue() != 65536 {
						t.Errorf("the honest firewall's %s is %v", name, m)
					}
				case l.GetValue() != "198.51.100.1":
					t.Errorf("%s is of %q", name, l.GetValue())
				}
			}
		}
	}
	if good != 4 { // the capacity, and what the reader says of each
		t.Errorf("%d series are the honest firewall's, want 4", good)
	}
}

var expositions = []string{
	`# METRIC thurward_rule_accepts_total{__name__="thurward_up"} 1`,
	`# METRIC thurward_conntrack_capacity{instance="203.0.113.10"} 1`,
	`# METRIC thurward_rule_accepts_total{rule_id="a",instance="203.0.113.10"} 1`,
	`# METRIC thurward_rule_accepts_total{rule_id="a\"} 1\nthurward_up{instance=\"203.0.113.10\"} 0\n"} 1`,
	`# METRIC thurward_rule_accepts_total{rule_id="\\"} 1`,
	"# METRIC thurward_up 0\n# METRIC up 0",
	"# METRIC # TYPE thurward_conntrack_entries counter\n# METRIC # HELP thurward_conntrack_entries a\\nb 1\n# METRIC thurward_conntrack_entries 5",
	"# METRIC thurward_dns_lookup_duration_seconds_bucket{le=\"+Inf\"} 3\n# METRIC thurward_dns_lookup_duration_seconds_count 4\n# METRIC thurward_dns_lookup_duration_seconds_bucket{le=\"0.1\"} 9",
	"# METRIC thurward_dns_lookup_duration_seconds_sum 1",
	"# METRIC thurward_conntrack_entries NaN\n# METRIC thurward_conntrack_capacity +Inf",
	"# METRIC thurward_conntrack_entries 18446744073709551615\n# METRIC thurward_uptime_seconds 1e-300",
	"# METRIC thurward_rule_accepts_total{rule_id=\"\u202e\u0085\t\"} 1",
}

// TestExpositionIsPrometheus: Prometheus' parser takes what is exposed after
// each attack, and no firewall has samples of another one.
func TestExpositionIsPrometheus(t *testing.T) {
	for _, e := range expositions {
		accepted(t, exposed(t, e))
	}
	// The twin: what a firewall says of itself is there.
	if s := exposed(t, "# METRIC thurward_conntrack_entries 7"); !strings.Contains(s, `thurward_conntrack_entries{instance="198.51.100.1"} 7`) {
		t.Error(s)
	}
}

// FuzzExposition: so it does after any lines.
func FuzzExposition(f *testing.F) {
	for _, e := range expositions {
		f.Add(e)
	}
	f.Fuzz(func(t *testing.T, lines string) { accepted(t, exposed(t, lines)) })
}
