package router

import (
	"bytes"
	"os"
	"testing"

	"github.com/thurward/thurward/internal/guest/export"
	"github.com/thurward/thurward/internal/host/ingest"
	"github.com/thurward/thurward/internal/shared/event"
	"github.com/thurward/thurward/internal/shared/packet"
	"github.com/thurward/thurward/internal/shared/ruleset"
	"github.com/thurward/thurward/internal/shared/verdict"
)

// sample returns the value of a metric with the given labels.
func sample(t *testing.T, fs []export.Family, name, labels string) uint64 {
	t.Helper()
	for _, f := range fs {
		if f.Name != name {
			continue
		}
		v := make([]uint64, max(f.N, 1))
		f.Fill(v)
		for i := range v {
			if f.Labels == nil || string(f.Labels(nil, i)) == labels {
				return v[i]
			}
		}
	}
	t.Fatalf("no metric %s{%s}", name, labels)
	return 0
}

// TestMetrics: every number is the engine's, under the right labels.
func TestMetrics(t *testing.T) {
	l := newLabWith(t, func(p *ruleset.Policy) {
		p.Rules[0].ID, p.Rules[1].ID = ruleset.Text{Off: uint32(len(p.Strings)), Len: 3}, ruleset.Text{Off: uint32(len(p.Strings)) + 3, Len: 4}
		p.Strings = append(p.Strings, "webback"...)
	}, "accept egress tcp :443", established)
	l.handshake(host, 4000, web, 443)
	l.dropped(lan, syn(host, 4001, web, 80), verdict.NoMatchingAllowRule)
	fs := l.e.Metrics()
	c := l.e.Counters()
	for _, x := range []struct {
		name, labels string
		want         uint64
	}{
		{"thurward_rule_accepts_total", `rule_id="web"`, c.Accepts[0]},
		{"thurward_rule_accepts_total", `rule_id="back"`, c.Accepts[1]},
		{"thurward_rule_drops_total", `rule_id="default-deny"`, 1},
		{"thurward_drops_total", `drop_reason="no_matching_allow_rule"`, 1},
		{"thurward_drops_total", `drop_reason="packet_too_big"`, 0},
		{"thurward_conntrack_entries", "", 1},
		{"thurward_conntrack_capacity", "", uint64(l.e.Flows().Cap())},
		{"thurward_conntrack_inserts_total", "", 1},
		{"thurward_conntrack_evictions_total", `reason="expired"`, 0},
		{"thurward_nat_port_pool_in_use", `external_ip="` + ours + `",proto="tcp"`, 1},
		{"thurward_nat_port_pool_in_use", `external_ip="` + ours + `",proto="udp"`, 0},
		{"thurward_interface_receive_packets_total", `interface="lan"`, c.RxPackets[lan]},
		{"thurward_interface_transmit_bytes_total", `interface="wan"`, c.TxBytes[wan]},
	} {
		if got := sample(t, fs, x.name, x.labels); got != x.want {
			t.Errorf("%s{%s} is %d, want %d", x.name, x.labels, got, x.want)
		}
	}
	if c.Accepts[0] == 0 || c.Accepts[1] == 0 || c.TxBytes[wan] == 0 {
		t.Errorf("the test passed nothing: %+v", c)
	}
	l.pass(10000)
	if got := sample(t, fs, "thurward_conntrack_evictions_total", `reason="expired"`); got != 1 || sample(t, fs, "thurward_conntrack_entries", "") != 0 {
		t.Errorf("%d flows expired", got)
	}
}

// TestMetricsDoNotAllocate: a snapshot is taken between two batches.
func TestMetricsDoNotAllocate(t *testing.T) {
	l := newLab(t, "accept egress tcp :443")
	m := &export.Metrics{}
	m.Add(l.e.Metrics()...)
	if n := testing.AllocsPerRun(100, m.Fill); n != 0 {
		t.Errorf("%v allocations for a snapshot", n)
	}
}

// TestMetricNames: names and help are Prometheus', and none comes twice.
func TestMetricNames(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/telemetry.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range newLab(t, "accept egress tcp :443").e.Metrics() {
		if seen[f.Name] || f.Help == "" || (f.Type == export.Counter) != (len(f.Name) > 6 && f.Name[len(f.Name)-6:] == "_total") {
			t.Errorf("metric %q (%s): %q", f.Name, f.Type, f.Help)
		}
		if !bytes.Contains(doc, []byte("`"+f.Name+"`")) {
			t.Errorf("docs/telemetry.md does not list %s", f.Name)
		}
		m := ingest.NamedMetric(f.Name)
		if m == nil || string(m.Type) != f.Type.String() || m.Help != f.Help {
			t.Errorf("readers of the stream do not know %s: add it to internal/host/ingest/schema.go", f.Name)
		} else if f.Type != export.Histogram {
			line := "# METRIC " + f.Name
			if f.Labels != nil {
				line += "{" + string(f.Labels(nil, 0)) + "}"
			}
			if it := ingest.Parse(line + " 1"); it.Kind != ingest.SampleKind {
				t.Errorf("readers of the stream do not take %s: %v", line, it.Err)
			}
		}
		seen[f.Name] = true
	}
}

// BenchmarkEmit is what an event costs the packet path: the record is filled in
// and handed over.
func BenchmarkEmit(b *testing.B) {
	l := newLab(b, "accept egress tcp :443")
	p := packet.Packet{EtherType: packet.TypeIPv4, Src: ip(host), Dst: ip(web), SrcPort: 4000, DstPort: 80, Proto: packet.TCP}
	var r event.Record
	b.ReportAllocs()
	for b.Loop() {
		l.e.emitPacket(&received{Packet: p, in: &l.e.port[lan]}, verdict.Drop, verdict.NoMatchingAllowRule, 1, naming{}, 1e9)
		l.events.Get(&r)
	}
}
